//! The event stream, `GET /api/v1/ws`: one JSON text frame per event or control message.

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::time::Timestamp;

/// An event or a control message. Events have an `id`: the cursor to resume after.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Frame {
    /// The event's cursor; opaque. Within an epoch its text order is the log's order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `device_status_change`, `command_execution`, …, or a control message's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it happened.
    pub timestamp: Timestamp,
    /// Its fields.
    pub data: Value,
}

/// `GET /events`: a piece of the log.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EventPage {
    /// Events in the log's order.
    #[schema(value_type = Vec<Frame>)]
    pub events: Vec<Box<RawValue>>,
    /// Where the next call goes on, also when filters left nothing.
    pub next_cursor: String,
}

/// The `data` of `welcome`, the first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The connection's id, as in the server's log.
    pub connection_id: Uuid,
    /// The position from which live events follow.
    pub cursor: String,
    /// Whether the stream goes on exactly after the cursor that the client gave.
    pub recovered: bool,
    /// How many events were replayed.
    pub replayed: u64,
    /// The interval of heartbeats.
    pub heartbeat_seconds: u64,
    /// When the access token ends, and the connection with it unless it is renewed.
    pub token_expires_at: Timestamp,
}

/// What a subscriber sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum ClientFrame {
    /// Answered by `pong`.
    Ping,
    /// Sets the filters anew; an empty list lets everything through.
    Subscribe(Filters),
    /// Renews the access token in place.
    Authenticate {
        /// The new access token of the same session.
        token: String,
    },
}

/// What a subscriber wants to see.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filters {
    /// Event types.
    #[serde(default)]
    pub types: Vec<String>,
    /// Devices.
    #[serde(default)]
    pub device_ids: Vec<Uuid>,
    /// Groups.
    #[serde(default)]
    pub group_ids: Vec<Uuid>,
}
