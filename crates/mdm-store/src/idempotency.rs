//! First outcomes of requests that brought an `Idempotency-Key`.

use mdm_core::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StoreError;

/// What is known of a key.
#[derive(Debug, Clone)]
pub struct Known {
    /// What was asked for.
    pub digest: Vec<u8>,
    /// Who carries it out, or did.
    pub reservation: Uuid,
    /// Since when.
    pub reserved_at: Timestamp,
    /// Whether it was carried out.
    pub carried_out: bool,
    /// The status of the answer, if it is known.
    pub status: Option<i16>,
    /// The answer, sealed.
    pub answer: Option<Vec<u8>>,
}

/// Reserves a key that nobody has, or takes over one whose holder has had it since before `stale`
/// without carrying anything out. `None` if it is reserved now; otherwise what is known of it.
pub async fn reserve(
    conn: &mut PgConnection,
    scope: &[u8],
    key: &str,
    digest: &[u8],
    reservation: Uuid,
    now: Timestamp,
    stale: Timestamp,
) -> Result<Option<Known>, StoreError> {
    let reserved = sqlx::query_scalar!(
        r#"
        INSERT INTO idempotency_keys AS present (scope, key, digest, reservation, reserved_at)
        VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (scope, key)
            DO UPDATE SET reservation = excluded.reservation, reserved_at = excluded.reserved_at
                    WHERE present.digest = excluded.digest
                      AND NOT present.carried_out
                      AND present.status IS NULL
                      AND present.reserved_at < $6
     RETURNING reservation
        "#,
        scope,
        key,
        digest,
        reservation,
        now,
        stale
    )
    .fetch_optional(&mut *conn)
    .await?;
    if reserved.is_some() {
        return Ok(None);
    }
    Ok(sqlx::query_as!(
        Known,
        r#"
        SELECT digest,
               reservation,
               reserved_at,
               carried_out,
               status,
               answer
          FROM idempotency_keys
         WHERE scope = $1
           AND key = $2
        "#,
        scope,
        key
    )
    .fetch_optional(conn)
    .await?)
}

/// Marks a reserved request as carried out, in the transaction that does so; `false` if somebody
/// else holds the reservation by now: then nothing may be committed.
pub async fn carry_out(
    conn: &mut PgConnection,
    scope: &[u8],
    key: &str,
    reservation: Uuid,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        r#"
        UPDATE idempotency_keys
           SET carried_out = true
         WHERE scope = $1
           AND key = $2
           AND reservation = $3
        "#,
        scope,
        key,
        reservation
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Adds the answer.
pub async fn keep_answer(
    conn: &mut PgConnection,
    scope: &[u8],
    key: &str,
    reservation: Uuid,
    status: i16,
    answer: &[u8],
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        UPDATE idempotency_keys
           SET status = $4,
               answer = $5
         WHERE scope = $1
           AND key = $2
           AND reservation = $3
        "#,
        scope,
        key,
        reservation,
        status,
        answer
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives up a reservation under which nothing was carried out: the request may be tried again.
pub async fn give_up(
    conn: &mut PgConnection,
    scope: &[u8],
    key: &str,
    reservation: Uuid,
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        DELETE FROM idempotency_keys
         WHERE scope = $1
           AND key = $2
           AND reservation = $3
           AND NOT carried_out
        "#,
        scope,
        key,
        reservation
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets keys from before `before`, at most `limit` of them.
pub async fn forget(
    conn: &mut PgConnection,
    before: Timestamp,
    limit: i64,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        r#"
        DELETE FROM idempotency_keys
         WHERE (scope, key) IN (SELECT scope, key FROM idempotency_keys WHERE reserved_at < $1 LIMIT $2)
        "#,
        before,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
