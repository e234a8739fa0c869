//! The event stream, `GET /api/v1/ws`: one JSON text frame per event or control message.

use std::collections::BTreeMap;

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

impl Frame {
    /// The event with its fields; none for control frames, and for types that this version does not
    /// know.
    pub fn event(&self) -> Option<Event> {
        self.id.as_ref()?;
        let tagged = serde_json::json!({ "type": self.kind, "data": self.data });
        serde_json::from_value(tagged).ok()
    }
}

/// An event's type and fields, as `docs/events.md` tells them. Fields that a later version adds are
/// passed over.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A device enrolled, came online, went offline, was unenrolled.
    DeviceStatusChange(DeviceStatusChange),
    /// What is known of a device changed.
    DeviceUpdated(DeviceUpdated),
    /// A command moved on.
    CommandExecution(CommandExecution),
    /// A policy was assigned, or no longer is.
    PolicyAssignment(PolicyAssignment),
    /// A device came into a group or left it.
    GroupMembership(GroupMembership),
    /// A policy was made, changed or deleted.
    PolicyChanged(PolicyChanged),
    /// Where a device stands towards a policy changed.
    ComplianceChange(ComplianceChange),
    /// An application was uploaded, changed, assigned or deleted.
    ApplicationChanged(ApplicationChanged),
    /// Where an application stands on a device changed.
    ApplicationInstall(ApplicationInstall),
    /// The license was set, or moved on. For administrators.
    LicenseChanged(LicenseChanged),
    /// A user or an API key was made, changed or deleted. For administrators.
    UserChanged(UserChanged),
    /// A webhook was made, changed, deleted or disabled. For administrators.
    WebhookChanged(WebhookChanged),
}

/// Makes the structs of the events' fields.
macro_rules! events {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Deserialize)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind,)+
        }
    )+};
}

events! {
    /// `device_status_change`.
    DeviceStatusChange {
        /// Which device.
        device_id: Uuid,
        /// Where it stood; empty at its enrolment.
        old_status: String,
        /// Where it stands.
        new_status: String,
    }
    /// `device_updated`.
    DeviceUpdated {
        /// Which device.
        device_id: Uuid,
        /// Its name.
        hostname: String,
        /// Its operating system's version.
        os_version: Option<String>,
        /// Its labels.
        labels: BTreeMap<String, String>,
        /// The count of its changes.
        version: i64,
    }
    /// `command_execution`.
    CommandExecution {
        /// Which command.
        command_id: Uuid,
        /// On which device.
        device_id: Uuid,
        /// What was to be done.
        command: String,
        /// Where it stands.
        status: String,
        /// What the device answered; not for viewers, and not if it is larger than 32 KiB.
        result: Option<Value>,
    }
    /// `policy_assignment`: to a device or to a group.
    PolicyAssignment {
        /// Which policy.
        policy_id: Uuid,
        /// The device.
        device_id: Option<Uuid>,
        /// The group.
        group_id: Option<Uuid>,
        /// `assigned` or `unassigned`.
        action: String,
    }
    /// `group_membership`.
    GroupMembership {
        /// Which group.
        group_id: Uuid,
        /// Which device.
        device_id: Uuid,
        /// `added` or `removed`.
        action: String,
        /// `manual` or `filter`.
        source: String,
    }
    /// `policy_changed`.
    PolicyChanged {
        /// Which policy.
        policy_id: Uuid,
        /// `created`, `updated` or `deleted`.
        action: String,
        /// What people call it.
        name: String,
        /// Whether it counts.
        enabled: bool,
        /// The count of its changes.
        version: i64,
    }
    /// `compliance_change`.
    ComplianceChange {
        /// Which policy.
        policy_id: Uuid,
        /// Which device.
        device_id: Uuid,
        /// Where it stood.
        old_state: String,
        /// Where it stands.
        new_state: String,
    }
    /// `application_changed`.
    ApplicationChanged {
        /// Which application.
        application_id: Uuid,
        /// `created`, `updated`, `deleted`, `assigned` or `unassigned`.
        action: String,
        /// What people call it.
        name: String,
        /// Which version of it.
        version: String,
        /// Of an assignment to a device, the device.
        device_id: Option<Uuid>,
        /// Of an assignment to a group, the group.
        group_id: Option<Uuid>,
        /// Of an assignment, what it wants.
        intent: Option<String>,
    }
    /// `application_install`.
    ApplicationInstall {
        /// Which application.
        application_id: Uuid,
        /// On which device.
        device_id: Uuid,
        /// Where it stands.
        state: String,
        /// Why it failed, if it did.
        error: Option<String>,
    }
    /// `license_changed`.
    LicenseChanged {
        /// What was bought.
        tier: String,
        /// Where it stands.
        state: String,
        /// How many devices may be enrolled; any number if absent.
        device_limit: Option<i64>,
        /// When it ends.
        expires_at: Option<Timestamp>,
    }
    /// `user_changed`.
    UserChanged {
        /// Which user, or whose key.
        user_id: Uuid,
        /// Which key, if it is about one.
        api_key_id: Option<Uuid>,
        /// `created`, `updated` or `deleted`.
        action: String,
        /// What the user or the key may do.
        role: String,
        /// Whether the user was closed out.
        disabled: bool,
    }
    /// `webhook_changed`.
    WebhookChanged {
        /// Which webhook.
        webhook_id: Uuid,
        /// `created`, `updated`, `deleted` or `disabled`.
        action: String,
        /// What people call it.
        name: String,
        /// Whether it gets events.
        enabled: bool,
        /// Why the server disabled it.
        reason: Option<String>,
    }
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
