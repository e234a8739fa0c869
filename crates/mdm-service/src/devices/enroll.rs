//! A device joins the organisation, by a secret or by an operator's hand.

use std::collections::BTreeMap;

use mdm_core::{
    Invalid,
    devices::{Device, DeviceStatus, HardwareUuid, Hostname, Labels},
    enrollment::{EnrollmentSecret, SecretRefused},
    events::{EventData, NewEvent},
    ids::DeviceId,
    roles::Permission,
    tokens::{Token, TokenKind},
};
use mdm_store::{PgConnection, devices, devices::DeviceRef, enrollment_secrets, events};
use serde_json::Value;

use super::{DeviceError, Facts, parse_hardware_info, parse_optional_text};
use crate::{channels::ChannelSignal, context::OpContext, services::Services};

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
        if let Enroller::User(ctx) = enroller {
            ctx.require(Permission::WriteDevices)?;
        }
        let mut facts = parse(&enrollment)?;
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
        let (device, replaced) = self
            .insert_or_replace(&mut tx, &ctx, facts, &token, enrollment.re_enroll)
            .await?;
        if let (Some(secret), Some(presented)) = (&secret, &enrollment.secret) {
            self.count_use(&mut tx, secret, presented).await?;
        }
        self.commit(tx).await?;
        if replaced {
            self.channels
                .signal(device.organization_id, device.id, ChannelSignal::Revoked);
        }
        Ok(Enrolled { device, token })
    }

    /// Checks the secret as it stands; that it still does is checked when its use is counted.
    async fn admit(
        &self,
        tx: &mut PgConnection,
        enroller: &Enroller,
        presented: Option<&str>,
    ) -> Result<Option<EnrollmentSecret>, DeviceError> {
        let throttle_key = match enroller {
            Enroller::Device { origin } => Some(format!("enroll {origin}")),
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

    /// Counts the use of a secret, last of all. If others used it up or withdrew it in the
    /// meantime, says which.
    async fn count_use(
        &self,
        tx: &mut PgConnection,
        secret: &EnrollmentSecret,
        presented: &str,
    ) -> Result<(), DeviceError> {
        let now = self.now();
        if enrollment_secrets::count_use(&mut *tx, secret, now).await? {
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
    ) -> Result<(Device, bool), DeviceError> {
        let now = self.now();
        let hardware = DeviceRef::Hardware(facts.uuid.as_str().to_owned());
        let device = facts.into_device(
            DeviceId::new(self.clock.as_ref(), self.entropy.as_ref()),
            ctx,
            now,
        );
        if devices::insert(&mut *tx, &device, token.hash()).await? {
            events::append(tx, now, &enrolled_event(&device, None)).await?;
            return Ok((device, false));
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
        Ok((device, true))
    }
}

fn enrolled_event(device: &Device, before: Option<DeviceStatus>) -> NewEvent {
    let data = EventData::DeviceStatusChange {
        device_id: device.id,
        old_status: before,
        new_status: device.status,
    };
    NewEvent::new(device.organization_id, data)
}

fn parse(enrollment: &Enrollment) -> Result<Facts, Invalid> {
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
