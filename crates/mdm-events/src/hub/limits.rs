//! The hub's bounds.

use std::time::Duration;

/// The hub's bounds.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Events that may wait for one connection.
    pub queue_events: usize,
    /// Bytes that may wait for one connection; a single event may be larger.
    pub queue_bytes: usize,
    /// How late a connection may be.
    pub lag: Duration,
    /// Recent events that are kept.
    pub ring_events: usize,
    /// Memory that the kept events may take, about, in bytes.
    pub ring_bytes: usize,
    /// How long a connection that was just written to waits for more before the next write.
    pub flush: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_events: 256,
            queue_bytes: 256 * 1024,
            lag: Duration::from_secs(10),
            ring_events: 64 * 1024,
            ring_bytes: 64 * 1024 * 1024,
            flush: Duration::from_millis(5),
        }
    }
}
