//! API keys.

use mdm_core::{
    Timestamp,
    api_keys::ApiKey,
    ids::{ApiKeyId, OrganizationId, UserId},
    tokens::TokenHash,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    error::{StoreError, one_row},
    lists::{ListPage, ListRequest, SortColumn, SortKind, Sorting, Source, Total},
};

#[derive(sqlx::FromRow)]
struct ApiKeyRow {
    organization_id: Uuid,
    id: Uuid,
    name: String,
    role: String,
    scopes: Option<Vec<String>>,
    expires_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    created_by: Uuid,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl TryFrom<ApiKeyRow> for ApiKey {
    type Error = StoreError;

    fn try_from(row: ApiKeyRow) -> Result<Self, StoreError> {
        let corrupt = |column| StoreError::corrupt("api_keys", column, row.id);
        let scopes = row
            .scopes
            .map(|scopes| scopes.iter().map(|scope| scope.parse()).collect());
        Ok(Self {
            id: ApiKeyId::from_uuid(row.id),
            organization_id: OrganizationId::from_uuid(row.organization_id),
            name: row.name,
            role: row.role.parse().map_err(|_unknown| corrupt("role"))?,
            scopes: scopes
                .transpose()
                .map_err(|_unknown: mdm_core::roles::UnknownPermission| corrupt("scopes"))?,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
            created_by: UserId::from_uuid(row.created_by),
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// What keys can be sorted by.
pub const SORTING: Sorting = Sorting {
    columns: &[
        SortColumn {
            name: "id",
            sql: "id",
            kind: SortKind::Id,
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
    columns: "organization_id, id, name, role, scopes, expires_at, last_used_at, created_by, created_at, updated_at",
    from: "api_keys",
    organization: "organization_id",
    id: "id",
    plan_each: false,
};

/// A page of the organisation's keys.
pub async fn list(
    conn: &mut PgConnection,
    organization: OrganizationId,
    request: &ListRequest,
) -> Result<ListPage<ApiKey>, StoreError> {
    let page: ListPage<ApiKeyRow> = SOURCE.page(conn, organization, request, &|_| {}).await?;
    page.try_map(ApiKey::try_from)
}

/// How many keys there are.
pub async fn total(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> Result<Total, StoreError> {
    SOURCE.total(conn, organization, &|_| {}).await
}

/// Finds a key of the organisation.
pub async fn find(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: ApiKeyId,
) -> Result<Option<ApiKey>, StoreError> {
    let row = sqlx::query_as!(
        ApiKeyRow,
        r#"
        SELECT organization_id,
               id,
               name,
               role,
               scopes,
               expires_at,
               last_used_at,
               created_by,
               created_at,
               updated_at
          FROM api_keys
         WHERE organization_id = $1
           AND id = $2
           FOR NO KEY UPDATE
        "#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    row.map(ApiKey::try_from).transpose()
}

/// The key with this hash, if the user who made it may still sign in.
pub async fn find_by_hash(
    conn: &mut PgConnection,
    hash: TokenHash,
) -> Result<Option<ApiKey>, StoreError> {
    let row = sqlx::query_as!(
        ApiKeyRow,
        r#"
        SELECT k.organization_id,
               k.id,
               k.name,
               k.role,
               k.scopes,
               k.expires_at,
               k.last_used_at,
               k.created_by,
               k.created_at,
               k.updated_at
          FROM api_keys k
          JOIN users u ON u.organization_id = k.organization_id AND u.id = k.created_by
         WHERE k.key_hash = $1
           AND u.disabled_at IS NULL
        "#,
        hash.as_bytes()
    )
    .fetch_optional(conn)
    .await?;
    row.map(ApiKey::try_from).transpose()
}

/// Adds a key.
pub async fn insert(
    conn: &mut PgConnection,
    key: &ApiKey,
    hash: TokenHash,
) -> Result<(), StoreError> {
    let scopes = key.scopes.as_ref();
    let scopes: Option<Vec<String>> =
        scopes.map(|scopes| scopes.iter().map(ToString::to_string).collect());
    sqlx::query!(
        r#"
        INSERT INTO api_keys
               (organization_id, id, name, key_hash, role, scopes, expires_at, created_by, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        "#,
        key.organization_id.uuid(),
        key.id.uuid(),
        key.name,
        hash.as_bytes(),
        key.role.as_str(),
        scopes.as_deref(),
        key.expires_at,
        key.created_by.uuid(),
        key.created_at,
        key.updated_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes what may change of a key.
pub async fn update(conn: &mut PgConnection, key: &ApiKey) -> Result<(), StoreError> {
    let done = sqlx::query!(
        r#"
        UPDATE api_keys
           SET name = $3,
               expires_at = $4,
               updated_at = $5
         WHERE organization_id = $1
           AND id = $2
        "#,
        key.organization_id.uuid(),
        key.id.uuid(),
        key.name,
        key.expires_at,
        key.updated_at
    )
    .execute(conn)
    .await?;
    one_row("api_keys", done.rows_affected())
}

/// Notes that a key was used, unless that was noted within the last minute.
pub async fn touch(
    conn: &mut PgConnection,
    key: &ApiKey,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        UPDATE api_keys
           SET last_used_at = $3
         WHERE organization_id = $1
           AND id = $2
           AND (last_used_at IS NULL OR last_used_at < $3::timestamptz - interval '1 minute')
        "#,
        key.organization_id.uuid(),
        key.id.uuid(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes a key; `false` if it is not there.
pub async fn delete(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: ApiKeyId,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "DELETE FROM api_keys WHERE organization_id = $1 AND id = $2",
        organization.uuid(),
        id.uuid()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The keys that a user made.
pub async fn of_user(
    conn: &mut PgConnection,
    organization: OrganizationId,
    user: UserId,
) -> Result<Vec<ApiKeyId>, StoreError> {
    let ids = sqlx::query_scalar!(
        "SELECT id FROM api_keys WHERE organization_id = $1 AND created_by = $2",
        organization.uuid(),
        user.uuid()
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(ApiKeyId::from_uuid).collect())
}
