//! The number that changes whenever a device's effective policies or applications do.
//!
//! It is the sum of two counts that only grow: the device's own, for what concerns it alone, and
//! its organisation's, for what concerns many. So a change of a policy that reaches a hundred
//! thousand devices writes one row.

use mdm_core::ids::{DeviceId, OrganizationId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StoreError;

/// A device's number, and the one for which its applications were last seen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    /// The present number.
    pub current: i64,
    /// The number for which commands were last sent.
    pub applied: i64,
}

/// Something changed for these devices alone. The caller holds their locks.
pub async fn bump_revisions(
    conn: &mut PgConnection,
    organization: OrganizationId,
    devices: &[DeviceId],
) -> Result<(), StoreError> {
    if devices.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = devices.iter().map(|id| id.uuid()).collect();
    sqlx::query!(
        r#"
        UPDATE devices
           SET policy_revision = policy_revision + 1
         WHERE organization_id = $1
           AND id = ANY ($2)
        "#,
        organization.uuid(),
        &ids
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Something changed for many devices of the organisation.
pub async fn bump_all(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE organizations SET policy_revision = policy_revision + 1 WHERE id = $1",
        organization.uuid()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A device's present number.
pub async fn revision(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
) -> Result<Option<Revision>, StoreError> {
    Ok(sqlx::query_as!(
        Revision,
        r#"
        SELECT d.policy_revision + o.policy_revision AS "current!",
               d.applied_revision AS applied
          FROM devices d
          JOIN organizations o ON o.id = d.organization_id
         WHERE d.organization_id = $1
           AND d.id = $2
        "#,
        organization.uuid(),
        device.uuid()
    )
    .fetch_optional(conn)
    .await?)
}

/// The number that a locked device's applications are to be seen to for, if that was not done yet.
pub async fn revision_to_apply(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
) -> Result<Option<i64>, StoreError> {
    let found = revision(conn, organization, device).await?;
    Ok(found
        .filter(|revision| revision.current != revision.applied)
        .map(|revision| revision.current))
}

/// A locked device's applications were seen to for this number.
pub async fn mark_applied(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
    revision: i64,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE devices SET applied_revision = $3 WHERE organization_id = $1 AND id = $2",
        organization.uuid(),
        device.uuid(),
        revision
    )
    .execute(conn)
    .await?;
    Ok(())
}
