//! The event log: use cases append to `outbox` in their own transaction, the sequencer gives what
//! was committed its place in `event_log`, and everything else reads there.

mod listen;
mod read;
mod sequence;

pub use listen::{Heard, Listener, connect_alone, in_time};
use mdm_core::{
    Timestamp,
    events::NewEvent,
    ids::{DeviceId, GroupId},
};
use mdm_events::Cursor;
pub use read::{Page, PageQuery, count_after, read_after, read_one, read_page};
pub use sequence::{
    BATCH, HEAD_CHANNEL, Leadership, WAKE_CHANNEL, drop_partitions, sequence_batch, try_lead,
    wake_sequencer,
};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use crate::error::StoreError;

/// Appends an event, in the transaction of the change that it tells of.
pub async fn append(
    conn: &mut PgConnection,
    now: Timestamp,
    event: &NewEvent,
) -> Result<(), StoreError> {
    append_all(conn, now, std::slice::from_ref(event)).await
}

/// Appends events, in the transaction of the change that they tell of. They come into the log in
/// this order; events of other transactions may come in between. An event about a device is also
/// one about the groups that the device is in now: callers hold the device's lock.
pub async fn append_all(
    conn: &mut PgConnection,
    now: Timestamp,
    events: &[NewEvent],
) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let rows = OutboxRows::of(events)?;
    sqlx::query!(
        r#"
        INSERT INTO outbox (
            organization_id,
            kind,
            audience,
            device_id,
            group_ids,
            payload,
            created_at
        )
        SELECT
            new.organization_id,
            new.kind,
            new.audience,
            new.device_id,
            ARRAY(
                SELECT members.group_id
                FROM group_members AS members
                WHERE members.organization_id = new.organization_id
                  AND members.device_id = new.device_id
                UNION
                SELECT new.group_id
                WHERE new.group_id IS NOT NULL
            ),
            new.payload::json,
            $7
        FROM UNNEST($1::uuid[], $2::text[], $3::smallint[], $4::uuid[], $5::uuid[], $6::text[])
            WITH ORDINALITY
            AS new (organization_id, kind, audience, device_id, group_id, payload, place)
        ORDER BY new.place
        "#,
        &rows.organization_ids,
        &rows.kinds as &[&str],
        &rows.audiences,
        &rows.device_ids as &[Option<Uuid>],
        &rows.group_ids as &[Option<Uuid>],
        &rows.payloads,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

#[derive(Default)]
struct OutboxRows {
    organization_ids: Vec<Uuid>,
    kinds: Vec<&'static str>,
    audiences: Vec<i16>,
    device_ids: Vec<Option<Uuid>>,
    group_ids: Vec<Option<Uuid>>,
    payloads: Vec<String>,
}

impl OutboxRows {
    fn of(events: &[NewEvent]) -> Result<Self, StoreError> {
        let mut rows = Self::default();
        for event in events {
            let data = &event.data;
            rows.organization_ids.push(event.organization_id.uuid());
            rows.kinds.push(data.kind().as_str());
            rows.audiences.push(data.audience().code());
            rows.device_ids.push(data.device_id().map(DeviceId::uuid));
            rows.group_ids.push(data.group_id().map(GroupId::uuid));
            rows.payloads.push(serde_json::to_string(data)?);
        }
        Ok(rows)
    }
}

/// The newest position of the log.
///
/// Its epoch is a hash of the stream, the cluster, and the timeline: a fail-over or a recovery to
/// a point in time makes a new timeline, after which offsets may be given a second time. The
/// timeline is taken from the name of the current WAL file because it changes there at once, in
/// the control file only with the next checkpoint.
pub async fn head(executor: impl PgExecutor<'_>) -> Result<Cursor, StoreError> {
    let row = sqlx::query!(
        r#"
        SELECT
            stream,
            "offset",
            (SELECT system_identifier FROM pg_control_system()) AS "system!",
            left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) AS "timeline!"
        FROM stream_head
        "#
    )
    .fetch_one(executor)
    .await?;
    let mut hash = Sha256::new();
    hash.update(row.stream.as_bytes());
    hash.update(row.system.to_be_bytes());
    hash.update(row.timeline.as_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let bits = hash
        .first_chunk()
        .map_or(0, |first| u64::from_be_bytes(*first));
    Ok(mdm_events::Epoch::from_bits(bits).at(unsigned("stream_head", row.offset)?))
}

/// The stream's id: the same on all nodes of an installation, and for its whole life.
pub async fn stream_id(executor: impl PgExecutor<'_>) -> Result<Uuid, StoreError> {
    let stream = sqlx::query_scalar!("SELECT stream FROM stream_head")
        .fetch_one(executor)
        .await?;
    Ok(stream)
}

/// The offset before the oldest event that is kept.
pub async fn oldest(executor: impl PgExecutor<'_>) -> Result<u64, StoreError> {
    let offset = sqlx::query_scalar!(
        r#"
        SELECT
            COALESCE(
                (SELECT MIN("offset") - 1 FROM event_log),
                (SELECT "offset" FROM stream_head)
            ) AS "offset!"
        "#
    )
    .fetch_one(executor)
    .await?;
    unsigned("event_log", offset)
}

/// How many events wait for their place in the log, as far as it is worth counting.
pub async fn waiting(executor: impl PgExecutor<'_>) -> Result<u64, StoreError> {
    let waiting = sqlx::query_scalar!(
        r#"
        SELECT COUNT(*) AS "waiting!"
        FROM (SELECT FROM outbox LIMIT 10000) AS counted
        "#
    )
    .fetch_one(executor)
    .await?;
    unsigned("outbox", waiting)
}

fn unsigned(table: &'static str, offset: i64) -> Result<u64, StoreError> {
    u64::try_from(offset).map_err(|_negative| StoreError::corrupt(table, "offset", offset))
}

/// An offset as the database takes it. No log reaches the limit.
fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
