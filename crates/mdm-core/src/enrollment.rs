//! Enrolment secrets: what lets a machine join the organisation.

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    devices::Labels,
    ids::{EnrollmentSecretId, GroupId, OrganizationId, UserId},
};

/// A secret that enrols devices, without the secret itself: only its hash is kept.
#[derive(Debug, Clone)]
pub struct EnrollmentSecret {
    /// Its id.
    pub id: EnrollmentSecretId,
    /// The organisation that devices join with it.
    pub organization_id: OrganizationId,
    /// What people call it.
    pub name: String,
    /// Labels that a device gets when it joins.
    pub labels: Labels,
    /// Groups that a device joins with it.
    pub group_ids: Vec<GroupId>,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// How many devices it may enrol.
    pub max_uses: Option<i32>,
    /// How many devices it has enrolled.
    pub uses: i32,
    /// When it was withdrawn.
    pub revoked_at: Option<Timestamp>,
    /// Who made it.
    pub created_by: Option<UserId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Counts the changes of the row: its `ETag`.
    pub version: i64,
}

/// Why a secret does not enrol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum SecretRefused {
    /// No such secret.
    #[error("the enrolment secret is not known")]
    Unknown,
    /// It was withdrawn.
    #[error("the enrolment secret was revoked")]
    Revoked,
    /// Its time is over.
    #[error("the enrolment secret has expired")]
    Expired,
    /// It has enrolled as many devices as it may.
    #[error("the enrolment secret has been used as often as it may be")]
    UsedUp,
}

impl EnrollmentSecret {
    /// Whether the secret may enrol one more device at `now`.
    pub fn check(&self, now: Timestamp) -> Result<(), SecretRefused> {
        if self.revoked_at.is_some() {
            return Err(SecretRefused::Revoked);
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return Err(SecretRefused::Expired);
        }
        if self.max_uses.is_some_and(|max| self.uses >= max) {
            return Err(SecretRefused::UsedUp);
        }
        Ok(())
    }
}
