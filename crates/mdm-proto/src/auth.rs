//! Signing in.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::time::Timestamp;

/// `POST /auth/login`: exactly one of `email` and `username`, and the password.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// The user's e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The same under the older API's name; `admin` is short for the first administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password.
    pub password: String,
    /// For a user with a second factor: the present code of the authenticator, or a recovery code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<String>,
}

/// The answer to `POST /auth/totp`: for an authenticator, and shown this once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct TotpSecret {
    /// The secret in Base32 (RFC 4648), to type in.
    pub secret: String,
    /// The same as an `otpauth` address, for a QR code.
    pub uri: String,
}

/// `POST /auth/totp/confirm` and `DELETE /auth/totp`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TotpCode {
    /// The present code of the authenticator; to remove it, also a recovery code.
    pub code: String,
}

/// The answer to `POST /auth/totp/confirm`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct RecoveryCodes {
    /// Each signs in once in place of a code. Shown this once.
    pub recovery_codes: Vec<String>,
}

/// The answer to `POST /auth/ws-ticket`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct SocketTicket {
    /// For `?ticket=`: opens one connection to the event stream, as the credential it was got with.
    pub ticket: String,
    /// Until when.
    pub expires_at: Timestamp,
}

/// `POST /auth/refresh`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    /// The newest refresh token of the session. It works once.
    pub refresh_token: String,
}

/// The answer to a login or a refresh.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenResponse {
    /// The access token: a JWT (RFC 7519) signed with `EdDSA` (RFC 8037).
    pub token: String,
    /// When the access token ends: 15 minutes after its making.
    pub expires_at: Timestamp,
    /// For the next pair of tokens.
    pub refresh_token: String,
    /// When the refresh token ends: 14 days after its making.
    pub refresh_expires_at: Timestamp,
    /// Who signed in.
    pub user: User,
}

/// A user as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
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
    /// When the account was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}
