//! Reads the log as it grows.

use std::{sync::Arc, time::Duration};

use mdm_events::{Cursor, LogEvent, bus::Bus};
use mdm_store::{
    PgPool, StoreError,
    events::{self, in_time},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{EventFeed, Lead, Observer, pause_after, wake::EventWake};

/// The tailer looks by itself this often: a lost wake-up costs no more.
const POLL: Duration = Duration::from_millis(500);
/// How long the bus may take to bring what is in the log already, before it is read there.
const BUS_GRACE: Duration = Duration::from_millis(25);

pub(super) async fn run(
    pool: PgPool,
    wake: EventWake,
    mut tailer: Tailer,
    cancel: CancellationToken,
) {
    let tail = async {
        loop {
            if let Err(error) = tailer.tail(&pool, &wake).await {
                pause_after("tailer", &error).await;
            }
        }
    };
    cancel.run_until_cancelled(tail).await;
}

/// The bus to the other nodes, and what comes from it.
pub struct BusFeed {
    /// For what this node has to say when it leads.
    pub bus: Bus,
    /// What the leader says.
    pub events: mpsc::Receiver<Vec<LogEvent>>,
}

impl BusFeed {
    /// Waits for events that continue the log after `position`. None: the bus has something else,
    /// and the log has to be read.
    async fn next_after(&mut self, position: Cursor) -> Vec<LogEvent> {
        loop {
            let Some(mut events) = self.events.recv().await else {
                // The bus's task is gone, which happens at the end only.
                return std::future::pending().await;
            };
            let same_epoch = |event: &LogEvent| event.cursor().epoch == position.epoch;
            if !events.iter().all(same_epoch) {
                return Vec::new();
            }
            events.retain(|event| event.cursor().offset > position.offset);
            if !events.is_empty() {
                let follows = is_dense(position, &events);
                return if follows { events } else { Vec::new() };
            }
        }
    }
}

pub(super) struct Tailer {
    pub(super) feed: EventFeed,
    pub(super) observers: Vec<Box<dyn Observer>>,
    pub(super) lead: Lead,
    pub(super) bus: Option<BusFeed>,
    /// When to look into the log for what the bus has not brought, and up to where it goes.
    pub(super) look: Option<(Instant, u64)>,
}

impl Tailer {
    /// Follows the log until the connection breaks. The epoch is looked at once per connection:
    /// a server does not change its history without breaking it.
    async fn tail(&mut self, pool: &PgPool, wake: &EventWake) -> Result<(), StoreError> {
        let mut conn = in_time(events::connect_alone(pool)).await?;
        let mut position = self.feed.position();
        let head = in_time(events::head(&mut conn)).await?;
        if head.epoch != position.epoch || head.offset < position.offset {
            tracing::warn!(%position, %head, "the log has another history: clients are told to start over");
            self.reset(head).await;
            position = head;
        }
        let mut brought = Vec::new();
        loop {
            let mut batch = std::mem::take(&mut brought);
            if batch.is_empty() {
                let read = events::read_after(&mut conn, position, events::BATCH);
                batch = in_time(read).await?;
            }
            let Some(last) = batch.last() else {
                brought = self.wait_for_more(wake, position).await;
                continue;
            };
            let next = last.cursor();
            if is_dense(position, &batch) {
                position = next;
                self.deliver(batch).await;
                if self.follows_bus() {
                    brought = self.wait_for_more(wake, position).await;
                }
            } else {
                // Nothing writes holes; retention makes one if this node stood still for days.
                let head = in_time(events::head(&mut conn)).await?;
                tracing::error!(%position, %next, %head, "events are missing from the log");
                self.reset(head).await;
                position = head;
            }
        }
    }

    /// Whether events come from the bus. The leader reads the log, because it feeds the bus.
    fn follows_bus(&self) -> bool {
        let connected = self
            .bus
            .as_ref()
            .is_some_and(|feed| feed.bus.is_connected());
        connected && !self.lead.is_held()
    }

    /// Waits until there may be more. Gives what the bus brought, if that continues the log; with
    /// nothing, the log has to be looked at.
    async fn wait_for_more(&mut self, wake: &EventWake, position: Cursor) -> Vec<LogEvent> {
        let poll_at = Instant::now() + POLL;
        let follows_bus = self.follows_bus();
        let Some(feed) = self.bus.as_mut().filter(|_| follows_bus) else {
            let _rescued = tokio::time::timeout_at(poll_at, wake.new_head()).await;
            return Vec::new();
        };
        if self.look.is_some_and(|(_, told)| told <= position.offset) {
            self.look = None;
        }
        loop {
            let look_at = self.look.map_or(poll_at, |(at, _)| at.min(poll_at));
            tokio::select! {
                biased;
                events = feed.next_after(position) => return events,
                told = wake.new_head(), if self.look.is_none() => {
                    if told > position.offset {
                        self.look = Some((Instant::now() + BUS_GRACE, told));
                    }
                }
                () = sleep_until(look_at) => {
                    self.look = None;
                    return Vec::new();
                }
            }
        }
    }

    async fn deliver(&self, batch: Vec<LogEvent>) {
        let events: Arc<[Arc<LogEvent>]> = batch.into_iter().map(Arc::new).collect();
        if let Some(feed) = &self.bus
            && self.lead.is_held()
        {
            feed.bus.publish(&events);
        }
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
