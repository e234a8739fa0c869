//! Policies: what devices must be like.

use mdm_core::{
    Invalid,
    events::{AssignmentAction, EventData, NewEvent, ObjectAction},
    ids::{DeviceId, GroupId, OrganizationId, PolicyId},
    invalid,
    policies::{Configuration, Policy, PolicyPlatform},
    roles::Permission,
};
use mdm_store::{
    StoreError, assignments, devices, events,
    lists::ListRequest,
    policies::{self, PolicyFilter},
};
use serde_json::Value;

use crate::{
    context::{Forbidden, OpContext},
    devices::DeviceError,
    groups::{GroupError, parse_description},
    lists::Listed,
    services::Services,
};

mod assignment;
mod compliance;

pub use assignment::ASSIGNED_AT_ONCE;
pub(crate) use assignment::check_number;
pub use compliance::{DevicePolicies, PolicyComplianceOf, PolicyReport, Summary};

/// Why something about a policy was not done.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The caller may not.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// Fields are not acceptable.
    #[error("invalid input")]
    Invalid(Vec<Invalid>),
    /// The organisation has no such policy.
    #[error("there is no such policy")]
    NotFound,
    /// The device is not there, or cannot take it.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The group is not there.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// It is assigned already.
    #[error("the policy is assigned to it already")]
    AlreadyAssigned,
    /// It is not assigned.
    #[error("the policy is not assigned to it")]
    NotAssigned,
    /// `If-Match` names another version than the present one.
    #[error("the policy was changed in the meantime: read it again and repeat the change")]
    Stale,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Invalid> for PolicyError {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(vec![invalid])
    }
}

/// A wish for a new policy.
#[derive(Debug, Default)]
pub struct NewPolicy {
    /// What people call it.
    pub name: String,
    /// What people say of it.
    pub description: Option<String>,
    /// Which devices it is for; all if absent.
    pub platform: Option<String>,
    /// Whether it counts; it does if absent.
    pub enabled: Option<bool>,
    /// What it asks for, with the name of its field.
    pub configuration: Option<(&'static str, Value)>,
    /// A tag.
    pub kind: Option<String>,
}

/// The fields to change; `None` leaves a field as it is.
#[derive(Debug, Default)]
pub struct PolicyChange {
    /// A new name.
    pub name: Option<String>,
    /// A new description, or none.
    pub description: Option<Option<String>>,
    /// Another platform.
    pub platform: Option<String>,
    /// Whether it counts.
    pub enabled: Option<bool>,
    /// All that it asks for, anew, with the name of its field.
    pub configuration: Option<(&'static str, Value)>,
    /// Another tag, or none.
    pub kind: Option<Option<String>>,
    /// The version that the caller saw, from `If-Match`.
    pub if_version: Option<i64>,
}

impl Services {
    /// Makes a policy.
    pub async fn create_policy(
        &self,
        ctx: &OpContext,
        new: NewPolicy,
    ) -> Result<Policy, PolicyError> {
        ctx.require(Permission::WritePolicies)?;
        let now = self.now();
        let platform = parse_platform(new.platform.as_deref().unwrap_or("all"))?;
        let (field, value) = new
            .configuration
            .unwrap_or_else(|| ("/configuration", Value::Object(serde_json::Map::new())));
        let policy = Policy {
            id: PolicyId::new(self.clock.as_ref(), self.entropy.as_ref()),
            organization_id: ctx.organization_id,
            name: invalid::text("/name", &new.name, 200)?,
            description: parse_description(new.description)?,
            platform,
            kind: parse_kind(new.kind)?,
            enabled: new.enabled.unwrap_or(true),
            configuration: parse_configuration(field, platform, &value)?,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let mut tx = self.begin().await?;
        policies::insert(&mut tx, &policy).await?;
        events::append(&mut tx, now, &changed(&policy, ObjectAction::Created)).await?;
        self.commit(tx).await?;
        Ok(policy)
    }

    /// Refuses who may not read policies: the catalogue is theirs.
    pub fn may_read_policies(&self, ctx: &OpContext) -> Result<(), PolicyError> {
        ctx.require(Permission::ReadPolicies)?;
        Ok(())
    }

    /// A policy of the organisation.
    pub async fn get_policy(&self, ctx: &OpContext, id: PolicyId) -> Result<Policy, PolicyError> {
        ctx.require(Permission::ReadPolicies)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        policies::find(&mut conn, ctx.organization_id, id)
            .await?
            .ok_or(PolicyError::NotFound)
    }

    /// A page of the organisation's policies.
    pub async fn list_policies(
        &self,
        ctx: &OpContext,
        filter: &PolicyFilter,
        request: &ListRequest,
    ) -> Result<Listed<Policy>, PolicyError> {
        ctx.require(Permission::ReadPolicies)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let page = policies::list(&mut conn, ctx.organization_id, filter, request).await?;
        let total = policies::total(&mut conn, ctx.organization_id, filter).await?;
        Ok(Listed::new(page, total))
    }

    /// Changes a policy. Its version counts every change; what devices said of a former one is
    /// pending again.
    pub async fn update_policy(
        &self,
        ctx: &OpContext,
        id: PolicyId,
        change: PolicyChange,
    ) -> Result<Policy, PolicyError> {
        ctx.require(Permission::WritePolicies)?;
        let mut tx = self.begin().await?;
        let mut policy = policies::lock(&mut tx, ctx.organization_id, id)
            .await?
            .ok_or(PolicyError::NotFound)?;
        if change
            .if_version
            .is_some_and(|version| version != policy.version)
        {
            return Err(PolicyError::Stale);
        }
        apply(&mut policy, change)?;
        let now = self.now();
        policy.updated_at = now;
        policy.version = policies::update(&mut tx, &policy).await?;
        devices::bump_all(&mut tx, ctx.organization_id).await?;
        events::append(&mut tx, now, &changed(&policy, ObjectAction::Updated)).await?;
        self.commit(tx).await?;
        Ok(policy)
    }

    /// Deletes a policy: it is taken away from everybody first, each with its event.
    pub async fn delete_policy(&self, ctx: &OpContext, id: PolicyId) -> Result<(), PolicyError> {
        ctx.require(Permission::WritePolicies)?;
        let (now, organization) = (self.now(), ctx.organization_id);
        let mut tx = self.begin().await?;
        let policy = policies::lock(&mut tx, organization, id)
            .await?
            .ok_or(PolicyError::NotFound)?;
        let (from_devices, from_groups) =
            assignments::unassign_policy(&mut tx, organization, id).await?;
        let unassigned = AssignmentAction::Unassigned;
        let mut told: Vec<NewEvent> = from_devices
            .into_iter()
            .map(|device| assignment(organization, id, Some(device), None, unassigned))
            .collect();
        told.extend(
            from_groups
                .into_iter()
                .map(|group| assignment(organization, id, None, Some(group), unassigned)),
        );
        told.push(changed(&policy, ObjectAction::Deleted));
        policies::delete(&mut tx, organization, id).await?;
        devices::bump_all(&mut tx, organization).await?;
        events::append_all(&mut tx, now, &told).await?;
        self.commit(tx).await?;
        Ok(())
    }
}

fn apply(policy: &mut Policy, change: PolicyChange) -> Result<(), PolicyError> {
    if let Some(name) = change.name {
        policy.name = invalid::text("/name", &name, 200)?;
    }
    if let Some(description) = change.description {
        policy.description = parse_description(description)?;
    }
    if let Some(kind) = change.kind {
        policy.kind = parse_kind(kind)?;
    }
    let before = policy.platform;
    if let Some(platform) = change.platform {
        policy.platform = parse_platform(&platform)?;
    }
    policy.enabled = change.enabled.unwrap_or(policy.enabled);
    match change.configuration {
        Some((field, value)) => {
            policy.configuration = parse_configuration(field, policy.platform, &value)?;
        }
        // What it asks for must make sense on the new platform as well.
        None if policy.platform != before => {
            let present = policy.configuration.to_json();
            policy.configuration =
                parse_configuration("/configuration", policy.platform, &present)?;
        }
        None => {}
    }
    Ok(())
}

fn parse_platform(text: &str) -> Result<PolicyPlatform, Invalid> {
    text.parse()
        .map_err(|unknown: mdm_core::policies::UnknownPolicyPlatform| {
            Invalid::new("/platform", "UNKNOWN_PLATFORM", unknown.to_string())
        })
}

fn parse_kind(kind: Option<String>) -> Result<Option<String>, Invalid> {
    kind.map(|kind| invalid::text("/type", &kind, 100))
        .transpose()
}

fn parse_configuration(
    field: &'static str,
    platform: PolicyPlatform,
    value: &Value,
) -> Result<Configuration, PolicyError> {
    invalid::no_nul(field, value)?;
    Configuration::parse(field, platform, value).map_err(PolicyError::Invalid)
}

/// The event of a policy that was made, changed or deleted.
fn changed(policy: &Policy, action: ObjectAction) -> NewEvent {
    let data = EventData::PolicyChanged {
        policy_id: policy.id,
        action,
        name: policy.name.clone(),
        enabled: policy.enabled,
        version: policy.version,
    };
    NewEvent::new(policy.organization_id, data)
}

/// The event of a policy that was assigned or taken away.
pub(crate) const fn assignment(
    organization: OrganizationId,
    policy_id: PolicyId,
    device_id: Option<DeviceId>,
    group_id: Option<GroupId>,
    action: AssignmentAction,
) -> NewEvent {
    let data = EventData::PolicyAssignment {
        policy_id,
        device_id,
        group_id,
        action,
    };
    NewEvent::new(organization, data)
}
