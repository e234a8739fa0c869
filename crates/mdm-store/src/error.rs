//! What can go wrong below a use case.

/// A failure of the store itself. That a row is not there is no error: finders return `Option`.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or could not be reached.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// A value could not be written as JSON.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A stored value is not one that this version knows.
    #[error("corrupt row: {table}.{column} of {row} holds a value that this version does not know")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's key.
        row: String,
    },
    /// Another process took over the request's idempotency key: nothing was committed.
    #[error("the reservation of the idempotency key was taken over")]
    ReservationLost,
    /// A write that must change exactly one row changed another number.
    #[error("a write to {table} changed {changed} rows instead of one")]
    NotOneRow {
        /// The table.
        table: &'static str,
        /// How many rows were changed.
        changed: u64,
    },
}

impl StoreError {
    /// Names a value that cannot be read.
    pub(crate) fn corrupt(
        table: &'static str,
        column: &'static str,
        row: impl std::fmt::Display,
    ) -> Self {
        Self::Corrupt {
            table,
            column,
            row: row.to_string(),
        }
    }

    /// Whether the database could not be reached, is going down or coming up (SQLSTATE classes 08
    /// and 57), or undid the transaction because of another one (40), as opposed to having refused
    /// the statement: worth a retry.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.code().is_some_and(|code| {
                ["08", "57", "40"]
                    .iter()
                    .any(|class| code.starts_with(class))
            }),
            Self::Database(
                sqlx::Error::Io(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::WorkerCrashed,
            ) => true,
            _ => false,
        }
    }
}

/// Checks that a write changed exactly one row.
pub(crate) fn one_row(table: &'static str, changed: u64) -> Result<(), StoreError> {
    if changed == 1 {
        Ok(())
    } else {
        Err(StoreError::NotOneRow { table, changed })
    }
}
