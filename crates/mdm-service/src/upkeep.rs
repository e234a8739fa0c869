//! Work that nobody asked for: what a crash or a long list left unfinished, and what time brings.

use std::time::Duration;

use mdm_store::StoreError;
use tokio_util::sync::CancellationToken;

use crate::services::Services;

const EVERY: Duration = Duration::from_secs(1);

impl Services {
    /// Goes on with unfinished work while this node leads, until told to stop. Each piece of work
    /// locks the row that says how far it has come.
    pub async fn run_upkeep(self, stop: CancellationToken) {
        let mut round: u32 = 0;
        while stop
            .run_until_cancelled(tokio::time::sleep(EVERY))
            .await
            .is_some()
        {
            if !self.lead.is_held() {
                continue;
            }
            said("bring groups up to date", self.follow_stale_groups().await);
            said(
                "expand command batches",
                self.expand_pending_batches().await,
            );
            said("look at licenses", self.tell_of_licenses().await);
            if round.is_multiple_of(60) {
                said("forget tickets", self.forget_tickets().await);
            }
            if round.is_multiple_of(300) {
                said(
                    "forget idempotency keys",
                    self.forget_idempotency_keys().await,
                );
            }
            if round.is_multiple_of(600) {
                let forgotten = self.forget_webhook_deliveries().await;
                said("forget deliveries to webhooks", forgotten);
            }
            if round.is_multiple_of(3600) {
                self.sweep_packages().await;
            }
            round = round.wrapping_add(1);
        }
    }
}

fn said(what: &str, done: Result<(), StoreError>) {
    if let Err(error) = done {
        tracing::warn!(%error, "cannot {what}; trying again");
    }
}
