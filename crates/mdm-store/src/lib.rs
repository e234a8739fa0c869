//! Persistence of Mobius MDM: PostgreSQL, and nothing else.
//!
//! One file per aggregate, with functions over a connection, so that the service decides what is
//! one transaction. All SQL of the server lives here and is checked when it is compiled. Finders
//! take the organisation and give `Option`; writes check how many rows they changed. To add an
//! aggregate: a migration whose comments say why, a file named for it, and
//! `.ci/sqlx-prepare` to renew `.sqlx`.

pub mod api_keys;
pub mod applications;
pub mod assignments;
pub mod command_batches;
pub mod commands;
pub mod devices;
pub mod enrollment_secrets;
pub mod error;
pub mod events;
pub mod groups;
pub mod idempotency;
pub mod licenses;
pub mod lists;
pub mod migrations;
pub mod nodes;
pub mod organizations;
pub mod policies;
pub mod second_factors;
pub mod sessions;
pub mod signing_keys;
pub mod socket_tickets;
pub mod users;
pub mod webhooks;

pub use error::StoreError;
pub use sqlx::{PgConnection, PgPool, postgres::PgConnectOptions};

/// A transaction on a connection of the pool.
pub type Transaction = sqlx::Transaction<'static, sqlx::Postgres>;

/// From here on the transaction reads one state of the database; to be called first in it.
pub async fn consistent_read(conn: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .execute(conn)
        .await?;
    Ok(())
}
