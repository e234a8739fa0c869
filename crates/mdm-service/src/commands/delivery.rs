//! Handing commands to their device, over its channel or at a check-in.

use mdm_core::{
    commands::Command,
    devices::DeviceStatus,
    ids::{CommandId, DeviceId, OrganizationId},
};
use mdm_store::{StoreError, commands, devices};

use crate::services::Services;

/// What a device is handed.
#[derive(Debug, Default)]
pub struct Delivery {
    /// Commands, in order.
    pub commands: Vec<Command>,
    /// Destructive commands that it was handed before: it is asked what became of them.
    pub reconcile: Vec<CommandId>,
    /// Whether more wait.
    pub more: bool,
}

/// How many commands go out in one transaction.
const AT_ONCE: i64 = 50;
/// How many commands that went out before go out again when the device returns.
const AGAIN_AT_ONCE: i64 = 500;

impl Services {
    /// Commands that wait for the device, marked as sent before they are sent: a destructive one is
    /// then never handed out a second time, whatever happens on the way.
    pub async fn deliver_new(
        &self,
        organization: OrganizationId,
        device: DeviceId,
    ) -> Result<Delivery, StoreError> {
        let now = self.now();
        let mut tx = self.begin().await?;
        if !self.lock_enrolled(&mut tx, organization, device).await? {
            return Ok(Delivery::default());
        }
        let commands = commands::claim_pending(&mut tx, organization, device, now, AT_ONCE).await?;
        if commands.is_empty() {
            return Ok(Delivery::default());
        }
        self.note(
            &mut tx,
            &commands.iter().collect::<Vec<_>>(),
            now,
            "handed to the device",
        )
        .await?;
        self.commit(tx).await?;
        let more = i64::try_from(commands.len()).is_ok_and(|count| count == AT_ONCE);
        Ok(Delivery {
            commands,
            reconcile: Vec::new(),
            more,
        })
    }

    /// What a returning device is handed: first what it was handed before and has not ended, then
    /// what is new; and the destructive commands it is asked about. An idle device costs one query.
    pub async fn deliver_all(
        &self,
        organization: OrganizationId,
        device: DeviceId,
    ) -> Result<Delivery, StoreError> {
        let mut conn = self.pool.acquire().await?;
        let idle = !commands::has_open(&mut conn, organization, device).await?;
        drop(conn);
        if idle {
            return Ok(Delivery::default());
        }
        let now = self.now();
        let mut tx = self.begin().await?;
        if !self.lock_enrolled(&mut tx, organization, device).await? {
            return Ok(Delivery::default());
        }
        let reconcile = commands::lost_destructive(&mut tx, organization, device).await?;
        let mut all =
            commands::redeliver(&mut tx, organization, device, now, AGAIN_AT_ONCE).await?;
        let new = commands::claim_pending(&mut tx, organization, device, now, AT_ONCE).await?;
        self.note(
            &mut tx,
            &new.iter().collect::<Vec<_>>(),
            now,
            "handed to the device",
        )
        .await?;
        self.commit(tx).await?;
        let more = i64::try_from(new.len()).is_ok_and(|count| count == AT_ONCE);
        all.extend(new);
        Ok(Delivery {
            commands: all,
            reconcile,
            more,
        })
    }

    async fn lock_enrolled(
        &self,
        tx: &mut mdm_store::PgConnection,
        organization: OrganizationId,
        device: DeviceId,
    ) -> Result<bool, StoreError> {
        let locked = devices::lock(tx, organization, device).await?;
        Ok(locked.is_some_and(|device| device.status != DeviceStatus::Unenrolled))
    }
}
