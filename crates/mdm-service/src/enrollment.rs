//! Enrolment secrets: made, listed, withdrawn by administrators.

use mdm_core::{
    Invalid, Timestamp,
    devices::Labels,
    enrollment::EnrollmentSecret,
    ids::{EnrollmentSecretId, GroupId},
    invalid,
    roles::Permission,
    tokens::{Token, TokenKind},
};
use mdm_store::{PgConnection, StoreError, enrollment_secrets, groups, lists::ListRequest};
use std::collections::BTreeMap;
use uuid::Uuid;

use crate::{
    context::{Forbidden, OpContext},
    lists::Listed,
    services::Services,
};

/// A wish for a new secret, as it came in.
pub struct NewSecret {
    /// What people call it.
    pub name: String,
    /// Labels for the devices that join with it.
    pub labels: BTreeMap<String, String>,
    /// Groups that its devices join.
    pub group_ids: Vec<Uuid>,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// How many devices it may enrol.
    pub max_uses: Option<i64>,
}

/// The fields to change; `None` leaves a field as it is.
#[derive(Debug, Default)]
pub struct SecretChange {
    /// A new name.
    pub name: Option<String>,
    /// Labels for devices that join from now on.
    pub labels: Option<BTreeMap<String, String>>,
    /// Groups that devices join from now on.
    pub group_ids: Option<Vec<Uuid>>,
    /// From when on it is refused, or never.
    pub expires_at: Option<Option<Timestamp>>,
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
            group_ids: parse_groups(&new.group_ids)?,
            expires_at: new.expires_at,
            max_uses: new.max_uses.map(parse_max_uses).transpose()?,
            uses: 0,
            revoked_at: None,
            created_by: ctx.user_id(),
            created_at: now,
            version: 1,
        };
        let token = Token::generate(TokenKind::EnrollmentSecret, self.entropy.as_ref());
        let mut tx = self.begin().await?;
        self.check_groups(&mut tx, &secret).await?;
        enrollment_secrets::insert(&mut tx, &secret, token.hash()).await?;
        self.commit(tx).await?;
        Ok((secret, token))
    }

    /// A page of the organisation's secrets.
    pub async fn list_enrollment_secrets(
        &self,
        ctx: &OpContext,
        request: &ListRequest,
    ) -> Result<Listed<EnrollmentSecret>, EnrollmentError> {
        ctx.require(Permission::ManageEnrollmentSecrets)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let page = enrollment_secrets::list(&mut conn, ctx.organization_id, request).await?;
        let total = enrollment_secrets::total(&mut conn, ctx.organization_id).await?;
        Ok(Listed::new(page, total))
    }

    /// A secret of the organisation, without the secret.
    pub async fn get_enrollment_secret(
        &self,
        ctx: &OpContext,
        id: EnrollmentSecretId,
    ) -> Result<EnrollmentSecret, EnrollmentError> {
        ctx.require(Permission::ManageEnrollmentSecrets)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        enrollment_secrets::find(&mut conn, ctx.organization_id, id)
            .await?
            .ok_or(EnrollmentError::NotFound)
    }

    /// Changes what devices get that join from now on, and until when they may.
    pub async fn update_enrollment_secret(
        &self,
        ctx: &OpContext,
        id: EnrollmentSecretId,
        change: SecretChange,
    ) -> Result<EnrollmentSecret, EnrollmentError> {
        ctx.require(Permission::ManageEnrollmentSecrets)?;
        let mut tx = self.begin().await?;
        let mut secret = enrollment_secrets::lock(&mut tx, ctx.organization_id, id)
            .await?
            .ok_or(EnrollmentError::NotFound)?;
        if let Some(name) = change.name {
            secret.name = invalid::text("/name", &name, 100)?;
        }
        if let Some(labels) = change.labels {
            secret.labels = Labels::parse(labels)?;
        }
        if let Some(groups) = change.group_ids {
            secret.group_ids = parse_groups(&groups)?;
            self.check_groups(&mut tx, &secret).await?;
        }
        if let Some(expires_at) = change.expires_at {
            if expires_at.is_some_and(|at| at <= self.now()) {
                let detail = "must be in the future; to end the secret now, delete it";
                return Err(Invalid::new("/expires_at", "IN_THE_PAST", detail).into());
            }
            secret.expires_at = expires_at;
        }
        secret.version = enrollment_secrets::update(&mut tx, &secret).await?;
        self.commit(tx).await?;
        Ok(secret)
    }

    /// All groups of a secret must be there.
    async fn check_groups(
        &self,
        tx: &mut PgConnection,
        secret: &EnrollmentSecret,
    ) -> Result<(), EnrollmentError> {
        let held = groups::hold(tx, secret.organization_id, &secret.group_ids).await?;
        match secret.group_ids.iter().position(|id| !held.contains(id)) {
            None => Ok(()),
            Some(index) => Err(Invalid::new(
                format!("/group_ids/{index}"),
                "GROUP_NOT_FOUND",
                "there is no such device group",
            )
            .into()),
        }
    }

    /// Withdraws a secret. Devices that joined with it stay.
    pub async fn revoke_enrollment_secret(
        &self,
        ctx: &OpContext,
        id: EnrollmentSecretId,
    ) -> Result<(), EnrollmentError> {
        ctx.require(Permission::ManageEnrollmentSecrets)?;
        let mut tx = self.begin().await?;
        let found =
            enrollment_secrets::revoke(&mut tx, ctx.organization_id, id, self.now()).await?;
        self.commit(tx).await?;
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

/// Takes at most 50 different groups.
fn parse_groups(ids: &[Uuid]) -> Result<Vec<GroupId>, Invalid> {
    let mut groups: Vec<GroupId> = Vec::with_capacity(ids.len());
    for id in ids {
        let id = GroupId::from_uuid(*id);
        if !groups.contains(&id) {
            groups.push(id);
        }
    }
    if groups.len() > 50 {
        let detail = "must have at most 50 groups";
        return Err(Invalid::new("/group_ids", "TOO_MANY", detail));
    }
    Ok(groups)
}
