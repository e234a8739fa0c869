//! Policies, their assignment, and compliance.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    lists::{ListPage, Page, list},
    patch::Patch,
    time::Timestamp,
};

/// `POST /policies`. Clients of the older API send `type` and `rules`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePolicy {
    /// What people call it: 1 to 200 characters. Need not be unique.
    pub name: String,
    /// What people say of it: at most 2,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `windows`, `macos`, `linux`, `ios`, `android`, or `all`, the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Whether it counts; by default it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// What it asks for: settings of `GET /policy-settings` by name, and `checks`, a list of
    /// `{"name", "query", "remediation"?}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Value>,
    /// The older API's name for `configuration`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Value>,
    /// A tag, at most 100 characters. Nothing depends on it.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// `PUT /policies/{id}`: the fields to change.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdatePolicy {
    /// A new name; it cannot be cleared.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub name: Patch<String>,
    /// A new description.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub description: Patch<String>,
    /// Another platform.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub platform: Patch<String>,
    /// Whether it counts.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<bool>)]
    pub enabled: Patch<bool>,
    /// All that it asks for, anew; `null` clears it.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<Object>)]
    pub configuration: Patch<Value>,
    /// The older API's name for `configuration`.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<Object>)]
    pub rules: Patch<Value>,
    /// Another tag.
    #[serde(default, rename = "type", skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub kind: Patch<String>,
}

/// What devices must be like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Policy {
    /// Its id.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// What people say of it.
    pub description: Option<String>,
    /// Which devices it is for; `all` for every platform.
    pub platform: String,
    /// A tag.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Whether it counts.
    pub enabled: bool,
    /// What it asks for.
    pub configuration: Value,
    /// Counts its changes; the `ETag` in numbers.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

list! {
    /// `GET /policies`: a page of policies.
    PolicyList { policies: Policy }
}

/// One setting of the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicySetting {
    /// Its name in configurations.
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// What it asks for.
    pub description: String,
    /// The value's JSON Schema (draft 2020-12).
    pub schema: Value,
    /// What is counted, for numbers.
    pub unit: Option<String>,
    /// The platforms that it makes sense on.
    pub platforms: Vec<String>,
    /// What a form may offer first.
    pub default: Value,
    /// Which value wins if policies differ: `true`, `false`, `highest`, `lowest`, `newest`, or
    /// `union` (all names of all lists).
    pub strictest: String,
    /// How a device checks it, by platform. A platform that is not here has no agent that checks
    /// it: the compliance of its devices stays `pending`.
    pub checked: BTreeMap<String, String>,
    /// How it is put into effect; none: it is checked only.
    pub enforced: Option<String>,
}

/// `GET /policy-settings`: the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicySettings {
    /// Every setting, by name.
    pub settings: Vec<PolicySetting>,
}

/// To which devices something is assigned: exactly one of the first two, by the server's id or the
/// hardware's.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignToDevices {
    /// One device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// At most 1,000 devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_ids: Option<Vec<String>>,
    /// For applications only: `install` (the default), `available` or `uninstall`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<String>,
}

/// To which groups something is assigned: exactly one of the first two.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignToGroups {
    /// One group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<Uuid>,
    /// At most 1,000 groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_ids: Option<Vec<Uuid>>,
    /// For applications only: `install` (the default), `available` or `uninstall`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<String>,
}

/// The answer to an assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Assigned {
    /// The policy, if it is one that was assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<Uuid>,
    /// The application, if it is one that was assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_id: Option<Uuid>,
    /// The device, if one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<Uuid>,
    /// The group, if one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<Uuid>,
    /// What is newly assigned to; who had it already is passed over when several are named.
    pub assigned: Vec<Uuid>,
}

/// A device or group that something is assigned to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Assignment {
    /// The device, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<Uuid>,
    /// The group, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<Uuid>,
    /// The device's hostname or the group's name.
    pub name: String,
    /// For applications: what is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<String>,
    /// Since when.
    pub assigned_at: Timestamp,
}

list! {
    /// `GET /policies/{id}/devices`, `GET /policies/{id}/groups`, and likewise for applications.
    AssignmentList { assignments: Assignment }
}

/// How something came to a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Path {
    /// `direct` or `group`.
    pub via: String,
    /// The group, if it came by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<Uuid>,
    /// The group's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_name: Option<String>,
}

/// What a device said of one rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleResult {
    /// A setting's name, or `check:` with the name of a check.
    pub rule: String,
    /// `passed`, `failed`, `error` or `not_applicable`.
    pub state: String,
    /// What the device found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<Value>,
    /// What there is to say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Where a device stands towards a policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Compliance {
    /// `compliant`, `non_compliant`, `pending`, `error` or `not_applicable`.
    pub state: String,
    /// What the device said of each rule; none if it has not said anything of this version.
    pub rules: Vec<RuleResult>,
    /// When the device looked.
    pub observed_at: Option<Timestamp>,
}

/// A policy that counts on a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EffectivePolicy {
    /// The policy.
    #[serde(flatten)]
    pub policy: Policy,
    /// How it came to the device.
    pub paths: Vec<Path>,
    /// Where the device stands.
    pub compliance: Compliance,
}

/// What counts on a device for one setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EffectiveSetting {
    /// The value that counts: the strictest.
    pub value: Value,
    /// The policies that ask for it.
    pub policy_ids: Vec<Uuid>,
    /// Those that ask for less.
    pub overruled: Vec<OverruledSetting>,
}

/// A policy that asks for less than another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OverruledSetting {
    /// Which policy.
    pub policy_id: Uuid,
    /// What it asks for.
    pub value: Value,
}

/// `GET /devices/{id}/policies`: what counts on a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EffectivePolicies {
    /// Which device.
    pub device_id: Uuid,
    /// The device's state over all of them: the worst.
    pub compliance: String,
    /// Each policy.
    pub policies: Vec<EffectivePolicy>,
    /// What counts for each setting when the policies are put together.
    pub settings: BTreeMap<String, EffectiveSetting>,
    /// Changes whenever anything here but compliance does.
    pub policy_revision: i64,
    /// How many policies there are.
    pub total: i64,
}

/// Where one device stands, in a list of a policy's devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceCompliance {
    /// Which device.
    pub device_id: Uuid,
    /// Its name.
    pub hostname: String,
    /// Where it stands.
    #[serde(flatten)]
    pub compliance: Compliance,
}

/// `GET /policies/{id}/compliance`: the devices that a policy reaches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicyCompliance {
    /// Which policy.
    pub policy_id: Uuid,
    /// How many devices stand where; each state is there, also with 0.
    pub counts: BTreeMap<String, i64>,
    /// The page.
    pub devices: Vec<DeviceCompliance>,
    /// How many devices match.
    pub total: i64,
    /// The page's size.
    pub limit: i64,
    /// The page's place.
    pub offset: i64,
    /// For the next page; none on the last.
    pub next_cursor: Option<String>,
}

impl ListPage for PolicyCompliance {
    type Item = DeviceCompliance;

    fn into_page(self) -> Page<DeviceCompliance> {
        Page {
            items: self.devices,
            total: self.total,
            total_is_estimate: false,
            limit: self.limit,
            offset: self.offset,
            next_cursor: self.next_cursor,
        }
    }
}

/// `GET /compliance/summary`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComplianceSummary {
    /// How many devices stand where, each in the worst state of its policies; `no_policy` counts
    /// those without one.
    pub devices: BTreeMap<String, i64>,
    /// Each enabled policy.
    pub policies: Vec<PolicyCounts>,
}

/// How many devices stand where towards a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyCounts {
    /// Which policy.
    pub policy_id: Uuid,
    /// Its name.
    pub name: String,
    /// Each state, also with 0.
    pub counts: BTreeMap<String, i64>,
}
