//! The nodes that run now: each writes its row every second.

use mdm_core::{Timestamp, ids::NodeId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StoreError;

/// After how many seconds of silence a node counts as gone.
pub(crate) const GONE_AFTER: f64 = 5.0;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Which node.
    pub id: NodeId,
    /// Its version.
    pub version: String,
    /// Whether it leads.
    pub is_leader: bool,
    /// How many subscribers are connected to it.
    pub subscribers: u64,
    /// How many devices have their channel to it.
    pub devices: u64,
    /// Since when it runs.
    pub started_at: Timestamp,
}

struct NodeRow {
    id: Uuid,
    version: String,
    is_leader: bool,
    subscribers: i64,
    devices: i64,
    started_at: Timestamp,
}

/// Writes a node's row.
pub async fn report(conn: &mut PgConnection, node: &Node) -> Result<(), StoreError> {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    sqlx::query!(
        r#"
        INSERT INTO nodes (id, version, is_leader, subscribers, devices, started_at)
        VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (id)
            DO UPDATE SET is_leader = $3, subscribers = $4, devices = $5, seen_at = now()
        "#,
        node.id.uuid(),
        node.version,
        node.is_leader,
        count(node.subscribers),
        count(node.devices),
        node.started_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The nodes that were heard of within the last seconds, the oldest first.
pub async fn list(conn: &mut PgConnection) -> Result<Vec<Node>, StoreError> {
    let rows = sqlx::query_as!(
        NodeRow,
        r#"
        SELECT id,
               version,
               is_leader,
               subscribers,
               devices,
               started_at
          FROM nodes
         WHERE seen_at > now() - make_interval(secs => $1)
         ORDER BY started_at, id
        "#,
        GONE_AFTER
    )
    .fetch_all(conn)
    .await?;
    let count = |field, number: i64| {
        u64::try_from(number).map_err(|_negative| StoreError::corrupt("nodes", field, number))
    };
    let nodes = rows.into_iter().map(|row| {
        Ok(Node {
            id: NodeId::from_uuid(row.id),
            version: row.version,
            is_leader: row.is_leader,
            subscribers: count("subscribers", row.subscribers)?,
            devices: count("devices", row.devices)?,
            started_at: row.started_at,
        })
    });
    nodes.collect()
}

/// Removes a node that stops, and those that have been gone for long.
pub async fn forget(conn: &mut PgConnection, id: NodeId) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        DELETE FROM nodes
         WHERE id = $1
            OR seen_at < now() - interval '1 hour'
        "#,
        id.uuid()
    )
    .execute(conn)
    .await?;
    Ok(())
}
