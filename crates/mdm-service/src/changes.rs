//! Whether anything was changed since something was read.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the changes that this node made or saw in the event log: what was read before is good as
/// long as the count is the same. Another node's change is counted when its events have come.
#[derive(Debug, Default)]
pub struct Changes(AtomicU64);

impl Changes {
    /// The present count. To be asked before what is to be held is read.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Something was changed.
    pub fn happened(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}
