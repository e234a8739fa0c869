//! The id of the request that is being answered: taken over from `X-Request-Id` if well-formed,
//! else made, always returned, and in every line of the log that the request causes.

tokio::task_local! {
    static REQUEST_ID: String;
}

/// The id of the request that this task answers; empty outside of one.
pub fn current() -> String {
    REQUEST_ID.try_with(Clone::clone).unwrap_or_default()
}

/// Works on the request with this id.
pub async fn within<T>(id: String, work: impl Future<Output = T>) -> T {
    REQUEST_ID.scope(id, work).await
}
