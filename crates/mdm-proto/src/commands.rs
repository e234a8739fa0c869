//! Commands, as operators see them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{lists::list, time::Timestamp};

/// `POST /devices/{id}/commands`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendCommand {
    /// `system_info, collect_logs, run_script, run_osquery, install_app, uninstall_app, lock,
    /// restart, shutdown, wipe, refresh_inventory` or `apply_policies`.
    pub command: String,
    /// What the command needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// How long it waits for its device: 1 to 2,592,000 seconds (30 days), by default 7 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<i64>,
    /// What goes first in the lane: -100 to 100, higher first, by default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
}

/// A command in the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Command {
    /// Its id.
    pub id: Uuid,
    /// The device that it is for.
    pub device_id: Uuid,
    /// What is to be done.
    pub command: String,
    /// With what.
    pub parameters: Value,
    /// `pending`, `sent`, `running`, `completed`, `failed`, `expired`, `cancelled` or `unknown`.
    pub status: String,
    /// What the device answered. Not for viewers.
    pub result: Option<Value>,
    /// Why it failed or ended otherwise.
    pub error: Option<String>,
    /// Who sent it.
    pub created_by: Option<Uuid>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it was first handed to the device.
    pub sent_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// When it ends if nothing else ends it.
    pub expires_at: Timestamp,
    /// What goes first in the lane.
    pub priority: i64,
    /// The lane whose order it keeps: `control`, `query`, `software` or `script`.
    pub lane: String,
    /// How often it was handed to the device.
    pub attempts: i64,
    /// The batch that it belongs to, if it was sent to many.
    #[serde(default)]
    pub batch_id: Option<Uuid>,
    /// Every step of its life; given by `GET /commands/{id}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transitions: Option<Vec<CommandTransition>>,
}

impl Command {
    /// Whether the command has come to its end.
    pub fn has_ended(&self) -> bool {
        !matches!(self.status.as_str(), "pending" | "sent" | "running")
    }
}

/// One step of a command's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandTransition {
    /// Where it came to.
    pub status: String,
    /// When.
    pub at: Timestamp,
    /// The server node that wrote it.
    pub node: String,
    /// Who or what moved it.
    pub cause: String,
}

/// `POST /devices/{id}/osquery`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OsqueryRequest {
    /// One `SELECT` over the device's tables, of at most 16 KiB.
    pub query: String,
    /// How long to wait for the device: 1 to 60 seconds, by default 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
}

/// What a query gave. As `result` of the command `run_osquery` and as answer to
/// `POST /devices/{id}/osquery`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OsqueryResult {
    /// The query that ran.
    pub query: String,
    /// The columns, in the query's order.
    pub columns: Vec<String>,
    /// The rows, each with its columns by name.
    pub rows: Vec<Map<String, Value>>,
    /// How long it took on the device.
    pub duration_ms: u64,
}

list! {
    /// `GET /commands` and `GET /devices/{id}/commands`: a page of commands, newest first.
    CommandList { commands: Command }
}

/// `POST /commands`: one command to many devices.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendToMany {
    /// As in [`SendCommand`].
    pub command: String,
    /// As in [`SendCommand`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// As in [`SendCommand`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<i64>,
    /// As in [`SendCommand`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// To which devices.
    pub targets: Targets,
}

/// Which devices are meant: exactly one of the three.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// These: 1 to 10,000, by the server's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_ids: Option<Vec<Uuid>>,
    /// The members of this group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<Uuid>,
    /// Those that meet these conditions, as in a group's `filters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
}

/// One command to many devices, and how far it has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CommandBatch {
    /// Its id.
    pub id: Uuid,
    /// What is to be done.
    pub command: String,
    /// With what.
    pub parameters: Value,
    /// Whether every device that was meant has got its command.
    pub expanded: bool,
    /// How many commands there are.
    pub total: i64,
    /// Devices that were meant and took no command: unenrolled, unknown, or with too many waiting.
    pub skipped: i64,
    /// How many commands stand where; each state is there, also with 0.
    pub counts: std::collections::BTreeMap<String, i64>,
    /// Who sent it.
    pub created_by: Option<Uuid>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its commands end if nothing else ends them.
    pub expires_at: Timestamp,
}

impl CommandBatch {
    /// How many of its commands have not come to their end.
    pub fn open(&self) -> i64 {
        let open = ["pending", "sent", "running"];
        let counts = open.iter().filter_map(|state| self.counts.get(*state));
        counts.sum()
    }

    /// Whether every command of the batch has come to its end.
    pub fn has_ended(&self) -> bool {
        self.expanded && self.open() == 0
    }
}
