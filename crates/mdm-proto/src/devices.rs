//! Devices, as operators see them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    lists::{ListPage, Page, list},
    patch::Patch,
    raw::RawJson,
    time::Timestamp,
};

/// `POST /devices` and `POST /device/enroll`: a device joins the organisation.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// The hardware's own identifier: 1 to 128 characters.
    pub uuid: String,
    /// The device's name: 1 to 253 characters.
    pub hostname: String,
    /// `windows`, `macos`, `linux`, `ios` or `android`.
    pub platform: String,
    /// The operating system's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// The maker's serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// The secret that lets the device in. An operator needs none, but a wrong one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrollment_secret: Option<String>,
    /// What the device says of its hardware: an object of at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware_info: Option<Value>,
    /// At most 64 labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Device {
    /// The server's id for it.
    pub id: Uuid,
    /// The hardware's own identifier.
    pub uuid: String,
    /// Its name.
    pub hostname: String,
    /// Its operating system's kind.
    pub platform: String,
    /// Its operating system's version.
    pub os_version: Option<String>,
    /// The maker's serial number.
    pub serial_number: Option<String>,
    /// `pending`, `enrolled`, `online`, `offline` or `unenrolled`.
    pub status: String,
    /// When it was last heard from.
    pub last_seen: Option<Timestamp>,
    /// When it enrolled.
    pub enrolled_at: Timestamp,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it said of its hardware.
    pub hardware_info: RawJson,
    /// When `hardware_info` was observed.
    pub observed_at: Option<Timestamp>,
    /// Counts its changes; the `ETag` in numbers.
    pub version: i64,
}

/// The answer to an enrolment: the device, and its token, which is shown this once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct EnrolledDevice {
    /// The device.
    #[serde(flatten)]
    pub device: Device,
    /// What the device authenticates with from now on.
    pub device_token: String,
}

/// `PUT /devices/{id}`: the fields to change.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateDevice {
    /// A new name; it cannot be cleared.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub hostname: Patch<String>,
    /// The operating system's version.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub os_version: Patch<String>,
    /// All labels anew; `null` clears them.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub labels: Patch<BTreeMap<String, String>>,
}

list! {
    /// `GET /devices` and `GET /device-groups/{id}/devices`: a page of devices.
    DeviceList { devices: Device }
}

/// `POST /devices/bulk`: 1 to 1,000 devices join.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkEnroll {
    /// The devices.
    pub devices: Vec<EnrollRequest>,
}

/// What came of one of them.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct BulkOutcome {
    /// Its place in the request.
    pub index: usize,
    /// 201, or the status that the device alone would have got.
    pub status: u16,
    /// The device, if it joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// What it authenticates with, if it joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_token: Option<String>,
    /// The stable code of what was wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What was wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The answer to a bulk enrolment: an outcome for each device, in the order of the request.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct BulkEnrolled {
    /// How many joined.
    pub enrolled: usize,
    /// How many did not.
    pub failed: usize,
    /// Each one's outcome.
    pub outcomes: Vec<BulkOutcome>,
}

/// What a device last told of itself.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeviceInventory {
    /// Which device.
    pub device_id: Uuid,
    /// What it said of its hardware and system.
    pub system_info: RawJson,
    /// When that was observed.
    pub observed_at: Option<Timestamp>,
}

/// A piece of software that a device has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Software {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where the device knows it from, such as `deb`.
    pub source: String,
}

/// `GET /devices/{id}/software`: a page of what is installed, by name.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SoftwareList {
    /// The page.
    pub software: Vec<Software>,
    /// When the device looked; none if it never told.
    pub observed_at: Option<Timestamp>,
    /// How much there is.
    pub total: i64,
    /// The page's size.
    pub limit: i64,
    /// The page's place.
    pub offset: i64,
    /// For the next page; none on the last.
    pub next_cursor: Option<String>,
}

impl ListPage for SoftwareList {
    type Item = Software;

    fn into_page(self) -> Page<Software> {
        Page {
            items: self.software,
            total: self.total,
            total_is_estimate: false,
            limit: self.limit,
            offset: self.offset,
            next_cursor: self.next_cursor,
        }
    }
}
