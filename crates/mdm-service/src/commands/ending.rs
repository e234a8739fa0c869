//! Commands that end without their device: time ran out, or the device is gone.

use std::time::Duration;

use mdm_core::{
    commands::{Command, CommandStatus},
    ids::{DeviceId, OrganizationId},
};
use mdm_store::{PgConnection, StoreError, commands, devices, sessions};
use tokio_util::sync::CancellationToken;

use crate::services::Services;

const SWEEP_EVERY: Duration = Duration::from_secs(1);
const DUE_AT_ONCE: i64 = 500;

impl Services {
    /// Ends commands whose time is over while this node leads, and tidies up, until told to stop.
    pub async fn run_expiry(self, stop: CancellationToken) {
        let mut round: u32 = 0;
        while stop
            .run_until_cancelled(tokio::time::sleep(SWEEP_EVERY))
            .await
            .is_some()
        {
            round = round.wrapping_add(1);
            if round.is_multiple_of(60) {
                self.throttle.forget_old();
            }
            if !self.lead.is_held() {
                continue;
            }
            if let Err(error) = self.expire_commands().await {
                tracing::warn!(%error, "cannot end commands whose time is over; trying again");
            }
            if round.is_multiple_of(60)
                && let Err(error) = self.forget_refresh_tokens().await
            {
                tracing::warn!(%error, "cannot delete expired refresh tokens; trying again");
            }
        }
    }

    async fn forget_refresh_tokens(&self) -> Result<(), StoreError> {
        let mut conn = self.pool.acquire().await?;
        while sessions::delete_expired_refresh_tokens(&mut conn, self.now(), 1_000).await? == 1_000
        {
        }
        Ok(())
    }

    async fn expire_commands(&self) -> Result<(), StoreError> {
        loop {
            let mut conn = self.pool.acquire().await?;
            let due = commands::devices_with_expired(&mut conn, self.now(), DUE_AT_ONCE).await?;
            drop(conn);
            if due.is_empty() {
                return Ok(());
            }
            for (organization, device) in due {
                self.expire_commands_of(organization, device).await?;
            }
        }
    }

    async fn expire_commands_of(
        &self,
        organization: OrganizationId,
        device: DeviceId,
    ) -> Result<(), StoreError> {
        let now = self.now();
        let mut tx = self.begin().await?;
        devices::lock(&mut tx, organization, device).await?;
        let due = commands::lock_expired_of(&mut tx, organization, device, now).await?;
        self.end(&mut tx, due, CommandStatus::Expired, "its time ran out")
            .await?;
        self.commit(tx).await
    }

    /// Ends everything that waits for a device which is being released. Callers hold its lock.
    pub(crate) async fn end_open_commands(
        &self,
        tx: &mut PgConnection,
        organization: OrganizationId,
        device: DeviceId,
        cause: &str,
    ) -> Result<(), StoreError> {
        let open = commands::open_of_device(&mut *tx, organization, device).await?;
        self.end(tx, open, CommandStatus::Cancelled, cause).await
    }

    /// Ends the destructive commands that a device was handed: its journal is gone, and with it the
    /// only witness. Callers hold its lock.
    pub(crate) async fn end_handed_over_destructive(
        &self,
        tx: &mut PgConnection,
        organization: OrganizationId,
        device: DeviceId,
        cause: &str,
    ) -> Result<(), StoreError> {
        let mut open = commands::open_of_device(&mut *tx, organization, device).await?;
        open.retain(|command| {
            command.kind.is_destructive() && command.status != CommandStatus::Pending
        });
        self.end(tx, open, CommandStatus::Unknown, cause).await
    }

    /// Moves commands to their end, or to `unknown` those that may have done harm already.
    async fn end(
        &self,
        tx: &mut PgConnection,
        mut ending: Vec<Command>,
        to: CommandStatus,
        cause: &str,
    ) -> Result<(), StoreError> {
        let now = self.now();
        for command in &mut ending {
            let with_device = command.status != CommandStatus::Pending;
            command.status = if with_device && command.kind.is_destructive() {
                CommandStatus::Unknown
            } else {
                to
            };
            command.error = Some(cause.to_owned());
            command.completed_at = Some(now);
            commands::update(&mut *tx, command).await?;
        }
        self.note(&mut *tx, &ending.iter().collect::<Vec<_>>(), now, cause)
            .await?;
        for command in &ending {
            self.note_install(&mut *tx, command, now).await?;
            self.watch.moved(command.id);
        }
        Ok(())
    }
}
