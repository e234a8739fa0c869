//! What the hub counts, over all shards of a node.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters shared by a node's shards.
#[derive(Debug, Default)]
pub struct Counters {
    connected: AtomicU64,
    delivered: AtomicU64,
    slow: AtomicU64,
}

impl Counters {
    /// How many subscribers are connected.
    pub fn connected(&self) -> u64 {
        self.connected.load(Ordering::Relaxed)
    }

    /// How many frames with events were queued for subscribers.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// How many subscribers were closed because they read too slowly.
    pub fn slow(&self) -> u64 {
        self.slow.load(Ordering::Relaxed)
    }

    pub(super) fn count_connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_disconnected(&self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn count_delivered(&self, frames: usize) {
        let frames = u64::try_from(frames).unwrap_or_default();
        self.delivered.fetch_add(frames, Ordering::Relaxed);
    }

    pub(super) fn count_slow(&self) {
        self.slow.fetch_add(1, Ordering::Relaxed);
    }
}
