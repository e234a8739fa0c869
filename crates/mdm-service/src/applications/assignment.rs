//! Applications to devices and groups.

use mdm_core::{
    Invalid,
    applications::Intent,
    events::ObjectAction,
    ids::{ApplicationId, DeviceId, GroupId},
    roles::Permission,
};
use mdm_store::{
    StoreError,
    assignments::{self, Assigned, Assignment, Targets},
    devices::{self, DeviceRef},
    events,
    lists::ListRequest,
};

use super::{ApplicationError, changed};
use crate::{context::OpContext, lists::Listed, policies::check_number, services::Services};

/// Reads what is wanted of an application; that it be there, if nobody says.
fn parse_intent(text: Option<&str>) -> Result<Intent, Invalid> {
    text.map_or(Ok(Intent::Install), |text| {
        text.parse()
            .map_err(|unknown: mdm_core::applications::UnknownIntent| {
                Invalid::new("/intent", "UNKNOWN_INTENT", unknown.to_string())
            })
    })
}

impl Services {
    /// Assigns an application to devices, whose platform must be its own, or changes what is wanted
    /// there. Gives those for which anything changed.
    pub async fn assign_application_to_devices(
        &self,
        ctx: &OpContext,
        id: ApplicationId,
        named: &[DeviceRef],
        intent: Option<&str>,
    ) -> Result<Vec<DeviceId>, ApplicationError> {
        ctx.require(Permission::WriteApplications)?;
        check_number("/device_ids", named.len())?;
        let intent = parse_intent(intent)?;
        let (now, organization) = (self.now(), ctx.organization_id);
        let mut tx = self.begin().await?;
        let devices = self.lock_named(&mut tx, ctx, named).await?;
        let application = self.lock_application(&mut tx, ctx, id).await?;
        if let Some(misfit) = devices
            .iter()
            .find(|device| device.platform != application.platform)
        {
            let detail = format!(
                "the application is for {}, and the device {} is {}",
                application.platform, misfit.id, misfit.platform
            );
            return Err(Invalid::new("/device_id", "PLATFORM_MISMATCH", detail).into());
        }
        let ids: Vec<DeviceId> = devices.iter().map(|device| device.id).collect();
        let new = assignments::application_to_devices(&mut tx, organization, id, &ids, intent, now)
            .await?;
        if new.is_empty() && named.len() == 1 {
            return Err(ApplicationError::AlreadyAssigned);
        }
        let told: Vec<_> = new
            .iter()
            .map(|device| {
                let action = ObjectAction::Assigned;
                changed(&application, action, Some(*device), None, Some(intent))
            })
            .collect();
        devices::bump_revisions(&mut tx, organization, &new).await?;
        events::append_all(&mut tx, now, &told).await?;
        self.commit(tx).await?;
        Ok(new)
    }

    /// Assigns an application to groups, or changes what is wanted there. Members of other
    /// platforms are not concerned.
    pub async fn assign_application_to_groups(
        &self,
        ctx: &OpContext,
        id: ApplicationId,
        named: &[GroupId],
        intent: Option<&str>,
    ) -> Result<Vec<GroupId>, ApplicationError> {
        ctx.require(Permission::WriteApplications)?;
        check_number("/group_ids", named.len())?;
        let intent = parse_intent(intent)?;
        let (now, organization) = (self.now(), ctx.organization_id);
        let mut tx = self.begin().await?;
        self.hold_named(&mut tx, ctx, named).await?;
        let application = self.lock_application(&mut tx, ctx, id).await?;
        let new = assignments::application_to_groups(&mut tx, organization, id, named, intent, now)
            .await?;
        if new.is_empty() && named.len() == 1 {
            return Err(ApplicationError::AlreadyAssigned);
        }
        let told: Vec<_> = new
            .iter()
            .map(|group| {
                let action = ObjectAction::Assigned;
                changed(&application, action, None, Some(*group), Some(intent))
            })
            .collect();
        devices::bump_all(&mut tx, organization).await?;
        events::append_all(&mut tx, now, &told).await?;
        self.commit(tx).await?;
        Ok(new)
    }

    /// Takes an application away from a device. What is installed stays as it is.
    pub async fn unassign_application_from_device(
        &self,
        ctx: &OpContext,
        id: ApplicationId,
        device: &DeviceRef,
    ) -> Result<(), ApplicationError> {
        ctx.require(Permission::WriteApplications)?;
        let organization = ctx.organization_id;
        let mut tx = self.begin().await?;
        let device = self.lock_device(&mut tx, ctx, device).await?;
        let application = self.lock_application(&mut tx, ctx, id).await?;
        let assigned = Assigned::Application(id);
        if !assignments::unassign_device(&mut tx, organization, assigned, device.id).await? {
            return Err(ApplicationError::NotAssigned);
        }
        let action = ObjectAction::Unassigned;
        let event = changed(&application, action, Some(device.id), None, None);
        devices::bump_revisions(&mut tx, organization, &[device.id]).await?;
        events::append(&mut tx, self.now(), &event).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// Takes an application away from a group. What is installed stays as it is.
    pub async fn unassign_application_from_group(
        &self,
        ctx: &OpContext,
        id: ApplicationId,
        group: GroupId,
    ) -> Result<(), ApplicationError> {
        ctx.require(Permission::WriteApplications)?;
        let organization = ctx.organization_id;
        let mut tx = self.begin().await?;
        self.hold_named(&mut tx, ctx, &[group]).await?;
        let application = self.lock_application(&mut tx, ctx, id).await?;
        let assigned = Assigned::Application(id);
        if !assignments::unassign_group(&mut tx, organization, assigned, group).await? {
            return Err(ApplicationError::NotAssigned);
        }
        let action = ObjectAction::Unassigned;
        let event = changed(&application, action, None, Some(group), None);
        devices::bump_all(&mut tx, organization).await?;
        events::append(&mut tx, self.now(), &event).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// A page of the devices or groups that an application is assigned to.
    pub async fn list_application_assignments(
        &self,
        ctx: &OpContext,
        id: ApplicationId,
        targets: Targets,
        request: &ListRequest,
    ) -> Result<Listed<Assignment>, ApplicationError> {
        self.get_application(ctx, id).await?;
        let (organization, assigned) = (ctx.organization_id, Assigned::Application(id));
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let page = assignments::list(&mut conn, organization, assigned, targets, request).await?;
        let total = assignments::total(&mut conn, organization, assigned, targets).await?;
        Ok(Listed::new(page, total))
    }
}
