//! Keeping the server running while the cluster is wanted.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::postmaster::Postmaster;

const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// A server that ran this long has recovered from whatever ended the one before.
const STEADY: Duration = Duration::from_mins(1);
const LOG_CHECK: Duration = Duration::from_mins(1);

/// Starts the server again whenever it ends, until `stop`.
pub(crate) async fn run(postmaster: Arc<Postmaster>, stop: CancellationToken) {
    stop.run_until_cancelled(keep_running(&postmaster)).await;
}

async fn keep_running(postmaster: &Postmaster) {
    let mut delay = FIRST_DELAY;
    loop {
        let started = tokio::time::Instant::now();
        watch(postmaster).await;
        let status = postmaster
            .collect()
            .unwrap_or_else(|| "status unknown".to_owned());
        tracing::error!(log = %postmaster.log.path().display(), "PostgreSQL ended ({status}); starting it again");
        if started.elapsed() > STEADY {
            delay = FIRST_DELAY;
        }
        loop {
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(LONGEST_DELAY);
            match postmaster.launch().await {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!(
                        "PostgreSQL cannot be started again, next try in {delay:?}: {error}"
                    );
                }
            }
        }
        tracing::info!("PostgreSQL runs again");
    }
}

/// Returns when the server has ended; keeps its log short until then.
async fn watch(postmaster: &Postmaster) {
    let Some(process) = postmaster.running() else {
        return;
    };
    while !process.exited_within(LOG_CHECK).await {
        if let Err(error) = postmaster.log.rotate() {
            tracing::warn!(path = %postmaster.log.path().display(), %error, "cannot rotate PostgreSQL's log");
        }
    }
}
