//! Devices.

use mdm_core::{
    Timestamp,
    devices::{Device, DeviceStatus, HardwareUuid, Hostname, Labels, Platform},
    ids::{DeviceId, GroupId, OrganizationId, PolicyId},
    json::RawJson,
    policies::ComplianceState,
    tokens::TokenHash,
};
use serde_json::Value;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, Row, postgres::PgRow, types::Json};
use uuid::Uuid;

use crate::{
    error::{StoreError, one_row},
    lists::{ListPage, ListRequest, SortColumn, SortKind, Sorting, Source, Total, contains},
};

mod glances;
mod inventories;
mod presence;
mod revisions;

pub use glances::{Glance, glances};
pub use inventories::{Inventory, inventory, set_inventory};
pub use revisions::{
    Revision, bump_all, bump_revisions, mark_applied, revision, revision_to_apply,
};

pub use presence::{OnlineSlice, Sighting, online_slice, record_sightings};

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
    hardware_info: Json<RawJson>,
    hardware_observed_at: Option<Timestamp>,
    version: i64,
}

/// The columns of a [`DeviceRow`] in a list, in this order: a page of rows is read by place, which
/// is what most of the time of a list would go into otherwise.
const COLUMNS: &str = "organization_id, id, uuid, hostname, platform, os_version, serial_number, status, last_seen, \
                       enrolled_at, labels, hardware_info, hardware_observed_at, version";

impl FromRow<'_, PgRow> for DeviceRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            organization_id: row.try_get_unchecked(0)?,
            id: row.try_get_unchecked(1)?,
            uuid: row.try_get_unchecked(2)?,
            hostname: row.try_get_unchecked(3)?,
            platform: row.try_get_unchecked(4)?,
            os_version: row.try_get_unchecked(5)?,
            serial_number: row.try_get_unchecked(6)?,
            status: row.try_get_unchecked(7)?,
            last_seen: row.try_get_unchecked(8)?,
            enrolled_at: row.try_get_unchecked(9)?,
            labels: row.try_get_unchecked(10)?,
            hardware_info: row.try_get_unchecked(11)?,
            hardware_observed_at: row.try_get_unchecked(12)?,
            version: row.try_get_unchecked(13)?,
        })
    }
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
            hardware_info: row.hardware_info.0,
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

/// What devices can be sorted by.
pub const SORTING: Sorting = Sorting {
    columns: &[
        SortColumn {
            name: "id",
            sql: "id",
            kind: SortKind::Id,
        },
        SortColumn {
            name: "hostname",
            sql: "hostname",
            kind: SortKind::Text,
        },
        SortColumn {
            name: "platform",
            sql: "platform",
            kind: SortKind::Text,
        },
        SortColumn {
            name: "status",
            sql: "status",
            kind: SortKind::Text,
        },
        SortColumn {
            name: "enrolled_at",
            sql: "enrolled_at",
            kind: SortKind::Timestamp,
        },
        SortColumn {
            name: "last_seen",
            sql: "coalesce(last_seen, enrolled_at)",
            kind: SortKind::Timestamp,
        },
        SortColumn {
            name: "os_version",
            sql: "coalesce(os_version, '')",
            kind: SortKind::Text,
        },
    ],
    newest_first: false,
};

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
    /// In this group.
    pub group: Option<GroupId>,
    /// Reached by this policy, and by it alone is `compliance` meant.
    pub policy: Option<PolicyId>,
    /// In this state towards the policy, or, without one, in it as the worst over all policies.
    pub compliance: Option<ComplianceState>,
}

impl DeviceFilter {
    fn source(&self) -> Source {
        Source {
            columns: COLUMNS,
            from: "devices",
            organization: "organization_id",
            id: "id",
            plan_each: self.search.is_some() || self.label.is_some(),
        }
    }

    fn narrow(&self, query: &mut QueryBuilder<Postgres>) {
        match self.status {
            Some(status) => {
                query.push(" AND status = ").push_bind(status.as_str());
            }
            None => {
                query.push(" AND status <> 'unenrolled'");
            }
        }
        if let Some(platform) = self.platform {
            query.push(" AND platform = ").push_bind(platform.as_str());
        }
        if let Some(search) = &self.search {
            query.push(" AND search LIKE ").push_bind(contains(search));
        }
        if let Some((key, value)) = &self.label {
            query
                .push(" AND labels @> ")
                .push_bind(serde_json::json!({ key: value }));
        }
        if let Some(group) = self.group {
            query
                .push(
                    " AND EXISTS (SELECT 1 FROM group_members m WHERE m.organization_id = devices.organization_id \
                     AND m.device_id = devices.id AND m.group_id = ",
                )
                .push_bind(group.uuid())
                .push(")");
        }
        self.narrow_by_policy(query);
    }

    fn narrow_by_policy(&self, query: &mut QueryBuilder<Postgres>) {
        if self.policy.is_none() && self.compliance.is_none() {
            return;
        }
        // The state of the device towards each policy that reaches it, as `effective_compliance`
        // in the migrations tells it.
        query.push(
            " AND (SELECT coalesce(min(s.rank), 0) FROM effective_compliance(devices.organization_id, devices.id) s",
        );
        if let Some(policy) = self.policy {
            query.push(" WHERE s.policy_id = ").push_bind(policy.uuid());
        }
        match self.compliance {
            Some(state) => {
                query.push(") = ").push_bind(compliance_rank(state));
            }
            None => {
                query.push(") > 0");
            }
        }
    }
}

/// The order of severity, as the function `effective_compliance` in the database has it: 1 is the
/// worst.
pub(crate) const fn compliance_rank(state: ComplianceState) -> i32 {
    match state {
        ComplianceState::NonCompliant => 1,
        ComplianceState::Error => 2,
        ComplianceState::Pending => 3,
        ComplianceState::Compliant => 4,
        ComplianceState::NotApplicable => 5,
    }
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
               hardware_info AS "hardware_info: Json<RawJson>",
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
               hardware_info AS "hardware_info: Json<RawJson>",
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
               hardware_info AS "hardware_info: Json<RawJson>",
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

/// Whether a token is the device's.
pub async fn has_token(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: DeviceId,
    hash: &TokenHash,
) -> Result<bool, StoreError> {
    let found = sqlx::query_scalar!(
        r#"
        SELECT EXISTS (
            SELECT
              FROM devices
             WHERE organization_id = $1
               AND id = $2
               AND token_hash = $3
        ) AS "found!"
        "#,
        organization.uuid(),
        id.uuid(),
        hash.as_bytes()
    )
    .fetch_one(conn)
    .await?;
    Ok(found)
}

/// A page of the devices that the filter lets through. `is_long`: that there are very many is known.
pub async fn list(
    conn: &mut PgConnection,
    organization: OrganizationId,
    filter: &DeviceFilter,
    request: &ListRequest,
    is_long: bool,
) -> Result<ListPage<Device>, StoreError> {
    let (source, narrow) = (filter.source(), |query: &mut _| filter.narrow(query));
    let mut found: Option<ListPage<DeviceRow>> = None;
    if filter.search.is_some() && !is_long {
        found = source
            .search_page(&mut *conn, organization, request, &narrow)
            .await?;
    }
    let page = match found {
        Some(page) => page,
        None => source.page(conn, organization, request, &narrow).await?,
    };
    page.try_map(Device::try_from)
}

/// How many devices the filter lets through.
pub async fn total(
    conn: &mut PgConnection,
    organization: OrganizationId,
    filter: &DeviceFilter,
) -> Result<Total, StoreError> {
    filter
        .source()
        .total(conn, organization, &|query| filter.narrow(query))
        .await
}

/// The enrolled devices with an id after `after`, in the order of their ids, at most `limit`, each
/// locked until the transaction ends. For work that goes over all devices in batches.
pub async fn lock_batch(
    conn: &mut PgConnection,
    organization: OrganizationId,
    after: Uuid,
    limit: i64,
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
               '{}'::json AS "hardware_info!: Json<RawJson>",
               hardware_observed_at,
               version
          FROM devices
         WHERE organization_id = $1
           AND id > $2
           AND status <> 'unenrolled'
         ORDER BY id
         LIMIT $3
           FOR NO KEY UPDATE
        "#,
        organization.uuid(),
        after,
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Device::try_from).collect()
}

/// Locks those of the devices that are there, in the order of their ids, so that two who lock many
/// never wait for each other in a circle.
pub async fn lock_many(
    conn: &mut PgConnection,
    organization: OrganizationId,
    ids: &[DeviceId],
) -> Result<Vec<Device>, StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
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
               '{}'::json AS "hardware_info!: Json<RawJson>",
               hardware_observed_at,
               version
          FROM devices
         WHERE organization_id = $1
           AND id = ANY ($2)
         ORDER BY id
           FOR NO KEY UPDATE
        "#,
        organization.uuid(),
        &ids
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Device::try_from).collect()
}

/// The ids of the devices that callers name by either id. Who is not there is left out.
pub async fn find_ids(
    conn: &mut PgConnection,
    organization: OrganizationId,
    devices: &[DeviceRef],
) -> Result<Vec<DeviceId>, StoreError> {
    let ids: Vec<Uuid> = devices.iter().filter_map(DeviceRef::id).collect();
    let hardware: Vec<String> = devices.iter().flat_map(DeviceRef::hardware).collect();
    let found = sqlx::query_scalar!(
        "SELECT id FROM devices WHERE organization_id = $1 AND (id = ANY ($2) OR uuid = ANY ($3))",
        organization.uuid(),
        &ids,
        &hardware
    )
    .fetch_all(conn)
    .await?;
    Ok(found.into_iter().map(DeviceId::from_uuid).collect())
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
        Json(&device.hardware_info) as _,
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
        Json(&device.hardware_info) as _,
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

/// As [`lock_batch`], without any lock.
pub async fn read_batch(
    conn: &mut PgConnection,
    organization: OrganizationId,
    after: Uuid,
    limit: i64,
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
               hardware_info AS "hardware_info: Json<RawJson>",
               hardware_observed_at,
               version
          FROM devices
         WHERE organization_id = $1
           AND id > $2
           AND status <> 'unenrolled'
         ORDER BY id
         LIMIT $3
        "#,
        organization.uuid(),
        after,
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Device::try_from).collect()
}

/// Adds devices in one statement and gives the ids of those that were added: one whose hardware
/// uuid the organisation has already is passed over.
pub async fn insert_many(
    conn: &mut PgConnection,
    devices: &[(&Device, TokenHash)],
) -> Result<Vec<DeviceId>, StoreError> {
    let Some((first, _)) = devices.first() else {
        return Ok(Vec::new());
    };
    let column = |of: fn(&Device) -> String| -> Vec<String> {
        devices.iter().map(|(device, _)| of(device)).collect()
    };
    let ids: Vec<Uuid> = devices.iter().map(|(device, _)| device.id.uuid()).collect();
    let os_versions: Vec<Option<String>> = devices
        .iter()
        .map(|(device, _)| device.os_version.clone())
        .collect();
    let serials: Vec<Option<String>> = devices
        .iter()
        .map(|(device, _)| device.serial_number.clone())
        .collect();
    let labels: Vec<Value> = devices
        .iter()
        .map(|(device, _)| serde_json::to_value(&device.labels))
        .collect::<Result<_, _>>()?;
    let infos: Vec<Json<&RawJson>> = devices
        .iter()
        .map(|(device, _)| Json(&device.hardware_info))
        .collect();
    let observed: Vec<Option<Timestamp>> = devices
        .iter()
        .map(|(device, _)| device.hardware_observed_at)
        .collect();
    let tokens: Vec<Vec<u8>> = devices
        .iter()
        .map(|(_, token)| token.as_bytes().to_vec())
        .collect();
    let added = sqlx::query_scalar!(
        r#"
        INSERT INTO devices (organization_id, id, uuid, hostname, platform, os_version, serial_number, status,
                             enrolled_at, labels, hardware_info, hardware_observed_at, version, token_hash)
        SELECT $1, new.id, new.uuid, new.hostname, new.platform, new.os_version, new.serial_number, $2, $3,
               new.labels, new.hardware_info, new.observed_at, 1, new.token_hash
          FROM unnest($4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::jsonb[],
                      $11::json[], $12::timestamptz[], $13::bytea[]) WITH ORDINALITY
               AS new (id, uuid, hostname, platform, os_version, serial_number, labels, hardware_info, observed_at,
                       token_hash, place)
         ORDER BY new.place
            ON CONFLICT ON CONSTRAINT devices_uuid DO NOTHING
     RETURNING id
        "#,
        first.organization_id.uuid(),
        first.status.as_str(),
        first.enrolled_at,
        &ids,
        &column(|device| device.uuid.as_str().to_owned()),
        &column(|device| device.hostname.as_str().to_owned()),
        &column(|device| device.platform.to_string()),
        &os_versions as &[Option<String>],
        &serials as &[Option<String>],
        &labels,
        &infos as _,
        &observed as &[Option<Timestamp>],
        &tokens
    )
    .fetch_all(conn)
    .await?;
    Ok(added.into_iter().map(DeviceId::from_uuid).collect())
}
