//! Applications, their assignment, and where they stand on devices.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{lists::list, patch::Patch, time::Timestamp};

/// A package that devices can install.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Application {
    /// Its id.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// Which version of it the package holds.
    pub version: String,
    /// What it runs on.
    pub platform: String,
    /// What people say of it.
    pub description: Option<String>,
    /// The package's file name.
    pub file_name: String,
    /// The package's length in bytes.
    pub size: i64,
    /// The package's SHA-256 (FIPS 180-4) in hexadecimal.
    pub checksum: String,
    /// When it was uploaded.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

list! {
    /// `GET /applications`: a page of applications.
    ApplicationList { applications: Application }
}

/// The parts of `POST /applications` (multipart/form-data, RFC 7578). The texts come first.
#[derive(ToSchema)]
pub struct UploadApplication {
    /// What people call it: 1 to 200 characters.
    pub name: String,
    /// Which version of it the package holds: 1 to 100 characters.
    pub version: String,
    /// `windows`, `macos`, `linux`, `ios` or `android`.
    pub platform: String,
    /// What people say of it.
    pub description: Option<String>,
    /// The SHA-256 that the package must have, in hexadecimal.
    pub checksum: Option<String>,
    /// The package: a file.
    #[schema(value_type = String, format = Binary, content_media_type = "application/octet-stream")]
    pub package: Vec<u8>,
}

/// `PUT /applications/{id}`: the fields to change. The package itself never changes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateApplication {
    /// A new name; it cannot be cleared.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub name: Patch<String>,
    /// Another version; it cannot be cleared.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub version: Patch<String>,
    /// A new description.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub description: Patch<String>,
}

/// Where an application stands on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Install {
    /// Which device.
    pub device_id: Uuid,
    /// The device's name.
    pub hostname: String,
    /// What is wanted: `install`, `available` or `uninstall`; none if nothing is any more.
    pub intent: Option<String>,
    /// `pending`, `installing`, `installed`, `uninstalling`, `uninstalled` or `failed`. All but
    /// `pending` are what the device said.
    pub state: String,
    /// Why it failed.
    pub error: Option<String>,
    /// The command that this came of.
    pub command_id: Option<Uuid>,
    /// When the device said so.
    pub updated_at: Option<Timestamp>,
}

list! {
    /// `GET /applications/{id}/installs`: a page of devices that the application reaches or is on.
    InstallList { installs: Install }
}

/// An application as its device gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceApplication {
    /// The application.
    #[serde(flatten)]
    pub application: Application,
    /// What is wanted: `install`, `available` or `uninstall`.
    pub intent: String,
    /// Where to fetch the package, with the device token.
    pub package_path: String,
}

/// `GET /device/applications`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceApplications {
    /// Each application that is assigned to the device or to a group of it.
    pub applications: Vec<DeviceApplication>,
}
