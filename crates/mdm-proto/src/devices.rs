//! Devices, as operators see them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{patch::Patch, time::Timestamp};

/// `POST /devices` and `POST /device/enroll`: a device joins the organisation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    pub hardware_info: Value,
    /// When `hardware_info` was observed.
    pub observed_at: Option<Timestamp>,
    /// Counts its changes; the `ETag` in numbers.
    pub version: i64,
}

/// The answer to an enrolment: the device, and its token, which is shown this once.
#[derive(Clone, Serialize, Deserialize)]
pub struct EnrolledDevice {
    /// The device.
    #[serde(flatten)]
    pub device: Device,
    /// What the device authenticates with from now on.
    pub device_token: String,
}

/// `PUT /devices/{id}`: the fields to change.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateDevice {
    /// A new name; it cannot be cleared.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    pub hostname: Patch<String>,
    /// The operating system's version.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    pub os_version: Patch<String>,
    /// All labels anew; `null` clears them.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    pub labels: Patch<BTreeMap<String, String>>,
}

/// `GET /devices`: a page of devices.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceList {
    /// The page.
    pub devices: Vec<Device>,
    /// How many devices match in all; exact up to 10,000.
    pub total: i64,
    /// Whether `total` is a lower bound because there are more than 10,000.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub total_is_estimate: bool,
    /// The page's size.
    pub limit: i64,
    /// The page's place.
    pub offset: i64,
    /// For the next page; none on the last.
    pub next_cursor: Option<String>,
}
