//! Roles and what they permit.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::devices::words;

words! {
    /// What a user may do, each role including the ones before it.
    #[derive(PartialOrd, Ord)]
    Role, UnknownRole, "role" {
        /// Reads.
        Viewer = "viewer",
        /// Also runs commands and changes devices, groups, policies, applications and assignments.
        Operator = "operator",
        /// Also manages users, keys, the license and enrolment secrets.
        Admin = "admin",
    }
}

words! {
    /// One thing that a caller may or may not do. Each use case asks for exactly one. Its name is
    /// the scope of an API key that permits it.
    Permission, UnknownPermission, "scope" {
        /// Read devices and their inventory.
        ReadDevices = "devices:read",
        /// Enrol, change and unenrol devices.
        WriteDevices = "devices:write",
        /// Read commands (results only for those who may also run them).
        ReadCommands = "commands:read",
        /// Send and cancel commands, read their results.
        RunCommands = "commands:run",
        /// Read device groups and their members.
        ReadGroups = "groups:read",
        /// Change device groups and their members.
        WriteGroups = "groups:write",
        /// Read policies, their assignments and compliance.
        ReadPolicies = "policies:read",
        /// Change and assign policies.
        WritePolicies = "policies:write",
        /// Read applications, their assignments and packages.
        ReadApplications = "applications:read",
        /// Upload, change and assign applications.
        WriteApplications = "applications:write",
        /// Follow the event stream.
        ReadEvents = "events:read",
        /// See the server's inner counters.
        ReadStatus = "status:read",
        /// See the license.
        ReadLicense = "license:read",
        /// Set the license key.
        ManageLicense = "license:manage",
        /// Create, list and revoke enrolment secrets.
        ManageEnrollmentSecrets = "enrollment-secrets:manage",
        /// Create, change and delete users.
        ManageUsers = "users:manage",
        /// Create, change and delete API keys.
        ManageApiKeys = "api-keys:manage",
        /// Create, change, delete and replay webhooks.
        ManageWebhooks = "webhooks:manage",
    }
}

impl Role {
    /// Whether the role includes the permission.
    pub fn permits(self, permission: Permission) -> bool {
        self >= permission.least_role()
    }
}

impl Permission {
    /// The least powerful role that includes it.
    pub const fn least_role(self) -> Role {
        match self {
            Self::ReadDevices
            | Self::ReadCommands
            | Self::ReadGroups
            | Self::ReadPolicies
            | Self::ReadApplications
            | Self::ReadEvents
            | Self::ReadStatus
            | Self::ReadLicense => Role::Viewer,
            Self::WriteDevices
            | Self::RunCommands
            | Self::WriteGroups
            | Self::WritePolicies
            | Self::WriteApplications => Role::Operator,
            Self::ManageLicense
            | Self::ManageEnrollmentSecrets
            | Self::ManageUsers
            | Self::ManageApiKeys
            | Self::ManageWebhooks => Role::Admin,
        }
    }
}

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Permissions(u32);

impl Permissions {
    /// All that the role permits.
    pub fn of(role: Role) -> Self {
        Permission::ALL
            .iter()
            .filter(|permission| role.permits(**permission))
            .copied()
            .collect()
    }

    /// Whether the permission is among them.
    pub const fn contain(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u32) != 0
    }

    /// Those that are in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<T: IntoIterator<Item = Permission>>(permissions: T) -> Self {
        Self(
            permissions
                .into_iter()
                .fold(0, |bits, permission| bits | 1 << permission as u32),
        )
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(
                Permission::ALL
                    .iter()
                    .filter(|permission| self.contain(**permission)),
            )
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_includes_the_one_before() {
        for pair in Role::ALL.windows(2) {
            let (less, more) = (Permissions::of(pair[0]), Permissions::of(pair[1]));
            assert_eq!(less.and(more), less);
            assert_ne!(less, more);
        }
    }

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        let set: Permissions = [Permission::ReadDevices, Permission::ManageApiKeys]
            .into_iter()
            .collect();
        let held: Vec<_> = Permission::ALL
            .iter()
            .filter(|permission| set.contain(**permission))
            .collect();
        assert_eq!(held, [&Permission::ReadDevices, &Permission::ManageApiKeys]);
    }
}
