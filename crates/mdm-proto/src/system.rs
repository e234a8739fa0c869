//! Health and status of the server.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::time::Timestamp;

/// `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `healthy`, `degraded` or `unhealthy`.
    pub status: String,
    /// The server's version.
    pub version: String,
    /// When the components were probed.
    pub timestamp: Timestamp,
    /// `database`, `bus`, `storage`: each probed for this answer.
    pub components: BTreeMap<String, ComponentHealth>,
}

/// One component's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComponentHealth {
    /// `up` or `down`.
    pub status: String,
    /// What the probe found.
    pub message: String,
}

/// `GET /api/v1/websocket/status`. Without a token only the first two fields are given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebSocketStatus {
    /// `running`, or `stopping` while the server drains.
    pub status: String,
    /// Connected subscribers, on all nodes.
    pub connected_clients: u64,
    /// Everything else, for signed-in callers.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<WebSocketDetail>,
}

/// What signed-in callers get of the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebSocketDetail {
    /// Connected agents, on all nodes.
    pub connected_devices: u64,
    /// Events that this node has taken from the log since its start.
    pub events_published: u64,
    /// Frames with events that this node has queued for subscribers.
    pub events_delivered: u64,
    /// Subscribers that were closed because they read too slowly.
    pub slow_consumers_disconnected: u64,
    /// The position before the oldest event that can still be resumed from.
    pub oldest_cursor: String,
    /// The newest event's position.
    pub latest_cursor: String,
    /// The nodes that run.
    pub nodes: Vec<ServerNode>,
}

/// One node of the installation. What it says of itself is at most some seconds old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerNode {
    /// Made anew at each start; the ledger of commands names nodes by it.
    pub id: Uuid,
    /// The node's version.
    pub version: String,
    /// Whether it does what one node is enough for, such as putting events in order.
    pub is_leader: bool,
    /// Subscribers connected to it.
    pub connected_clients: u64,
    /// Agents connected to it.
    pub connected_devices: u64,
    /// Since when it runs.
    pub started_at: Timestamp,
}
