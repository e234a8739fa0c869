//! Who asks for something, for requests and background work alike.

use mdm_core::{
    ids::{ApiKeyId, DeviceId, OrganizationId, SessionId, UserId},
    roles::{Permission, Permissions, Role},
};

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A signed-in user.
    User {
        /// Who.
        user_id: UserId,
        /// The session of the access token.
        session_id: SessionId,
        /// What the user may do.
        role: Role,
    },
    /// A program, with an API key.
    ApiKey {
        /// Which key.
        key_id: ApiKeyId,
        /// Who made it, and for whom it acts.
        user_id: UserId,
        /// The most that it may do: decides which events it sees.
        role: Role,
        /// What it may do.
        permissions: Permissions,
    },
    /// A device, with its own token.
    Device(DeviceId),
    /// The server itself.
    System,
}

/// One operation: who asks, and within which organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpContext {
    /// Who asks.
    pub actor: Actor,
    /// Within which organisation.
    pub organization_id: OrganizationId,
}

/// The actor may not do this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this needs a permission that the caller does not have")]
pub struct Forbidden;

impl OpContext {
    /// The server's own operation.
    pub const fn system(organization_id: OrganizationId) -> Self {
        Self {
            actor: Actor::System,
            organization_id,
        }
    }

    /// Refuses unless the actor is a user whose role includes the permission, or a key that has it.
    pub fn require(&self, permission: Permission) -> Result<(), Forbidden> {
        match self.actor {
            Actor::User { role, .. } if role.permits(permission) => Ok(()),
            Actor::ApiKey { permissions, .. } if permissions.contain(permission) => Ok(()),
            Actor::System => Ok(()),
            Actor::User { .. } | Actor::ApiKey { .. } | Actor::Device(_) => Err(Forbidden),
        }
    }

    /// Whether the actor has the permission, where the answer only shapes what is shown.
    pub fn may(&self, permission: Permission) -> bool {
        self.require(permission).is_ok()
    }

    /// The user who acts, or for whom a key acts.
    pub const fn user_id(&self) -> Option<UserId> {
        match self.actor {
            Actor::User { user_id, .. } | Actor::ApiKey { user_id, .. } => Some(user_id),
            Actor::Device(_) | Actor::System => None,
        }
    }

    /// How the ledger names the actor.
    pub fn cause(&self) -> String {
        match self.actor {
            Actor::User { user_id, .. } => format!("user {user_id}"),
            Actor::ApiKey { key_id, .. } => format!("API key {key_id}"),
            Actor::Device(device_id) => format!("device {device_id}"),
            Actor::System => "server".to_owned(),
        }
    }
}
