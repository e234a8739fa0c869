//! Reading the log.

use mdm_core::{
    Timestamp,
    events::Audience,
    ids::{DeviceId, GroupId, OrganizationId},
    roles::Role,
};
use mdm_events::{Cursor, Epoch, LogEvent, Record, Subscription};
use serde_json::value::RawValue;
use sqlx::{PgExecutor, types::Json};
use uuid::Uuid;

use super::{signed, unsigned};
use crate::error::StoreError;

/// How much of the log one page looks through: the cost of a page is bounded also where its
/// filters let nothing pass, and the next page goes on from there.
const SCANNED: i64 = 20_000;

struct LogRow {
    offset: i64,
    organization_id: Uuid,
    kind: String,
    audience: i16,
    device_id: Option<Uuid>,
    group_ids: Vec<Uuid>,
    payload: Json<Box<RawValue>>,
    created_at: Timestamp,
}

impl LogRow {
    fn read(self, epoch: Epoch) -> Result<LogEvent, StoreError> {
        Ok(LogEvent::new(Record {
            cursor: epoch.at(unsigned("event_log", self.offset)?),
            organization_id: OrganizationId::from_uuid(self.organization_id),
            // During an upgrade of several nodes a newer one may write kinds and audiences that
            // are not known here. Such an event is for nobody, and must not hold up the others.
            kind: self.kind.parse().ok(),
            audience: Audience::from_code(self.audience).unwrap_or(Audience::Internal),
            device_id: self.device_id.map(DeviceId::from_uuid),
            group_ids: self.group_ids.into_iter().map(GroupId::from_uuid).collect(),
            at: self.created_at,
            payload: self.payload.0,
        }))
    }
}

/// The events after a position, of all organisations, at most `limit`.
pub async fn read_after(
    executor: impl PgExecutor<'_>,
    after: Cursor,
    limit: i64,
) -> Result<Vec<LogEvent>, StoreError> {
    let rows = sqlx::query_as!(
        LogRow,
        r#"
        SELECT
            "offset",
            organization_id,
            kind,
            audience,
            device_id,
            group_ids,
            payload AS "payload: Json<Box<RawValue>>",
            created_at
        FROM event_log
        WHERE "offset" > $1
        ORDER BY "offset"
        LIMIT $2
        "#,
        signed(after.offset),
        limit
    )
    .fetch_all(executor)
    .await?;
    rows.into_iter().map(|row| row.read(after.epoch)).collect()
}

/// What a page is to hold.
#[derive(Debug, Clone, Copy)]
pub struct PageQuery<'a> {
    /// For whom, and what of it.
    pub subscription: &'a Subscription,
    /// After which position.
    pub after: Cursor,
    /// Up to which position, at most the head.
    pub until: u64,
    /// At most how many events.
    pub limit: i64,
}

/// A piece of the log as a subscriber sees it.
#[derive(Debug)]
pub struct Page {
    /// The permitted and wanted events.
    pub events: Vec<LogEvent>,
    /// How far the log was looked through.
    pub next: Cursor,
}

/// Reads the next events that are for a subscription. An empty page whose `next` is before
/// `until` means that there is more to look through.
pub async fn read_page(
    executor: impl PgExecutor<'_>,
    query: PageQuery<'_>,
) -> Result<Page, StoreError> {
    let end = signed(query.until).min(signed(query.after.offset).saturating_add(SCANNED));
    let filters = Lists::of(query.subscription);
    let rows = sqlx::query_as!(
        LogRow,
        r#"
        SELECT
            "offset",
            organization_id,
            kind,
            audience,
            device_id,
            group_ids,
            payload AS "payload: Json<Box<RawValue>>",
            created_at
        FROM event_log
        WHERE "offset" > $1
          AND "offset" <= $2
          AND organization_id = $3
          AND audience <= $4
          AND ($5::text[] = '{}' OR kind = ANY ($5))
          AND ($6::uuid[] = '{}' OR device_id = ANY ($6))
          AND ($7::uuid[] = '{}' OR group_ids && $7)
        ORDER BY "offset"
        LIMIT $8
        "#,
        signed(query.after.offset),
        end,
        query.subscription.organization_id.uuid(),
        highest_audience(query.subscription.role),
        &filters.kinds as &[&str],
        &filters.device_ids,
        &filters.group_ids,
        query.limit
    )
    .fetch_all(executor)
    .await?;
    let full = i64::try_from(rows.len()).is_ok_and(|found| found >= query.limit);
    let last = rows.last().map(|row| row.offset).filter(|_| full);
    let reached = last.unwrap_or(end).max(signed(query.after.offset));
    let events: Result<Vec<_>, _> = rows
        .into_iter()
        .map(|row| row.read(query.after.epoch))
        .collect();
    let mut events = events?;
    events.retain(|event| query.subscription.admits(event));
    Ok(Page {
        events,
        next: query.after.epoch.at(unsigned("event_log", reached)?),
    })
}

/// The event at a place of the log, if it is for a subscription.
pub async fn read_one(
    executor: impl PgExecutor<'_>,
    subscription: &Subscription,
    at: Cursor,
) -> Result<Option<LogEvent>, StoreError> {
    let before = at.epoch.at(at.offset.saturating_sub(1));
    let mut page = read_after(executor, before, 1).await?;
    page.retain(|event| event.cursor() == at && subscription.admits(event));
    Ok(page.pop())
}

/// How many events after a position and up to another are for a subscription.
pub async fn count_after(
    executor: impl PgExecutor<'_>,
    subscription: &Subscription,
    after: u64,
    until: u64,
) -> Result<u64, StoreError> {
    let filters = Lists::of(subscription);
    let known: Vec<&str> = mdm_core::events::EventKind::ALL
        .iter()
        .map(|kind| kind.as_str())
        .collect();
    let count = sqlx::query_scalar!(
        r#"
        SELECT COUNT(*) AS "count!"
        FROM event_log
        WHERE "offset" > $1
          AND "offset" <= $2
          AND organization_id = $3
          AND audience <= $4
          AND kind = ANY ($8::text[])
          AND ($5::text[] = '{}' OR kind = ANY ($5))
          AND ($6::uuid[] = '{}' OR device_id = ANY ($6))
          AND ($7::uuid[] = '{}' OR group_ids && $7)
        "#,
        signed(after),
        signed(until),
        subscription.organization_id.uuid(),
        highest_audience(subscription.role),
        &filters.kinds as &[&str],
        &filters.device_ids,
        &filters.group_ids,
        &known as &[&str]
    )
    .fetch_one(executor)
    .await?;
    unsigned("event_log", count)
}

/// Audiences are numbered so that a role sees what is for it and for the roles below.
const fn highest_audience(role: Role) -> i16 {
    Audience::Role(role).code()
}

struct Lists {
    kinds: Vec<&'static str>,
    device_ids: Vec<Uuid>,
    group_ids: Vec<Uuid>,
}

impl Lists {
    fn of(subscription: &Subscription) -> Self {
        let filters = &subscription.filters;
        Self {
            kinds: filters.kinds().iter().map(|kind| kind.as_str()).collect(),
            device_ids: filters.device_ids().iter().map(|id| id.uuid()).collect(),
            group_ids: filters.group_ids().iter().map(|id| id.uuid()).collect(),
        }
    }
}
