//! Single-use tickets for sockets. They belong to no organisation: what they stand for does.

use mdm_core::{Timestamp, tokens::TokenHash};
use sqlx::PgConnection;

use crate::error::StoreError;

/// Keeps a ticket.
pub async fn insert(
    conn: &mut PgConnection,
    ticket: &TokenHash,
    sealed_credential: &[u8],
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        INSERT INTO socket_tickets (ticket_hash, sealed_credential, expires_at)
        VALUES ($1, $2, $3)
        "#,
        ticket.as_bytes(),
        sealed_credential,
        expires_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes a ticket away, and gives the credential that it stood for if it was still good. Of two
/// who come with the same one, one gets it.
pub async fn take(
    conn: &mut PgConnection,
    ticket: &TokenHash,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, StoreError> {
    let taken = sqlx::query_scalar!(
        r#"
        DELETE FROM socket_tickets
         WHERE ticket_hash = $1
           AND expires_at > $2
        RETURNING sealed_credential
        "#,
        ticket.as_bytes(),
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(taken)
}

/// Deletes those that nobody came with.
pub async fn delete_expired(conn: &mut PgConnection, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM socket_tickets WHERE expires_at <= $1", now)
        .execute(conn)
        .await?;
    Ok(())
}
