//! A device joins the organisation, by a secret or by an operator's hand.

use std::{collections::BTreeMap, sync::Arc};

use mdm_core::{
    Invalid,
    devices::{Device, DeviceStatus, HardwareUuid, Hostname, Labels},
    enrollment::{EnrollmentSecret, SecretRefused},
    events::{EventData, MembershipAction, MembershipSource, NewEvent},
    ids::{DeviceId, GroupId},
    roles::Permission,
    tokens::{Token, TokenKind},
};
use mdm_store::{
    PgConnection, devices, devices::DeviceRef, enrollment_secrets, events, groups,
    licenses::Counted,
};
use serde_json::Value;

use super::{DeviceError, Facts, parse_hardware_info, parse_optional_text};
use crate::{
    context::OpContext,
    groups::{Changed, membership},
    services::Services,
};

/// In how many rows the uses of a secret without a limit are counted.
const USE_SLOTS: u8 = 32;

/// An enrolment as it came in.
#[derive(Debug, Clone, Default)]
pub struct Enrollment {
    /// The hardware's own identifier.
    pub uuid: String,
    /// The device's name.
    pub hostname: String,
    /// Its platform's name.
    pub platform: String,
    /// Its operating system's version.
    pub os_version: Option<String>,
    /// The maker's serial number.
    pub serial_number: Option<String>,
    /// The secret that lets it in.
    pub secret: Option<String>,
    /// What it says of its hardware.
    pub hardware_info: Option<Value>,
    /// Its labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Whether to take over from a device that is enrolled with the same uuid.
    pub re_enroll: bool,
}

/// Who enrols a device.
#[derive(Debug, Clone)]
pub enum Enroller {
    /// The device itself, from this address: it must bring a secret.
    Device {
        /// The caller's address, for the throttle.
        origin: String,
    },
    /// A user: needs no secret, but a wrong one is refused.
    User(OpContext),
}

/// An enrolled device and its token.
pub struct Enrolled {
    /// The device.
    pub device: Device,
    /// What it authenticates with from now on. Shown this once.
    pub token: Token,
}

impl Services {
    /// Enrols a device. Of several that bring the same uuid at once, one is enrolled and the
    /// others are told so.
    pub async fn enroll_device(
        &self,
        enroller: &Enroller,
        enrollment: Enrollment,
    ) -> Result<Enrolled, DeviceError> {
        let enrollment = Arc::new(enrollment);
        match enroller {
            Enroller::User(ctx) => ctx.require(Permission::WriteDevices)?,
            Enroller::Device { origin } => {
                self.throttle.check(&throttle_key(origin))?;
                if let Some(enrolled) = self.join_together(&enrollment).await {
                    return Ok(enrolled);
                }
            }
        }
        self.enroll_alone(enroller, &enrollment).await
    }

    /// Enrols a device in a transaction of its own.
    pub(super) async fn enroll_alone(
        &self,
        enroller: &Enroller,
        enrollment: &Enrollment,
    ) -> Result<Enrolled, DeviceError> {
        let mut facts = parse(enrollment)?;
        let mut tx = self.begin().await?;
        let secret = self
            .admit(&mut tx, enroller, enrollment.secret.as_deref())
            .await?;
        let ctx = match (enroller, &secret) {
            (Enroller::User(ctx), _) => *ctx,
            (Enroller::Device { .. }, Some(secret)) => OpContext::system(secret.organization_id),
            (Enroller::Device { .. }, None) => return Err(DeviceError::SecretMissing),
        };
        if let Some(secret) = &secret {
            // A secret of another organisation is not known to this one's operator.
            if secret.organization_id != ctx.organization_id {
                return Err(DeviceError::SecretRefused(SecretRefused::Unknown));
            }
            facts.labels = secret.labels.clone().overlaid_with(&facts.labels);
        }
        let token = Token::generate(TokenKind::Device, self.entropy.as_ref());
        let (device, joined) = self
            .insert_or_replace(&mut tx, &ctx, facts, &token, enrollment.re_enroll)
            .await?;
        if let Some(secret) = &secret {
            self.join_groups(&mut tx, &[&device], &secret.group_ids)
                .await?;
        }
        self.follow_filters(&mut tx, &device, Changed::Facts)
            .await?;
        if joined != Joined::Again {
            self.check_license(&mut tx, &ctx, &[device.id]).await?;
        }
        if let (Some(secret), Some(presented)) = (&secret, &enrollment.secret) {
            self.count_use(&mut tx, secret, presented, 1).await?;
        }
        self.commit(tx).await?;
        Ok(Enrolled { device, token })
    }

    /// Checks the secret as it stands; that it still does is checked when its use is counted.
    pub(super) async fn admit(
        &self,
        tx: &mut PgConnection,
        enroller: &Enroller,
        presented: Option<&str>,
    ) -> Result<Option<EnrollmentSecret>, DeviceError> {
        let throttle_key = match enroller {
            Enroller::Device { origin } => Some(throttle_key(origin)),
            Enroller::User(_) => None,
        };
        if let Some(key) = &throttle_key {
            self.throttle.check(key)?;
        }
        let Some(presented) = presented else {
            return if throttle_key.is_some() {
                Err(DeviceError::SecretMissing)
            } else {
                Ok(None)
            };
        };
        let found = match Token::parse(TokenKind::EnrollmentSecret, presented) {
            Some(token) => enrollment_secrets::find_by_hash(tx, token.hash()).await?,
            None => None,
        };
        let checked = found
            .ok_or(SecretRefused::Unknown)
            .and_then(|secret| secret.check(self.now()).map(|()| secret));
        match checked {
            Ok(secret) => Ok(Some(secret)),
            Err(refused) => {
                if let Some(key) = &throttle_key
                    && refused == SecretRefused::Unknown
                {
                    self.throttle.failed(key);
                }
                Err(DeviceError::SecretRefused(refused))
            }
        }
    }

    /// Counts uses of a secret, last of all. If others used it up or withdrew it in the
    /// meantime, says which.
    pub(super) async fn count_use(
        &self,
        tx: &mut PgConnection,
        secret: &EnrollmentSecret,
        presented: &str,
        uses: i32,
    ) -> Result<(), DeviceError> {
        let now = self.now();
        let mut slot = [0_u8; 1];
        self.entropy.fill(&mut slot);
        let [slot] = slot.map(|byte| byte % USE_SLOTS);
        if enrollment_secrets::count_use(&mut *tx, secret, (slot, uses), now).await? {
            return Ok(());
        }
        let found = match Token::parse(TokenKind::EnrollmentSecret, presented) {
            Some(token) => enrollment_secrets::find_by_hash(tx, token.hash()).await?,
            None => None,
        };
        let refused = found.map_or(Some(SecretRefused::Unknown), |secret| {
            secret.check(now).err()
        });
        Err(DeviceError::SecretRefused(
            refused.unwrap_or(SecretRefused::UsedUp),
        ))
    }

    async fn insert_or_replace(
        &self,
        tx: &mut PgConnection,
        ctx: &OpContext,
        facts: Facts,
        token: &Token,
        re_enroll: bool,
    ) -> Result<(Device, Joined), DeviceError> {
        let now = self.now();
        let hardware = DeviceRef::Hardware(facts.uuid.as_str().to_owned());
        let device = facts.into_device(
            DeviceId::new(self.clock.as_ref(), self.entropy.as_ref()),
            ctx,
            now,
        );
        if devices::insert(&mut *tx, &device, token.hash()).await? {
            events::append(tx, now, &enrolled_event(&device, None)).await?;
            return Ok((device, Joined::New));
        }
        let present = self.lock_device(&mut *tx, ctx, &hardware).await?;
        if present.status != DeviceStatus::Unenrolled && !re_enroll {
            return Err(DeviceError::AlreadyEnrolled);
        }
        let cause = "the device enrolled anew: what it was told before cannot be known to it";
        self.end_handed_over_destructive(tx, present.organization_id, present.id, cause)
            .await?;
        let mut device = Device {
            id: present.id,
            version: present.version,
            ..device
        };
        device.version = devices::update(&mut *tx, &device).await?;
        devices::set_token(&mut *tx, &device, Some(token.hash())).await?;
        events::append(tx, now, &enrolled_event(&device, Some(present.status))).await?;
        let joined = if present.status == DeviceStatus::Unenrolled {
            Joined::Back
        } else {
            Joined::Again
        };
        Ok((device, joined))
    }

    /// Puts devices into their secret's groups; those that are gone by now are passed over.
    pub(super) async fn join_groups(
        &self,
        tx: &mut PgConnection,
        devices: &[&Device],
        wanted: &[GroupId],
    ) -> Result<(), DeviceError> {
        let Some(first) = devices.first().filter(|_| !wanted.is_empty()) else {
            return Ok(());
        };
        let (organization, now) = (first.organization_id, self.now());
        let held = groups::hold(&mut *tx, organization, wanted).await?;
        let rows: Vec<_> = held
            .into_iter()
            .flat_map(|group| devices.iter().map(move |device| (group, device.id)))
            .collect();
        let added = groups::add_by_hand(&mut *tx, organization, &rows, now).await?;
        let told: Vec<NewEvent> = added
            .into_iter()
            .filter(|(_, _, is_new)| *is_new)
            .map(|(group, device, _)| {
                let source = MembershipSource::Manual;
                membership(organization, group, device, MembershipAction::Added, source)
            })
            .collect();
        events::append_all(tx, now, &told).await?;
        Ok(())
    }

    /// Counts devices that are being enrolled against the license, after their rows were written.
    pub(super) async fn check_license(
        &self,
        tx: &mut PgConnection,
        ctx: &OpContext,
        devices: &[DeviceId],
    ) -> Result<(), DeviceError> {
        match self
            .count_licensed(tx, ctx.organization_id, devices)
            .await?
        {
            Counted::Yes => Ok(()),
            Counted::LimitReached => Err(DeviceError::LicenseLimit),
            Counted::Expired => Err(DeviceError::LicenseExpired),
        }
    }
}

fn throttle_key(origin: &str) -> String {
    format!("enroll {origin}")
}

/// How a device came to be enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joined {
    /// It was not known.
    New,
    /// It had been unenrolled.
    Back,
    /// It was enrolled, and gave up its former self.
    Again,
}

pub(super) fn enrolled_event(device: &Device, before: Option<DeviceStatus>) -> NewEvent {
    let data = EventData::DeviceStatusChange {
        device_id: device.id,
        old_status: before,
        new_status: device.status,
    };
    NewEvent::new(device.organization_id, data)
}

pub(super) fn parse(enrollment: &Enrollment) -> Result<Facts, Invalid> {
    Ok(Facts {
        uuid: HardwareUuid::parse(&enrollment.uuid)?,
        hostname: Hostname::parse(&enrollment.hostname)?,
        platform: enrollment.platform.parse().map_err(
            |unknown: mdm_core::devices::UnknownPlatform| {
                Invalid::new("/platform", "UNKNOWN_PLATFORM", unknown.to_string())
            },
        )?,
        os_version: parse_optional_text("/os_version", enrollment.os_version.as_deref(), 255)?,
        serial_number: parse_optional_text(
            "/serial_number",
            enrollment.serial_number.as_deref(),
            255,
        )?,
        hardware_info: parse_hardware_info("/hardware_info", enrollment.hardware_info.clone())?,
        labels: Labels::parse(enrollment.labels.clone().unwrap_or_default())?,
    })
}
