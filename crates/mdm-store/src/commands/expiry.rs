//! Commands whose time ran out.

use mdm_core::{
    Timestamp,
    commands::Command,
    ids::{DeviceId, OrganizationId},
};
use sqlx::PgConnection;

use super::CommandRow;
use crate::error::StoreError;

/// Devices of any organisation that have an open command whose time is over, at most `limit`.
pub async fn devices_with_expired(
    conn: &mut PgConnection,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<(OrganizationId, DeviceId)>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT DISTINCT organization_id,
               device_id
          FROM (SELECT organization_id, device_id
                  FROM commands
                 WHERE status IN ('pending', 'sent', 'running')
                   AND expires_at <= $1
                 ORDER BY expires_at
                 LIMIT $2) AS due
        "#,
        now,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            (
                OrganizationId::from_uuid(row.organization_id),
                DeviceId::from_uuid(row.device_id),
            )
        })
        .collect())
}

/// The open commands of a device whose time is over. Callers hold the lock of the device's row.
pub async fn lock_expired_of(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
    now: Timestamp,
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
           AND expires_at <= $3
         ORDER BY sequence
           FOR NO KEY UPDATE
        "#,
        organization.uuid(),
        device.uuid(),
        now
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Command::try_from).collect()
}
