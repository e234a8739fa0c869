//! From the tailer to the shards of the hub.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use mdm_events::{Cursor, LogEvent};
use tokio::sync::mpsc;

/// Batches that may wait for one shard before the tailer waits for it: the log keeps them anyway.
const BATCHES: usize = 8;

/// What a shard is told.
#[derive(Debug, Clone)]
pub enum Feed {
    /// The next events, without a hole after the ones before.
    Events(Arc<[Arc<LogEvent>]>),
    /// The log has a new history, or events were lost to this node: it goes on after here.
    Reset(Cursor),
}

/// Where shards get their events from.
#[derive(Debug, Clone)]
pub struct EventFeed(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    state: Mutex<State>,
    published: AtomicU64,
}

#[derive(Debug)]
struct State {
    position: Cursor,
    shards: Vec<mpsc::Sender<Feed>>,
}

impl EventFeed {
    pub(super) fn new(position: Cursor) -> Self {
        Self(Arc::new(Registry {
            state: Mutex::new(State {
                position,
                shards: Vec::new(),
            }),
            published: AtomicU64::new(0),
        }))
    }

    /// Joins the feed: everything after the position that is returned will be received.
    pub fn subscribe(&self) -> (Cursor, mpsc::Receiver<Feed>) {
        let (sender, receiver) = mpsc::channel(BATCHES);
        let mut state = self.state();
        state.shards.push(sender);
        (state.position, receiver)
    }

    /// The newest position of the log that this node knows.
    pub fn position(&self) -> Cursor {
        self.state().position
    }

    /// How many events this node has taken from the log since its start.
    pub fn published(&self) -> u64 {
        self.0.published.load(Ordering::Relaxed)
    }

    pub(super) async fn publish(&self, events: Arc<[Arc<LogEvent>]>) {
        let Some(last) = events.last() else { return };
        let count = u64::try_from(events.len()).unwrap_or_default();
        self.0.published.fetch_add(count, Ordering::Relaxed);
        let position = last.cursor();
        self.send(position, &Feed::Events(events)).await;
    }

    pub(super) async fn reset(&self, position: Cursor) {
        self.send(position, &Feed::Reset(position)).await;
    }

    /// A shard that joins is either here when the position moves, and is sent this, or comes
    /// after, and begins at the new position.
    async fn send(&self, position: Cursor, message: &Feed) {
        let shards = {
            let mut state = self.state();
            state.position = position;
            state.shards.retain(|shard| !shard.is_closed());
            state.shards.clone()
        };
        for shard in shards {
            // One that is gone needs nothing any more.
            let _gone = shard.send(message.clone()).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
