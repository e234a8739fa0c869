//! When devices were last heard from, written in batches.

use mdm_core::{
    Timestamp,
    ids::{DeviceId, OrganizationId},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StoreError;

/// A device was heard from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Whose device.
    pub organization_id: OrganizationId,
    /// Which device.
    pub device_id: DeviceId,
    /// When.
    pub at: Timestamp,
}

/// Writes sightings in one statement and gives the devices that were written. A row that another
/// transaction holds is passed over, so that the batch waits for nobody and cannot deadlock: its
/// sighting belongs in the next batch.
pub async fn record_sightings(
    conn: &mut PgConnection,
    sightings: &[Sighting],
) -> Result<Vec<DeviceId>, StoreError> {
    let organizations: Vec<Uuid> = sightings.iter().map(|s| s.organization_id.uuid()).collect();
    let devices: Vec<Uuid> = sightings.iter().map(|s| s.device_id.uuid()).collect();
    let times: Vec<Timestamp> = sightings.iter().map(|s| s.at).collect();
    let ids = sqlx::query_scalar!(
        r#"
        WITH free AS (
            SELECT d.organization_id, d.id, s.at
              FROM devices d
              JOIN unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS s (organization_id, device_id, at)
                ON d.organization_id = s.organization_id AND d.id = s.device_id
               FOR NO KEY UPDATE OF d SKIP LOCKED
        )
        UPDATE devices d
           SET last_seen = greatest(d.last_seen, free.at)
          FROM free
         WHERE d.organization_id = free.organization_id
           AND d.id = free.id
     RETURNING d.id
        "#,
        &organizations,
        &devices,
        &times
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(DeviceId::from_uuid).collect())
}

/// A part of the devices that count as online.
#[derive(Debug, Default)]
pub struct OnlineSlice {
    /// Those of which nothing was heard.
    pub silent: Vec<(OrganizationId, DeviceId)>,
    /// Where the next part begins; none if this was the last.
    pub next: Option<(OrganizationId, DeviceId)>,
}

/// Looks at the next `limit` devices of any organisation that count as online, for those of which
/// nothing was heard since `since`. When a device was last seen stands in no index, for the sake of
/// the check-ins that write it: each look reads as many rows as it is allowed, and no more.
pub async fn online_slice(
    conn: &mut PgConnection,
    since: Timestamp,
    after: Option<(OrganizationId, DeviceId)>,
    limit: i64,
) -> Result<OnlineSlice, StoreError> {
    let (organization, device) =
        after.map_or((Uuid::nil(), Uuid::nil()), |(o, d)| (o.uuid(), d.uuid()));
    let rows = sqlx::query!(
        r#"
        WITH slice AS MATERIALIZED (
            SELECT organization_id,
                   id,
                   last_seen,
                   row_number() OVER (ORDER BY organization_id, id) AS place
              FROM devices
             WHERE status = 'online'
               AND (organization_id, id) > ($2, $3)
             ORDER BY organization_id, id
             LIMIT $4
        )
        SELECT organization_id,
               id,
               place AS "place!",
               last_seen IS NULL OR last_seen < $1 AS "is_silent!"
          FROM slice
         WHERE last_seen IS NULL
            OR last_seen < $1
            OR place = $4
         ORDER BY place
        "#,
        since,
        organization,
        device,
        limit
    )
    .fetch_all(conn)
    .await?;
    let mut slice = OnlineSlice::default();
    for row in rows {
        let key = (
            OrganizationId::from_uuid(row.organization_id),
            DeviceId::from_uuid(row.id),
        );
        if row.is_silent {
            slice.silent.push(key);
        }
        if row.place == limit {
            slice.next = Some(key);
        }
    }
    Ok(slice)
}
