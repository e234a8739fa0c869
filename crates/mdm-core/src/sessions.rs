//! Sessions: one sign-in of a user, from login to logout.

use chrono::Duration;

use crate::{
    clock::Timestamp,
    ids::{OrganizationId, SessionId, UserId},
    roles::{Permissions, Role},
};

/// How long an access token is good for.
pub const ACCESS_TOKEN_TTL: Duration = Duration::minutes(15);

/// How long a refresh token is good for; each refresh starts it anew.
pub const REFRESH_TOKEN_TTL: Duration = Duration::days(14);

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// The user signed out.
    Logout,
    /// A refresh token came a second time: somebody has a copy.
    TokenReuse,
    /// The password was set anew.
    PasswordChanged,
    /// The user or another one ended it.
    Revoked,
    /// The user's role changed: its tokens say the old one.
    RoleChanged,
    /// The user was disabled.
    Disabled,
}

impl SessionEnd {
    /// The reason's name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::TokenReuse => "token_reuse",
            Self::PasswordChanged => "password_changed",
            Self::Revoked => "revoked",
            Self::RoleChanged => "role_changed",
            Self::Disabled => "disabled",
        }
    }
}

/// What an access token says of its bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessClaims {
    /// The signed-in user.
    pub user_id: UserId,
    /// The user's organisation.
    pub organization_id: OrganizationId,
    /// The session that the token belongs to.
    pub session_id: SessionId,
    /// The user's role when the token was made.
    pub role: Role,
    /// What of the role's permissions the bearer has: a key may have fewer.
    pub permissions: Permissions,
    /// When the token stops being good.
    pub expires_at: Timestamp,
}
