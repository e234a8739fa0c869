//! Memberships by filter: they follow the devices' data and the groups' filters.
//!
//! A device's change looks at all groups in its own transaction. A change of a group's filters is
//! committed first and then looks at all devices in batches, each its own transaction; how far it
//! has come is in the group's row, so that it goes on after a crash. Either locks the device's row
//! before it reads the filters: whichever comes second sees what the first did.

use std::collections::HashSet;

use mdm_core::{
    devices::Device,
    events::{MembershipAction, MembershipSource, NewEvent},
    groups::GroupFilters,
    ids::{DeviceId, GroupId, OrganizationId},
    roles::Permission,
};
use mdm_store::{PgConnection, StoreError, devices, events, groups};
use serde_json::Value;
use uuid::Uuid;

use super::{GroupError, membership};
use crate::{context::OpContext, services::Services};

/// How many devices are looked at in one transaction.
const BATCH: i64 = 1_000;
/// For how many batches a request waits; the rest follows in the background.
const BATCHES_WITHIN_REQUEST: usize = 20;
/// How many devices a preview shows.
const PREVIEWED: usize = 50;

/// What changed of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Anything.
    Facts,
    /// Its status only.
    Status,
}

impl Services {
    /// Brings a locked device's memberships by filter up to date, with their events.
    pub(crate) async fn follow_filters(
        &self,
        tx: &mut PgConnection,
        device: &Device,
        changed: Changed,
    ) -> Result<(), StoreError> {
        let mut filtered = groups::with_filters(&mut *tx, device.organization_id).await?;
        if changed == Changed::Status {
            filtered.retain(|(_, filters)| filters.asks_for_status());
        }
        if filtered.is_empty() {
            return Ok(());
        }
        let present: HashSet<GroupId> =
            groups::of_device(&mut *tx, device.organization_id, device.id)
                .await?
                .into_iter()
                .filter(|member| member.by_filter)
                .map(|member| member.group_id)
                .collect();
        let (mut enter, mut leave) = (Vec::new(), Vec::new());
        for (group, filters) in filtered {
            match (filters.admit(device), present.contains(&group)) {
                (true, false) => enter.push((group, device.id)),
                (false, true) => leave.push((group, device.id)),
                _ => {}
            }
        }
        self.move_by_filter(tx, device.organization_id, &enter, &leave)
            .await
    }

    /// Puts new devices into the groups whose filters admit them.
    pub(crate) async fn enter_by_filters(
        &self,
        tx: &mut PgConnection,
        organization: OrganizationId,
        devices: &[&Device],
    ) -> Result<(), StoreError> {
        let filtered = groups::with_filters(&mut *tx, organization).await?;
        let mut enter = Vec::new();
        for (group, filters) in &filtered {
            let admitted = devices.iter().filter(|device| filters.admit(device));
            enter.extend(admitted.map(|device| (*group, device.id)));
        }
        self.move_by_filter(tx, organization, &enter, &[]).await
    }

    async fn move_by_filter(
        &self,
        tx: &mut PgConnection,
        organization: OrganizationId,
        enter: &[(GroupId, DeviceId)],
        leave: &[(GroupId, DeviceId)],
    ) -> Result<(), StoreError> {
        if enter.is_empty() && leave.is_empty() {
            return Ok(());
        }
        let now = self.now();
        let left = groups::remove_by_filter(&mut *tx, organization, leave).await?;
        let entered = groups::add_by_filter(&mut *tx, organization, enter, now).await?;
        let told = |rows: &[(GroupId, DeviceId)], action| -> Vec<NewEvent> {
            rows.iter()
                .map(|(group, device)| {
                    membership(
                        organization,
                        *group,
                        *device,
                        action,
                        MembershipSource::Filter,
                    )
                })
                .collect()
        };
        let mut events = told(&left, MembershipAction::Removed);
        events.extend(told(&entered, MembershipAction::Added));
        let moved: Vec<DeviceId> = left
            .iter()
            .chain(&entered)
            .map(|(_, device)| *device)
            .collect();
        devices::bump_revisions(&mut *tx, organization, &moved).await?;
        events::append_all(tx, now, &events).await
    }

    /// Looks at all devices for a group whose filters changed, as far as a request can wait for it.
    pub(crate) async fn follow_group(
        &self,
        organization: OrganizationId,
        group: GroupId,
    ) -> Result<(), StoreError> {
        for _ in 0..BATCHES_WITHIN_REQUEST {
            if !self.follow_group_batch(organization, group).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Looks at the next devices for groups that are not up to date, of any organisation.
    pub(crate) async fn follow_stale_groups(&self) -> Result<(), StoreError> {
        let mut conn = self.pool.acquire().await?;
        let stale = groups::stale(&mut conn, 100).await?;
        drop(conn);
        for (organization, group) in stale {
            while self.follow_group_batch(organization, group).await? {}
        }
        Ok(())
    }

    /// One batch; `false` if the group is up to date or gone.
    async fn follow_group_batch(
        &self,
        organization: OrganizationId,
        id: GroupId,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        // Devices are locked before groups everywhere; a batch cannot, because the group says where
        // it begins. The lock on the group lets new members pass, so nobody who holds a device
        // waits for it.
        let Some(group) = groups::lock(&mut tx, organization, id).await? else {
            return Ok(false);
        };
        let Some(after) = groups::stale_after(&mut tx, organization, id).await? else {
            return Ok(false);
        };
        let batch = devices::lock_batch(&mut tx, organization, after, BATCH).await?;
        let ids: Vec<DeviceId> = batch.iter().map(|device| device.id).collect();
        let present: HashSet<DeviceId> = groups::memberships(&mut tx, organization, id, &ids)
            .await?
            .into_iter()
            .filter(|member| member.by_filter)
            .map(|member| member.device_id)
            .collect();
        let (mut enter, mut leave) = (Vec::new(), Vec::new());
        for device in &batch {
            let admitted = group.filters.as_ref().is_some_and(|f| f.admit(device));
            match (admitted, present.contains(&device.id)) {
                (true, false) => enter.push((id, device.id)),
                (false, true) => leave.push((id, device.id)),
                _ => {}
            }
        }
        self.move_by_filter(&mut tx, organization, &enter, &leave)
            .await?;
        let full = i64::try_from(batch.len()).is_ok_and(|length| length == BATCH);
        let next = batch.last().filter(|_| full).map(|device| device.id.uuid());
        groups::set_stale_after(&mut tx, organization, id, next).await?;
        // No part of the request that changed the filters any more, which has been committed.
        self.commit_apart(tx).await?;
        Ok(next.is_some())
    }

    /// Who would be in a group with these filters: how many, and the first of them.
    pub async fn preview_group(
        &self,
        ctx: &OpContext,
        filters: &Value,
    ) -> Result<(i64, Vec<Device>), GroupError> {
        ctx.require(Permission::ReadGroups)?;
        ctx.require(Permission::ReadDevices)?;
        let Some(filters) = GroupFilters::parse("/filters", filters)? else {
            return Ok((0, Vec::new()));
        };
        let (mut count, mut first, mut after) = (0, Vec::new(), Uuid::nil());
        loop {
            let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
            let batch = devices::read_batch(&mut conn, ctx.organization_id, after, BATCH).await?;
            drop(conn);
            let Some(last) = batch.last() else {
                return Ok((count, first));
            };
            after = last.id.uuid();
            for device in batch.into_iter().filter(|device| filters.admit(device)) {
                count += 1;
                if first.len() < PREVIEWED {
                    first.push(device);
                }
            }
        }
    }
}
