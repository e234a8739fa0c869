//! Enrolment secrets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::Timestamp;

/// `POST /enrollment-secrets`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateEnrollmentSecret {
    /// What people call it: 1 to 100 characters.
    pub name: String,
    /// Labels for the devices that join with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// From when on it is refused; never, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// How many devices it may enrol (1 to 1,000,000); any number, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<i64>,
}

/// An enrolment secret, without the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollmentSecret {
    /// Its id.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// Labels for the devices that join with it.
    pub labels: BTreeMap<String, String>,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// How many devices it may enrol.
    pub max_uses: Option<i64>,
    /// How many it has enrolled.
    pub uses: i64,
    /// When it was withdrawn.
    pub revoked_at: Option<Timestamp>,
    /// Who made it.
    pub created_by: Option<Uuid>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The answer to its making: the only time the secret itself is shown.
#[derive(Clone, Serialize, Deserialize)]
pub struct CreatedEnrollmentSecret {
    /// All but the secret.
    #[serde(flatten)]
    pub enrollment_secret: EnrollmentSecret,
    /// The secret.
    pub secret: String,
}

/// `GET /enrollment-secrets`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnrollmentSecretList {
    /// The page.
    pub enrollment_secrets: Vec<EnrollmentSecret>,
    /// How many there are.
    pub total: i64,
    /// The page's size.
    pub limit: i64,
    /// The page's place.
    pub offset: i64,
    /// For the next page; none on the last.
    pub next_cursor: Option<String>,
}
