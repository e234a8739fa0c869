//! Persistence of Mobius MDM: PostgreSQL, and nothing else.
//!
//! One file per aggregate, with functions over a connection, so that the service decides what is
//! one transaction. All SQL of the server lives here and is checked when it is compiled. Finders
//! take the organisation and give `Option`; writes check how many rows they changed. To add an
//! aggregate: a migration whose comments say why, a file named for it, and
//! `.ci/sqlx-prepare` to renew `.sqlx`.

pub mod commands;
pub mod devices;
pub mod enrollment_secrets;
pub mod error;
pub mod events;
pub mod migrations;
pub mod organizations;
pub mod sessions;
pub mod signing_keys;
pub mod users;

pub use error::StoreError;
pub use sqlx::{PgConnection, PgPool, postgres::PgConnectOptions};

/// A transaction on a connection of the pool.
pub type Transaction = sqlx::Transaction<'static, sqlx::Postgres>;
