//! One command to many devices.
//!
//! The batch is committed first; its commands follow in portions, each its own transaction, within
//! the request as far as it can wait for them. How far it has come is in the batch's row, so that
//! it goes on after a crash.

use std::collections::BTreeMap;

use mdm_core::{
    Invalid,
    commands::{Command, CommandStatus},
    devices::{Device, DeviceStatus},
    groups::GroupFilters,
    ids::{BatchId, CommandId, DeviceId, GroupId, OrganizationId},
    roles::Permission,
};
use mdm_store::{
    PgConnection, StoreError,
    command_batches::{self, BatchTargets, CommandBatch},
    devices, groups,
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    commands::{CommandError, MAX_OPEN, NewCommand, Wish},
    context::OpContext,
    services::Services,
};

/// How many devices can be named.
const NAMED_AT_MOST: usize = 10_000;
/// How many commands are written in one transaction.
const PORTION: usize = 500;
/// For how many portions a request waits.
const PORTIONS_WITHIN_REQUEST: usize = 20;

/// Which devices are meant, as it came in: exactly one of the three.
#[derive(Debug, Default)]
pub struct WantedTargets {
    /// These.
    pub device_ids: Option<Vec<Uuid>>,
    /// The members of this group.
    pub group_id: Option<Uuid>,
    /// Those that meet these conditions.
    pub filter: Option<Value>,
}

/// A batch, and where its commands stand.
#[derive(Debug)]
pub struct BatchProgress {
    /// The batch.
    pub batch: CommandBatch,
    /// How many commands stand where.
    pub counts: BTreeMap<CommandStatus, i64>,
}

impl Services {
    /// Accepts one command for many devices.
    pub async fn send_to_many(
        &self,
        ctx: &OpContext,
        new: &NewCommand,
        targets: WantedTargets,
    ) -> Result<BatchProgress, CommandError> {
        ctx.require(Permission::RunCommands)?;
        let wish = Wish::parse(new)?;
        let targets = parse_targets(targets)?;
        let now = self.now();
        let batch = CommandBatch {
            id: BatchId::new(self.clock.as_ref(), self.entropy.as_ref()),
            organization_id: ctx.organization_id,
            kind: wish.kind,
            parameters: wish.parameters.clone(),
            priority: wish.priority.value(),
            expires_at: wish.time_to_live.ends(now),
            targets,
            pending_after: Some(Uuid::nil()),
            skipped: 0,
            created_by: ctx.user_id(),
            created_at: now,
        };
        let mut tx = self.begin().await?;
        if let BatchTargets::Group(group) = batch.targets
            && groups::hold(&mut tx, ctx.organization_id, &[group])
                .await?
                .is_empty()
        {
            let detail = "there is no such device group";
            return Err(Invalid::new("/targets/group_id", "GROUP_NOT_FOUND", detail).into());
        }
        command_batches::insert(&mut tx, &batch).await?;
        self.commit(tx).await?;
        for _ in 0..PORTIONS_WITHIN_REQUEST {
            if !self.expand_batch(batch.organization_id, batch.id).await? {
                break;
            }
        }
        self.get_batch(ctx, batch.id).await
    }

    /// A batch of the organisation.
    pub async fn get_batch(
        &self,
        ctx: &OpContext,
        id: BatchId,
    ) -> Result<BatchProgress, CommandError> {
        ctx.require(Permission::ReadCommands)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let batch = command_batches::find(&mut conn, ctx.organization_id, id)
            .await?
            .ok_or(CommandError::BatchNotFound)?;
        let counts = command_batches::counts(&mut conn, ctx.organization_id, id).await?;
        Ok(BatchProgress { batch, counts })
    }

    /// Goes on with batches of any organisation that were not finished.
    pub(crate) async fn expand_pending_batches(&self) -> Result<(), StoreError> {
        let mut conn = self.pool.acquire().await?;
        let pending = command_batches::pending(&mut conn, 100).await?;
        drop(conn);
        for (organization, id) in pending {
            while self.expand_batch(organization, id).await? {}
        }
        Ok(())
    }

    /// Writes the next commands of a batch; `false` if there are no more.
    async fn expand_batch(
        &self,
        organization: OrganizationId,
        id: BatchId,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let Some(batch) = command_batches::lock(&mut tx, organization, id).await? else {
            return Ok(false);
        };
        let Some(after) = batch.pending_after else {
            return Ok(false);
        };
        let portion = self.next_portion(&mut tx, &batch, after).await?;
        let ids: Vec<DeviceId> = portion.devices.iter().map(|device| device.id).collect();
        let most = i64::try_from(MAX_OPEN).unwrap_or(i64::MAX);
        let full =
            command_batches::devices_with_many_open(&mut tx, organization, &ids, most).await?;
        let commands: Vec<Command> = portion
            .devices
            .iter()
            .filter(|device| {
                device.status != DeviceStatus::Unenrolled && !full.contains(&device.id)
            })
            .map(|device| self.command_of(&batch, device.id))
            .collect();
        command_batches::insert_commands(&mut tx, &batch, &commands).await?;
        let cause = batch
            .created_by
            .map_or_else(|| "server".to_owned(), |user| format!("user {user}"));
        let now = self.now();
        self.note(&mut tx, &commands.iter().collect::<Vec<_>>(), now, &cause)
            .await?;
        let skipped = portion.meant.saturating_sub(commands.len());
        let skipped = i64::try_from(skipped).unwrap_or(i64::MAX);
        command_batches::progress(&mut tx, &batch, portion.next, skipped).await?;
        // No part of the request that made the batch any more, which has been committed.
        self.commit_apart(tx).await?;
        for command in &commands {
            self.channels.wake(organization, command.device_id);
        }
        Ok(portion.next.is_some())
    }

    /// The next devices, locked, and where the portion after this one begins.
    async fn next_portion(
        &self,
        tx: &mut PgConnection,
        batch: &CommandBatch,
        after: Uuid,
    ) -> Result<Portion, StoreError> {
        let limit = i64::try_from(PORTION).unwrap_or(i64::MAX);
        let organization = batch.organization_id;
        let ids = match &batch.targets {
            BatchTargets::Filter(filter) => {
                let devices = devices::lock_batch(tx, organization, after, limit).await?;
                return Ok(Portion::filtered(devices, filter.as_ref()));
            }
            BatchTargets::Group(group) => {
                command_batches::next_members(&mut *tx, organization, *group, after, limit).await?
            }
            BatchTargets::Devices(ids) => {
                let mut ids: Vec<DeviceId> =
                    ids.iter().copied().filter(|id| id.uuid() > after).collect();
                ids.sort_unstable();
                ids.dedup();
                ids.truncate(PORTION);
                ids
            }
        };
        let next = ids.last().filter(|_| ids.len() == PORTION);
        Ok(Portion {
            next: next.map(|id| id.uuid()),
            meant: ids.len(),
            devices: devices::lock_many(tx, organization, &ids).await?,
        })
    }

    fn command_of(&self, batch: &CommandBatch, device_id: DeviceId) -> Command {
        Command {
            id: CommandId::new(self.clock.as_ref(), self.entropy.as_ref()),
            organization_id: batch.organization_id,
            device_id,
            kind: batch.kind,
            parameters: batch.parameters.clone(),
            status: CommandStatus::Pending,
            result: None,
            error: None,
            created_by: batch.created_by,
            created_at: batch.created_at,
            sent_at: None,
            completed_at: None,
            expires_at: batch.expires_at,
            priority: batch.priority,
            lane: batch.kind.lane(),
            attempts: 0,
            batch_id: Some(batch.id),
        }
    }
}

struct Portion {
    devices: Vec<Device>,
    meant: usize,
    next: Option<Uuid>,
}

impl Portion {
    fn filtered(mut devices: Vec<Device>, filter: Option<&GroupFilters>) -> Self {
        let next = devices.last().filter(|_| devices.len() == PORTION);
        let next = next.map(|device| device.id.uuid());
        devices.retain(|device| filter.is_none_or(|filter| filter.admit(device)));
        Self {
            meant: devices.len(),
            devices,
            next,
        }
    }
}

fn parse_targets(targets: WantedTargets) -> Result<BatchTargets, Invalid> {
    match (targets.device_ids, targets.group_id, targets.filter) {
        (Some(ids), None, None) => {
            if ids.is_empty() || ids.len() > NAMED_AT_MOST {
                let detail = format!("must name 1 to {NAMED_AT_MOST} devices");
                return Err(Invalid::new("/targets/device_ids", "WRONG_NUMBER", detail));
            }
            let ids = ids.into_iter().map(DeviceId::from_uuid).collect();
            Ok(BatchTargets::Devices(ids))
        }
        (None, Some(group), None) => Ok(BatchTargets::Group(GroupId::from_uuid(group))),
        (None, None, Some(filter)) => {
            GroupFilters::parse("/targets/filter", &filter).map(BatchTargets::Filter)
        }
        _ => {
            let detail = "must name exactly one of device_ids, group_id and filter";
            Err(Invalid::new("/targets", "WRONG_NUMBER", detail))
        }
    }
}
