//! Second factors of users.

use mdm_core::{
    Timestamp,
    ids::{OrganizationId, UserId},
    users::User,
};
use sqlx::PgConnection;

use crate::error::{StoreError, one_row};

/// Keeps a new secret, which counts when it is confirmed; one that was not confirmed is replaced.
/// `false` if the user's second factor is in force.
pub async fn begin(
    conn: &mut PgConnection,
    user: &User,
    sealed_secret: &[u8],
    now: Timestamp,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        r#"
        INSERT INTO second_factors (organization_id, user_id, secret, created_at)
        SELECT organization_id, id, $3, $4
          FROM users
         WHERE organization_id = $1
           AND id = $2
           AND NOT totp_enabled
           FOR UPDATE
            ON CONFLICT (organization_id, user_id)
            DO UPDATE SET secret = $3, last_step = 0, recovery_codes = '{}', created_at = $4
        "#,
        user.organization_id.uuid(),
        user.id.uuid(),
        sealed_secret,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A user's sealed secret, confirmed or not.
pub async fn secret(
    conn: &mut PgConnection,
    organization: OrganizationId,
    user: UserId,
) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(sqlx::query_scalar!(
        "SELECT secret FROM second_factors WHERE organization_id = $1 AND user_id = $2",
        organization.uuid(),
        user.uuid()
    )
    .fetch_optional(conn)
    .await?)
}

/// Takes a code's time step; `false` if it or a later one was taken before.
pub async fn take_step(
    conn: &mut PgConnection,
    organization: OrganizationId,
    user: UserId,
    step: i64,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        r#"
        UPDATE second_factors
           SET last_step = $3
         WHERE organization_id = $1
           AND user_id = $2
           AND last_step < $3
        "#,
        organization.uuid(),
        user.uuid(),
        step
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Uses up a recovery code; `false` if there is none such.
pub async fn take_recovery_code(
    conn: &mut PgConnection,
    organization: OrganizationId,
    user: UserId,
    hash: &[u8],
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        r#"
        UPDATE second_factors
           SET recovery_codes = array_remove(recovery_codes, $3)
         WHERE organization_id = $1
           AND user_id = $2
           AND $3 = ANY (recovery_codes)
        "#,
        organization.uuid(),
        user.uuid(),
        hash
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Puts a user's second factor into force, with its recovery codes.
pub async fn confirm(
    conn: &mut PgConnection,
    user: &User,
    recovery_codes: &[Vec<u8>],
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE second_factors SET recovery_codes = $3 WHERE organization_id = $1 AND user_id = $2",
        user.organization_id.uuid(),
        user.id.uuid(),
        recovery_codes
    )
    .execute(&mut *conn)
    .await?;
    set_enabled(conn, user, true, now).await
}

/// Takes a user's second factor away, confirmed or not.
pub async fn remove(
    conn: &mut PgConnection,
    user: &User,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query!(
        "DELETE FROM second_factors WHERE organization_id = $1 AND user_id = $2",
        user.organization_id.uuid(),
        user.id.uuid()
    )
    .execute(&mut *conn)
    .await?;
    set_enabled(conn, user, false, now).await
}

async fn set_enabled(
    conn: &mut PgConnection,
    user: &User,
    enabled: bool,
    now: Timestamp,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        r#"
        UPDATE users
           SET totp_enabled = $3,
               updated_at = $4,
               version = version + 1
         WHERE organization_id = $1
           AND id = $2
        "#,
        user.organization_id.uuid(),
        user.id.uuid(),
        enabled,
        now
    )
    .execute(conn)
    .await?;
    one_row("users", done.rows_affected())
}
