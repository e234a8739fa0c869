//! Device groups.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{devices::Device, lists::list, patch::Patch, time::Timestamp};

/// `POST /device-groups`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateGroup {
    /// What people call it: 1 to 200 characters. Need not be unique.
    pub name: String,
    /// What people say of it: at most 2,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Which devices are members by themselves: an object of `platform`, `status`, `hostname` (a
    /// glob), `os_version` (a comparison such as `>=12.1`) and `labels`. All that are given must
    /// hold; of several values of one any, of several comparisons all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<Value>,
    /// At most 64 labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// `PUT /device-groups/{id}`: the fields to change.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateGroup {
    /// A new name; it cannot be cleared.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub name: Patch<String>,
    /// A new description.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub description: Patch<String>,
    /// New filters; `null` leaves members by hand only.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<Object>)]
    pub filters: Patch<Value>,
    /// All labels anew; `null` clears them.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub labels: Patch<BTreeMap<String, String>>,
}

/// A set of devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceGroup {
    /// Its id.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// What people say of it.
    pub description: Option<String>,
    /// How many devices are members.
    pub device_count: i64,
    /// Which devices are members by themselves.
    pub filters: Option<Value>,
    /// Whether all memberships by filter follow the present filters. Soon after a change in a large
    /// fleet they do not yet.
    pub up_to_date: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Counts its changes; the `ETag` in numbers.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

list! {
    /// `GET /device-groups` and `GET /devices/{id}/groups`: a page of groups.
    GroupList { device_groups: DeviceGroup }
}

/// Which device: `POST /device-groups/{id}/devices`, or exactly one of the two where several are
/// taken.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddMember {
    /// The device, by the server's id or the hardware's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// Several devices, at most 1,000; those that are in already are passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_ids: Option<Vec<String>>,
}

/// The answer to an addition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MembersAdded {
    /// The group.
    pub group_id: Uuid,
    /// The device, if one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<Uuid>,
    /// The devices that are members by hand now and were not before.
    pub added: Vec<Uuid>,
}

/// `POST /device-groups/preview`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviewGroup {
    /// As in [`CreateGroup`].
    pub filters: Value,
}

/// Who would be in.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GroupPreview {
    /// How many devices would be members.
    pub device_count: i64,
    /// The first 50 of them.
    pub devices: Vec<Device>,
}
