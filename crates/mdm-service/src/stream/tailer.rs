//! Reads the log as it grows.

use std::{sync::Arc, time::Duration};

use mdm_events::{Cursor, LogEvent};
use mdm_store::{
    PgPool, StoreError,
    events::{self, in_time},
};
use tokio_util::sync::CancellationToken;

use super::{EventFeed, Observer, pause_after, wake::EventWake};

/// The tailer looks by itself this often: a lost wake-up costs no more.
const POLL: Duration = Duration::from_millis(500);

pub(super) async fn run(
    pool: PgPool,
    wake: EventWake,
    feed: EventFeed,
    observers: Vec<Box<dyn Observer>>,
    cancel: CancellationToken,
) {
    let tailer = Tailer { feed, observers };
    let tail = async {
        loop {
            if let Err(error) = tailer.tail(&pool, &wake).await {
                pause_after("tailer", &error).await;
            }
        }
    };
    cancel.run_until_cancelled(tail).await;
}

struct Tailer {
    feed: EventFeed,
    observers: Vec<Box<dyn Observer>>,
}

impl Tailer {
    /// Follows the log until the connection breaks. The epoch is looked at once per connection:
    /// a server does not change its history without breaking it.
    async fn tail(&self, pool: &PgPool, wake: &EventWake) -> Result<(), StoreError> {
        let mut conn = in_time(events::connect_alone(pool)).await?;
        let mut position = self.feed.position();
        let head = in_time(events::head(&mut conn)).await?;
        if head.epoch != position.epoch || head.offset < position.offset {
            tracing::warn!(%position, %head, "the log has another history: clients are told to start over");
            self.reset(head).await;
            position = head;
        }
        loop {
            let read = events::read_after(&mut conn, position, events::BATCH);
            let batch = in_time(read).await?;
            let Some(last) = batch.last() else {
                let _rescued = tokio::time::timeout(POLL, wake.new_head()).await;
                continue;
            };
            let next = last.cursor();
            if is_dense(position, &batch) {
                position = next;
                self.deliver(batch).await;
            } else {
                // Nothing writes holes; retention makes one if this node stood still for days.
                let head = in_time(events::head(&mut conn)).await?;
                tracing::error!(%position, %next, %head, "events are missing from the log");
                self.reset(head).await;
                position = head;
            }
        }
    }

    async fn deliver(&self, batch: Vec<LogEvent>) {
        let events: Arc<[Arc<LogEvent>]> = batch.into_iter().map(Arc::new).collect();
        for observer in &self.observers {
            observer.observe(&events);
        }
        self.feed.publish(events).await;
    }

    async fn reset(&self, position: Cursor) {
        for observer in &self.observers {
            observer.missed(position);
        }
        self.feed.reset(position).await;
    }
}

/// Whether the batch follows the position without a hole.
fn is_dense(position: Cursor, batch: &[LogEvent]) -> bool {
    (position.offset..)
        .skip(1)
        .zip(batch)
        .all(|(expected, event)| event.cursor().offset == expected)
}
