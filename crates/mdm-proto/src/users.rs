//! Users, their sessions, and the keys of programs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{lists::list, patch::Patch, time::Timestamp};

/// A user as administrators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserAccount {
    /// The user's id.
    pub id: Uuid,
    /// What the user signs in with.
    pub email: String,
    /// How the user is called.
    pub name: String,
    /// `viewer`, `operator` or `admin`.
    pub role: String,
    /// Whether signing in needs a second factor.
    #[serde(default)]
    pub totp_enabled: bool,
    /// Whether the user is closed out.
    pub disabled: bool,
    /// Counts the changes; the `ETag` in numbers.
    pub version: i64,
    /// When the account was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

list! {
    /// `GET /users`: a page of users.
    UserList { users: UserAccount }
}

/// `POST /users`.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// What the user signs in with; unique.
    pub email: String,
    /// How the user is called: 1 to 200 characters; by default the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `viewer` (the default), `operator` or `admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The first password: 12 to 256 characters.
    pub password: String,
}

/// `PUT /users/{id}`: the fields to change.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateUser {
    /// Another address; it cannot be cleared.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub email: Patch<String>,
    /// Another name; it cannot be cleared.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub name: Patch<String>,
    /// Another role: ends the user's sessions.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub role: Patch<String>,
    /// Closes the user out, which ends all sessions, or lets the user in again.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<bool>)]
    pub disabled: Patch<bool>,
    /// A new password: ends the user's sessions.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub password: Patch<String>,
}

/// `PUT /auth/password`: one's own.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The present password.
    pub current_password: String,
    /// The new one: 12 to 256 characters.
    pub new_password: String,
}

/// A sign-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserSession {
    /// Its id.
    pub id: Uuid,
    /// Whether it is the one that asks.
    pub current: bool,
    /// When it began.
    pub created_at: Timestamp,
    /// When its tokens were last renewed.
    pub last_used_at: Timestamp,
}

/// `GET /auth/sessions`: one's own, at most the newest 500.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionList {
    /// The sessions that have not ended.
    pub sessions: Vec<UserSession>,
}

/// A program's key, without the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiKey {
    /// Its id.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// The most that it may do: `viewer`, `operator` or `admin`.
    pub role: String,
    /// What of the role's permissions it has; all of them if none are named.
    pub scopes: Option<Vec<String>>,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// Who made it, and for whom it acts.
    pub created_by: Uuid,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

list! {
    /// `GET /api-keys`: a page of keys.
    ApiKeyList { api_keys: ApiKey }
}

/// `POST /api-keys`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApiKey {
    /// What people call it: 1 to 100 characters.
    pub name: String,
    /// The most that it may do: `viewer` (the default), `operator` or `admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// What of the role's permissions it has, such as `devices:read`; by default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// From when on it is refused; never, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// The answer to its making: the only time the key itself is shown.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct CreatedApiKey {
    /// All but the key.
    #[serde(flatten)]
    pub api_key: ApiKey,
    /// The key: send it as `X-API-Key`.
    pub key: String,
}

/// `PUT /api-keys/{id}`: the fields to change. What it may do never changes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateApiKey {
    /// A new name; it cannot be cleared.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub name: Patch<String>,
    /// From when on it is refused.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<Timestamp>)]
    pub expires_at: Patch<Timestamp>,
}
