//! Applications: packages that devices install.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    devices::{Platform, words},
    ids::{ApplicationId, CommandId, DeviceId, OrganizationId},
};

words! {
    /// What an assignment wants of an application. When a device is reached by several assignments,
    /// the first of these that one of them names counts.
    #[derive(PartialOrd, Ord)]
    Intent, UnknownIntent, "intent" {
        /// It shall not be there.
        Uninstall = "uninstall",
        /// It shall be there.
        Install = "install",
        /// It may be installed.
        Available = "available",
    }
}

words! {
    /// Where an application stands on a device, by what the device said.
    InstallState, UnknownInstallState, "install state" {
        /// The device has said nothing of it yet.
        Pending = "pending",
        /// The device is at it.
        Installing = "installing",
        /// The device says that it is there.
        Installed = "installed",
        /// The device is removing it.
        Uninstalling = "uninstalling",
        /// The device says that it is gone.
        Uninstalled = "uninstalled",
        /// The device could not do it, or began and was not heard from before the command ended.
        Failed = "failed",
    }
}

/// A package that devices can install.
#[derive(Debug, Clone)]
pub struct Application {
    /// Its id.
    pub id: ApplicationId,
    /// The organisation that it belongs to.
    pub organization_id: OrganizationId,
    /// What people call it.
    pub name: String,
    /// Which version of it the package holds.
    pub app_version: String,
    /// What it runs on.
    pub platform: Platform,
    /// What people say of it.
    pub description: Option<String>,
    /// The package's file name, without any directory.
    pub file_name: String,
    /// The package's length in bytes.
    pub size: i64,
    /// The package's SHA-256 (FIPS 180-4) in lower-case hexadecimal.
    pub checksum: String,
    /// Counts the changes of the row: its `ETag`.
    pub version: i64,
    /// When it was uploaded.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What a device said of an application.
#[derive(Debug, Clone)]
pub struct Install {
    /// Which application.
    pub application_id: ApplicationId,
    /// On which device.
    pub device_id: DeviceId,
    /// Where it stands.
    pub state: InstallState,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// The command that this came of.
    pub command_id: Option<CommandId>,
    /// When the device said so.
    pub updated_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_be_gone_goes_before_to_be_there() {
        let wanted = [Intent::Available, Intent::Uninstall, Intent::Install];
        assert_eq!(wanted.iter().min(), Some(&Intent::Uninstall));
    }
}
