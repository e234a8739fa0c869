//! Licenses: how many devices an organisation may enrol, and until when.

use std::{fmt, str::FromStr};

use chrono::Duration;
use serde::{Deserialize, Serialize};

use crate::{clock::Timestamp, devices::words, ids::OrganizationId};

words! {
    /// What was bought.
    Tier, UnknownTier, "tier" {
        /// Nothing: what holds without a key.
        Community = "community",
        /// For companies.
        Professional = "professional",
        /// For large companies.
        Enterprise = "enterprise",
    }
}

words! {
    /// Where a license stands.
    LicenseState, UnknownLicenseState, "license state" {
        /// It is good.
        Valid = "valid",
        /// It has expired, and everything still works.
        Grace = "grace",
        /// It has expired and its grace is over: no device can be enrolled any more.
        Expired = "expired",
    }
}

/// How long a license may go on after its end if it does not say otherwise.
pub const GRACE: Duration = Duration::days(14);

/// What a license key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LicenseTerms {
    /// Tells this license from every other one.
    pub id: String,
    /// The organisation that it is for.
    pub organization_id: OrganizationId,
    /// What was bought.
    pub tier: Tier,
    /// How many devices may be enrolled; any number if absent.
    pub device_limit: Option<i64>,
    /// What else was bought, by name.
    pub features: Vec<String>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Until when everything still works.
    pub grace_until: Timestamp,
}

impl LicenseTerms {
    /// Where the license stands at `now`.
    pub fn state(&self, now: Timestamp) -> LicenseState {
        if now < self.expires_at {
            LicenseState::Valid
        } else if now < self.grace_until {
            LicenseState::Grace
        } else {
            LicenseState::Expired
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_license_ends_after_its_grace() {
        let end = chrono::DateTime::UNIX_EPOCH + Duration::days(100);
        let terms = LicenseTerms {
            id: "l".to_owned(),
            organization_id: OrganizationId::from_uuid(Uuid::nil()),
            tier: Tier::Professional,
            device_limit: Some(5),
            features: Vec::new(),
            expires_at: end,
            grace_until: end + GRACE,
        };
        assert_eq!(terms.state(end - Duration::seconds(1)), LicenseState::Valid);
        assert_eq!(terms.state(end), LicenseState::Grace);
        assert_eq!(terms.state(end + GRACE), LicenseState::Expired);
    }
}
