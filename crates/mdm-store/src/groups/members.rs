//! Who is in which group. Whoever writes here holds the locks of the devices' rows.

use mdm_core::{
    Timestamp,
    ids::{DeviceId, GroupId, OrganizationId},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StoreError;

/// A device's place in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// Which group.
    pub group_id: GroupId,
    /// Which device.
    pub device_id: DeviceId,
    /// Whether a person put it there.
    pub by_hand: bool,
    /// Whether the group's filters admit it.
    pub by_filter: bool,
}

fn pairs(rows: &[(GroupId, DeviceId)]) -> (Vec<Uuid>, Vec<Uuid>) {
    rows.iter()
        .map(|(group, device)| (group.uuid(), device.uuid()))
        .unzip()
}

/// The memberships of one device.
pub async fn of_device(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
) -> Result<Vec<Membership>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT group_id,
               by_hand,
               by_filter
          FROM group_members
         WHERE organization_id = $1
           AND device_id = $2
        "#,
        organization.uuid(),
        device.uuid()
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Membership {
            group_id: GroupId::from_uuid(row.group_id),
            device_id: device,
            by_hand: row.by_hand,
            by_filter: row.by_filter,
        })
        .collect())
}

/// The memberships of these devices in one group.
pub async fn memberships(
    conn: &mut PgConnection,
    organization: OrganizationId,
    group: GroupId,
    devices: &[DeviceId],
) -> Result<Vec<Membership>, StoreError> {
    let ids: Vec<Uuid> = devices.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query!(
        r#"
        SELECT device_id,
               by_hand,
               by_filter
          FROM group_members
         WHERE organization_id = $1
           AND group_id = $2
           AND device_id = ANY ($3)
        "#,
        organization.uuid(),
        group.uuid(),
        &ids
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Membership {
            group_id: group,
            device_id: DeviceId::from_uuid(row.device_id),
            by_hand: row.by_hand,
            by_filter: row.by_filter,
        })
        .collect())
}

/// The members of a group, for one that is about to be deleted.
pub async fn all_members(
    conn: &mut PgConnection,
    organization: OrganizationId,
    group: GroupId,
) -> Result<Vec<Membership>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT device_id,
               by_hand,
               by_filter
          FROM group_members
         WHERE organization_id = $1
           AND group_id = $2
         ORDER BY device_id
        "#,
        organization.uuid(),
        group.uuid()
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Membership {
            group_id: group,
            device_id: DeviceId::from_uuid(row.device_id),
            by_hand: row.by_hand,
            by_filter: row.by_filter,
        })
        .collect())
}

/// Puts devices into groups by hand. Gives those that were not there by hand before, each with
/// whether it is in the group at all only now. The caller holds the groups.
pub async fn add_by_hand(
    conn: &mut PgConnection,
    organization: OrganizationId,
    rows: &[(GroupId, DeviceId)],
    now: Timestamp,
) -> Result<Vec<(GroupId, DeviceId, bool)>, StoreError> {
    let (groups, devices) = pairs(rows);
    let added = sqlx::query!(
        r#"
        INSERT INTO group_members AS present (organization_id, group_id, device_id, by_hand, by_filter, added_at)
        SELECT $1, new.group_id, new.device_id, true, false, $4
          FROM unnest($2::uuid[], $3::uuid[]) AS new (group_id, device_id)
            ON CONFLICT (organization_id, group_id, device_id)
            DO UPDATE SET by_hand = true WHERE NOT present.by_hand
     RETURNING group_id, device_id, NOT by_filter AS "is_new!"
        "#,
        organization.uuid(),
        &groups,
        &devices,
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(added
        .into_iter()
        .map(|row| {
            (
                GroupId::from_uuid(row.group_id),
                DeviceId::from_uuid(row.device_id),
                row.is_new,
            )
        })
        .collect())
}

/// Notes that the groups' filters admit the devices. Gives those that are in the group only now.
/// Groups that are gone by now are passed over.
pub async fn add_by_filter(
    conn: &mut PgConnection,
    organization: OrganizationId,
    rows: &[(GroupId, DeviceId)],
    now: Timestamp,
) -> Result<Vec<(GroupId, DeviceId)>, StoreError> {
    let (groups, devices) = pairs(rows);
    let added = sqlx::query!(
        r#"
        WITH held AS (
            SELECT id
              FROM device_groups
             WHERE organization_id = $1
               AND id = ANY ($2)
             ORDER BY id
               FOR KEY SHARE
        )
        INSERT INTO group_members AS present (organization_id, group_id, device_id, by_hand, by_filter, added_at)
        SELECT $1, new.group_id, new.device_id, false, true, $4
          FROM unnest($2::uuid[], $3::uuid[]) AS new (group_id, device_id)
          JOIN held ON held.id = new.group_id
            ON CONFLICT (organization_id, group_id, device_id)
            DO UPDATE SET by_filter = true WHERE NOT present.by_filter
     RETURNING group_id, device_id, NOT by_hand AS "is_new!"
        "#,
        organization.uuid(),
        &groups,
        &devices,
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(added
        .into_iter()
        .filter(|row| row.is_new)
        .map(|row| {
            (
                GroupId::from_uuid(row.group_id),
                DeviceId::from_uuid(row.device_id),
            )
        })
        .collect())
}

/// Notes that the groups' filters admit the devices no longer. Gives those that left.
pub async fn remove_by_filter(
    conn: &mut PgConnection,
    organization: OrganizationId,
    rows: &[(GroupId, DeviceId)],
) -> Result<Vec<(GroupId, DeviceId)>, StoreError> {
    let (groups, devices) = pairs(rows);
    sqlx::query!(
        r#"
        UPDATE group_members m
           SET by_filter = false
          FROM unnest($2::uuid[], $3::uuid[]) AS gone (group_id, device_id)
         WHERE m.organization_id = $1
           AND m.group_id = gone.group_id
           AND m.device_id = gone.device_id
           AND m.by_hand
        "#,
        organization.uuid(),
        &groups,
        &devices
    )
    .execute(&mut *conn)
    .await?;
    let left = sqlx::query!(
        r#"
        DELETE FROM group_members m
         USING unnest($2::uuid[], $3::uuid[]) AS gone (group_id, device_id)
         WHERE m.organization_id = $1
           AND m.group_id = gone.group_id
           AND m.device_id = gone.device_id
           AND NOT m.by_hand
     RETURNING m.group_id, m.device_id
        "#,
        organization.uuid(),
        &groups,
        &devices
    )
    .fetch_all(conn)
    .await?;
    Ok(left
        .into_iter()
        .map(|row| {
            (
                GroupId::from_uuid(row.group_id),
                DeviceId::from_uuid(row.device_id),
            )
        })
        .collect())
}

/// Takes a device that is in a group by hand alone out of it.
pub async fn remove_by_hand(
    conn: &mut PgConnection,
    organization: OrganizationId,
    group: GroupId,
    device: DeviceId,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        r#"
        DELETE FROM group_members
         WHERE organization_id = $1
           AND group_id = $2
           AND device_id = $3
           AND by_hand
           AND NOT by_filter
        "#,
        organization.uuid(),
        group.uuid(),
        device.uuid()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes a device out of all its groups and says which, and whether it was there by a filter alone.
pub async fn remove_all_of(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
) -> Result<Vec<Membership>, StoreError> {
    let rows = sqlx::query!(
        r#"
        DELETE FROM group_members
         WHERE organization_id = $1
           AND device_id = $2
     RETURNING group_id, by_hand, by_filter
        "#,
        organization.uuid(),
        device.uuid()
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Membership {
            group_id: GroupId::from_uuid(row.group_id),
            device_id: device,
            by_hand: row.by_hand,
            by_filter: row.by_filter,
        })
        .collect())
}
