//! Organisations, and the one row of the installation that they live in.

use mdm_core::{Timestamp, ids::OrganizationId};
use sqlx::PgConnection;

use crate::error::StoreError;

/// Takes the lock that lets one node at a time do what is done once in an installation's life.
/// Held until the transaction ends.
pub async fn lock_first_start(conn: &mut PgConnection) -> Result<(), StoreError> {
    /// Any number that nothing else in this database locks.
    const FIRST_START: i64 = 0x6d64_6d01;
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", FIRST_START)
        .execute(conn)
        .await?;
    Ok(())
}

/// The value that tells whether a secret key is the installation's; none before the first start.
pub async fn key_check(conn: &mut PgConnection) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(sqlx::query_scalar!("SELECT key_check FROM installation")
        .fetch_optional(conn)
        .await?)
}

/// Notes that the first start has happened.
pub async fn insert_installation(
    conn: &mut PgConnection,
    key_check: &[u8],
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO installation (key_check, created_at) VALUES ($1, $2)",
        key_check,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds an organisation.
pub async fn insert(
    conn: &mut PgConnection,
    id: OrganizationId,
    name: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO organizations (id, name, created_at) VALUES ($1, $2, $3)",
        id.uuid(),
        name,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The database server's version, such as `15.18`: the cheapest question that only a working
/// database answers.
pub async fn database_version(conn: &mut PgConnection) -> Result<String, StoreError> {
    let version = sqlx::query_scalar!(r#"SELECT current_setting('server_version') AS "version!""#)
        .fetch_one(conn)
        .await?;
    Ok(version.split(' ').next().unwrap_or_default().to_owned())
}
