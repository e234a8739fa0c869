//! Policies to devices and groups.

use mdm_core::{
    Invalid,
    events::{AssignmentAction, NewEvent},
    ids::{DeviceId, GroupId, PolicyId},
    policies::Policy,
    roles::Permission,
};
use mdm_store::{
    PgConnection, StoreError,
    assignments::{self, Assigned, Assignment, Targets},
    devices::{self, DeviceRef},
    events, groups,
    lists::ListRequest,
    policies,
};

use super::{PolicyError, assignment};
use crate::{context::OpContext, groups::GroupError, lists::Listed, services::Services};

/// To how many devices or groups something can be assigned at once.
pub const ASSIGNED_AT_ONCE: usize = 1_000;

impl Services {
    /// Assigns a policy to devices, all of which it must fit. Gives those that did not have it; if
    /// only one is named and has it already, that is an error.
    pub async fn assign_policy_to_devices(
        &self,
        ctx: &OpContext,
        id: PolicyId,
        named: &[DeviceRef],
    ) -> Result<Vec<DeviceId>, PolicyError> {
        ctx.require(Permission::WritePolicies)?;
        check_number("/device_ids", named.len())?;
        let (now, organization) = (self.now(), ctx.organization_id);
        let mut tx = self.begin().await?;
        let devices = self.lock_named(&mut tx, ctx, named).await?;
        let policy = self.lock_policy(&mut tx, ctx, id).await?;
        if let Some(misfit) = devices
            .iter()
            .find(|device| !policy.platform.includes(device.platform))
        {
            let detail = format!(
                "the policy is for {}, and the device {} is {}",
                policy.platform.as_str(),
                misfit.id,
                misfit.platform
            );
            return Err(Invalid::new("/device_id", "PLATFORM_MISMATCH", detail).into());
        }
        let ids: Vec<DeviceId> = devices.iter().map(|device| device.id).collect();
        let new = assignments::policy_to_devices(&mut tx, organization, id, &ids, now).await?;
        if new.is_empty() && named.len() == 1 {
            return Err(PolicyError::AlreadyAssigned);
        }
        let told: Vec<NewEvent> = new
            .iter()
            .map(|device| {
                assignment(
                    organization,
                    id,
                    Some(*device),
                    None,
                    AssignmentAction::Assigned,
                )
            })
            .collect();
        devices::bump_revisions(&mut tx, organization, &new).await?;
        events::append_all(&mut tx, now, &told).await?;
        self.commit(tx).await?;
        Ok(new)
    }

    /// Assigns a policy to groups. Members that it does not fit are not concerned.
    pub async fn assign_policy_to_groups(
        &self,
        ctx: &OpContext,
        id: PolicyId,
        named: &[GroupId],
    ) -> Result<Vec<GroupId>, PolicyError> {
        ctx.require(Permission::WritePolicies)?;
        check_number("/group_ids", named.len())?;
        let (now, organization) = (self.now(), ctx.organization_id);
        let mut tx = self.begin().await?;
        self.hold_named(&mut tx, ctx, named).await?;
        self.lock_policy(&mut tx, ctx, id).await?;
        let new = assignments::policy_to_groups(&mut tx, organization, id, named, now).await?;
        if new.is_empty() && named.len() == 1 {
            return Err(PolicyError::AlreadyAssigned);
        }
        let told: Vec<NewEvent> = new
            .iter()
            .map(|group| {
                assignment(
                    organization,
                    id,
                    None,
                    Some(*group),
                    AssignmentAction::Assigned,
                )
            })
            .collect();
        devices::bump_all(&mut tx, organization).await?;
        events::append_all(&mut tx, now, &told).await?;
        self.commit(tx).await?;
        Ok(new)
    }

    /// Takes a policy away from a device.
    pub async fn unassign_policy_from_device(
        &self,
        ctx: &OpContext,
        id: PolicyId,
        device: &DeviceRef,
    ) -> Result<(), PolicyError> {
        ctx.require(Permission::WritePolicies)?;
        let organization = ctx.organization_id;
        let mut tx = self.begin().await?;
        let device = self.lock_device(&mut tx, ctx, device).await?;
        self.lock_policy(&mut tx, ctx, id).await?;
        let assigned = Assigned::Policy(id);
        if !assignments::unassign_device(&mut tx, organization, assigned, device.id).await? {
            return Err(PolicyError::NotAssigned);
        }
        let event = assignment(
            organization,
            id,
            Some(device.id),
            None,
            AssignmentAction::Unassigned,
        );
        devices::bump_revisions(&mut tx, organization, &[device.id]).await?;
        events::append(&mut tx, self.now(), &event).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// Takes a policy away from a group.
    pub async fn unassign_policy_from_group(
        &self,
        ctx: &OpContext,
        id: PolicyId,
        group: GroupId,
    ) -> Result<(), PolicyError> {
        ctx.require(Permission::WritePolicies)?;
        let organization = ctx.organization_id;
        let mut tx = self.begin().await?;
        self.hold_named(&mut tx, ctx, &[group]).await?;
        self.lock_policy(&mut tx, ctx, id).await?;
        let assigned = Assigned::Policy(id);
        if !assignments::unassign_group(&mut tx, organization, assigned, group).await? {
            return Err(PolicyError::NotAssigned);
        }
        let event = assignment(
            organization,
            id,
            None,
            Some(group),
            AssignmentAction::Unassigned,
        );
        devices::bump_all(&mut tx, organization).await?;
        events::append(&mut tx, self.now(), &event).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// A page of the devices or groups that a policy is assigned to.
    pub async fn list_policy_assignments(
        &self,
        ctx: &OpContext,
        id: PolicyId,
        targets: Targets,
        request: &ListRequest,
    ) -> Result<Listed<Assignment>, PolicyError> {
        self.get_policy(ctx, id).await?;
        let (organization, assigned) = (ctx.organization_id, Assigned::Policy(id));
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let page = assignments::list(&mut conn, organization, assigned, targets, request).await?;
        let total = assignments::total(&mut conn, organization, assigned, targets).await?;
        Ok(Listed::new(page, total))
    }

    async fn lock_policy(
        &self,
        tx: &mut PgConnection,
        ctx: &OpContext,
        id: PolicyId,
    ) -> Result<Policy, PolicyError> {
        policies::lock(tx, ctx.organization_id, id)
            .await?
            .ok_or(PolicyError::NotFound)
    }

    /// Keeps groups from being deleted until the transaction ends; all must be there.
    pub(crate) async fn hold_named(
        &self,
        tx: &mut PgConnection,
        ctx: &OpContext,
        named: &[GroupId],
    ) -> Result<(), GroupError> {
        let held = groups::hold(tx, ctx.organization_id, named).await?;
        match named.iter().position(|group| !held.contains(group)) {
            None => Ok(()),
            Some(_) if named.len() == 1 => Err(GroupError::NotFound),
            Some(index) => Err(Invalid::new(
                format!("/group_ids/{index}"),
                "GROUP_NOT_FOUND",
                "there is no such device group",
            )
            .into()),
        }
    }
}

/// Refuses too many at once, or none.
pub(crate) fn check_number(pointer: &str, number: usize) -> Result<(), Invalid> {
    if (1..=ASSIGNED_AT_ONCE).contains(&number) {
        return Ok(());
    }
    let detail = format!("must name 1 to {ASSIGNED_AT_ONCE}");
    Err(Invalid::new(pointer, "WRONG_NUMBER", detail))
}
