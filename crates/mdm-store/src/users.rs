//! Users.

use mdm_core::{
    Timestamp,
    ids::{OrganizationId, UserId},
    roles::Role,
    users::{Email, User},
};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::{
    error::{StoreError, one_row},
    lists::{ListPage, ListRequest, SortColumn, SortKind, Sorting, Source, Total, contains},
};

#[derive(sqlx::FromRow)]
struct UserRow {
    organization_id: Uuid,
    id: Uuid,
    email: String,
    name: String,
    role: String,
    password_hash: String,
    totp_enabled: bool,
    disabled_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
    version: i64,
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
            totp_enabled: row.totp_enabled,
            disabled_at: row.disabled_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
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
               totp_enabled,
               disabled_at,
               created_at,
               updated_at,
               version
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
               totp_enabled,
               disabled_at,
               created_at,
               updated_at,
               version
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
               updated_at = $4,
               version = version + 1
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
               totp_enabled,
               disabled_at,
               created_at,
               updated_at,
               version
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
               totp_enabled,
               disabled_at,
               created_at,
               updated_at,
               version
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

/// What users can be sorted by.
pub const SORTING: Sorting = Sorting {
    columns: &[
        SortColumn {
            name: "id",
            sql: "id",
            kind: SortKind::Id,
        },
        SortColumn {
            name: "email",
            sql: "email",
            kind: SortKind::Text,
        },
        SortColumn {
            name: "name",
            sql: "name",
            kind: SortKind::Text,
        },
        SortColumn {
            name: "created_at",
            sql: "created_at",
            kind: SortKind::Timestamp,
        },
    ],
    newest_first: false,
};

const SOURCE: Source = Source {
    columns: "organization_id, id, email, name, role, '' AS password_hash, totp_enabled, disabled_at, created_at, updated_at, version",
    from: "users",
    organization: "organization_id",
    id: "id",
    plan_each: false,
};

/// Which users a list shows.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    /// With this role.
    pub role: Option<Role>,
    /// With this text in name or address.
    pub search: Option<String>,
}

impl UserFilter {
    fn narrow(&self, query: &mut QueryBuilder<Postgres>) {
        if let Some(role) = self.role {
            query.push(" AND role = ").push_bind(role.as_str());
        }
        if let Some(search) = &self.search {
            query
                .push(" AND (email LIKE ")
                .push_bind(contains(search))
                .push(" OR lower(name) LIKE ")
                .push_bind(contains(search))
                .push(")");
        }
    }
}

/// A page of the organisation's users.
pub async fn list(
    conn: &mut PgConnection,
    organization: OrganizationId,
    filter: &UserFilter,
    request: &ListRequest,
) -> Result<ListPage<User>, StoreError> {
    let page: ListPage<UserRow> = SOURCE
        .page(conn, organization, request, &|query| filter.narrow(query))
        .await?;
    page.try_map(|row| UserWithPassword::try_from(row).map(|found| found.user))
}

/// How many users there are.
pub async fn total(
    conn: &mut PgConnection,
    organization: OrganizationId,
    filter: &UserFilter,
) -> Result<Total, StoreError> {
    SOURCE
        .total(conn, organization, &|query| filter.narrow(query))
        .await
}

/// Locks the organisation's administrators: whoever takes rights away does this first, so that two
/// at once cannot leave the organisation without one. Gives those who may sign in.
pub async fn lock_administrators(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> Result<Vec<UserId>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT id,
               disabled_at
          FROM users
         WHERE organization_id = $1
           AND role = 'admin'
         ORDER BY id
           FOR UPDATE
        "#,
        organization.uuid()
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .filter(|row| row.disabled_at.is_none())
        .map(|row| UserId::from_uuid(row.id))
        .collect())
}

/// Locks a user's row.
pub async fn lock(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: UserId,
) -> Result<Option<UserWithPassword>, StoreError> {
    sqlx::query_scalar!(
        "SELECT id FROM users WHERE organization_id = $1 AND id = $2 FOR UPDATE",
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?;
    find(conn, organization, id).await
}

/// Writes a locked user and counts the change; `None` if another user has the address.
pub async fn update(conn: &mut PgConnection, user: &User) -> Result<Option<i64>, StoreError> {
    let updated = sqlx::query_scalar!(
        r#"
        UPDATE users
           SET email = $3,
               name = $4,
               role = $5,
               disabled_at = $6,
               updated_at = $7,
               version = version + 1
         WHERE organization_id = $1
           AND id = $2
     RETURNING version
        "#,
        user.organization_id.uuid(),
        user.id.uuid(),
        user.email.as_str(),
        user.name,
        user.role.as_str(),
        user.disabled_at,
        user.updated_at
    )
    .fetch_optional(conn)
    .await;
    match updated {
        Ok(Some(version)) => Ok(Some(version)),
        Ok(None) => Err(StoreError::NotOneRow {
            table: "users",
            changed: 0,
        }),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Adds a user; `false` if another user, of any organisation, has the address.
pub async fn insert_new(
    conn: &mut PgConnection,
    user: &User,
    password_hash: &str,
) -> Result<bool, StoreError> {
    match insert(conn, user, password_hash).await {
        Ok(()) => Ok(true),
        Err(StoreError::Database(sqlx::Error::Database(error))) if error.is_unique_violation() => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Deletes a user, with sessions and API keys.
pub async fn delete(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: UserId,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "DELETE FROM users WHERE organization_id = $1 AND id = $2",
        organization.uuid(),
        id.uuid()
    )
    .execute(conn)
    .await?;
    one_row("users", done.rows_affected())
}
