//! Which commands a device is handed now. Callers hold the lock of the device's row.

use mdm_core::{
    Timestamp,
    commands::Command,
    ids::{CommandId, DeviceId, OrganizationId},
};
use sqlx::PgConnection;

use super::{CommandRow, in_delivery_order};
use crate::error::StoreError;

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
        CommandRow,
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
               attempts,
               batch_id
        "#,
        organization.uuid(),
        device.uuid(),
        now,
        limit
    )
    .fetch_all(conn)
    .await?;
    in_delivery_order(rows)
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
        CommandRow,
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
               attempts,
               batch_id
        "#,
        organization.uuid(),
        device.uuid(),
        now,
        limit
    )
    .fetch_all(conn)
    .await?;
    in_delivery_order(rows)
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
