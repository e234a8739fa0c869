//! One command to many devices.

use std::collections::BTreeMap;

use mdm_core::{
    Timestamp,
    commands::{Command, CommandKind, CommandStatus},
    groups::GroupFilters,
    ids::{BatchId, DeviceId, GroupId, OrganizationId, UserId},
};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::error::{StoreError, one_row};

/// Which devices are meant.
#[derive(Debug, Clone)]
pub enum BatchTargets {
    /// These.
    Devices(Vec<DeviceId>),
    /// The members of this group.
    Group(GroupId),
    /// Those that meet these conditions; all if there are none.
    Filter(Option<GroupFilters>),
}

/// One command to many devices.
#[derive(Debug, Clone)]
pub struct CommandBatch {
    /// Its id.
    pub id: BatchId,
    /// The organisation that it belongs to.
    pub organization_id: OrganizationId,
    /// What is to be done.
    pub kind: CommandKind,
    /// With what.
    pub parameters: Value,
    /// What goes first.
    pub priority: i16,
    /// When its commands end if nothing else ends them.
    pub expires_at: Timestamp,
    /// Which devices are meant.
    pub targets: BatchTargets,
    /// Devices after this id have not got their command yet; `None`: all have.
    pub pending_after: Option<Uuid>,
    /// Devices that took no command.
    pub skipped: i64,
    /// Who sent it.
    pub created_by: Option<UserId>,
    /// When it was accepted.
    pub created_at: Timestamp,
}

struct BatchRow {
    organization_id: Uuid,
    id: Uuid,
    kind: String,
    parameters: Value,
    priority: i16,
    expires_at: Timestamp,
    device_ids: Option<Vec<Uuid>>,
    group_id: Option<Uuid>,
    filter: Option<Json<Option<GroupFilters>>>,
    pending_after: Option<Uuid>,
    skipped: i64,
    created_by: Option<Uuid>,
    created_at: Timestamp,
}

impl TryFrom<BatchRow> for CommandBatch {
    type Error = StoreError;

    fn try_from(row: BatchRow) -> Result<Self, StoreError> {
        let targets = match (row.device_ids, row.group_id, row.filter) {
            (Some(ids), None, None) => {
                BatchTargets::Devices(ids.into_iter().map(DeviceId::from_uuid).collect())
            }
            (None, Some(group), None) => BatchTargets::Group(GroupId::from_uuid(group)),
            (None, None, Some(filter)) => BatchTargets::Filter(filter.0),
            _ => return Err(StoreError::corrupt("command_batches", "device_ids", row.id)),
        };
        Ok(Self {
            id: BatchId::from_uuid(row.id),
            organization_id: OrganizationId::from_uuid(row.organization_id),
            kind: row
                .kind
                .parse()
                .map_err(|_unknown| StoreError::corrupt("command_batches", "kind", row.id))?,
            parameters: row.parameters,
            priority: row.priority,
            expires_at: row.expires_at,
            targets,
            pending_after: row.pending_after,
            skipped: row.skipped,
            created_by: row.created_by.map(UserId::from_uuid),
            created_at: row.created_at,
        })
    }
}

/// Adds a batch of which no device has got its command yet.
pub async fn insert(conn: &mut PgConnection, batch: &CommandBatch) -> Result<(), StoreError> {
    let (devices, group, filter) = match &batch.targets {
        BatchTargets::Devices(ids) => {
            let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
            (Some(ids), None, None)
        }
        BatchTargets::Group(group) => (None, Some(group.uuid()), None),
        // An absent filter is stored as an empty object: a column that is NULL names no target.
        BatchTargets::Filter(filter) => (None, None, Some(Json(filter))),
    };
    sqlx::query!(
        r#"
        INSERT INTO command_batches
               (organization_id, id, kind, parameters, priority, expires_at, device_ids, group_id, filter,
                pending_after, created_by, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        "#,
        batch.organization_id.uuid(),
        batch.id.uuid(),
        batch.kind.as_str(),
        batch.parameters,
        batch.priority,
        batch.expires_at,
        devices.as_deref(),
        group,
        filter as _,
        Uuid::nil(),
        batch.created_by.map(UserId::uuid),
        batch.created_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Finds a batch of the organisation; with `lock`, nobody else works on it until the transaction
/// ends.
pub async fn find(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: BatchId,
) -> Result<Option<CommandBatch>, StoreError> {
    let row = sqlx::query_as!(
        BatchRow,
        r#"
        SELECT organization_id,
               id,
               kind,
               parameters,
               priority,
               expires_at,
               device_ids,
               group_id,
               filter AS "filter: Json<Option<GroupFilters>>",
               pending_after,
               skipped,
               created_by,
               created_at
          FROM command_batches
         WHERE organization_id = $1
           AND id = $2
        "#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    row.map(CommandBatch::try_from).transpose()
}

/// As [`find`], and nobody else works on the batch until the transaction ends.
pub async fn lock(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: BatchId,
) -> Result<Option<CommandBatch>, StoreError> {
    sqlx::query_scalar!(
        "SELECT id FROM command_batches WHERE organization_id = $1 AND id = $2 FOR UPDATE",
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?;
    find(conn, organization, id).await
}

/// Batches of any organisation of which devices have not got their command yet.
pub async fn pending(
    conn: &mut PgConnection,
    limit: i64,
) -> Result<Vec<(OrganizationId, BatchId)>, StoreError> {
    let rows = sqlx::query!(
        "SELECT organization_id, id FROM command_batches WHERE pending_after IS NOT NULL LIMIT $1",
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            (
                OrganizationId::from_uuid(row.organization_id),
                BatchId::from_uuid(row.id),
            )
        })
        .collect())
}

/// The next members of a group after an id, at most `limit`.
pub async fn next_members(
    conn: &mut PgConnection,
    organization: OrganizationId,
    group: GroupId,
    after: Uuid,
    limit: i64,
) -> Result<Vec<DeviceId>, StoreError> {
    let ids = sqlx::query_scalar!(
        r#"
        SELECT device_id
          FROM group_members
         WHERE organization_id = $1
           AND group_id = $2
           AND device_id > $3
         ORDER BY device_id
         LIMIT $4
        "#,
        organization.uuid(),
        group.uuid(),
        after,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(DeviceId::from_uuid).collect())
}

/// Notes how far a locked batch has come.
pub async fn progress(
    conn: &mut PgConnection,
    batch: &CommandBatch,
    pending_after: Option<Uuid>,
    skipped: i64,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        r#"
        UPDATE command_batches
           SET pending_after = $3,
               skipped = skipped + $4
         WHERE organization_id = $1
           AND id = $2
        "#,
        batch.organization_id.uuid(),
        batch.id.uuid(),
        pending_after,
        skipped
    )
    .execute(conn)
    .await?;
    one_row("command_batches", done.rows_affected())
}

/// Adds commands of a batch, one for each device, in one statement. The caller holds the devices.
pub async fn insert_commands(
    conn: &mut PgConnection,
    batch: &CommandBatch,
    commands: &[Command],
) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = commands.iter().map(|command| command.id.uuid()).collect();
    let devices: Vec<Uuid> = commands
        .iter()
        .map(|command| command.device_id.uuid())
        .collect();
    sqlx::query!(
        r#"
        INSERT INTO commands (organization_id, id, device_id, kind, parameters, status, lane, destructive, priority,
                              created_by, created_at, expires_at, batch_id)
        SELECT $1, new.id, new.device_id, $4, $5, 'pending', $6, $7, $8, $9, $10, $11, $12
          FROM unnest($2::uuid[], $3::uuid[]) AS new (id, device_id)
        "#,
        batch.organization_id.uuid(),
        &ids,
        &devices,
        batch.kind.as_str(),
        batch.parameters,
        batch.kind.lane().as_str(),
        batch.kind.is_destructive(),
        batch.priority,
        batch.created_by.map(UserId::uuid),
        batch.created_at,
        batch.expires_at,
        batch.id.uuid()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Those of the devices for which `most` commands or more are open.
pub async fn devices_with_many_open(
    conn: &mut PgConnection,
    organization: OrganizationId,
    devices: &[DeviceId],
    most: i64,
) -> Result<Vec<DeviceId>, StoreError> {
    let ids: Vec<Uuid> = devices.iter().map(|id| id.uuid()).collect();
    let full = sqlx::query_scalar!(
        r#"
        SELECT device_id
          FROM commands
         WHERE organization_id = $1
           AND device_id = ANY ($2)
           AND status IN ('pending', 'sent', 'running')
         GROUP BY device_id
        HAVING count(*) >= $3
        "#,
        organization.uuid(),
        &ids,
        most
    )
    .fetch_all(conn)
    .await?;
    Ok(full.into_iter().map(DeviceId::from_uuid).collect())
}

/// How many commands of a batch stand where.
pub async fn counts(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: BatchId,
) -> Result<BTreeMap<CommandStatus, i64>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT status,
               count(*) AS "commands!"
          FROM commands
         WHERE organization_id = $1
           AND batch_id = $2
         GROUP BY status
        "#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let status = row
                .status
                .parse()
                .map_err(|_unknown| StoreError::corrupt("commands", "status", id))?;
            Ok((status, row.commands))
        })
        .collect()
}
