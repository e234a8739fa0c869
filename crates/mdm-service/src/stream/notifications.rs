//! Hears what PostgreSQL tells: new heads of the log, and commits on other nodes.

use std::time::Duration;

use mdm_store::{
    PgPool, StoreError,
    events::{Heard, Listener},
};
use tokio_util::sync::CancellationToken;

use super::{pause_after, wake::EventWake};

/// While the database is away, reconnecting fails at once; this keeps it from becoming a flood.
const GAP_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn run(pool: PgPool, wake: EventWake, cancel: CancellationToken) {
    let listen = async {
        loop {
            if let Err(error) = listen(&pool, &wake).await {
                pause_after("notifications", &error).await;
            }
        }
    };
    cancel.run_until_cancelled(listen).await;
}

async fn listen(pool: &PgPool, wake: &EventWake) -> Result<(), StoreError> {
    let mut listener = Listener::connect(pool).await?;
    loop {
        match listener.hear().await? {
            Heard::Head(offset) => wake.head_moved(offset),
            Heard::Outbox => wake.heard_of_commit(),
            Heard::Gap => {
                wake.head_moved(u64::MAX);
                wake.heard_of_commit();
                tokio::time::sleep(GAP_PAUSE).await;
            }
        }
    }
}
