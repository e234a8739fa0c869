//! Roles and what they permit.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a user may do, each role including the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Also runs commands and changes devices.
    Operator,
    /// Also manages users, keys and enrolment secrets.
    Admin,
}

/// One thing that a caller may or may not do. Each use case asks for exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Read devices and their inventory.
    ReadDevices,
    /// Enrol, change and unenrol devices.
    WriteDevices,
    /// Read commands (results only for those who may also run them).
    ReadCommands,
    /// Send and cancel commands, read their results.
    RunCommands,
    /// Create, list and revoke enrolment secrets.
    ManageEnrollmentSecrets,
    /// Follow the event stream.
    ReadEvents,
    /// See the server's inner counters.
    ReadStatus,
}

impl Role {
    /// All roles, from the least to the most powerful.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Whether the role includes the permission.
    pub fn permits(self, permission: Permission) -> bool {
        let least = match permission {
            Permission::ReadDevices
            | Permission::ReadCommands
            | Permission::ReadEvents
            | Permission::ReadStatus => Self::Viewer,
            Permission::WriteDevices | Permission::RunCommands => Self::Operator,
            Permission::ManageEnrollmentSecrets => Self::Admin,
        };
        self >= least
    }

    /// The role's name in the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown role; the roles are viewer, operator and admin")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(UnknownRole)
    }
}
