//! The command ledger.
//!
//! Whoever moves a command holds the lock of its device's row (`devices::lock`), so that a
//! device's commands and their events have one order.

use mdm_core::{
    Timestamp,
    commands::{Command, CommandKind, CommandStatus, CommandTransition, IdempotencyKey, Lane},
    ids::{BatchId, CommandId, DeviceId, OrganizationId, UserId},
};
use serde_json::Value;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::{
    error::{StoreError, one_row},
    lists::{ListPage, ListRequest, SortColumn, SortKind, Sorting, Source, Total},
};

mod delivery;
mod expiry;

pub use delivery::{claim_pending, has_open, lost_destructive, redeliver};
pub use expiry::{devices_with_expired, lock_expired_of};

#[derive(sqlx::FromRow)]
pub(crate) struct CommandRow {
    sequence: i64,
    organization_id: Uuid,
    id: Uuid,
    device_id: Uuid,
    kind: String,
    parameters: Value,
    status: String,
    lane: String,
    priority: i16,
    result: Option<Value>,
    error: Option<String>,
    created_by: Option<Uuid>,
    created_at: Timestamp,
    sent_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    expires_at: Timestamp,
    attempts: i32,
    batch_id: Option<Uuid>,
}

impl TryFrom<CommandRow> for Command {
    type Error = StoreError;

    fn try_from(row: CommandRow) -> Result<Self, StoreError> {
        let corrupt = |column| StoreError::corrupt("commands", column, row.id);
        Ok(Self {
            id: CommandId::from_uuid(row.id),
            organization_id: OrganizationId::from_uuid(row.organization_id),
            device_id: DeviceId::from_uuid(row.device_id),
            kind: row.kind.parse().map_err(|_unknown| corrupt("kind"))?,
            parameters: row.parameters,
            status: row.status.parse().map_err(|_unknown| corrupt("status"))?,
            lane: row.lane.parse().map_err(|_unknown| corrupt("lane"))?,
            priority: row.priority,
            result: row.result,
            error: row.error,
            created_by: row.created_by.map(UserId::from_uuid),
            created_at: row.created_at,
            sent_at: row.sent_at,
            completed_at: row.completed_at,
            expires_at: row.expires_at,
            attempts: row.attempts,
            batch_id: row.batch_id.map(BatchId::from_uuid),
        })
    }
}

/// What makes a repeated request recognisable: the caller's key and a digest of the request.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// The caller's key.
    pub key: IdempotencyKey,
    /// A digest of what was asked for.
    pub digest: [u8; 32],
}

/// Which commands a list shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct CommandFilter {
    /// Of this device.
    pub device: Option<DeviceId>,
    /// With this status.
    pub status: Option<CommandStatus>,
    /// Of this kind.
    pub kind: Option<CommandKind>,
    /// Of this batch.
    pub batch: Option<BatchId>,
}

/// Adds a command, unless one with the same idempotency key is there: then `false`, and nothing is
/// changed.
pub async fn insert(
    conn: &mut PgConnection,
    command: &Command,
    idempotency: Option<&Idempotency>,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        r#"
        INSERT INTO commands (organization_id, id, device_id, kind, parameters, status, lane, destructive, priority,
                              created_by, idempotency_key, idempotency_digest, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
            ON CONFLICT (organization_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
        "#,
        command.organization_id.uuid(),
        command.id.uuid(),
        command.device_id.uuid(),
        command.kind.as_str(),
        command.parameters,
        command.status.as_str(),
        command.lane.as_str(),
        command.kind.is_destructive(),
        command.priority,
        command.created_by.map(UserId::uuid),
        idempotency.map(|i| i.key.as_str()),
        idempotency.map(|i| i.digest.as_slice()),
        command.created_at,
        command.expires_at
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The command that was accepted under an idempotency key, and the digest of its request.
pub async fn find_by_idempotency_key(
    conn: &mut PgConnection,
    organization: OrganizationId,
    key: &IdempotencyKey,
) -> Result<Option<(CommandId, Vec<u8>)>, StoreError> {
    let row = sqlx::query!(
        r#"
        SELECT id,
               idempotency_digest AS "digest!"
          FROM commands
         WHERE organization_id = $1
           AND idempotency_key = $2
        "#,
        organization.uuid(),
        key.as_str()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (CommandId::from_uuid(row.id), row.digest)))
}

/// Finds a command of the organisation.
pub async fn find(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: CommandId,
) -> Result<Option<Command>, StoreError> {
    let row = sqlx::query_as!(
        CommandRow,
        r#"
        SELECT sequence,
               organization_id,
               id,
               device_id,
               kind,
               parameters,
               status,
               lane,
               priority,
               result,
               error,
               created_by,
               created_at,
               sent_at,
               completed_at,
               expires_at,
               attempts,
               batch_id
          FROM commands
         WHERE organization_id = $1
           AND id = $2
        "#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    row.map(Command::try_from).transpose()
}

/// What commands can be sorted by.
pub const SORTING: Sorting = Sorting {
    columns: &[
        SortColumn {
            name: "id",
            sql: "id",
            kind: SortKind::Id,
        },
        SortColumn {
            name: "created_at",
            sql: "created_at",
            kind: SortKind::Timestamp,
        },
        SortColumn {
            name: "expires_at",
            sql: "expires_at",
            kind: SortKind::Timestamp,
        },
    ],
    newest_first: true,
};

const SOURCE: Source = Source {
    columns: "sequence, organization_id, id, device_id, kind, parameters, status, lane, priority, result, error, \
              created_by, created_at, sent_at, completed_at, expires_at, attempts, batch_id",
    from: "commands",
    organization: "organization_id",
    id: "id",
    plan_each: false,
};

impl CommandFilter {
    fn narrow(&self, query: &mut QueryBuilder<Postgres>) {
        if let Some(device) = self.device {
            query.push(" AND device_id = ").push_bind(device.uuid());
        }
        if let Some(status) = self.status {
            query.push(" AND status = ").push_bind(status.as_str());
        }
        if let Some(kind) = self.kind {
            query.push(" AND kind = ").push_bind(kind.as_str());
        }
        if let Some(batch) = self.batch {
            query.push(" AND batch_id = ").push_bind(batch.uuid());
        }
    }
}

/// A page of the organisation's commands.
pub async fn list(
    conn: &mut PgConnection,
    organization: OrganizationId,
    filter: &CommandFilter,
    request: &ListRequest,
) -> Result<ListPage<Command>, StoreError> {
    let page: ListPage<CommandRow> = SOURCE
        .page(conn, organization, request, &|query| filter.narrow(query))
        .await?;
    page.try_map(Command::try_from)
}

/// How many commands the filter lets through.
pub async fn total(
    conn: &mut PgConnection,
    organization: OrganizationId,
    filter: &CommandFilter,
) -> Result<Total, StoreError> {
    SOURCE
        .total(conn, organization, &|query| filter.narrow(query))
        .await
}

/// How many commands of a device are open.
pub async fn count_open(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
) -> Result<usize, StoreError> {
    let count = sqlx::query_scalar!(
        r#"
        SELECT count(*) AS "count!"
          FROM commands
         WHERE organization_id = $1
           AND device_id = $2
           AND status IN ('pending', 'sent', 'running')
        "#,
        organization.uuid(),
        device.uuid()
    )
    .fetch_one(conn)
    .await?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// The open commands of a device, in the order in which they were accepted.
pub async fn open_of_device(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
) -> Result<Vec<Command>, StoreError> {
    let rows = sqlx::query_as!(
        CommandRow,
        r#"
        SELECT sequence,
               organization_id,
               id,
               device_id,
               kind,
               parameters,
               status,
               lane,
               priority,
               result,
               error,
               created_by,
               created_at,
               sent_at,
               completed_at,
               expires_at,
               attempts,
               batch_id
          FROM commands
         WHERE organization_id = $1
           AND device_id = $2
           AND status IN ('pending', 'sent', 'running')
         ORDER BY sequence
        "#,
        organization.uuid(),
        device.uuid()
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Command::try_from).collect()
}

/// Writes what moves in a command's life: status, result, error and the moments.
pub async fn update(conn: &mut PgConnection, command: &Command) -> Result<(), StoreError> {
    let done = sqlx::query!(
        r#"
        UPDATE commands
           SET status = $3,
               result = $4,
               error = $5,
               sent_at = $6,
               completed_at = $7
         WHERE organization_id = $1
           AND id = $2
        "#,
        command.organization_id.uuid(),
        command.id.uuid(),
        command.status.as_str(),
        command.result,
        command.error,
        command.sent_at,
        command.completed_at
    )
    .execute(conn)
    .await?;
    one_row("commands", done.rows_affected())
}

/// Adds one step to the ledger of each command, in one statement.
pub async fn insert_transitions(
    conn: &mut PgConnection,
    commands: &[&Command],
    at: Timestamp,
    node: &str,
    cause: &str,
) -> Result<(), StoreError> {
    let organizations: Vec<Uuid> = commands.iter().map(|c| c.organization_id.uuid()).collect();
    let ids: Vec<Uuid> = commands.iter().map(|c| c.id.uuid()).collect();
    let statuses: Vec<String> = commands.iter().map(|c| c.status.to_string()).collect();
    sqlx::query!(
        r#"
        INSERT INTO command_transitions (organization_id, command_id, status, at, node, cause)
        SELECT t.organization_id, t.command_id, t.status, $4, $5, $6
          FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS t (organization_id, command_id, status)
        "#,
        &organizations,
        &ids,
        &statuses,
        at,
        node,
        cause
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Every step of a command's life, from the first.
pub async fn transitions(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: CommandId,
) -> Result<Vec<CommandTransition>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT status,
               at,
               node,
               cause
          FROM command_transitions
         WHERE organization_id = $1
           AND command_id = $2
         ORDER BY step
        "#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(CommandTransition {
                status: row
                    .status
                    .parse()
                    .map_err(|_unknown| StoreError::corrupt("command_transitions", "status", id))?,
                at: row.at,
                node: row.node,
                cause: row.cause,
            })
        })
        .collect()
}

/// Reads commands in the order of delivery: by lane, the higher priority first, then as they came.
fn in_delivery_order(mut rows: Vec<CommandRow>) -> Result<Vec<Command>, StoreError> {
    rows.sort_by_key(|row| row.sequence);
    let mut commands = rows
        .into_iter()
        .map(Command::try_from)
        .collect::<Result<Vec<_>, _>>()?;
    commands.sort_by_key(|command| {
        (
            lane_order(command.lane),
            std::cmp::Reverse(command.priority),
        )
    });
    Ok(commands)
}

const fn lane_order(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 0,
        Lane::Query => 1,
        Lane::Software => 2,
        Lane::Script => 3,
    }
}
