//! The event log at work: what was committed is put in order, read by every node, and handed to
//! those who wait for it.
//!
//! ```text
//! commit → outbox → sequencer (one node) → event_log → tailer (every node) → observers, hub shards
//! ```
//!
//! With NATS, the leader's tailer also publishes what it reads, and those of the other nodes take it
//! from there as long as it continues what they have.
//!
//! Wake-ups only save waiting; every task also looks by itself from time to time, so that a lost
//! one costs milliseconds and no event. All of them outlive restarts of the database.

mod feed;
mod lead;
mod notifications;
mod retention;
mod sequencer;
mod tailer;
mod wake;

use std::{fmt::Display, sync::Arc, time::Duration};

use mdm_core::Clock;
use mdm_events::{Cursor, LogEvent};
use mdm_store::{PgPool, StoreError, events};
use tokio_util::sync::CancellationToken;

pub use feed::{EventFeed, Feed};
pub use lead::Lead;
pub use tailer::BusFeed;
pub use wake::EventWake;

/// How long a task waits after a failure before it tries again.
const RETRY: Duration = Duration::from_millis(250);

/// Something in this process that acts on events of the log. Called in the log's order, before
/// the same events go to subscribers; must be quick, because everything waits for it.
pub trait Observer: Send + Sync + 'static {
    /// The next events.
    fn observe(&self, events: &[Arc<LogEvent>]);

    /// Events before this position may have been missed: what was learnt from events must be
    /// learnt anew from the database.
    fn missed(&self, _position: Cursor) {}
}

/// What [`EventStream::start`] needs.
pub struct StreamParts {
    /// Connections to the database. The stream opens three of its own with the same options.
    pub pool: PgPool,
    /// Woken by the use cases after their commits.
    pub wake: EventWake,
    /// Held by the node that puts events in order.
    pub lead: Lead,
    /// Time, for the age of events.
    pub clock: Arc<dyn Clock>,
    /// The bus to other nodes, if there is one.
    pub bus: Option<BusFeed>,
    /// Who acts on events.
    pub observers: Vec<Box<dyn Observer>>,
    /// How long events are kept at least.
    pub keep: Duration,
}

/// The event log's tasks of one node.
pub struct EventStream {
    parts: StreamParts,
    feed: EventFeed,
}

impl EventStream {
    /// How long events are kept unless configured otherwise.
    pub const KEEP: Duration = Duration::from_hours(7 * 24);

    /// Finds the log's head. From here on no event is missed: clients may be accepted.
    pub async fn start(parts: StreamParts) -> Result<Self, StoreError> {
        let head = events::head(&parts.pool).await?;
        Ok(Self {
            parts,
            feed: EventFeed::new(head),
        })
    }

    /// Where shards of the hub get their events from.
    pub fn feed(&self) -> EventFeed {
        self.feed.clone()
    }

    /// Works until it is cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let StreamParts {
            pool,
            wake,
            lead,
            bus,
            clock,
            observers,
            keep,
        } = self.parts;
        let tailer = tailer::Tailer {
            feed: self.feed,
            observers,
            lead: lead.clone(),
            bus,
            look: None,
        };
        tokio::join!(
            Box::pin(sequencer::run(
                pool.clone(),
                wake.clone(),
                lead.clone(),
                cancel.clone()
            )),
            Box::pin(notifications::run(
                pool.clone(),
                wake.clone(),
                cancel.clone()
            )),
            Box::pin(tailer::run(pool.clone(), wake, tailer, cancel.clone())),
            Box::pin(retention::run(pool, lead, clock, keep, cancel)),
        );
    }
}

/// Logs that a task will try again, and waits a little.
async fn pause_after(task: &'static str, error: &(impl Display + Sync)) {
    tracing::warn!(task, %error, "will try again");
    tokio::time::sleep(RETRY).await;
}
