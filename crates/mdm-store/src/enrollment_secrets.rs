//! Enrolment secrets.

use mdm_core::{
    Timestamp,
    devices::Labels,
    enrollment::EnrollmentSecret,
    ids::{EnrollmentSecretId, OrganizationId, UserId},
    tokens::TokenHash,
};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::error::StoreError;

struct SecretRow {
    organization_id: Uuid,
    id: Uuid,
    name: String,
    labels: Json<Labels>,
    expires_at: Option<Timestamp>,
    max_uses: Option<i32>,
    uses: i32,
    revoked_at: Option<Timestamp>,
    created_by: Option<Uuid>,
    created_at: Timestamp,
}

impl From<SecretRow> for EnrollmentSecret {
    fn from(row: SecretRow) -> Self {
        Self {
            id: EnrollmentSecretId::from_uuid(row.id),
            organization_id: OrganizationId::from_uuid(row.organization_id),
            name: row.name,
            labels: row.labels.0,
            expires_at: row.expires_at,
            max_uses: row.max_uses,
            uses: row.uses,
            revoked_at: row.revoked_at,
            created_by: row.created_by.map(UserId::from_uuid),
            created_at: row.created_at,
        }
    }
}

/// Adds a secret.
pub async fn insert(
    conn: &mut PgConnection,
    secret: &EnrollmentSecret,
    hash: TokenHash,
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        INSERT INTO enrollment_secrets
               (organization_id, id, name, secret_hash, labels, expires_at, max_uses, created_by, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        "#,
        secret.organization_id.uuid(),
        secret.id.uuid(),
        secret.name,
        hash.as_bytes(),
        Json(&secret.labels) as _,
        secret.expires_at,
        secret.max_uses,
        secret.created_by.map(UserId::uuid),
        secret.created_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The organisation's secrets, oldest first, after the id `after`.
pub async fn list(
    conn: &mut PgConnection,
    organization: OrganizationId,
    after: Option<EnrollmentSecretId>,
    limit: i64,
    offset: i64,
) -> Result<Vec<EnrollmentSecret>, StoreError> {
    let rows = sqlx::query_as!(
        SecretRow,
        r#"
        SELECT organization_id,
               id,
               name,
               labels AS "labels: Json<Labels>",
               expires_at,
               max_uses,
               uses,
               revoked_at,
               created_by,
               created_at
          FROM enrollment_secrets
         WHERE organization_id = $1
           AND ($2::uuid IS NULL OR id > $2)
         ORDER BY id
         LIMIT $3
        OFFSET $4
        "#,
        organization.uuid(),
        after.map(EnrollmentSecretId::uuid),
        limit,
        offset
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(EnrollmentSecret::from).collect())
}

/// How many secrets the organisation has.
pub async fn count(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM enrollment_secrets WHERE organization_id = $1"#,
        organization.uuid()
    )
    .fetch_one(conn)
    .await?)
}

/// The secret with this hash. Not locked: see [`count_use`].
pub async fn find_by_hash(
    conn: &mut PgConnection,
    hash: TokenHash,
) -> Result<Option<EnrollmentSecret>, StoreError> {
    let row = sqlx::query_as!(
        SecretRow,
        r#"
        SELECT organization_id,
               id,
               name,
               labels AS "labels: Json<Labels>",
               expires_at,
               max_uses,
               uses,
               revoked_at,
               created_by,
               created_at
          FROM enrollment_secrets
         WHERE secret_hash = $1
        "#,
        hash.as_bytes()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(EnrollmentSecret::from))
}

/// Counts one use; `false` if the secret lets nobody in any more. Uses are counted one after the
/// other, from here to the commit: to be called last in the transaction, so that many enrolments
/// with one secret wait for each other as briefly as can be.
pub async fn count_use(
    conn: &mut PgConnection,
    secret: &EnrollmentSecret,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        r#"
        UPDATE enrollment_secrets
           SET uses = uses + 1
         WHERE organization_id = $1
           AND id = $2
           AND revoked_at IS NULL
           AND (expires_at IS NULL OR expires_at > $3)
           AND (max_uses IS NULL OR uses < max_uses)
        "#,
        secret.organization_id.uuid(),
        secret.id.uuid(),
        now
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
