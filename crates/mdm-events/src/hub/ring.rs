//! The recent events of a shard.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use crate::envelope::LogEvent;

/// One recent event, and when it reached the shard.
#[derive(Debug)]
pub(super) struct Recent {
    pub(super) event: Arc<LogEvent>,
    pub(super) arrived: Instant,
}

/// Recent events without holes, bounded by number and by weight. The newest always stays.
#[derive(Debug)]
pub(super) struct Ring {
    events: VecDeque<Recent>,
    weight: usize,
    max_events: usize,
    max_weight: usize,
    /// The offset before the oldest event.
    floor: u64,
}

impl Ring {
    pub(super) const fn new(floor: u64, max_events: usize, max_weight: usize) -> Self {
        Self {
            events: VecDeque::new(),
            weight: 0,
            max_events,
            max_weight,
            floor,
        }
    }

    /// The offset before the oldest event that is held: what follows it can be replayed from here.
    pub(super) const fn floor(&self) -> u64 {
        self.floor
    }

    /// The event at an offset, if it is held.
    pub(super) fn get(&self, offset: u64) -> Option<&Recent> {
        let index = offset.checked_sub(self.floor)?.checked_sub(1)?;
        self.events.get(usize::try_from(index).ok()?)
    }

    /// The events after an offset that is not below the floor.
    pub(super) fn after(&self, offset: u64) -> impl Iterator<Item = &Recent> {
        let skipped = offset.saturating_sub(self.floor);
        self.events
            .iter()
            .skip(usize::try_from(skipped).unwrap_or(usize::MAX))
    }

    pub(super) fn push(&mut self, event: Arc<LogEvent>, arrived: Instant) {
        self.weight = self.weight.saturating_add(event.weight());
        self.events.push_back(Recent { event, arrived });
        while self.events.len() > 1
            && (self.events.len() > self.max_events || self.weight > self.max_weight)
        {
            if let Some(oldest) = self.events.pop_front() {
                self.weight = self.weight.saturating_sub(oldest.event.weight());
                self.floor = oldest.event.cursor().offset;
            }
        }
    }

    /// Forgets everything; the log goes on after `floor`.
    pub(super) fn clear(&mut self, floor: u64) {
        self.events.clear();
        self.weight = 0;
        self.floor = floor;
    }
}
