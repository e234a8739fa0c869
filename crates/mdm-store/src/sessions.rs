//! Sessions and their refresh tokens.

use mdm_core::{
    Timestamp,
    ids::{OrganizationId, SessionId, UserId},
    sessions::SessionEnd,
    tokens::TokenHash,
};
use sqlx::PgConnection;

use crate::error::StoreError;

/// A refresh token as it is found, its session's row locked.
#[derive(Debug, Clone, Copy)]
pub struct RefreshToken {
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// The session that it renews.
    pub session_id: SessionId,
    /// The session's user.
    pub user_id: UserId,
    /// When it stops being good.
    pub expires_at: Timestamp,
    /// When it was used.
    pub used_at: Option<Timestamp>,
    /// When its session ended.
    pub session_ended_at: Option<Timestamp>,
}

/// Begins a session.
pub async fn insert(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: SessionId,
    user: UserId,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        INSERT INTO sessions (organization_id, id, user_id, created_at, last_used_at)
        VALUES ($1, $2, $3, $4, $4)
        "#,
        organization.uuid(),
        id.uuid(),
        user.uuid(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds a refresh token to a session.
pub async fn insert_refresh_token(
    conn: &mut PgConnection,
    organization: OrganizationId,
    session: SessionId,
    hash: TokenHash,
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        INSERT INTO refresh_tokens (token_hash, organization_id, session_id, expires_at)
        VALUES ($1, $2, $3, $4)
        "#,
        hash.as_bytes(),
        organization.uuid(),
        session.uuid(),
        expires_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Finds a refresh token and locks it and its session, so that of two uses at once one waits and
/// then sees that the token was used.
pub async fn lock_refresh_token(
    conn: &mut PgConnection,
    hash: TokenHash,
) -> Result<Option<RefreshToken>, StoreError> {
    let row = sqlx::query!(
        r#"
        SELECT t.organization_id,
               t.session_id,
               s.user_id,
               t.expires_at,
               t.used_at,
               s.ended_at AS session_ended_at
          FROM refresh_tokens t
          JOIN sessions s ON s.organization_id = t.organization_id AND s.id = t.session_id
         WHERE t.token_hash = $1
           FOR UPDATE
        "#,
        hash.as_bytes()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| RefreshToken {
        organization_id: OrganizationId::from_uuid(row.organization_id),
        session_id: SessionId::from_uuid(row.session_id),
        user_id: UserId::from_uuid(row.user_id),
        expires_at: row.expires_at,
        used_at: row.used_at,
        session_ended_at: row.session_ended_at,
    }))
}

/// Notes that a refresh token was used, and its session with it.
pub async fn use_refresh_token(
    conn: &mut PgConnection,
    token: &RefreshToken,
    hash: TokenHash,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE refresh_tokens SET used_at = $2 WHERE token_hash = $1",
        hash.as_bytes(),
        now
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE sessions SET last_used_at = $3 WHERE organization_id = $1 AND id = $2",
        token.organization_id.uuid(),
        token.session_id.uuid(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends a session; `false` if it had ended before.
pub async fn end(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: SessionId,
    reason: SessionEnd,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        r#"
        UPDATE sessions
           SET ended_at = $3,
               end_reason = $4
         WHERE organization_id = $1
           AND id = $2
           AND ended_at IS NULL
        "#,
        organization.uuid(),
        id.uuid(),
        now,
        reason.as_str()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends every session of a user and says which.
pub async fn end_all_of(
    conn: &mut PgConnection,
    organization: OrganizationId,
    user: UserId,
    reason: SessionEnd,
    now: Timestamp,
) -> Result<Vec<SessionId>, StoreError> {
    let ids = sqlx::query_scalar!(
        r#"
        UPDATE sessions
           SET ended_at = $3,
               end_reason = $4
         WHERE organization_id = $1
           AND user_id = $2
           AND ended_at IS NULL
     RETURNING id
        "#,
        organization.uuid(),
        user.uuid(),
        now,
        reason.as_str()
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(SessionId::from_uuid).collect())
}

/// Ends every session of a user but one and says which.
pub async fn end_all_but(
    conn: &mut PgConnection,
    organization: OrganizationId,
    user: UserId,
    kept: SessionId,
    reason: SessionEnd,
    now: Timestamp,
) -> Result<Vec<SessionId>, StoreError> {
    let ids = sqlx::query_scalar!(
        r#"
        UPDATE sessions
           SET ended_at = $3,
               end_reason = $4
         WHERE organization_id = $1
           AND user_id = $2
           AND id <> $5
           AND ended_at IS NULL
     RETURNING id
        "#,
        organization.uuid(),
        user.uuid(),
        now,
        reason.as_str(),
        kept.uuid()
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(SessionId::from_uuid).collect())
}

/// The sessions that ended after `since`: those whose access tokens may still look good.
pub async fn ended_since(
    conn: &mut PgConnection,
    since: Timestamp,
) -> Result<Vec<(SessionId, Timestamp)>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT id, ended_at AS "ended_at!" FROM sessions WHERE ended_at > $1"#,
        since
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (SessionId::from_uuid(row.id), row.ended_at))
        .collect())
}

/// Deletes refresh tokens that expired before `before`, at most `limit` of them.
pub async fn delete_expired_refresh_tokens(
    conn: &mut PgConnection,
    before: Timestamp,
    limit: i64,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        r#"
        DELETE FROM refresh_tokens
         WHERE token_hash IN (SELECT token_hash FROM refresh_tokens WHERE expires_at < $1 LIMIT $2)
        "#,
        before,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// A sign-in that has not ended.
#[derive(Debug, Clone)]
pub struct OpenSession {
    /// Its id.
    pub id: SessionId,
    /// When it began.
    pub created_at: Timestamp,
    /// When its tokens were last renewed.
    pub last_used_at: Timestamp,
}

/// A user's sessions whose refresh tokens may still be good, the newest first, at most 500.
pub async fn open_of(
    conn: &mut PgConnection,
    organization: OrganizationId,
    user: UserId,
    used_since: Timestamp,
) -> Result<Vec<OpenSession>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT id,
               created_at,
               last_used_at
          FROM sessions
         WHERE organization_id = $1
           AND user_id = $2
           AND ended_at IS NULL
           AND last_used_at > $3
         ORDER BY id DESC
         LIMIT 500
        "#,
        organization.uuid(),
        user.uuid(),
        used_since
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| OpenSession {
            id: SessionId::from_uuid(row.id),
            created_at: row.created_at,
            last_used_at: row.last_used_at,
        })
        .collect())
}

/// Whose session it is.
pub async fn owner(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: SessionId,
) -> Result<Option<UserId>, StoreError> {
    let user = sqlx::query_scalar!(
        "SELECT user_id FROM sessions WHERE organization_id = $1 AND id = $2",
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(user.map(UserId::from_uuid))
}
