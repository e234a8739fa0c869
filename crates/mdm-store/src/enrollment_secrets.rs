//! Enrolment secrets.

use mdm_core::{
    Timestamp,
    devices::Labels,
    enrollment::EnrollmentSecret,
    ids::{EnrollmentSecretId, GroupId, OrganizationId, UserId},
    tokens::TokenHash,
};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::{
    error::StoreError,
    lists::{ListPage, ListRequest, SortColumn, SortKind, Sorting, Source, Total},
};

#[derive(sqlx::FromRow)]
struct SecretRow {
    organization_id: Uuid,
    id: Uuid,
    name: String,
    labels: Json<Labels>,
    group_ids: Vec<Uuid>,
    expires_at: Option<Timestamp>,
    max_uses: Option<i32>,
    uses: i32,
    revoked_at: Option<Timestamp>,
    created_by: Option<Uuid>,
    created_at: Timestamp,
    version: i64,
}

impl From<SecretRow> for EnrollmentSecret {
    fn from(row: SecretRow) -> Self {
        Self {
            id: EnrollmentSecretId::from_uuid(row.id),
            organization_id: OrganizationId::from_uuid(row.organization_id),
            name: row.name,
            labels: row.labels.0,
            group_ids: row.group_ids.into_iter().map(GroupId::from_uuid).collect(),
            expires_at: row.expires_at,
            max_uses: row.max_uses,
            uses: row.uses,
            revoked_at: row.revoked_at,
            created_by: row.created_by.map(UserId::from_uuid),
            created_at: row.created_at,
            version: row.version,
        }
    }
}

/// Adds a secret.
pub async fn insert(
    conn: &mut PgConnection,
    secret: &EnrollmentSecret,
    hash: TokenHash,
) -> Result<(), StoreError> {
    let groups: Vec<Uuid> = secret.group_ids.iter().map(|id| id.uuid()).collect();
    sqlx::query!(
        r#"
        INSERT INTO enrollment_secrets
               (organization_id, id, name, secret_hash, labels, group_ids, expires_at, max_uses, created_by,
                created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        "#,
        secret.organization_id.uuid(),
        secret.id.uuid(),
        secret.name,
        hash.as_bytes(),
        Json(&secret.labels) as _,
        &groups,
        secret.expires_at,
        secret.max_uses,
        secret.created_by.map(UserId::uuid),
        secret.created_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What secrets can be sorted by.
pub const SORTING: Sorting = Sorting {
    columns: &[
        SortColumn {
            name: "id",
            sql: "s.id",
            kind: SortKind::Id,
        },
        SortColumn {
            name: "name",
            sql: "s.name",
            kind: SortKind::Text,
        },
        SortColumn {
            name: "created_at",
            sql: "s.created_at",
            kind: SortKind::Timestamp,
        },
    ],
    newest_first: false,
};

const SOURCE: Source = Source {
    columns: "s.organization_id, s.id, s.name, s.labels, s.group_ids, s.expires_at, s.max_uses, \
              s.uses + (SELECT coalesce(sum(u.uses), 0)::integer FROM enrollment_secret_uses u \
              WHERE u.organization_id = s.organization_id AND u.secret_id = s.id) AS uses, \
              s.revoked_at, s.created_by, s.created_at, s.version",
    from: "enrollment_secrets s",
    organization: "s.organization_id",
    id: "s.id",
    plan_each: false,
};

/// A page of the organisation's secrets.
pub async fn list(
    conn: &mut PgConnection,
    organization: OrganizationId,
    request: &ListRequest,
) -> Result<ListPage<EnrollmentSecret>, StoreError> {
    let page: ListPage<SecretRow> = SOURCE.page(conn, organization, request, &|_| {}).await?;
    Ok(page.map(EnrollmentSecret::from))
}

/// How many secrets there are.
pub async fn total(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> Result<Total, StoreError> {
    SOURCE.total(conn, organization, &|_| {}).await
}

/// Finds a secret of the organisation.
pub async fn find(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: EnrollmentSecretId,
) -> Result<Option<EnrollmentSecret>, StoreError> {
    let row = sqlx::query_as!(
        SecretRow,
        r#"
        SELECT s.organization_id,
               s.id,
               s.name,
               s.labels AS "labels: Json<Labels>",
               s.group_ids,
               s.expires_at,
               s.max_uses,
               s.uses + (SELECT coalesce(sum(u.uses), 0)::integer
                           FROM enrollment_secret_uses u
                          WHERE u.organization_id = s.organization_id
                            AND u.secret_id = s.id) AS "uses!",
               s.revoked_at,
               s.created_by,
               s.created_at,
               s.version
          FROM enrollment_secrets s
         WHERE s.organization_id = $1
           AND s.id = $2
        "#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(EnrollmentSecret::from))
}

/// As [`find`], and nobody changes the secret until the transaction ends.
pub async fn lock(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: EnrollmentSecretId,
) -> Result<Option<EnrollmentSecret>, StoreError> {
    sqlx::query_scalar!(
        "SELECT id FROM enrollment_secrets WHERE organization_id = $1 AND id = $2 FOR NO KEY UPDATE",
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?;
    find(conn, organization, id).await
}

/// Writes what may change of a locked secret.
pub async fn update(conn: &mut PgConnection, secret: &EnrollmentSecret) -> Result<i64, StoreError> {
    let groups: Vec<Uuid> = secret.group_ids.iter().map(|id| id.uuid()).collect();
    let version = sqlx::query_scalar!(
        r#"
        UPDATE enrollment_secrets
           SET name = $3,
               labels = $4,
               group_ids = $5,
               expires_at = $6,
               version = version + 1
         WHERE organization_id = $1
           AND id = $2
     RETURNING version
        "#,
        secret.organization_id.uuid(),
        secret.id.uuid(),
        secret.name,
        Json(&secret.labels) as _,
        &groups,
        secret.expires_at
    )
    .fetch_optional(conn)
    .await?;
    version.ok_or(StoreError::NotOneRow {
        table: "enrollment_secrets",
        changed: 0,
    })
}

/// The secret with this hash. Not locked: see [`count_use`].
pub async fn find_by_hash(
    conn: &mut PgConnection,
    hash: TokenHash,
) -> Result<Option<EnrollmentSecret>, StoreError> {
    let row = sqlx::query_as!(
        SecretRow,
        r#"
        SELECT s.organization_id,
               s.id,
               s.name,
               s.labels AS "labels: Json<Labels>",
               s.group_ids,
               s.expires_at,
               s.max_uses,
               s.uses,
               s.revoked_at,
               s.created_by,
               s.created_at,
               s.version
          FROM enrollment_secrets s
         WHERE s.secret_hash = $1
        "#,
        hash.as_bytes()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(EnrollmentSecret::from))
}

/// Counts uses; `false` if the secret does not let so many in any more. To be called last in the
/// transaction.
///
/// Uses of a secret that may be used so often only are counted one after the other, from here to
/// the commit. Those of one without a limit are counted in a random one of several rows, so that
/// enrolments do not wait for each other; such a secret is held only against being withdrawn.
pub async fn count_use(
    conn: &mut PgConnection,
    secret: &EnrollmentSecret,
    (slot, uses): (u8, i32),
    now: Timestamp,
) -> Result<bool, StoreError> {
    if secret.max_uses.is_none() {
        return count_in_slot(conn, secret, (slot, uses), now).await;
    }
    let done = sqlx::query!(
        r#"
        UPDATE enrollment_secrets
           SET uses = uses + $4
         WHERE organization_id = $1
           AND id = $2
           AND revoked_at IS NULL
           AND (expires_at IS NULL OR expires_at > $3)
           AND (max_uses IS NULL OR uses + $4 <= max_uses)
        "#,
        secret.organization_id.uuid(),
        secret.id.uuid(),
        now,
        uses
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

async fn count_in_slot(
    conn: &mut PgConnection,
    secret: &EnrollmentSecret,
    (slot, uses): (u8, i32),
    now: Timestamp,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        r#"
        INSERT INTO enrollment_secret_uses AS present (organization_id, secret_id, slot, uses)
        SELECT organization_id, id, $4, $5
          FROM enrollment_secrets
         WHERE organization_id = $1
           AND id = $2
           AND revoked_at IS NULL
           AND (expires_at IS NULL OR expires_at > $3)
           FOR SHARE
            ON CONFLICT (organization_id, secret_id, slot) DO UPDATE SET uses = present.uses + $5
        "#,
        secret.organization_id.uuid(),
        secret.id.uuid(),
        now,
        i16::from(slot),
        uses
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Withdraws a secret; `false` if the organisation has none with this id. Doing it again changes
/// nothing.
pub async fn revoke(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: EnrollmentSecretId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        r#"
        UPDATE enrollment_secrets
           SET revoked_at = coalesce(revoked_at, $3)
         WHERE organization_id = $1
           AND id = $2
        "#,
        organization.uuid(),
        id.uuid(),
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
