//! Wake-ups within this node.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// Tells the sequencer that events were committed. Cheap: any number of calls before it looks
/// come to one look.
#[derive(Debug, Clone, Default)]
pub struct EventWake(Arc<Signals>);

#[derive(Debug, Default)]
struct Signals {
    committed_here: Notify,
    committed_elsewhere: Notify,
    head: Notify,
    told_head: AtomicU64,
}

impl EventWake {
    /// To be called after every commit of a transaction that appended events.
    pub fn wake(&self) {
        self.0.committed_here.notify_one();
    }

    pub(super) fn heard_of_commit(&self) {
        self.0.committed_elsewhere.notify_one();
    }

    /// The log goes at least up to `offset` now; how far is not known if that is the largest
    /// number.
    pub(super) fn head_moved(&self, offset: u64) {
        self.0.told_head.fetch_max(offset, Ordering::Relaxed);
        self.0.head.notify_one();
    }

    /// A commit of this node. Kept apart from those of other nodes, which a follower must not
    /// announce again.
    pub(super) async fn committed_here(&self) {
        self.0.committed_here.notified().await;
    }

    pub(super) async fn committed_anywhere(&self) {
        tokio::select! {
            () = self.0.committed_here.notified() => {}
            () = self.0.committed_elsewhere.notified() => {}
        }
    }

    /// Waits until the head moves, and tells how far at least.
    pub(super) async fn new_head(&self) -> u64 {
        self.0.head.notified().await;
        self.0.told_head.swap(0, Ordering::Relaxed)
    }
}
