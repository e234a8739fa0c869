//! Wake-ups within this node.

use std::sync::Arc;

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
}

impl EventWake {
    /// To be called after every commit of a transaction that appended events.
    pub fn wake(&self) {
        self.0.committed_here.notify_one();
    }

    pub(super) fn heard_of_commit(&self) {
        self.0.committed_elsewhere.notify_one();
    }

    pub(super) fn head_moved(&self) {
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

    pub(super) async fn new_head(&self) {
        self.0.head.notified().await;
    }
}
