//! The device channel: `GET /device/channel`, a WebSocket (RFC 6455) between agent and server with
//! one JSON text frame per message, `{"type": …, "data": …}`.
//!
//! The server sends `welcome` first, then every command that waits for the device. The agent
//! answers each command with `command_status` frames until one is acknowledged by `command_ack`,
//! and sends a `heartbeat` at least every `heartbeat_seconds`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    device_side::{CommandAck, CommandResult, DeliveredCommand, PolicyResult},
    time::Timestamp,
};

/// The largest frame that the server takes from an agent. A larger result goes by
/// `POST /device/commands/{id}/status`.
pub const MAX_AGENT_FRAME_BYTES: usize = 256 * 1024;

/// The largest body of `POST /device/commands/{id}/status`.
pub const MAX_RESULT_BYTES: usize = 4 * 1024 * 1024;

/// Close codes of the device channel and of the event stream.
pub mod close {
    /// The server is shutting down: reconnect, with jitter.
    pub const GOING_AWAY: u16 = 1001;
    /// A frame could not be understood.
    pub const BAD_MESSAGE: u16 = 4400;
    /// The access token expired: connect with a new one.
    pub const TOKEN_EXPIRED: u16 = 4401;
    /// The session ended, rights were withdrawn, or the device was unenrolled.
    pub const SESSION_ENDED: u16 = 4403;
    /// Nothing was heard for too long.
    pub const SILENT: u16 = 4408;
    /// The other side reads too slowly, or (device channel) a newer channel took this one's place.
    pub const TOO_SLOW: u16 = 4409;
    /// Too many connections.
    pub const TOO_MANY_CONNECTIONS: u16 = 4429;
}

/// What the server sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum ServerFrame {
    /// The first frame.
    Welcome(Welcome),
    /// Do this.
    Command(DeliveredCommand),
    /// Do not begin this; if it has begun, let it end.
    Cancel {
        /// Which command.
        command_id: Uuid,
    },
    /// These destructive commands were handed over and nothing was heard of them. For one that
    /// the journal knows, send its `command_status`. For one that it does not know, note in the
    /// journal that it must never be run, and report it as `failed` with the reason that it never
    /// arrived.
    Reconcile {
        /// Which commands.
        command_ids: Vec<Uuid>,
    },
    /// A `command_status` was taken note of.
    CommandAck(CommandAck),
    /// The effective policies changed: fetch them.
    PoliciesChanged {
        /// Their new revision.
        policy_revision: i64,
    },
    /// Send a check-in now.
    CheckinNow {},
    /// The last frame was not understood; the channel stays open.
    Error {
        /// Stable code.
        code: String,
        /// What was wrong.
        detail: String,
    },
}

/// What the agent sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum AgentFrame {
    /// The device lives.
    Heartbeat {},
    /// What came of a command.
    CommandStatus(CommandResult),
    /// What the device is.
    Inventory {
        /// As in [`CheckinRequest::system_info`](crate::device_side::CheckinRequest::system_info).
        system_info: Value,
    },
    /// What came of policies, at most 500.
    PolicyResults {
        /// Each policy.
        results: Vec<PolicyResult>,
    },
}

/// The first frame of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The device that the server takes the agent for.
    pub device_id: Uuid,
    /// The server's clock.
    pub server_time: Timestamp,
    /// Send a heartbeat at least this often; after twice the time without any frame the server
    /// closes the channel.
    pub heartbeat_seconds: u64,
}
