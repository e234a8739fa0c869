//! What devices reported beside their hardware: a document per kind.

use mdm_core::{
    Timestamp,
    ids::{DeviceId, OrganizationId},
};
use serde_json::Value;
use sqlx::PgConnection;

use crate::error::StoreError;

/// A document that a device reported.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// What it said.
    pub data: Value,
    /// When it looked.
    pub observed_at: Timestamp,
}

/// Takes over a document, unless a newer one is there.
pub async fn set_inventory(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
    kind: &str,
    inventory: &Inventory,
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        INSERT INTO device_inventories AS present (organization_id, device_id, kind, data, observed_at)
        VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (organization_id, device_id, kind)
            DO UPDATE
                  SET data = excluded.data,
                      observed_at = excluded.observed_at
                WHERE present.observed_at <= excluded.observed_at
        "#,
        organization.uuid(),
        device.uuid(),
        kind,
        inventory.data,
        inventory.observed_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a device last reported of a kind.
pub async fn inventory(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
    kind: &str,
) -> Result<Option<Inventory>, StoreError> {
    Ok(sqlx::query_as!(
        Inventory,
        r#"
        SELECT data,
               observed_at
          FROM device_inventories
         WHERE organization_id = $1
           AND device_id = $2
           AND kind = $3
        "#,
        organization.uuid(),
        device.uuid(),
        kind
    )
    .fetch_optional(conn)
    .await?)
}
