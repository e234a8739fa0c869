//! Enrolment secrets: made, listed, withdrawn by administrators.

use mdm_core::{
    Invalid, Timestamp,
    devices::Labels,
    enrollment::EnrollmentSecret,
    ids::EnrollmentSecretId,
    invalid,
    roles::Permission,
    tokens::{Token, TokenKind},
};
use mdm_store::{StoreError, enrollment_secrets};
use std::collections::BTreeMap;

use crate::{
    context::{Forbidden, OpContext},
    services::Services,
};

/// A wish for a new secret, as it came in.
pub struct NewSecret {
    /// What people call it.
    pub name: String,
    /// Labels for the devices that join with it.
    pub labels: BTreeMap<String, String>,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// How many devices it may enrol.
    pub max_uses: Option<i64>,
}

/// Why a secret was not made or withdrawn.
#[derive(Debug, thiserror::Error)]
pub enum EnrollmentError {
    /// The caller may not.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// A field is not acceptable.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is no such secret.
    #[error("there is no such enrolment secret")]
    NotFound,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// Makes a secret. It is given this once and kept as a hash.
    pub async fn create_enrollment_secret(
        &self,
        ctx: &OpContext,
        new: NewSecret,
    ) -> Result<(EnrollmentSecret, Token), EnrollmentError> {
        ctx.require(Permission::ManageEnrollmentSecrets)?;
        let now = self.now();
        if new.expires_at.is_some_and(|at| at <= now) {
            return Err(Invalid::new("/expires_at", "IN_THE_PAST", "must be in the future").into());
        }
        let secret = EnrollmentSecret {
            id: EnrollmentSecretId::new(self.clock.as_ref(), self.entropy.as_ref()),
            organization_id: ctx.organization_id,
            name: invalid::text("/name", &new.name, 100)?,
            labels: Labels::parse(new.labels)?,
            expires_at: new.expires_at,
            max_uses: new.max_uses.map(parse_max_uses).transpose()?,
            uses: 0,
            revoked_at: None,
            created_by: ctx.user_id(),
            created_at: now,
        };
        let token = Token::generate(TokenKind::EnrollmentSecret, self.entropy.as_ref());
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        enrollment_secrets::insert(&mut conn, &secret, token.hash()).await?;
        Ok((secret, token))
    }

    /// A page of the organisation's secrets, and how many there are.
    pub async fn list_enrollment_secrets(
        &self,
        ctx: &OpContext,
        after: Option<EnrollmentSecretId>,
        limit: i64,
        offset: i64,
    ) -> Result<(Vec<EnrollmentSecret>, i64), EnrollmentError> {
        ctx.require(Permission::ManageEnrollmentSecrets)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let secrets =
            enrollment_secrets::list(&mut conn, ctx.organization_id, after, limit, offset).await?;
        let total = enrollment_secrets::count(&mut conn, ctx.organization_id).await?;
        Ok((secrets, total))
    }

    /// Withdraws a secret. Devices that joined with it stay.
    pub async fn revoke_enrollment_secret(
        &self,
        ctx: &OpContext,
        id: EnrollmentSecretId,
    ) -> Result<(), EnrollmentError> {
        ctx.require(Permission::ManageEnrollmentSecrets)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let found =
            enrollment_secrets::revoke(&mut conn, ctx.organization_id, id, self.now()).await?;
        if found {
            Ok(())
        } else {
            Err(EnrollmentError::NotFound)
        }
    }
}

fn parse_max_uses(uses: i64) -> Result<i32, Invalid> {
    i32::try_from(uses)
        .ok()
        .filter(|uses| (1..=1_000_000).contains(uses))
        .ok_or_else(|| {
            Invalid::new(
                "/max_uses",
                "OUT_OF_RANGE",
                "must be between 1 and 1,000,000",
            )
        })
}
