//! Applications: packages in the storage, their assignment, and their state on devices.

use mdm_core::{
    Invalid,
    applications::{Application, InstallState, Intent},
    devices::{Device, Platform},
    events::{EventData, NewEvent, ObjectAction},
    ids::{ApplicationId, DeviceId, GroupId, OrganizationId},
    invalid,
    roles::Permission,
};
use mdm_store::{
    PgConnection, StoreError,
    applications::{self, ApplicationFilter, InstallOnDevice, Wanted},
    assignments, events,
    lists::ListRequest,
};
use uuid::Uuid;

use crate::{
    context::{Forbidden, OpContext},
    devices::DeviceError,
    groups::{GroupError, parse_description},
    lists::Listed,
    services::Services,
};

mod assignment;
mod packages;
mod seeing_to;

pub use packages::{Package, PackageError, Packages, Upload, UploadedPart};

/// Why something about an application was not done.
#[derive(Debug, thiserror::Error)]
pub enum ApplicationError {
    /// The caller may not.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// A field is not acceptable.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The organisation has no such application.
    #[error("there is no such application")]
    NotFound,
    /// The device is not there, or cannot take it.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The group is not there.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// It is assigned to somebody.
    #[error("the application is assigned: take it away from its devices and groups first")]
    Assigned,
    /// It is assigned already, with the same intent.
    #[error("the application is assigned to it already, with this intent")]
    AlreadyAssigned,
    /// It is not assigned.
    #[error("the application is not assigned to it")]
    NotAssigned,
    /// `If-Match` names another version than the present one.
    #[error("the application was changed in the meantime: read it again and repeat the change")]
    Stale,
    /// The storage failed, or the package is not acceptable.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is said of a package that is being uploaded.
#[derive(Debug, Default, Clone)]
pub struct NewApplication {
    /// What people call it.
    pub name: Option<String>,
    /// Which version of it the package holds.
    pub version: Option<String>,
    /// What it runs on.
    pub platform: Option<String>,
    /// What people say of it.
    pub description: Option<String>,
    /// The SHA-256 that the package must have.
    pub checksum: Option<String>,
}

/// The same, checked.
#[derive(Debug, Clone)]
pub struct CheckedApplication {
    name: String,
    version: String,
    platform: Platform,
    description: Option<String>,
    checksum: Option<String>,
}

/// The fields to change; `None` leaves a field as it is.
#[derive(Debug, Default)]
pub struct ApplicationChange {
    /// A new name.
    pub name: Option<String>,
    /// Another version.
    pub version: Option<String>,
    /// A new description, or none.
    pub description: Option<Option<String>>,
    /// The version of the row that the caller saw, from `If-Match`.
    pub if_version: Option<i64>,
}

impl NewApplication {
    /// Checks what is said of a package, before any of it is stored.
    pub fn check(self) -> Result<CheckedApplication, Invalid> {
        let needed = |pointer: &str, value: Option<String>, max| {
            let missing = || Invalid::new(pointer, "REQUIRED", "is missing");
            invalid::text(pointer, &value.ok_or_else(missing)?, max)
        };
        let platform = needed("/platform", self.platform, 20)?;
        let checksum = self.checksum.filter(|text| !text.is_empty());
        let is_hash =
            |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if checksum.as_ref().is_some_and(|text| !is_hash(text)) {
            let detail = "must be a SHA-256 in 64 hexadecimal digits";
            return Err(Invalid::new("/checksum", "INVALID_CHECKSUM", detail));
        }
        Ok(CheckedApplication {
            name: needed("/name", self.name, 200)?,
            version: needed("/version", self.version, 100)?,
            platform: platform
                .parse()
                .map_err(|unknown: mdm_core::devices::UnknownPlatform| {
                    Invalid::new("/platform", "UNKNOWN_PLATFORM", unknown.to_string())
                })?,
            description: parse_description(self.description)?,
            checksum: checksum.map(|text| text.to_lowercase()),
        })
    }
}

impl Services {
    /// Takes an uploaded package over as an application. If its checksum is not the announced one,
    /// or the database fails, nothing is left of it.
    pub async fn create_application(
        &self,
        ctx: &OpContext,
        new: CheckedApplication,
        upload: Upload,
    ) -> Result<Application, ApplicationError> {
        ctx.require(Permission::WriteApplications)?;
        let now = self.now();
        let id = upload.id();
        let package = upload.finish(new.checksum.as_deref()).await?;
        let application = Application {
            id,
            organization_id: ctx.organization_id,
            name: new.name,
            app_version: new.version,
            platform: new.platform,
            description: new.description,
            file_name: package.file_name,
            size: package.size,
            checksum: package.checksum,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let stored = async {
            let mut tx = self.begin().await?;
            applications::insert(&mut tx, &application).await?;
            let event = changed(&application, ObjectAction::Created, None, None, None);
            events::append(&mut tx, now, &event).await?;
            self.commit(tx).await
        };
        if let Err(error) = stored.await {
            // Whether the commit happened cannot be known if the connection broke: the sweep
            // decides, which asks the database.
            if !error.is_unavailable() {
                self.packages.delete(ctx.organization_id, id).await;
            }
            return Err(error.into());
        }
        Ok(application)
    }

    /// Begins to store a package for an application that is to be made.
    pub async fn begin_upload(
        &self,
        ctx: &OpContext,
        file_name: &str,
    ) -> Result<Upload, ApplicationError> {
        ctx.require(Permission::WriteApplications)?;
        let id = ApplicationId::new(self.clock.as_ref(), self.entropy.as_ref());
        Ok(self
            .packages
            .begin(ctx.organization_id, id, file_name)
            .await?)
    }

    /// Refuses early who may not upload.
    pub fn may_upload(&self, ctx: &OpContext) -> Result<(), ApplicationError> {
        ctx.require(Permission::WriteApplications)?;
        Ok(())
    }

    /// An application of the organisation.
    pub async fn get_application(
        &self,
        ctx: &OpContext,
        id: ApplicationId,
    ) -> Result<Application, ApplicationError> {
        ctx.require(Permission::ReadApplications)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        applications::find(&mut conn, ctx.organization_id, id)
            .await?
            .ok_or(ApplicationError::NotFound)
    }

    /// A page of the organisation's applications.
    pub async fn list_applications(
        &self,
        ctx: &OpContext,
        filter: &ApplicationFilter,
        request: &ListRequest,
    ) -> Result<Listed<Application>, ApplicationError> {
        ctx.require(Permission::ReadApplications)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let page = applications::list(&mut conn, ctx.organization_id, filter, request).await?;
        let total = applications::total(&mut conn, ctx.organization_id, filter).await?;
        Ok(Listed::new(page, total))
    }

    /// Changes what is said of an application.
    pub async fn update_application(
        &self,
        ctx: &OpContext,
        id: ApplicationId,
        change: ApplicationChange,
    ) -> Result<Application, ApplicationError> {
        ctx.require(Permission::WriteApplications)?;
        let mut tx = self.begin().await?;
        let mut application = self.lock_application(&mut tx, ctx, id).await?;
        if change
            .if_version
            .is_some_and(|version| version != application.version)
        {
            return Err(ApplicationError::Stale);
        }
        if let Some(name) = change.name {
            application.name = invalid::text("/name", &name, 200)?;
        }
        if let Some(version) = change.version {
            application.app_version = invalid::text("/version", &version, 100)?;
        }
        if let Some(description) = change.description {
            application.description = parse_description(description)?;
        }
        let now = self.now();
        application.updated_at = now;
        application.version = applications::update(&mut tx, &application).await?;
        let event = changed(&application, ObjectAction::Updated, None, None, None);
        events::append(&mut tx, now, &event).await?;
        self.commit(tx).await?;
        Ok(application)
    }

    /// Deletes an application that is assigned to nobody, and its package.
    pub async fn delete_application(
        &self,
        ctx: &OpContext,
        id: ApplicationId,
    ) -> Result<(), ApplicationError> {
        ctx.require(Permission::WriteApplications)?;
        let mut tx = self.begin().await?;
        let application = self.lock_application(&mut tx, ctx, id).await?;
        if assignments::is_application_assigned(&mut tx, ctx.organization_id, id).await? {
            return Err(ApplicationError::Assigned);
        }
        applications::delete(&mut tx, ctx.organization_id, id).await?;
        let event = changed(&application, ObjectAction::Deleted, None, None, None);
        events::append(&mut tx, self.now(), &event).await?;
        self.commit(tx).await?;
        self.packages.delete(ctx.organization_id, id).await;
        Ok(())
    }

    /// An application's package, for operators.
    pub async fn package(
        &self,
        ctx: &OpContext,
        id: ApplicationId,
    ) -> Result<(Application, Packages), ApplicationError> {
        let application = self.get_application(ctx, id).await?;
        Ok((application, self.packages.clone()))
    }

    /// An application's package, for a device that it reaches with the intent to have it there, or
    /// that must read it to remove it.
    pub async fn package_for_device(
        &self,
        device: &Device,
        id: ApplicationId,
    ) -> Result<(Application, Packages), ApplicationError> {
        let wanted = self.device_applications(device).await?;
        let wanted = wanted
            .into_iter()
            .find(|wanted| wanted.application.id == id);
        let wanted = wanted.ok_or(ApplicationError::NotFound)?;
        Ok((wanted.application, self.packages.clone()))
    }

    /// The applications that reach a device.
    pub async fn device_applications(&self, device: &Device) -> Result<Vec<Wanted>, StoreError> {
        let mut conn = self.pool.acquire().await?;
        applications::wanted(&mut conn, device.organization_id, device.id).await
    }

    /// Where an application stands on the devices that it reaches or is on; one more than `limit`
    /// if more follow.
    pub async fn list_installs(
        &self,
        ctx: &OpContext,
        id: ApplicationId,
        state: Option<InstallState>,
        (after, limit, offset): (Uuid, i64, i64),
    ) -> Result<(Vec<InstallOnDevice>, i64), ApplicationError> {
        self.get_application(ctx, id).await?;
        let organization = ctx.organization_id;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let installs =
            applications::installs(&mut conn, organization, id, state, after, limit + 1, offset)
                .await?;
        let total = applications::count_installs(&mut conn, organization, id, state).await?;
        Ok((installs, total))
    }

    pub(crate) async fn lock_application(
        &self,
        tx: &mut PgConnection,
        ctx: &OpContext,
        id: ApplicationId,
    ) -> Result<Application, ApplicationError> {
        applications::lock(tx, ctx.organization_id, id)
            .await?
            .ok_or(ApplicationError::NotFound)
    }

    /// The event of an application that was taken away from a device or group.
    pub(crate) async fn application_unassigned(
        &self,
        tx: &mut PgConnection,
        organization: OrganizationId,
        id: ApplicationId,
        device: Option<DeviceId>,
        group: Option<GroupId>,
    ) -> Result<NewEvent, StoreError> {
        let found = applications::find(tx, organization, id).await?;
        let application = found.ok_or(StoreError::NotOneRow {
            table: "applications",
            changed: 0,
        })?;
        Ok(changed(
            &application,
            ObjectAction::Unassigned,
            device,
            group,
            None,
        ))
    }
}

/// The event of an application.
fn changed(
    application: &Application,
    action: ObjectAction,
    device_id: Option<DeviceId>,
    group_id: Option<GroupId>,
    intent: Option<Intent>,
) -> NewEvent {
    let data = EventData::ApplicationChanged {
        application_id: application.id,
        action,
        name: application.name.clone(),
        version: application.app_version.clone(),
        device_id,
        group_id,
        intent,
    };
    NewEvent::new(application.organization_id, data)
}
