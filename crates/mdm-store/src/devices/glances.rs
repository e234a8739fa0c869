//! What a check-in without news asks.

use mdm_core::{
    devices::DeviceStatus,
    ids::{DeviceId, OrganizationId},
    tokens::TokenHash,
};
use sqlx::PgConnection;

use super::Revision;
use crate::error::StoreError;

/// A device, as far as it takes to see whether anything waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    /// Whose device.
    pub organization_id: OrganizationId,
    /// Which device.
    pub device_id: DeviceId,
    /// Whether it is online.
    pub is_online: bool,
    /// Its number, and the one for which its applications were seen to.
    pub revision: Revision,
    /// Whether any of its commands has not come to its end.
    pub has_open: bool,
}

impl Glance {
    /// Whether the device is as it was and nothing waits for it.
    pub const fn is_idle(&self) -> bool {
        self.is_online && !self.has_open && self.revision.current == self.revision.applied
    }
}

/// The devices that these tokens belong to, in any order; an unknown token has none.
pub async fn glances(
    conn: &mut PgConnection,
    hashes: &[TokenHash],
) -> Result<Vec<(TokenHash, Glance)>, StoreError> {
    let hashes: Vec<Vec<u8>> = hashes.iter().map(|hash| hash.as_bytes().to_vec()).collect();
    let rows = sqlx::query!(
        r#"
        SELECT d.token_hash AS "token_hash!",
               d.organization_id,
               d.id,
               d.status,
               d.policy_revision + o.policy_revision AS "revision!",
               d.applied_revision,
               open.command_id IS NOT NULL AS "has_open!"
          FROM devices d
          JOIN organizations o ON o.id = d.organization_id
          -- One look into the index per device; as EXISTS it may become one over all open commands.
          LEFT JOIN LATERAL (SELECT c.id AS command_id
                               FROM commands c
                              WHERE c.organization_id = d.organization_id
                                AND c.device_id = d.id
                                AND c.status IN ('pending', 'sent', 'running')
                              LIMIT 1) open ON true
         WHERE d.token_hash = ANY ($1)
        "#,
        &hashes
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let corrupt = |column| StoreError::corrupt("devices", column, row.id);
            let hash = TokenHash::from_slice(&row.token_hash).ok_or(corrupt("token_hash"))?;
            let status: DeviceStatus = row.status.parse().map_err(|_unknown| corrupt("status"))?;
            let glance = Glance {
                organization_id: OrganizationId::from_uuid(row.organization_id),
                device_id: DeviceId::from_uuid(row.id),
                is_online: status == DeviceStatus::Online,
                revision: Revision {
                    current: row.revision,
                    applied: row.applied_revision,
                },
                has_open: row.has_open,
            };
            Ok((hash, glance))
        })
        .collect()
}
