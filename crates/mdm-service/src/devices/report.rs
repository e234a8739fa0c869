//! What a device tells of itself, at check-ins and over its channel.

use mdm_core::{
    Invalid, Timestamp,
    devices::{Device, DeviceStatus, Hostname},
    invalid,
};
use mdm_store::{
    devices::{self, Inventory},
    events,
};
use serde_json::Value;

use super::{DeviceError, device_updated, parse_hardware_info, parse_optional_text};
use crate::{groups::Changed, services::Services};

/// What a device reports.
#[derive(Debug, Clone, Default)]
pub struct DeviceReport {
    /// Its operating system's version.
    pub os_version: Option<String>,
    /// What it is.
    pub system_info: Option<Value>,
}

impl Services {
    /// Takes over what a device reports of itself. Without news this writes nothing.
    pub async fn report_device(
        &self,
        device: &Device,
        report: DeviceReport,
    ) -> Result<(), DeviceError> {
        let os_version = parse_optional_text("/os_version", report.os_version.as_deref(), 255)?;
        let hardware_info = parse_hardware_info("/system_info", report.system_info)?;
        let told = hardware_info.as_ref().map(Told::of).unwrap_or_default();
        let os_version = os_version.or(told.os_version);
        let news = hardware_info.is_some()
            || os_version
                .as_ref()
                .is_some_and(|new| Some(new) != device.os_version.as_ref());
        if !news {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let locked = devices::lock(&mut tx, device.organization_id, device.id).await?;
        let mut device = locked
            .filter(|device| device.status != DeviceStatus::Unenrolled)
            .ok_or(DeviceError::NotFound)?;
        device.os_version = os_version.or(device.os_version);
        device.hostname = told.hostname.unwrap_or(device.hostname);
        device.serial_number = told.serial_number.or(device.serial_number);
        if let Some(info) = hardware_info {
            device.hardware_observed_at = Some(told.observed_at.unwrap_or_else(|| self.now()));
            device.hardware_info = info.into();
        }
        device.version = devices::update(&mut tx, &device).await?;
        events::append(&mut tx, self.now(), &device_updated(&device)).await?;
        self.follow_filters(&mut tx, &device, Changed::Facts)
            .await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// Takes over what a device says is installed on it.
    pub async fn report_software(
        &self,
        device: &Device,
        report: SoftwareReport,
    ) -> Result<(), DeviceError> {
        if report.software.len() > SOFTWARE_AT_MOST {
            let detail = format!("must have at most {SOFTWARE_AT_MOST} entries");
            return Err(Invalid::new("/inventory/software", "TOO_MANY", detail).into());
        }
        let data = Value::Array(report.software);
        invalid::no_nul("/inventory/software", &data)?;
        let inventory = Inventory {
            data,
            observed_at: report.observed_at.min(self.now()),
        };
        let (organization, id) = (device.organization_id, device.id);
        let mut tx = self.begin().await?;
        devices::set_inventory(&mut tx, organization, id, SOFTWARE, &inventory).await?;
        self.commit(tx).await?;
        Ok(())
    }
}

/// The kind of inventory that lists what is installed.
pub const SOFTWARE: &str = "software";
/// How much may be installed.
const SOFTWARE_AT_MOST: usize = 20_000;

/// What a device says is installed on it.
#[derive(Debug, Clone)]
pub struct SoftwareReport {
    /// When it looked.
    pub observed_at: Timestamp,
    /// Each piece, in the order of the names.
    pub software: Vec<Value>,
}

/// The facts within `system_info` that have columns of their own.
#[derive(Default)]
struct Told {
    hostname: Option<Hostname>,
    os_version: Option<String>,
    serial_number: Option<String>,
    observed_at: Option<Timestamp>,
}

impl Told {
    fn of(info: &Value) -> Self {
        let text = |pointer: &str| info.pointer(pointer).and_then(Value::as_str);
        let short = |pointer: &str| {
            parse_optional_text(pointer, text(pointer), 255)
                .ok()
                .flatten()
        };
        Self {
            hostname: text("/hostname").and_then(|name| Hostname::parse(name).ok()),
            os_version: short("/os_version"),
            serial_number: short("/hardware/serial"),
            observed_at: text("/observed_at")
                .and_then(|at| chrono::DateTime::parse_from_rfc3339(at).ok())
                .map(|at| at.to_utc()),
        }
    }
}
