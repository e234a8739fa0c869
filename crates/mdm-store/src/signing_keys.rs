//! Keys that sign access tokens.

use mdm_core::{Timestamp, ids::SigningKeyId};
use sqlx::PgConnection;

use crate::error::StoreError;

/// A key as it is stored: the private half sealed.
#[derive(Debug, Clone)]
pub struct StoredSigningKey {
    /// Its id: the `kid` of the tokens.
    pub id: SigningKeyId,
    /// The public half, 32 bytes.
    pub public_key: Vec<u8>,
    /// The private half, sealed with the installation's secret key.
    pub sealed_private_key: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stopped signing.
    pub retired_at: Option<Timestamp>,
}

/// All keys that sign or may have signed a token that is still good, the newest first.
pub async fn list(
    conn: &mut PgConnection,
    retired_after: Timestamp,
) -> Result<Vec<StoredSigningKey>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT id,
               public_key,
               private_key,
               created_at,
               retired_at
          FROM signing_keys
         WHERE retired_at IS NULL OR retired_at > $1
         ORDER BY created_at DESC, id DESC
        "#,
        retired_after
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| StoredSigningKey {
            id: SigningKeyId::from_uuid(row.id),
            public_key: row.public_key,
            sealed_private_key: row.private_key,
            created_at: row.created_at,
            retired_at: row.retired_at,
        })
        .collect())
}

/// Adds a key.
pub async fn insert(conn: &mut PgConnection, key: &StoredSigningKey) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        INSERT INTO signing_keys (id, public_key, private_key, created_at, retired_at)
        VALUES ($1, $2, $3, $4, $5)
        "#,
        key.id.uuid(),
        key.public_key,
        key.sealed_private_key,
        key.created_at,
        key.retired_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Retires all keys but `kept`.
pub async fn retire_others(
    conn: &mut PgConnection,
    kept: SigningKeyId,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "UPDATE signing_keys SET retired_at = $2 WHERE id <> $1 AND retired_at IS NULL",
        kept.uuid(),
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
