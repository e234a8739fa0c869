//! Devices: enrolment, reading, changing, unenrolment.

use mdm_core::{
    Invalid, Timestamp,
    devices::{Device, DeviceStatus, HardwareUuid, Hostname, Labels, Platform},
    enrollment::SecretRefused,
    events::{AssignmentAction, EventData, MembershipAction, MembershipSource, NewEvent},
    ids::{DeviceId, OrganizationId},
    invalid,
    json::RawJson,
    roles::Permission,
    tokens::{Token, TokenHash, TokenKind},
};
use mdm_store::{
    PgConnection, StoreError,
    assignments::{self, Assigned},
    devices::{self, DeviceFilter, DeviceRef, Inventory},
    events, groups, licenses,
    lists::ListRequest,
};
use serde_json::Value;

use crate::{
    context::{Actor, Forbidden, OpContext},
    groups::{Changed, membership},
    lists::Listed,
    policies::assignment,
    presence::status_change,
    services::Services,
    throttle::Throttled,
};

mod bulk;
mod enroll;
mod report;

pub use bulk::BULK_AT_MOST;
pub(crate) use bulk::{JOINING_AT_ONCE, Joining};
pub use enroll::{Enrolled, Enroller, Enrollment};
pub use report::{DeviceReport, SOFTWARE, SoftwareReport};

/// The largest `hardware_info`, in bytes of JSON.
const MAX_HARDWARE_INFO: usize = 64 * 1024;

/// Why something about a device was not done.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The caller may not.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// A field is not acceptable.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The organisation has no such device.
    #[error("there is no such device")]
    NotFound,
    /// The hardware uuid is taken.
    #[error(
        "a device with this uuid is enrolled; to enrol it anew, which ends its present token, add ?re_enroll=true"
    )]
    AlreadyEnrolled,
    /// The device was unenrolled.
    #[error("the device was unenrolled")]
    Unenrolled,
    /// The enrolment secret does not let the device in.
    #[error("{0}")]
    SecretRefused(SecretRefused),
    /// A device must bring an enrolment secret.
    #[error("an enrolment secret is needed")]
    SecretMissing,
    /// `If-Match` names another version than the present one.
    #[error("the device was changed in the meantime: read it again and repeat the change")]
    Stale,
    /// As many devices are enrolled as the license allows.
    #[error("the license allows no more devices; GET /api/v1/license/status tells how many")]
    LicenseLimit,
    /// The license has expired.
    #[error("the license has expired: an administrator must set a new key")]
    LicenseExpired,
    /// Too many failures.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The fields to change; `None` leaves a field as it is.
#[derive(Debug, Default)]
pub struct DeviceChange {
    /// A new name.
    pub hostname: Option<Hostname>,
    /// A new version of the operating system, or none.
    pub os_version: Option<Option<String>>,
    /// All labels anew.
    pub labels: Option<Labels>,
    /// The version that the caller saw, from `If-Match`.
    pub if_version: Option<i64>,
}

impl Services {
    /// A device of the organisation.
    pub async fn get_device(
        &self,
        ctx: &OpContext,
        device: &DeviceRef,
    ) -> Result<Device, DeviceError> {
        ctx.require(Permission::ReadDevices)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        devices::find(&mut conn, ctx.organization_id, device)
            .await?
            .ok_or(DeviceError::NotFound)
    }

    /// A page of the organisation's devices.
    pub async fn list_devices(
        &self,
        ctx: &OpContext,
        filter: &DeviceFilter,
        request: &ListRequest,
    ) -> Result<Listed<Device>, DeviceError> {
        ctx.require(Permission::ReadDevices)?;
        let organization = ctx.organization_id;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let list = format!("devices {filter:?}");
        let is_long = self.totals.is_estimated(organization, &list);
        let page = devices::list(&mut conn, organization, filter, request, is_long).await?;
        let count = devices::total(&mut conn, organization, filter);
        let total = self
            .totals
            .get(&self.changes, (organization, &list), &page, count)
            .await?;
        Ok(Listed::new(page, total))
    }

    /// What a device reported beside its hardware, of this kind.
    pub async fn device_inventory(
        &self,
        ctx: &OpContext,
        device: &DeviceRef,
        kind: &str,
    ) -> Result<(Device, Option<Inventory>), DeviceError> {
        let device = self.get_device(ctx, device).await?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let found = devices::inventory(&mut conn, device.organization_id, device.id, kind).await?;
        Ok((device, found))
    }

    /// Changes what people may change of a device.
    pub async fn update_device(
        &self,
        ctx: &OpContext,
        device: &DeviceRef,
        change: DeviceChange,
    ) -> Result<Device, DeviceError> {
        ctx.require(Permission::WriteDevices)?;
        let mut tx = self.begin().await?;
        let mut device = self.lock_device(&mut tx, ctx, device).await?;
        if device.status == DeviceStatus::Unenrolled {
            return Err(DeviceError::Unenrolled);
        }
        if change
            .if_version
            .is_some_and(|version| version != device.version)
        {
            return Err(DeviceError::Stale);
        }
        let now = self.now();
        device.hostname = change.hostname.unwrap_or(device.hostname);
        device.os_version = change.os_version.unwrap_or(device.os_version);
        device.labels = change.labels.unwrap_or(device.labels);
        device.version = devices::update(&mut tx, &device).await?;
        events::append(&mut tx, now, &device_updated(&device)).await?;
        self.follow_filters(&mut tx, &device, Changed::Facts)
            .await?;
        self.commit(tx).await?;
        Ok(device)
    }

    /// Releases a device: its token stops working at once, its open commands end. Doing it again
    /// changes nothing.
    pub async fn unenroll_device(
        &self,
        ctx: &OpContext,
        device: &DeviceRef,
    ) -> Result<(), DeviceError> {
        ctx.require(Permission::WriteDevices)?;
        let mut tx = self.begin().await?;
        let mut device = self.lock_device(&mut tx, ctx, device).await?;
        if device.status == DeviceStatus::Unenrolled {
            return Ok(());
        }
        self.end_enrollment(&mut tx, ctx, &mut device).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// A device releases itself, with its own token.
    pub async fn unenroll_self(&self, ctx: &OpContext) -> Result<(), DeviceError> {
        let Actor::Device(id) = ctx.actor else {
            return Err(Forbidden.into());
        };
        let system = OpContext::system(ctx.organization_id);
        self.unenroll_device(&system, &DeviceRef::Id(id)).await
    }

    async fn end_enrollment(
        &self,
        tx: &mut PgConnection,
        ctx: &OpContext,
        device: &mut Device,
    ) -> Result<(), DeviceError> {
        let now = self.now();
        let cause = format!("the device was unenrolled by {}", ctx.cause());
        self.end_open_commands(tx, device.organization_id, device.id, &cause)
            .await?;
        events::append(tx, now, &status_change(device, DeviceStatus::Unenrolled)).await?;
        device.status = DeviceStatus::Unenrolled;
        device.version = devices::update(tx, device).await?;
        devices::set_token(tx, device, None).await?;
        self.leave_everything(tx, device).await?;
        licenses::count_unenrolled(tx, device.organization_id).await?;
        Ok(())
    }

    /// Takes a device that is being released out of its groups, and everything away from it.
    async fn leave_everything(
        &self,
        tx: &mut PgConnection,
        device: &Device,
    ) -> Result<(), StoreError> {
        let organization = device.organization_id;
        let mut told = Vec::new();
        for member in groups::remove_all_of(&mut *tx, organization, device.id).await? {
            let source = if member.by_hand {
                MembershipSource::Manual
            } else {
                MembershipSource::Filter
            };
            let left = MembershipAction::Removed;
            told.push(membership(
                organization,
                member.group_id,
                device.id,
                left,
                source,
            ));
        }
        for assigned in
            assignments::unassign_all_of_device(&mut *tx, organization, device.id).await?
        {
            told.push(match assigned {
                Assigned::Policy(policy) => {
                    let unassigned = AssignmentAction::Unassigned;
                    assignment(organization, policy, Some(device.id), None, unassigned)
                }
                Assigned::Application(id) => {
                    self.application_unassigned(tx, organization, id, Some(device.id), None)
                        .await?
                }
            });
        }
        events::append_all(tx, self.now(), &told).await
    }

    pub(crate) async fn lock_device(
        &self,
        tx: &mut PgConnection,
        ctx: &OpContext,
        device: &DeviceRef,
    ) -> Result<Device, DeviceError> {
        let found = devices::find(&mut *tx, ctx.organization_id, device)
            .await?
            .ok_or(DeviceError::NotFound)?;
        devices::lock(tx, ctx.organization_id, found.id)
            .await?
            .ok_or(DeviceError::NotFound)
    }

    /// The device that a token belongs to, seen just now. `None` for an unknown or ended token.
    pub async fn authenticate_device(&self, presented: &str) -> Result<Option<Device>, StoreError> {
        let Some(token) = Token::parse(TokenKind::Device, presented) else {
            return Ok(None);
        };
        let mut conn = self.pool.acquire().await?;
        devices::find_by_token(&mut conn, token.hash()).await
    }

    /// Whether the token is the device's now.
    pub async fn is_token_of(
        &self,
        organization: OrganizationId,
        device: DeviceId,
        token: &TokenHash,
    ) -> Result<bool, StoreError> {
        let mut conn = self.pool.acquire().await?;
        devices::has_token(&mut conn, organization, device, token).await
    }
}

/// The event of a device whose facts changed.
pub(crate) fn device_updated(device: &Device) -> NewEvent {
    let data = EventData::DeviceUpdated {
        device_id: device.id,
        hostname: device.hostname.as_str().to_owned(),
        os_version: device.os_version.clone(),
        labels: device.labels.clone(),
        version: device.version,
    };
    NewEvent::new(device.organization_id, data)
}

/// Takes `hardware_info`: an object of at most 64 KiB.
pub(crate) fn parse_hardware_info(
    pointer: &str,
    value: Option<Value>,
) -> Result<Option<Value>, Invalid> {
    let Some(value) = value else { return Ok(None) };
    if !value.is_object() {
        return Err(Invalid::new(pointer, "WRONG_TYPE", "must be an object"));
    }
    if value.to_string().len() > MAX_HARDWARE_INFO {
        return Err(Invalid::new(
            pointer,
            "TOO_LONG",
            "must have at most 64 KiB as JSON",
        ));
    }
    invalid::no_nul(pointer, &value)?;
    Ok(Some(value))
}

/// Takes an optional short text.
pub(crate) fn parse_optional_text(
    pointer: &str,
    value: Option<&str>,
    max: usize,
) -> Result<Option<String>, Invalid> {
    value
        .map(|text| invalid::text(pointer, text, max))
        .transpose()
}

/// What an enrolling device says of itself, checked.
struct Facts {
    uuid: HardwareUuid,
    hostname: Hostname,
    platform: Platform,
    os_version: Option<String>,
    serial_number: Option<String>,
    hardware_info: Option<Value>,
    labels: Labels,
}

impl Facts {
    fn into_device(self, id: DeviceId, ctx: &OpContext, now: Timestamp) -> Device {
        Device {
            id,
            organization_id: ctx.organization_id,
            uuid: self.uuid,
            hostname: self.hostname,
            platform: self.platform,
            os_version: self.os_version,
            serial_number: self.serial_number,
            status: DeviceStatus::Enrolled,
            last_seen: None,
            enrolled_at: now,
            labels: self.labels,
            hardware_observed_at: self.hardware_info.as_ref().map(|_| now),
            hardware_info: self
                .hardware_info
                .map_or_else(RawJson::empty_object, RawJson::from),
            version: 1,
        }
    }
}
