//! From the outbox into the log: one after another, none left out, none twice.

use mdm_core::Timestamp;
use sqlx::{Connection, PgConnection, PgExecutor};

use crate::error::StoreError;

/// How many events are moved in one transaction.
pub const BATCH: i64 = 1000;

/// Notified with every new head of the log.
pub const HEAD_CHANNEL: &str = "mdm_event_log";

/// Notified when something was committed to the outbox.
pub const WAKE_CHANNEL: &str = "mdm_outbox";

/// The advisory lock that the leader holds. Any number will do that nothing else in the database
/// uses; this one is the text `mdm:evts`.
const LEADER_LOCK: i64 = 0x6d64_6d3a_6576_7473;

/// For how long the database hears nothing of the leader before another node may take over.
const LEADER_SILENCE: &str = "1s";

/// Whether this node moves events into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leadership {
    /// It does, for as long as the connection lives.
    Leader,
    /// Another one does.
    Follower,
}

/// Tries to become the leader. The lock belongs to the connection and ends with it.
///
/// A node that stands still, or that the network has lost, must not keep the lock: the database
/// ends the leader's connection when nothing was heard on it for a second. The leader asks for
/// new events many times in one.
///
/// It only keeps the nodes from working against each other; what keeps the log right is the lock
/// on `stream_head`, also when two hold themselves for the leader.
pub async fn try_lead(conn: &mut PgConnection) -> Result<Leadership, StoreError> {
    let locked = sqlx::query_scalar!(
        r#"
        SELECT pg_try_advisory_lock($1) AS "locked!"
        "#,
        LEADER_LOCK
    )
    .fetch_one(&mut *conn)
    .await?;
    if !locked {
        return Ok(Leadership::Follower);
    }
    sqlx::query!(
        r#"
        SELECT
            set_config('idle_session_timeout', $1, false) AS idle,
            set_config('idle_in_transaction_session_timeout', $1, false) AS in_transaction
        "#,
        LEADER_SILENCE
    )
    .fetch_one(conn)
    .await?;
    Ok(Leadership::Leader)
}

/// Tells the leader, on whichever node, that something was committed to the outbox. To be sent
/// over a connection of its own: a transaction that notifies takes a lock over the whole cluster
/// until its commit is durable.
pub async fn wake_sequencer(executor: impl PgExecutor<'_>) -> Result<(), StoreError> {
    sqlx::query!("SELECT pg_notify('mdm_outbox', '')")
        .execute(executor)
        .await?;
    Ok(())
}

/// Moves the oldest committed events, at most [`BATCH`], into the log, and tells how many.
///
/// The head's row is locked before the outbox is looked at, and each statement sees what was
/// committed before it began: so a second sequencer neither takes a row that the first one moved
/// nor gives an offset that the first one gave.
pub async fn sequence_batch(conn: &mut PgConnection) -> Result<u64, StoreError> {
    let waiting = sqlx::query_scalar!(
        r#"
        SELECT EXISTS (SELECT FROM outbox) AS "waiting!"
        "#
    )
    .fetch_one(&mut *conn)
    .await?;
    if !waiting {
        return Ok(0);
    }
    let mut transaction = conn.begin().await?;
    let head = lock_head(&mut transaction).await?;
    let moved = move_batch(&mut transaction, head).await?;
    if moved > 0 {
        advance_head(&mut transaction, head.saturating_add(moved)).await?;
    }
    transaction.commit().await?;
    Ok(u64::try_from(moved).unwrap_or_default())
}

/// Locks the head, and makes partitions if fewer than two are ahead of it.
async fn lock_head(conn: &mut PgConnection) -> Result<i64, StoreError> {
    let head = sqlx::query!(
        r#"
        SELECT
            "offset",
            partitioned_until
        FROM stream_head
        FOR UPDATE
        "#
    )
    .fetch_one(&mut *conn)
    .await?;
    if head.partitioned_until <= head.offset.saturating_add(2_000_000) {
        sqlx::query!("SELECT event_log_make_partitions()")
            .execute(conn)
            .await?;
    }
    Ok(head.offset)
}

async fn move_batch(conn: &mut PgConnection, head: i64) -> Result<i64, StoreError> {
    let moved = sqlx::query_scalar!(
        r#"
        WITH taken AS (
            DELETE FROM outbox
            WHERE id = ANY (ARRAY(SELECT id FROM outbox ORDER BY id LIMIT $2))
            RETURNING
                id,
                organization_id,
                kind,
                audience,
                device_id,
                group_ids,
                payload,
                created_at
        ),
        logged AS (
            INSERT INTO event_log (
                "offset",
                organization_id,
                kind,
                audience,
                device_id,
                group_ids,
                payload,
                created_at
            )
            SELECT
                $1 + row_number() OVER (ORDER BY id),
                organization_id,
                kind,
                audience,
                device_id,
                group_ids,
                payload,
                created_at
            FROM taken
            RETURNING 1
        )
        SELECT COUNT(*) AS "moved!"
        FROM logged
        "#,
        head,
        BATCH
    )
    .fetch_one(conn)
    .await?;
    Ok(moved)
}

async fn advance_head(conn: &mut PgConnection, head: i64) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        WITH advanced AS (
            UPDATE stream_head
            SET "offset" = $1
            RETURNING "offset"
        )
        SELECT pg_notify('mdm_event_log', "offset"::text)
        FROM advanced
        "#,
        head
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Drops the partitions of which every event is older than `before`, and tells how many.
pub async fn drop_partitions(
    executor: impl PgExecutor<'_>,
    before: Timestamp,
) -> Result<i32, StoreError> {
    let dropped = sqlx::query_scalar!(
        r#"
        SELECT event_log_drop_partitions($1) AS "dropped!"
        "#,
        before
    )
    .fetch_one(executor)
    .await?;
    Ok(dropped)
}
