//! Attempts to deliver events to webhooks.

use mdm_core::{
    Timestamp,
    ids::{OrganizationId, WebhookDeliveryId, WebhookId},
    webhooks::WebhookDelivery,
};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::{
    error::StoreError,
    lists::{ListPage, ListRequest, SortColumn, SortKind, Sorting, Source, Total},
};

#[derive(sqlx::FromRow)]
struct DeliveryRow {
    id: Uuid,
    webhook_id: Uuid,
    event_id: String,
    event_type: String,
    attempt: i32,
    is_replay: bool,
    delivered: bool,
    status: Option<i16>,
    error: Option<String>,
    duration_ms: i32,
    at: Timestamp,
}

impl From<DeliveryRow> for WebhookDelivery {
    fn from(row: DeliveryRow) -> Self {
        Self {
            id: WebhookDeliveryId::from_uuid(row.id),
            webhook_id: WebhookId::from_uuid(row.webhook_id),
            event_id: row.event_id,
            event_type: row.event_type,
            attempt: row.attempt,
            is_replay: row.is_replay,
            delivered: row.delivered,
            status: row.status,
            error: row.error,
            duration_ms: row.duration_ms,
            at: row.at,
        }
    }
}

/// What deliveries can be sorted by: their ids are in the order of their times.
pub const SORTING: Sorting = Sorting {
    columns: &[SortColumn {
        name: "id",
        sql: "id",
        kind: SortKind::Id,
    }],
    newest_first: true,
};

const SOURCE: Source = Source {
    columns: "id, webhook_id, event_id, event_type, attempt, is_replay, delivered, status, error, duration_ms, at",
    from: "webhook_deliveries",
    organization: "organization_id",
    id: "id",
    plan_each: false,
};

/// Which deliveries.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryFilter {
    /// Of this webhook.
    pub webhook_id: WebhookId,
    /// Only those that were taken, or only those that were not.
    pub delivered: Option<bool>,
}

impl DeliveryFilter {
    fn narrow(&self, query: &mut QueryBuilder<Postgres>) {
        query.push(" AND webhook_id = ");
        query.push_bind(self.webhook_id.uuid());
        if let Some(delivered) = self.delivered {
            query.push(" AND delivered = ");
            query.push_bind(delivered);
        }
    }
}

/// A page of a webhook's deliveries.
pub async fn list(
    conn: &mut PgConnection,
    organization: OrganizationId,
    filter: &DeliveryFilter,
    request: &ListRequest,
) -> Result<ListPage<WebhookDelivery>, StoreError> {
    let narrow = |query: &mut QueryBuilder<Postgres>| filter.narrow(query);
    let page: ListPage<DeliveryRow> = SOURCE.page(conn, organization, request, &narrow).await?;
    Ok(page.map(WebhookDelivery::from))
}

/// How many deliveries there are.
pub async fn total(
    conn: &mut PgConnection,
    organization: OrganizationId,
    filter: &DeliveryFilter,
) -> Result<Total, StoreError> {
    let narrow = |query: &mut QueryBuilder<Postgres>| filter.narrow(query);
    SOURCE.total(conn, organization, &narrow).await
}

/// Finds a delivery of a webhook.
pub async fn find(
    conn: &mut PgConnection,
    organization: OrganizationId,
    webhook: WebhookId,
    id: WebhookDeliveryId,
) -> Result<Option<WebhookDelivery>, StoreError> {
    let row = sqlx::query_as!(
        DeliveryRow,
        r#"
        SELECT id,
               webhook_id,
               event_id,
               event_type,
               attempt,
               is_replay,
               delivered,
               status,
               error,
               duration_ms,
               at
          FROM webhook_deliveries
         WHERE organization_id = $1
           AND webhook_id = $2
           AND id = $3
        "#,
        organization.uuid(),
        webhook.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(WebhookDelivery::from))
}

/// Notes an attempt. The webhook must be there.
pub async fn insert(
    conn: &mut PgConnection,
    organization: OrganizationId,
    delivery: &WebhookDelivery,
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        INSERT INTO webhook_deliveries
               (organization_id, webhook_id, id, event_id, event_type, attempt, is_replay, delivered, status, error,
                duration_ms, at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        "#,
        organization.uuid(),
        delivery.webhook_id.uuid(),
        delivery.id.uuid(),
        delivery.event_id,
        delivery.event_type,
        delivery.attempt,
        delivery.is_replay,
        delivery.delivered,
        delivery.status,
        delivery.error,
        delivery.duration_ms,
        delivery.at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets some that are older than `before`; tells how many.
pub async fn forget(
    conn: &mut PgConnection,
    before: Timestamp,
    limit: i64,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        r#"
        DELETE FROM webhook_deliveries
         WHERE (organization_id, webhook_id, id) IN (
               SELECT organization_id, webhook_id, id
                 FROM webhook_deliveries
                WHERE at < $1
                LIMIT $2
         )
        "#,
        before,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
