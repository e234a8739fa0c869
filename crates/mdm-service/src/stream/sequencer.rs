//! Gives committed events their place in the log. One node does it, the leader; the others tell
//! it of their commits and stand ready.

use std::time::Duration;

use mdm_store::{
    PgConnection, PgPool, StoreError,
    events::{self, Leadership, in_time},
};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Lead, pause_after, wake::EventWake};

/// Batches follow each other, and commits are announced, no faster than this: what is committed
/// in between goes together.
const SPACING: Duration = Duration::from_millis(5);
/// The leader looks by itself this often: a lost wake-up costs no more.
const POLL: Duration = Duration::from_millis(50);
/// How often a follower tries to become the leader.
const CANDIDACY: Duration = Duration::from_millis(250);

pub(super) async fn run(pool: PgPool, wake: EventWake, lead: Lead, cancel: CancellationToken) {
    let sequence = async {
        loop {
            if let Err(error) = follow_and_lead(&pool, &wake, &lead).await {
                pause_after("sequencer", &error).await;
            }
        }
    };
    cancel.run_until_cancelled(sequence).await;
}

/// Leadership belongs to the connection that the batches run on: if it breaks, the lock and an
/// unfinished batch are gone together.
async fn follow_and_lead(pool: &PgPool, wake: &EventWake, lead: &Lead) -> Result<(), StoreError> {
    let mut conn = in_time(events::connect_alone(pool)).await?;
    while in_time(events::try_lead(&mut conn)).await? == Leadership::Follower {
        announce_commits(&mut conn, wake).await?;
    }
    let _leading = lead.take();
    tracing::info!("this node leads: it puts events in order");
    loop {
        let began = Instant::now();
        let moved = in_time(events::sequence_batch(&mut conn)).await?;
        if moved > 0 {
            metrics::counter!("mdm_events_sequenced_total").increment(moved);
            wake.head_moved(u64::MAX);
        }
        if moved < events::BATCH.unsigned_abs() {
            sleep_until(began + SPACING).await;
            let _rescued = tokio::time::timeout(POLL, wake.committed_anywhere()).await;
        }
    }
}

/// Tells the leader of this node's commits until it is time to try to become the leader.
async fn announce_commits(conn: &mut PgConnection, wake: &EventWake) -> Result<(), StoreError> {
    let until = Instant::now() + CANDIDACY;
    while tokio::time::timeout_at(until, wake.committed_here())
        .await
        .is_ok()
    {
        in_time(events::wake_sequencer(&mut *conn)).await?;
        sleep(SPACING).await;
    }
    Ok(())
}
