//! Webhooks. A cursor is written only by whoever saw the one before: two nodes that hold
//! themselves for the leader cannot move it against each other.

pub mod deliveries;

use mdm_core::{
    Timestamp,
    events::EventKind,
    ids::{OrganizationId, WebhookId},
    webhooks::{Webhook, WebhookUrl},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    error::{StoreError, one_row},
    lists::{ListPage, ListRequest, SortColumn, SortKind, Sorting, Source, Total},
};

#[derive(sqlx::FromRow)]
struct WebhookRow {
    organization_id: Uuid,
    id: Uuid,
    name: String,
    url: String,
    event_types: Vec<String>,
    enabled: bool,
    disabled_reason: Option<String>,
    cursor: String,
    failures: i32,
    failing_since: Option<Timestamp>,
    next_attempt_at: Option<Timestamp>,
    last_error: Option<String>,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl TryFrom<WebhookRow> for Webhook {
    type Error = StoreError;

    fn try_from(row: WebhookRow) -> Result<Self, StoreError> {
        let corrupt = |column| StoreError::corrupt("webhooks", column, row.id);
        let kinds: Result<Vec<EventKind>, _> =
            row.event_types.iter().map(|kind| kind.parse()).collect();
        Ok(Self {
            id: WebhookId::from_uuid(row.id),
            organization_id: OrganizationId::from_uuid(row.organization_id),
            name: row.name,
            url: WebhookUrl::parse("", &row.url).map_err(|_invalid| corrupt("url"))?,
            event_types: kinds.map_err(|_unknown| corrupt("event_types"))?,
            enabled: row.enabled,
            disabled_reason: row.disabled_reason,
            cursor: row.cursor,
            failures: row.failures,
            failing_since: row.failing_since,
            next_attempt_at: row.next_attempt_at,
            last_error: row.last_error,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// What webhooks can be sorted by.
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
    columns: "organization_id, id, name, url, event_types, enabled, disabled_reason, cursor, failures, failing_since, \
              next_attempt_at, last_error, version, created_at, updated_at",
    from: "webhooks",
    organization: "organization_id",
    id: "id",
    plan_each: false,
};

/// A page of the organisation's webhooks.
pub async fn list(
    conn: &mut PgConnection,
    organization: OrganizationId,
    request: &ListRequest,
) -> Result<ListPage<Webhook>, StoreError> {
    let page: ListPage<WebhookRow> = SOURCE.page(conn, organization, request, &|_| {}).await?;
    page.try_map(Webhook::try_from)
}

/// How many webhooks there are.
pub async fn total(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> Result<Total, StoreError> {
    SOURCE.total(conn, organization, &|_| {}).await
}

/// Finds a webhook of the organisation, with its sealed secret.
pub async fn find(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: WebhookId,
) -> Result<Option<(Webhook, Vec<u8>)>, StoreError> {
    let row = sqlx::query_as!(
        WebhookRow,
        r#"
        SELECT organization_id,
               id,
               name,
               url,
               event_types,
               enabled,
               disabled_reason,
               cursor,
               failures,
               failing_since,
               next_attempt_at,
               last_error,
               version,
               created_at,
               updated_at
          FROM webhooks
         WHERE organization_id = $1
           AND id = $2
        "#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let secret = sqlx::query_scalar!(
        "SELECT sealed_secret FROM webhooks WHERE organization_id = $1 AND id = $2",
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    let webhook = Webhook::try_from(row)?;
    Ok(secret.map(|secret| (webhook, secret)))
}

/// Locks a webhook of the organisation for a change.
pub async fn lock(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: WebhookId,
) -> Result<Option<Webhook>, StoreError> {
    let locked = sqlx::query!(
        "SELECT id FROM webhooks WHERE organization_id = $1 AND id = $2 FOR NO KEY UPDATE",
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?;
    if locked.is_none() {
        return Ok(None);
    }
    let found = find(conn, organization, id).await?;
    Ok(found.map(|(webhook, _secret)| webhook))
}

/// The enabled webhooks of all organisations.
pub async fn enabled(
    conn: &mut PgConnection,
) -> Result<Vec<(OrganizationId, WebhookId)>, StoreError> {
    let rows = sqlx::query!("SELECT organization_id, id FROM webhooks WHERE enabled ORDER BY id")
        .fetch_all(conn)
        .await?;
    let ids = rows.into_iter().map(|row| {
        (
            OrganizationId::from_uuid(row.organization_id),
            WebhookId::from_uuid(row.id),
        )
    });
    Ok(ids.collect())
}

/// Adds a webhook.
pub async fn insert(
    conn: &mut PgConnection,
    webhook: &Webhook,
    sealed_secret: &[u8],
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        INSERT INTO webhooks
               (organization_id, id, name, url, event_types, enabled, sealed_secret, cursor, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
        "#,
        webhook.organization_id.uuid(),
        webhook.id.uuid(),
        webhook.name,
        webhook.url.as_str(),
        &names(&webhook.event_types) as &[&str],
        webhook.enabled,
        sealed_secret,
        webhook.cursor,
        webhook.created_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes what may change of a webhook, and counts the change.
pub async fn update(conn: &mut PgConnection, webhook: &Webhook) -> Result<(), StoreError> {
    let done = sqlx::query!(
        r#"
        UPDATE webhooks
           SET name = $3,
               url = $4,
               event_types = $5,
               enabled = $6,
               disabled_reason = $7,
               failures = $8,
               failing_since = $9,
               next_attempt_at = $10,
               version = $11,
               updated_at = $12
         WHERE organization_id = $1
           AND id = $2
        "#,
        webhook.organization_id.uuid(),
        webhook.id.uuid(),
        webhook.name,
        webhook.url.as_str(),
        &names(&webhook.event_types) as &[&str],
        webhook.enabled,
        webhook.disabled_reason,
        webhook.failures,
        webhook.failing_since,
        webhook.next_attempt_at,
        webhook.version,
        webhook.updated_at
    )
    .execute(conn)
    .await?;
    one_row("webhooks", done.rows_affected())
}

/// Deletes a webhook with its deliveries; `false` if it is not there.
pub async fn delete(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: WebhookId,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "DELETE FROM webhooks WHERE organization_id = $1 AND id = $2",
        organization.uuid(),
        id.uuid()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Moves a webhook on from the cursor that the caller saw: what stands before the new one was
/// delivered or is not for it. `false` if somebody else moved it, or deleted it.
pub async fn advance(
    conn: &mut PgConnection,
    webhook: &Webhook,
    to: &str,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        r#"
        UPDATE webhooks
           SET cursor = $4,
               failures = 0,
               failing_since = NULL,
               next_attempt_at = NULL,
               last_error = NULL
         WHERE organization_id = $1
           AND id = $2
           AND cursor = $3
        "#,
        webhook.organization_id.uuid(),
        webhook.id.uuid(),
        webhook.cursor,
        to
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes that the next event was tried in vain. `false` if somebody else moved the webhook, or
/// deleted it.
pub async fn fail(
    conn: &mut PgConnection,
    webhook: &Webhook,
    error: &str,
    now: Timestamp,
    next_attempt_at: Timestamp,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        r#"
        UPDATE webhooks
           SET failures = failures + 1,
               failing_since = COALESCE(failing_since, $5),
               next_attempt_at = $6,
               last_error = $4
         WHERE organization_id = $1
           AND id = $2
           AND cursor = $3
        "#,
        webhook.organization_id.uuid(),
        webhook.id.uuid(),
        webhook.cursor,
        error,
        now,
        next_attempt_at
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

fn names(kinds: &[EventKind]) -> Vec<&'static str> {
    kinds.iter().map(|kind| kind.as_str()).collect()
}
