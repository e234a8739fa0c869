//! Users.

use mdm_core::{
    Timestamp,
    ids::{OrganizationId, UserId},
    users::{Email, User},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{StoreError, one_row};

struct UserRow {
    organization_id: Uuid,
    id: Uuid,
    email: String,
    name: String,
    role: String,
    password_hash: String,
    disabled_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// A user with the hash of the password, for signing in.
pub struct UserWithPassword {
    /// The user.
    pub user: User,
    /// In the PHC string format.
    pub password_hash: String,
}

impl TryFrom<UserRow> for UserWithPassword {
    type Error = StoreError;

    fn try_from(row: UserRow) -> Result<Self, StoreError> {
        let corrupt = |column| StoreError::corrupt("users", column, row.id);
        let user = User {
            id: UserId::from_uuid(row.id),
            organization_id: OrganizationId::from_uuid(row.organization_id),
            email: Email::parse(&row.email).map_err(|_invalid| corrupt("email"))?,
            name: row.name,
            role: row.role.parse().map_err(|_unknown| corrupt("role"))?,
            disabled_at: row.disabled_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        Ok(Self {
            user,
            password_hash: row.password_hash,
        })
    }
}

/// The user who signs in with this address.
pub async fn find_by_email(
    conn: &mut PgConnection,
    email: &Email,
) -> Result<Option<UserWithPassword>, StoreError> {
    let row = sqlx::query_as!(
        UserRow,
        r#"
        SELECT organization_id,
               id,
               email,
               name,
               role,
               password_hash,
               disabled_at,
               created_at,
               updated_at
          FROM users
         WHERE email = $1
        "#,
        email.as_str()
    )
    .fetch_optional(conn)
    .await?;
    row.map(UserWithPassword::try_from).transpose()
}

/// A user of the organisation.
pub async fn find(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: UserId,
) -> Result<Option<UserWithPassword>, StoreError> {
    let row = sqlx::query_as!(
        UserRow,
        r#"
        SELECT organization_id,
               id,
               email,
               name,
               role,
               password_hash,
               disabled_at,
               created_at,
               updated_at
          FROM users
         WHERE organization_id = $1
           AND id = $2
        "#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    row.map(UserWithPassword::try_from).transpose()
}

/// Adds a user.
pub async fn insert(
    conn: &mut PgConnection,
    user: &User,
    password_hash: &str,
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        INSERT INTO users (organization_id, id, email, name, role, password_hash, disabled_at, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        "#,
        user.organization_id.uuid(),
        user.id.uuid(),
        user.email.as_str(),
        user.name,
        user.role.as_str(),
        password_hash,
        user.disabled_at,
        user.created_at,
        user.updated_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Sets a user's password.
pub async fn set_password(
    conn: &mut PgConnection,
    user: &User,
    password_hash: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        r#"
        UPDATE users
           SET password_hash = $3,
               updated_at = $4
         WHERE organization_id = $1
           AND id = $2
        "#,
        user.organization_id.uuid(),
        user.id.uuid(),
        password_hash,
        now
    )
    .execute(conn)
    .await?;
    one_row("users", done.rows_affected())
}

/// The user of this name, if exactly one has it: names need not be unique.
pub async fn find_by_name(
    conn: &mut PgConnection,
    name: &str,
) -> Result<Option<UserWithPassword>, StoreError> {
    let mut rows = sqlx::query_as!(
        UserRow,
        r#"
        SELECT organization_id,
               id,
               email,
               name,
               role,
               password_hash,
               disabled_at,
               created_at,
               updated_at
          FROM users
         WHERE name = $1
         LIMIT 2
        "#,
        name
    )
    .fetch_all(conn)
    .await?;
    let first = rows.pop();
    if rows.is_empty() {
        first.map(UserWithPassword::try_from).transpose()
    } else {
        Ok(None)
    }
}

/// The administrator that the first start made, as long as there is one who may sign in.
pub async fn first_administrator(conn: &mut PgConnection) -> Result<Option<User>, StoreError> {
    let row = sqlx::query_as!(
        UserRow,
        r#"
        SELECT organization_id,
               id,
               email,
               name,
               role,
               password_hash,
               disabled_at,
               created_at,
               updated_at
          FROM users
         WHERE role = 'admin'
           AND disabled_at IS NULL
         ORDER BY created_at, id
         LIMIT 1
        "#
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| UserWithPassword::try_from(row).map(|found| found.user))
        .transpose()
}
