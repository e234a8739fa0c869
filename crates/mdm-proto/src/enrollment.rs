//! Enrolment secrets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{lists::list, patch::Patch, time::Timestamp};

/// `POST /enrollment-secrets`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateEnrollmentSecret {
    /// What people call it: 1 to 100 characters.
    pub name: String,
    /// Labels for the devices that join with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Groups that its devices join, by hand as it were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_ids: Option<Vec<Uuid>>,
    /// From when on it is refused; never, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// How many devices it may enrol (1 to 1,000,000); any number, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<i64>,
}

/// An enrolment secret, without the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrollmentSecret {
    /// Its id.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// Labels for the devices that join with it.
    pub labels: BTreeMap<String, String>,
    /// Groups that its devices join.
    #[serde(default)]
    pub group_ids: Vec<Uuid>,
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
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct CreatedEnrollmentSecret {
    /// All but the secret.
    #[serde(flatten)]
    pub enrollment_secret: EnrollmentSecret,
    /// The secret.
    pub secret: String,
}

list! {
    /// `GET /enrollment-secrets`: a page of secrets.
    EnrollmentSecretList { enrollment_secrets: EnrollmentSecret }
}

/// `PUT /enrollment-secrets/{id}`: the fields to change.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateEnrollmentSecret {
    /// A new name; it cannot be cleared.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub name: Patch<String>,
    /// Labels for devices that join from now on.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub labels: Patch<BTreeMap<String, String>>,
    /// Groups that devices join from now on.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<Vec<Uuid>>)]
    pub group_ids: Patch<Vec<Uuid>>,
    /// From when on it is refused.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<Timestamp>)]
    pub expires_at: Patch<Timestamp>,
}
