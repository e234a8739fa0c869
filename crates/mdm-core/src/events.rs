//! Events: what the log tells of, to whom, and with which fields.
//!
//! To add a kind: a variant of [`EventData`] with its fields, its name and audience below, and a
//! line in `docs/events.md`.

use serde::Serialize;
use serde_json::Value;

use crate::{
    Invalid,
    applications::{InstallState, Intent},
    clock::Timestamp,
    commands::{CommandKind, CommandStatus},
    devices::{DeviceStatus, Labels, words},
    ids::{
        ApiKeyId, ApplicationId, CommandId, DeviceId, GroupId, OrganizationId, PolicyId, SessionId,
        UserId, WebhookId,
    },
    licenses::{LicenseState, Tier},
    policies::ComplianceState,
    roles::Role,
};
use std::{fmt, str::FromStr};

use serde::Deserialize;

words! {
    /// The kinds of event.
    EventKind, UnknownEventKind, "event type" {
        /// A device enrolled, came online, went offline, was unenrolled.
        DeviceStatusChange = "device_status_change",
        /// What is known of a device changed.
        DeviceUpdated = "device_updated",
        /// A policy was assigned to a device or group, or no longer is.
        PolicyAssignment = "policy_assignment",
        /// A command moved on.
        CommandExecution = "command_execution",
        /// A device entered or left a group.
        GroupMembership = "group_membership",
        /// Where a device stands towards a policy changed.
        ComplianceChange = "compliance_change",
        /// A policy was made, changed or deleted.
        PolicyChanged = "policy_changed",
        /// An application was uploaded, changed, assigned or deleted.
        ApplicationChanged = "application_changed",
        /// A device said where an application stands on it.
        ApplicationInstall = "application_install",
        /// The license was set, or moved on.
        LicenseChanged = "license_changed",
        /// A user or an API key was made, changed or deleted.
        UserChanged = "user_changed",
        /// A webhook was made, changed, deleted, or disabled because it failed for days.
        WebhookChanged = "webhook_changed",
        /// A session ended: its tokens and sockets end with it. For the nodes, never for clients.
        SessionEnded = "session_ended",
    }
}

/// Who may see an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Audience {
    /// Users of the organisation with at least this role.
    Role(Role),
    /// No client: it is for the server's nodes.
    Internal,
}

impl Audience {
    /// The audience as the database holds it.
    pub const fn code(self) -> i16 {
        match self {
            Self::Role(Role::Viewer) => 1,
            Self::Role(Role::Operator) => 2,
            Self::Role(Role::Admin) => 3,
            Self::Internal => 9,
        }
    }

    /// Reads the database's number.
    pub const fn from_code(code: i16) -> Option<Self> {
        match code {
            1 => Some(Self::Role(Role::Viewer)),
            2 => Some(Self::Role(Role::Operator)),
            3 => Some(Self::Role(Role::Admin)),
            9 => Some(Self::Internal),
            _ => None,
        }
    }

    /// Whether a user of this role may see it.
    pub fn admits(self, role: Role) -> bool {
        match self {
            Self::Role(least) => role >= least,
            Self::Internal => false,
        }
    }
}

/// Whether a policy was assigned or taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AssignmentAction {
    /// It was assigned.
    Assigned,
    /// It was taken away.
    Unassigned,
}

/// Whether a device entered or left a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MembershipAction {
    /// It entered.
    Added,
    /// It left.
    Removed,
}

/// What made a device a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MembershipSource {
    /// A person.
    Manual,
    /// The group's filters.
    Filter,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectAction {
    /// It was made.
    Created,
    /// It was changed.
    Updated,
    /// It was deleted.
    Deleted,
    /// It was assigned to a device or group.
    Assigned,
    /// It is assigned no longer.
    Unassigned,
    /// The server stopped using it.
    Disabled,
}

/// What happened, with the fields that clients get as `data`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum EventData {
    /// See [`EventKind::DeviceStatusChange`].
    DeviceStatusChange {
        /// Which device.
        device_id: DeviceId,
        /// Where it stood; the empty text at its enrolment.
        #[serde(serialize_with = "status_or_empty")]
        old_status: Option<DeviceStatus>,
        /// Where it stands.
        new_status: DeviceStatus,
    },
    /// See [`EventKind::DeviceUpdated`].
    DeviceUpdated {
        /// Which device.
        device_id: DeviceId,
        /// Its name.
        hostname: String,
        /// Its operating system's version.
        os_version: Option<String>,
        /// Its labels.
        labels: Labels,
        /// The count of its changes.
        version: i64,
    },
    /// See [`EventKind::PolicyAssignment`].
    PolicyAssignment {
        /// Which policy.
        policy_id: PolicyId,
        /// To which device, if to a device.
        #[serde(skip_serializing_if = "Option::is_none")]
        device_id: Option<DeviceId>,
        /// To which group, if to a group.
        #[serde(skip_serializing_if = "Option::is_none")]
        group_id: Option<GroupId>,
        /// Which of the two.
        action: AssignmentAction,
    },
    /// See [`EventKind::CommandExecution`].
    CommandExecution {
        /// Which command.
        command_id: CommandId,
        /// On which device.
        device_id: DeviceId,
        /// What was to be done.
        command: CommandKind,
        /// Where it stands now.
        status: CommandStatus,
        /// What the device answered. Viewers do not get it.
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<Value>,
    },
    /// See [`EventKind::GroupMembership`].
    GroupMembership {
        /// Which group.
        group_id: GroupId,
        /// Which device.
        device_id: DeviceId,
        /// Which of the two.
        action: MembershipAction,
        /// By what.
        source: MembershipSource,
    },
    /// See [`EventKind::ComplianceChange`].
    ComplianceChange {
        /// Which policy.
        policy_id: PolicyId,
        /// Which device.
        device_id: DeviceId,
        /// Where it stood.
        old_state: ComplianceState,
        /// Where it stands.
        new_state: ComplianceState,
    },
    /// See [`EventKind::PolicyChanged`].
    PolicyChanged {
        /// Which policy.
        policy_id: PolicyId,
        /// What became of it.
        action: ObjectAction,
        /// What people call it.
        name: String,
        /// Whether it counts.
        enabled: bool,
        /// The count of its changes.
        version: i64,
    },
    /// See [`EventKind::ApplicationChanged`].
    ApplicationChanged {
        /// Which application.
        application_id: ApplicationId,
        /// What became of it.
        action: ObjectAction,
        /// What people call it.
        name: String,
        /// Which version of it the package holds.
        version: String,
        /// The device that it was assigned to, if it was one.
        #[serde(skip_serializing_if = "Option::is_none")]
        device_id: Option<DeviceId>,
        /// The group that it was assigned to, if it was one.
        #[serde(skip_serializing_if = "Option::is_none")]
        group_id: Option<GroupId>,
        /// What the assignment wants.
        #[serde(skip_serializing_if = "Option::is_none")]
        intent: Option<Intent>,
    },
    /// See [`EventKind::ApplicationInstall`].
    ApplicationInstall {
        /// Which application.
        application_id: ApplicationId,
        /// On which device.
        device_id: DeviceId,
        /// Where it stands.
        state: InstallState,
        /// Why it failed, if it did.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// See [`EventKind::LicenseChanged`].
    LicenseChanged {
        /// What was bought.
        tier: Tier,
        /// Where it stands; without a key always valid.
        state: LicenseState,
        /// How many devices may be enrolled.
        device_limit: Option<i64>,
        /// When it ends.
        expires_at: Option<Stamp>,
    },
    /// See [`EventKind::UserChanged`].
    UserChanged {
        /// Which user, or whose key.
        user_id: UserId,
        /// Which key, if it is about one.
        #[serde(skip_serializing_if = "Option::is_none")]
        api_key_id: Option<ApiKeyId>,
        /// What became of it.
        action: ObjectAction,
        /// What the user or the key may do.
        role: Role,
        /// Whether the user was closed out.
        disabled: bool,
    },
    /// See [`EventKind::WebhookChanged`].
    WebhookChanged {
        /// Which webhook.
        webhook_id: WebhookId,
        /// What became of it.
        action: ObjectAction,
        /// What people call it.
        name: String,
        /// Whether it gets events.
        enabled: bool,
        /// Why the server disabled it.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// See [`EventKind::SessionEnded`].
    SessionEnded {
        /// Which session.
        session_id: SessionId,
    },
}

/// A moment as the API writes it: RFC 3339 with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(pub Timestamp);

impl Serialize for Stamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.0.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        serializer.serialize_str(&text)
    }
}

#[expect(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference to the field"
)]
fn status_or_empty<S: serde::Serializer>(
    status: &Option<DeviceStatus>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(status.map_or("", DeviceStatus::as_str))
}

/// An event as a use case appends it, in the transaction of the change that it tells of.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// Whose event it is.
    pub organization_id: OrganizationId,
    /// What happened.
    pub data: EventData,
}

impl NewEvent {
    /// An event of the organisation.
    pub const fn new(organization_id: OrganizationId, data: EventData) -> Self {
        Self {
            organization_id,
            data,
        }
    }
}

impl EventData {
    /// The event's kind.
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::DeviceStatusChange { .. } => EventKind::DeviceStatusChange,
            Self::DeviceUpdated { .. } => EventKind::DeviceUpdated,
            Self::PolicyAssignment { .. } => EventKind::PolicyAssignment,
            Self::CommandExecution { .. } => EventKind::CommandExecution,
            Self::GroupMembership { .. } => EventKind::GroupMembership,
            Self::ComplianceChange { .. } => EventKind::ComplianceChange,
            Self::PolicyChanged { .. } => EventKind::PolicyChanged,
            Self::ApplicationChanged { .. } => EventKind::ApplicationChanged,
            Self::ApplicationInstall { .. } => EventKind::ApplicationInstall,
            Self::LicenseChanged { .. } => EventKind::LicenseChanged,
            Self::UserChanged { .. } => EventKind::UserChanged,
            Self::WebhookChanged { .. } => EventKind::WebhookChanged,
            Self::SessionEnded { .. } => EventKind::SessionEnded,
        }
    }

    /// Who may see it.
    pub const fn audience(&self) -> Audience {
        match self {
            Self::SessionEnded { .. } => Audience::Internal,
            Self::LicenseChanged { .. }
            | Self::UserChanged { .. }
            | Self::WebhookChanged { .. } => Audience::Role(Role::Admin),
            _ => Audience::Role(Role::Viewer),
        }
    }

    /// The device that it is about, for subscribers that follow one.
    pub const fn device_id(&self) -> Option<DeviceId> {
        match self {
            Self::DeviceStatusChange { device_id, .. }
            | Self::DeviceUpdated { device_id, .. }
            | Self::CommandExecution { device_id, .. }
            | Self::ComplianceChange { device_id, .. }
            | Self::ApplicationInstall { device_id, .. }
            | Self::GroupMembership { device_id, .. } => Some(*device_id),
            Self::PolicyAssignment { device_id, .. }
            | Self::ApplicationChanged { device_id, .. } => *device_id,
            Self::PolicyChanged { .. }
            | Self::LicenseChanged { .. }
            | Self::UserChanged { .. }
            | Self::WebhookChanged { .. }
            | Self::SessionEnded { .. } => None,
        }
    }

    /// The group that it is about, for subscribers that follow one.
    pub const fn group_id(&self) -> Option<GroupId> {
        match self {
            Self::GroupMembership { group_id, .. } => Some(*group_id),
            Self::PolicyAssignment { group_id, .. } | Self::ApplicationChanged { group_id, .. } => {
                *group_id
            }
            _ => None,
        }
    }
}

impl EventKind {
    /// Reads the name of a kind that clients can get.
    pub fn parse_public(name: &str) -> Option<Self> {
        let kind: Self = name.parse().ok()?;
        (kind != Self::SessionEnded).then_some(kind)
    }

    /// What is said of a name that is none of theirs.
    pub fn unknown(pointer: &str) -> Invalid {
        let known: Vec<_> = Self::ALL
            .iter()
            .filter_map(|kind| Self::parse_public(kind.as_str()))
            .map(Self::as_str)
            .collect();
        let detail = format!("unknown event type; known are: {}", known.join(", "));
        Invalid::new(pointer, "UNKNOWN_EVENT_TYPE", detail)
    }

    /// The fields of `data` that users below operator do not get.
    pub const fn operator_fields(self) -> &'static [&'static str] {
        match self {
            Self::CommandExecution => &["result"],
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn an_enrolment_has_an_empty_old_status() {
        let data = EventData::DeviceStatusChange {
            device_id: DeviceId::from_uuid(Uuid::nil()),
            old_status: None,
            new_status: DeviceStatus::Enrolled,
        };
        let json = serde_json::to_string(&data).unwrap();
        assert_eq!(
            json,
            r#"{"device_id":"00000000-0000-0000-0000-000000000000","old_status":"","new_status":"enrolled"}"#
        );
    }

    #[test]
    fn internal_events_are_for_no_role() {
        assert!(
            Role::ALL
                .iter()
                .all(|role| !Audience::Internal.admits(*role))
        );
    }

    #[test]
    fn audiences_survive_the_database() {
        for audience in [
            Audience::Role(Role::Viewer),
            Audience::Role(Role::Operator),
            Audience::Role(Role::Admin),
            Audience::Internal,
        ] {
            assert_eq!(Audience::from_code(audience.code()), Some(audience));
        }
    }
}
