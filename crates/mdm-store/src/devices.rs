//! Devices.

use mdm_core::{
    Timestamp,
    devices::{Device, DeviceStatus, HardwareUuid, Hostname, Labels, Platform},
    ids::{DeviceId, OrganizationId},
    tokens::TokenHash,
};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::error::{StoreError, one_row};

mod presence;

pub use presence::{Sighting, online_and_silent_since, record_sightings};

struct DeviceRow {
    organization_id: Uuid,
    id: Uuid,
    uuid: String,
    hostname: String,
    platform: String,
    os_version: Option<String>,
    serial_number: Option<String>,
    status: String,
    last_seen: Option<Timestamp>,
    enrolled_at: Timestamp,
    labels: Json<Labels>,
    hardware_info: Value,
    hardware_observed_at: Option<Timestamp>,
    version: i64,
}

impl TryFrom<DeviceRow> for Device {
    type Error = StoreError;

    fn try_from(row: DeviceRow) -> Result<Self, StoreError> {
        let corrupt = |column| StoreError::corrupt("devices", column, row.id);
        Ok(Self {
            id: DeviceId::from_uuid(row.id),
            organization_id: OrganizationId::from_uuid(row.organization_id),
            uuid: HardwareUuid::parse(&row.uuid).map_err(|_invalid| corrupt("uuid"))?,
            hostname: Hostname::parse(&row.hostname).map_err(|_invalid| corrupt("hostname"))?,
            platform: row
                .platform
                .parse()
                .map_err(|_unknown| corrupt("platform"))?,
            os_version: row.os_version,
            serial_number: row.serial_number,
            status: row.status.parse().map_err(|_unknown| corrupt("status"))?,
            last_seen: row.last_seen,
            enrolled_at: row.enrolled_at,
            labels: row.labels.0,
            hardware_info: row.hardware_info,
            hardware_observed_at: row.hardware_observed_at,
            version: row.version,
        })
    }
}

/// How callers name a device: by the server's id or by the hardware's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceRef {
    /// The server's id.
    Id(DeviceId),
    /// The hardware's identifier.
    Hardware(String),
}

impl DeviceRef {
    /// Reads a path segment. A text that has the form of a UUID may be either kind of id.
    pub fn parse(text: &str) -> Self {
        text.parse()
            .map_or_else(|_no_uuid| Self::Hardware(text.to_owned()), Self::Id)
    }

    fn id(&self) -> Option<Uuid> {
        match self {
            Self::Id(id) => Some(id.uuid()),
            Self::Hardware(_) => None,
        }
    }

    /// The hardware identifiers that the text can stand for: hardware UUIDs come in capitals, too.
    fn hardware(&self) -> Vec<String> {
        match self {
            Self::Id(id) => vec![id.to_string(), id.to_string().to_uppercase()],
            // PostgreSQL's texts cannot hold it, so no device has it.
            Self::Hardware(text) if text.contains('\0') => Vec::new(),
            Self::Hardware(text) => vec![text.clone()],
        }
    }
}

/// Which devices a list shows. An absent field lets all through.
#[derive(Debug, Clone, Default)]
pub struct DeviceFilter {
    /// Of this platform.
    pub platform: Option<Platform>,
    /// With this status. Absent: all but the unenrolled.
    pub status: Option<DeviceStatus>,
    /// With this text in hostname, hardware uuid or serial number, in any case of letters.
    pub search: Option<String>,
    /// With this label.
    pub label: Option<(String, String)>,
}

impl DeviceFilter {
    fn search_pattern(&self) -> Option<String> {
        self.search.as_ref().map(|text| {
            let escaped = text
                .replace('\\', r"\\")
                .replace('%', r"\%")
                .replace('_', r"\_");
            format!("%{escaped}%")
        })
    }

    fn label_json(&self) -> Option<Value> {
        self.label
            .as_ref()
            .map(|(key, value)| serde_json::json!({ key: value }))
    }
}

/// Which page of a list.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Begin after this device.
    pub after: Option<DeviceId>,
    /// How many at most.
    pub limit: i64,
    /// How many to pass over.
    pub offset: i64,
}

/// Finds a device of the organisation.
pub async fn find(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: &DeviceRef,
) -> Result<Option<Device>, StoreError> {
    let row = sqlx::query_as!(
        DeviceRow,
        r#"
        SELECT organization_id,
               id,
               uuid,
               hostname,
               platform,
               os_version,
               serial_number,
               status,
               last_seen,
               enrolled_at,
               labels AS "labels: Json<Labels>",
               hardware_info,
               hardware_observed_at,
               version
          FROM devices
         WHERE organization_id = $1
           AND (id = $2 OR uuid = ANY ($3))
         ORDER BY id = $2 DESC
         LIMIT 1
        "#,
        organization.uuid(),
        device.id(),
        &device.hardware()
    )
    .fetch_optional(conn)
    .await?;
    row.map(Device::try_from).transpose()
}

/// Finds a device and locks its row until the transaction ends. Whoever changes a device, its
/// commands or its memberships does this first: it puts the events of one device in order.
pub async fn lock(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: DeviceId,
) -> Result<Option<Device>, StoreError> {
    let row = sqlx::query_as!(
        DeviceRow,
        r#"
        SELECT organization_id,
               id,
               uuid,
               hostname,
               platform,
               os_version,
               serial_number,
               status,
               last_seen,
               enrolled_at,
               labels AS "labels: Json<Labels>",
               hardware_info,
               hardware_observed_at,
               version
          FROM devices
         WHERE organization_id = $1
           AND id = $2
           FOR NO KEY UPDATE
        "#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    row.map(Device::try_from).transpose()
}

/// Finds the device that a token belongs to.
pub async fn find_by_token(
    conn: &mut PgConnection,
    hash: TokenHash,
) -> Result<Option<Device>, StoreError> {
    let row = sqlx::query_as!(
        DeviceRow,
        r#"
        SELECT organization_id,
               id,
               uuid,
               hostname,
               platform,
               os_version,
               serial_number,
               status,
               last_seen,
               enrolled_at,
               labels AS "labels: Json<Labels>",
               hardware_info,
               hardware_observed_at,
               version
          FROM devices
         WHERE token_hash = $1
        "#,
        hash.as_bytes()
    )
    .fetch_optional(conn)
    .await?;
    row.map(Device::try_from).transpose()
}

/// The devices that the filter lets through, in the order of their making.
pub async fn list(
    conn: &mut PgConnection,
    organization: OrganizationId,
    filter: &DeviceFilter,
    page: Page,
) -> Result<Vec<Device>, StoreError> {
    let rows = sqlx::query_as!(
        DeviceRow,
        r#"
        SELECT organization_id,
               id,
               uuid,
               hostname,
               platform,
               os_version,
               serial_number,
               status,
               last_seen,
               enrolled_at,
               labels AS "labels: Json<Labels>",
               hardware_info,
               hardware_observed_at,
               version
          FROM devices
         WHERE organization_id = $1
           AND ($2::uuid IS NULL OR id > $2)
           AND ($3::text IS NULL OR platform = $3)
           AND (status = $4 OR ($4::text IS NULL AND status <> 'unenrolled'))
           AND ($5::text IS NULL OR hostname ILIKE $5 OR uuid ILIKE $5 OR serial_number ILIKE $5)
           AND ($6::jsonb IS NULL OR labels @> $6)
         ORDER BY id
         LIMIT $7
        OFFSET $8
        "#,
        organization.uuid(),
        page.after.map(DeviceId::uuid),
        filter.platform.map(Platform::as_str),
        filter.status.map(DeviceStatus::as_str),
        filter.search_pattern(),
        filter.label_json(),
        page.limit,
        page.offset
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Device::try_from).collect()
}

/// How many devices the filter lets through, counting no further than `most`.
pub async fn count(
    conn: &mut PgConnection,
    organization: OrganizationId,
    filter: &DeviceFilter,
    most: i64,
) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"
        SELECT count(*) AS "count!"
          FROM (SELECT 1
                  FROM devices
                 WHERE organization_id = $1
                   AND ($2::text IS NULL OR platform = $2)
                   AND (status = $3 OR ($3::text IS NULL AND status <> 'unenrolled'))
                   AND ($4::text IS NULL OR hostname ILIKE $4 OR uuid ILIKE $4 OR serial_number ILIKE $4)
                   AND ($5::jsonb IS NULL OR labels @> $5)
                 LIMIT $6) AS counted
        "#,
        organization.uuid(),
        filter.platform.map(Platform::as_str),
        filter.status.map(DeviceStatus::as_str),
        filter.search_pattern(),
        filter.label_json(),
        most
    )
    .fetch_one(conn)
    .await?)
}

/// Adds a device, unless the organisation has one with the same hardware uuid: then `false`, and
/// nothing is changed.
pub async fn insert(
    conn: &mut PgConnection,
    device: &Device,
    token: TokenHash,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        r#"
        INSERT INTO devices (organization_id, id, uuid, hostname, platform, os_version, serial_number, status,
                             last_seen, enrolled_at, labels, hardware_info, hardware_observed_at, version, token_hash)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
            ON CONFLICT ON CONSTRAINT devices_uuid DO NOTHING
        "#,
        device.organization_id.uuid(),
        device.id.uuid(),
        device.uuid.as_str(),
        device.hostname.as_str(),
        device.platform.as_str(),
        device.os_version,
        device.serial_number,
        device.status.as_str(),
        device.last_seen,
        device.enrolled_at,
        Json(&device.labels) as _,
        device.hardware_info,
        device.hardware_observed_at,
        device.version,
        token.as_bytes()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes everything of a locked device but its ids and its token, and counts the change:
/// `device.version` is what the row had, and the row then has the next. Gives the new version.
pub async fn update(conn: &mut PgConnection, device: &Device) -> Result<i64, StoreError> {
    let version = sqlx::query_scalar!(
        r#"
        UPDATE devices
           SET hostname = $3,
               platform = $4,
               os_version = $5,
               serial_number = $6,
               status = $7,
               last_seen = $8,
               enrolled_at = $9,
               labels = $10,
               hardware_info = $11,
               hardware_observed_at = $12,
               version = version + 1
         WHERE organization_id = $1
           AND id = $2
           AND version = $13
     RETURNING version
        "#,
        device.organization_id.uuid(),
        device.id.uuid(),
        device.hostname.as_str(),
        device.platform.as_str(),
        device.os_version,
        device.serial_number,
        device.status.as_str(),
        device.last_seen,
        device.enrolled_at,
        Json(&device.labels) as _,
        device.hardware_info,
        device.hardware_observed_at,
        device.version
    )
    .fetch_optional(conn)
    .await?;
    version.ok_or(StoreError::NotOneRow {
        table: "devices",
        changed: 0,
    })
}

/// Gives a device another token, or none: the old one stops working with the commit.
pub async fn set_token(
    conn: &mut PgConnection,
    device: &Device,
    token: Option<TokenHash>,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "UPDATE devices SET token_hash = $3 WHERE organization_id = $1 AND id = $2",
        device.organization_id.uuid(),
        device.id.uuid(),
        token.as_ref().map(|hash| hash.as_bytes().as_slice())
    )
    .execute(conn)
    .await?;
    one_row("devices", done.rows_affected())
}

/// Moves a locked device to another status without counting a change: presence is no edit.
pub async fn set_status(
    conn: &mut PgConnection,
    device: &Device,
    status: DeviceStatus,
    last_seen: Option<Timestamp>,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        r#"
        UPDATE devices
           SET status = $3,
               last_seen = greatest(last_seen, $4)
         WHERE organization_id = $1
           AND id = $2
        "#,
        device.organization_id.uuid(),
        device.id.uuid(),
        status.as_str(),
        last_seen
    )
    .execute(conn)
    .await?;
    one_row("devices", done.rows_affected())
}
