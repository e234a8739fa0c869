//! The license.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::time::Timestamp;

/// `GET /license/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LicenseStatus {
    /// Whether devices may be enrolled by it: true without a key, and until the grace is over.
    pub valid: bool,
    /// `community`, `professional` or `enterprise`.
    pub tier: String,
    /// How many devices may be enrolled; any number if none.
    pub device_limit: Option<i64>,
    /// How many are.
    pub devices_enrolled: i64,
    /// When it ends; without a key never.
    pub expires_at: Option<Timestamp>,
    /// Until when everything still works after its end.
    pub grace_until: Option<Timestamp>,
    /// `valid`, `grace` or `expired`.
    pub state: String,
    /// What else was bought.
    pub features: Vec<String>,
    /// The organisation's id: what a key is issued for.
    pub organization_id: Uuid,
}

/// `PUT /license`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutLicense {
    /// The license key; `null` takes the present one away.
    pub key: Option<String>,
}
