//! The license: set by an administrator, enforced at enrolment.
//!
//! A license key is a JWT (RFC 7519) signed with Ed25519 (RFC 8037) by whoever sells or meters; the
//! server knows only public keys.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{SigningKey, VerifyingKey, pkcs8::EncodePrivateKey};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use mdm_core::{
    Entropy, Invalid, Timestamp,
    events::{EventData, NewEvent, Stamp},
    ids::{DeviceId, OrganizationId},
    licenses::{GRACE, LicenseState, LicenseTerms, Tier},
    roles::Permission,
};
use mdm_store::{PgConnection, StoreError, events, licenses, licenses::Counted};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    context::{Forbidden, OpContext},
    services::Services,
};

const ISSUER: &str = "mobius-mdm-license";

/// Why the license was not set, or a device not counted.
#[derive(Debug, thiserror::Error)]
pub enum LicenseError {
    /// The caller may not.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// The key is not good.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A public key whose license keys are good.
#[derive(Debug, Clone)]
pub struct LicensePublicKey(VerifyingKey);

/// A private key that issues license keys.
pub struct LicensePrivateKey(SigningKey);

/// A text that is no Ed25519 key in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an Ed25519 key of 32 bytes in base64")]
pub struct NotAKey;

fn key_bytes(text: &str) -> Result<[u8; 32], NotAKey> {
    let bytes = STANDARD.decode(text.trim()).map_err(|_malformed| NotAKey)?;
    bytes.try_into().map_err(|_length| NotAKey)
}

impl LicensePublicKey {
    /// Reads 32 bytes in base64.
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        let key = VerifyingKey::from_bytes(&key_bytes(text)?);
        key.map(Self).map_err(|_no_point| NotAKey)
    }

    /// The key in base64.
    pub fn to_text(&self) -> String {
        STANDARD.encode(self.0.as_bytes())
    }
}

impl LicensePrivateKey {
    /// A new key.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut seed = [0_u8; 32];
        entropy.fill(&mut seed);
        Self(SigningKey::from_bytes(&seed))
    }

    /// Reads 32 bytes in base64.
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        key_bytes(text).map(|seed| Self(SigningKey::from_bytes(&seed)))
    }

    /// The key in base64. Whoever has it can issue licenses.
    pub fn to_text(&self) -> String {
        STANDARD.encode(self.0.to_bytes())
    }

    /// The public key that belongs to it.
    pub fn public(&self) -> LicensePublicKey {
        LicensePublicKey(self.0.verifying_key())
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    jti: String,
    /// The organisation.
    sub: Uuid,
    tier: Tier,
    device_limit: Option<i64>,
    #[serde(default)]
    features: Vec<String>,
    iat: i64,
    exp: i64,
    /// When the grace ends.
    grace: i64,
}

/// Issues a key with these terms.
pub fn issue(
    key: &LicensePrivateKey,
    terms: &LicenseTerms,
    now: Timestamp,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let claims = Claims {
        iss: ISSUER.to_owned(),
        jti: terms.id.clone(),
        sub: terms.organization_id.uuid(),
        tier: terms.tier,
        device_limit: terms.device_limit,
        features: terms.features.clone(),
        iat: now.timestamp(),
        exp: terms.expires_at.timestamp(),
        grace: terms.grace_until.timestamp(),
    };
    let der = key.0.to_pkcs8_der()?;
    let key = EncodingKey::from_ed_der(der.as_bytes());
    Ok(jsonwebtoken::encode(
        &Header::new(Algorithm::EdDSA),
        &claims,
        &key,
    )?)
}

/// Reads a key that one of these public keys signed. Whether its time is over is for the caller.
pub fn inspect(keys: &[LicensePublicKey], license_key: &str) -> Option<LicenseTerms> {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_issuer(&[ISSUER]);
    validation.set_required_spec_claims(&["exp", "iss", "sub"]);
    validation.validate_exp = false;
    validation.validate_aud = false;
    let claims = keys.iter().find_map(|key| {
        let key = DecodingKey::from_ed_der(key.0.as_bytes());
        jsonwebtoken::decode::<Claims>(license_key.trim(), &key, &validation).ok()
    })?;
    let claims = claims.claims;
    let at = |seconds| chrono::DateTime::from_timestamp(seconds, 0);
    Some(LicenseTerms {
        id: claims.jti,
        organization_id: OrganizationId::from_uuid(claims.sub),
        tier: claims.tier,
        device_limit: claims.device_limit,
        features: claims.features,
        expires_at: at(claims.exp)?,
        grace_until: at(claims.grace)?,
    })
}

/// Where an organisation's license stands.
#[derive(Debug, Clone)]
pub struct LicenseStatus {
    /// What was bought; nothing without a key.
    pub terms: Option<LicenseTerms>,
    /// Where it stands.
    pub state: LicenseState,
    /// How many devices are enrolled.
    pub devices_enrolled: i64,
    /// Whose it is.
    pub organization_id: OrganizationId,
}

impl Services {
    /// Where the organisation's license stands.
    pub async fn license_status(&self, ctx: &OpContext) -> Result<LicenseStatus, LicenseError> {
        ctx.require(Permission::ReadLicense)?;
        let organization = ctx.organization_id;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let Some(stored) = licenses::find(&mut conn, organization).await? else {
            return Ok(LicenseStatus {
                terms: None,
                state: LicenseState::Valid,
                devices_enrolled: licenses::count_devices(&mut conn, organization).await?,
                organization_id: organization,
            });
        };
        Ok(LicenseStatus {
            state: stored.terms.state(self.now()),
            terms: Some(stored.terms),
            devices_enrolled: stored.devices_enrolled,
            organization_id: organization,
        })
    }

    /// Sets the license key, or takes it away.
    pub async fn set_license(
        &self,
        ctx: &OpContext,
        key: Option<&str>,
    ) -> Result<LicenseStatus, LicenseError> {
        ctx.require(Permission::ManageLicense)?;
        let now = self.now();
        let terms = key
            .map(|key| self.good_license(ctx, key, now))
            .transpose()?;
        let mut tx = self.begin().await?;
        licenses::stop_enrolments(&mut tx, ctx.organization_id).await?;
        match key.zip(terms.as_ref()) {
            Some((key, terms)) => {
                licenses::set(&mut tx, key.trim(), terms, terms.state(now), now).await?;
            }
            None => {
                licenses::remove(&mut tx, ctx.organization_id).await?;
            }
        }
        let event = changed(ctx.organization_id, terms.as_ref(), now);
        events::append(&mut tx, now, &event).await?;
        self.commit(tx).await?;
        self.license_status(ctx).await
    }

    fn good_license(
        &self,
        ctx: &OpContext,
        key: &str,
        now: Timestamp,
    ) -> Result<LicenseTerms, Invalid> {
        let refused = |code, detail: &str| Err(Invalid::new("/key", code, detail));
        if self.license_keys.is_empty() {
            let detail = "this server knows no public key of a license issuer (license_public_keys, MDM_LICENSE_PUBLIC_KEYS)";
            return refused("NO_ISSUER", detail);
        }
        let Some(terms) = inspect(&self.license_keys, key) else {
            return refused("INVALID_LICENSE", "is not a license key of a known issuer");
        };
        if terms.organization_id != ctx.organization_id {
            let detail = "was issued for another organisation; GET /api/v1/license/status tells this one's id";
            return refused("WRONG_ORGANIZATION", detail);
        }
        if terms.state(now) == LicenseState::Expired {
            return refused("EXPIRED", "has expired");
        }
        Ok(terms)
    }

    /// Counts devices that are being enrolled, last in their transaction.
    pub(crate) async fn count_licensed(
        &self,
        tx: &mut PgConnection,
        organization: OrganizationId,
        devices: &[DeviceId],
    ) -> Result<Counted, StoreError> {
        let more = i64::try_from(devices.len()).unwrap_or(i64::MAX);
        licenses::count_enrolled(tx, organization, more, self.now()).await
    }

    /// Tells of licenses that have moved on.
    pub(crate) async fn tell_of_licenses(&self) -> Result<(), StoreError> {
        let now = self.now();
        let mut conn = self.pool.acquire().await?;
        let moved = licenses::moved_on(&mut conn, now).await?;
        drop(conn);
        for organization in moved {
            let mut tx = self.begin().await?;
            let Some(stored) = licenses::find(&mut tx, organization).await? else {
                continue;
            };
            let state = stored.terms.state(now);
            if !licenses::tell(&mut tx, organization, stored.state, state).await? {
                continue;
            }
            tracing::warn!(%organization, %state, "the license has moved on");
            let event = changed(organization, Some(&stored.terms), now);
            events::append(&mut tx, now, &event).await?;
            self.commit(tx).await?;
        }
        Ok(())
    }
}

fn changed(organization: OrganizationId, terms: Option<&LicenseTerms>, now: Timestamp) -> NewEvent {
    let data = EventData::LicenseChanged {
        tier: terms.map_or(Tier::Community, |terms| terms.tier),
        state: terms.map_or(LicenseState::Valid, |terms| terms.state(now)),
        device_limit: terms.and_then(|terms| terms.device_limit),
        expires_at: terms.map(|terms| Stamp(terms.expires_at)),
    };
    NewEvent::new(organization, data)
}

/// The terms of a license from what is known when it is issued.
pub fn terms(
    id: String,
    organization_id: OrganizationId,
    tier: Tier,
    device_limit: Option<i64>,
    features: Vec<String>,
    expires_at: Timestamp,
) -> LicenseTerms {
    LicenseTerms {
        id,
        organization_id,
        tier,
        device_limit,
        features,
        expires_at,
        grace_until: expires_at + GRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mdm_core::entropy::SeededEntropy;

    fn some_terms() -> LicenseTerms {
        terms(
            "l-1".to_owned(),
            OrganizationId::from_uuid(Uuid::from_u128(7)),
            Tier::Professional,
            Some(50),
            vec!["sso".to_owned()],
            chrono::DateTime::UNIX_EPOCH + chrono::Duration::days(20_000),
        )
    }

    #[test]
    fn a_license_survives_its_key() {
        let private = LicensePrivateKey::generate(&SeededEntropy::new(1));
        let private = LicensePrivateKey::parse(&private.to_text()).unwrap();
        let public = LicensePublicKey::parse(&private.public().to_text()).unwrap();
        let key = issue(&private, &some_terms(), chrono::DateTime::UNIX_EPOCH).unwrap();
        assert_eq!(inspect(&[public], &key), Some(some_terms()));
    }

    #[test]
    fn a_key_of_another_issuer_or_one_that_was_altered_is_none() {
        let private = LicensePrivateKey::generate(&SeededEntropy::new(1));
        let other = LicensePrivateKey::generate(&SeededEntropy::new(2)).public();
        let key = issue(&private, &some_terms(), chrono::DateTime::UNIX_EPOCH).unwrap();
        assert_eq!(inspect(&[other], &key), None);
        let mut altered = key.into_bytes();
        let middle = altered.len() / 2;
        altered[middle] = if altered[middle] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        assert_eq!(inspect(&[private.public()], &altered), None);
    }
}
