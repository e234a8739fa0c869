//! Old events leave the log.

use std::{sync::Arc, time::Duration};

use mdm_core::Clock;
use mdm_store::{PgPool, events};
use tokio_util::sync::CancellationToken;

use super::Lead;

const EVERY: Duration = Duration::from_hours(1);

pub(super) async fn run(
    pool: PgPool,
    lead: Lead,
    clock: Arc<dyn Clock>,
    keep: Duration,
    cancel: CancellationToken,
) {
    let keep = chrono::Duration::from_std(keep).unwrap_or(chrono::Duration::MAX);
    let sweep = async {
        loop {
            tokio::time::sleep(EVERY).await;
            lead.held().await;
            let before = clock.now().checked_sub_signed(keep);
            let Some(before) = before else { continue };
            match events::drop_partitions(&pool, before).await {
                Ok(0) => {}
                Ok(dropped) => {
                    tracing::info!(dropped, %before, "old parts of the log were dropped");
                }
                Err(error) => tracing::warn!(%error, "old events stay until the next hour"),
            }
        }
    };
    cancel.run_until_cancelled(sweep).await;
}
