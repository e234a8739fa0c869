//! What the device itself calls, with its device token.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    devices::Software,
    policies::{EffectiveSetting, RuleResult},
    time::Timestamp,
};

/// `POST /device/checkin`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckinRequest {
    /// The operating system's version, if it changed or was never told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// What the device is, if it changed: an object of at most 64 KiB, usually
    /// [`SystemInfo`](crate::inventory::SystemInfo).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_info: Option<Value>,
    /// What came of policies, at most 500.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_results: Vec<PolicyResult>,
    /// What is installed, if it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
    /// What came of commands, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command_results: Vec<CommandResult>,
}

impl CheckinRequest {
    /// Whether the device has anything to say but that it is there.
    pub fn has_news(&self) -> bool {
        self.os_version.is_some()
            || self.system_info.is_some()
            || self.inventory.is_some()
            || !self.policy_results.is_empty()
            || !self.command_results.is_empty()
    }
}

/// What came of one command. Also the channel's `command_status` frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandResult {
    /// Which command.
    pub command_id: Uuid,
    /// `running`, `completed`, `failed` or `unknown` (a destructive command that a crash
    /// interrupted).
    pub status: String,
    /// What the device answers: at most 4 MiB by HTTP, 256 KiB by the channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `POST /device/commands/{id}/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandStatusReport {
    /// As in [`CommandResult`].
    pub status: String,
    /// As in [`CommandResult`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// As in [`CommandResult`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The server has taken note of a [`CommandResult`], or says why it never will. Either way the
/// agent need not send it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandAck {
    /// Which command.
    pub command_id: Uuid,
    /// The status that was reported.
    pub status: String,
    /// Whether it was taken over into the ledger (a repetition counts as taken).
    pub accepted: bool,
    /// Why not, as a stable code: `COMMAND_NOT_FOUND`, `COMMAND_ENDED`, `INVALID_TRANSITION`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// A command as the device gets it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeliveredCommand {
    /// Its id: what the agent's journal knows it by.
    pub id: Uuid,
    /// What is to be done.
    pub command: String,
    /// With what; an object.
    pub parameters: Value,
    /// Commands of one lane run in the order of delivery; lanes do not wait for each other.
    pub lane: String,
    /// Not to be begun after this moment.
    pub expires_at: Timestamp,
    /// Counts the deliveries, from 1.
    pub attempt: i64,
}

/// The answer to a check-in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckinResponse {
    /// What is to be done, in order.
    pub commands: Vec<DeliveredCommand>,
    /// One for each of the request's `command_results`.
    #[serde(default)]
    pub command_acks: Vec<CommandAck>,
    /// Destructive commands that were handed over and of which nothing was heard; see
    /// [`ServerFrame::Reconcile`](crate::channel::ServerFrame::Reconcile).
    #[serde(default)]
    pub reconcile: Vec<Uuid>,
    /// Changes when the device's effective policies change.
    pub policy_revision: i64,
    /// When to check in again. Already jittered.
    pub next_checkin_seconds: i64,
    /// The server's clock.
    pub server_time: Timestamp,
}

/// What a device found of one policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyResult {
    /// Which policy.
    pub policy_id: Uuid,
    /// Which version of it was looked at.
    pub policy_version: i64,
    /// When.
    pub observed_at: Timestamp,
    /// What came of each rule.
    pub rules: Vec<RuleResult>,
}

/// What a device has beside its hardware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// When it was looked at.
    pub observed_at: Timestamp,
    /// All installed software, at most 20,000.
    pub software: Vec<Software>,
}

/// A policy as its device gets it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DevicePolicy {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its version: results name it.
    pub version: i64,
    /// What it asks for.
    pub configuration: Value,
}

/// `GET /device/policies`: what counts on this device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DevicePolicies {
    /// Changes whenever anything here does.
    pub policy_revision: i64,
    /// Each policy.
    pub policies: Vec<DevicePolicy>,
    /// What counts for each setting when the policies are put together.
    pub settings: std::collections::BTreeMap<String, EffectiveSetting>,
}
