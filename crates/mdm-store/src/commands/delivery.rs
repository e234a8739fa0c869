//! Which commands a device is handed now. Callers hold the lock of the device's row.

use mdm_core::{
    Timestamp,
    commands::Command,
    ids::{CommandId, DeviceId, OrganizationId},
};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{CommandRow, in_delivery_order};
use crate::error::StoreError;

struct DeliveredRow {
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
}

impl DeliveredRow {
    fn into_ordered(self) -> Result<(i64, Command), StoreError> {
        let row = CommandRow {
            organization_id: self.organization_id,
            id: self.id,
            device_id: self.device_id,
            kind: self.kind,
            parameters: self.parameters,
            status: self.status,
            lane: self.lane,
            priority: self.priority,
            result: self.result,
            error: self.error,
            created_by: self.created_by,
            created_at: self.created_at,
            sent_at: self.sent_at,
            completed_at: self.completed_at,
            expires_at: self.expires_at,
            attempts: self.attempts,
        };
        Ok((self.sequence, Command::try_from(row)?))
    }
}

/// Whether any command of the device is open. Takes no lock: it is what an idle check-in asks.
pub async fn has_open(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"
        SELECT EXISTS (SELECT 1
                         FROM commands
                        WHERE organization_id = $1
                          AND device_id = $2
                          AND status IN ('pending', 'sent', 'running')) AS "exists!"
        "#,
        organization.uuid(),
        device.uuid()
    )
    .fetch_one(conn)
    .await?)
}

/// Marks the first `limit` pending commands as sent and gives them in the order of delivery.
pub async fn claim_pending(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Command>, StoreError> {
    let rows = sqlx::query_as!(
        DeliveredRow,
        r#"
        UPDATE commands
           SET status = 'sent',
               sent_at = $3,
               attempts = attempts + 1
         WHERE organization_id = $1
           AND id IN (SELECT id
                        FROM commands
                       WHERE organization_id = $1
                         AND device_id = $2
                         AND status IN ('pending', 'sent', 'running')
                         AND status = 'pending'
                         AND expires_at > $3
                       ORDER BY priority DESC, sequence
                       LIMIT $4)
     RETURNING sequence,
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
               attempts
        "#,
        organization.uuid(),
        device.uuid(),
        now,
        limit
    )
    .fetch_all(conn)
    .await?;
    let commands = rows
        .into_iter()
        .map(DeliveredRow::into_ordered)
        .collect::<Result<_, _>>()?;
    Ok(in_delivery_order(commands))
}

/// The commands that were handed over before and did not end, to be handed over again: the device's
/// journal knows those that it has. Destructive ones are never among them.
pub async fn redeliver(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Command>, StoreError> {
    let rows = sqlx::query_as!(
        DeliveredRow,
        r#"
        UPDATE commands
           SET attempts = attempts + 1
         WHERE organization_id = $1
           AND id IN (SELECT id
                        FROM commands
                       WHERE organization_id = $1
                         AND device_id = $2
                         AND status IN ('pending', 'sent', 'running')
                         AND status <> 'pending'
                         AND NOT destructive
                         AND expires_at > $3
                       ORDER BY sequence
                       LIMIT $4)
     RETURNING sequence,
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
               attempts
        "#,
        organization.uuid(),
        device.uuid(),
        now,
        limit
    )
    .fetch_all(conn)
    .await?;
    let commands = rows
        .into_iter()
        .map(DeliveredRow::into_ordered)
        .collect::<Result<_, _>>()?;
    Ok(in_delivery_order(commands))
}

/// Destructive commands that were handed over and of which the device has told no end: it is asked
/// what became of them, and never handed them again.
pub async fn lost_destructive(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
) -> Result<Vec<CommandId>, StoreError> {
    let ids = sqlx::query_scalar!(
        r#"
        SELECT id
          FROM commands
         WHERE organization_id = $1
           AND device_id = $2
           AND status IN ('pending', 'sent', 'running')
           AND status <> 'pending'
           AND destructive
         ORDER BY sequence
        "#,
        organization.uuid(),
        device.uuid()
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(CommandId::from_uuid).collect())
}
