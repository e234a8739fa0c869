//! The hub: each event to every subscriber that it is for, in the log's order, once.
//!
//! A [`Shard`] belongs to one thread and knows that thread's connections. It is told of events by
//! [`Shard::publish`], and the transport takes encoded frames by [`Shard::poll_frame`]. Because
//! nothing else runs in between, a connection joins the live events exactly where its replay ends.
//!
//! A connection is live, or behind. What a live one is to get is queued as it arrives; when the
//! queue is full, the connection falls behind: nothing more is queued, and what follows is taken
//! from the ring of recent events as the transport asks for it, so that a reader that stops costs
//! a bounded queue and no more. One that stays behind for too long, or falls off the ring, is
//! closed as too slow and can resume from its cursor.

mod connection;
mod counters;
mod limits;
mod ring;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;

pub use connection::Connection;
use connection::{Mode, Offer, Taken};
pub use counters::Counters;
pub use limits::Limits;
use ring::Ring;

use crate::{cursor::Cursor, envelope::LogEvent, subscription::Subscription};

/// How the hub closes a connection that does not keep up.
pub const TOO_SLOW: u16 = 4409;

/// How many events one look into the ring may pass over before others get their turn.
const SCANNED_AT_ONCE: u64 = 4096;

/// Where the events after a client's cursor are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumption {
    /// Here: [`Shard::follow`] the cursor.
    Recent {
        /// How many of them are for this subscription.
        replayed: u64,
    },
    /// The oldest ones only in the log.
    InLog,
    /// This node has not come that far; perhaps another one has, perhaps none.
    Ahead,
    /// In no history that this node knows of.
    OtherEpoch,
}

/// The ring no longer has, or never had, what follows the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the events after the cursor are not among the recent ones")]
pub struct NotRecent;

struct State {
    position: Cursor,
    ring: Ring,
    /// The live connections of each class. Ones that ended leave with the next event or sweep.
    classes: HashMap<Rc<Subscription>, Vec<Rc<Connection>>>,
    /// Those behind. Ones that caught up leave with the next event or sweep.
    behind: Vec<Rc<Connection>>,
    marked: Vec<Rc<Connection>>,
}

/// The part of the hub that belongs to one thread.
pub struct Shard {
    state: RefCell<State>,
    limits: Limits,
    counters: Arc<Counters>,
}

impl Shard {
    /// A shard that will be told of the events after `position`.
    pub fn new(position: Cursor, limits: Limits, counters: Arc<Counters>) -> Self {
        let ring = Ring::new(position.offset, limits.ring_events, limits.ring_bytes);
        Self {
            state: RefCell::new(State {
                position,
                ring,
                classes: HashMap::new(),
                behind: Vec::new(),
                marked: Vec::new(),
            }),
            limits,
            counters,
        }
    }

    /// The newest event that the shard was told of.
    pub fn position(&self) -> Cursor {
        self.state.borrow().position
    }

    /// The counters that this shard adds to.
    pub const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// A new connection. It gets no events until [`Shard::go_live`] or [`Shard::follow`].
    pub fn open(&self, subscription: Subscription, now: Instant) -> Rc<Connection> {
        self.counters.count_connected();
        let class = self.class(subscription);
        Rc::new(Connection::new(class, now))
    }

    /// Ends a connection whose transport is gone. To be called once for each that was opened.
    pub fn leave(&self, connection: &Connection) {
        connection.state.borrow_mut().mode = Mode::Ended;
        self.counters.count_disconnected();
    }

    /// Where the events after a client's cursor are.
    pub fn resumption(&self, subscription: &Subscription, after: Cursor) -> Resumption {
        let state = self.state.borrow();
        if after.epoch != state.position.epoch {
            Resumption::OtherEpoch
        } else if after.offset > state.position.offset {
            Resumption::Ahead
        } else if after.offset < state.ring.floor() {
            Resumption::InLog
        } else {
            let admitted = state
                .ring
                .after(after.offset)
                .filter(|recent| subscription.admits(&recent.event))
                .count();
            Resumption::Recent {
                replayed: u64::try_from(admitted).unwrap_or(u64::MAX),
            }
        }
    }

    /// Gives the connection the events from now on.
    pub fn go_live(&self, connection: &Rc<Connection>) {
        let mut state = self.state.borrow_mut();
        if connection.closing_since().is_none() {
            state.join(connection);
        }
    }

    /// Gives the connection the events after `after`, none left out. A cursor ahead of this node
    /// waits for it to come that far.
    pub fn follow(&self, connection: &Rc<Connection>, after: Cursor) -> Result<(), NotRecent> {
        let mut state = self.state.borrow_mut();
        if after.epoch != state.position.epoch || after.offset < state.ring.floor() {
            return Err(NotRecent);
        }
        if connection.closing_since().is_some() {
            return Ok(());
        }
        if after.offset == state.position.offset {
            state.join(connection);
        } else {
            let replay_until = state.position.offset.max(after.offset);
            connection.state.borrow_mut().mode = Mode::Behind {
                next: after.offset.saturating_add(1),
                replay_until,
            };
            state.behind.push(Rc::clone(connection));
            connection::wake(connection.waker());
        }
        Ok(())
    }

    /// Changes what the connection gets of the events that are not queued yet.
    pub fn resubscribe(&self, connection: &Rc<Connection>, subscription: Subscription) {
        let new = self.class(subscription);
        let mut state = self.state.borrow_mut();
        let old = {
            let mut connection = connection.state.borrow_mut();
            std::mem::replace(&mut connection.subscription, Rc::clone(&new))
        };
        if Rc::ptr_eq(&old, &new) {
            return;
        }
        if connection.state.borrow().mode == Mode::Live {
            // At once, not with the next sweep: it may come back to its old class.
            if let Some(members) = state.classes.get_mut(&old) {
                members.retain(|member| !Rc::ptr_eq(member, connection));
            }
            state.join(connection);
        }
    }

    /// How far the connection's events have been queued: it has missed nothing up to there.
    pub fn reached(&self, connection: &Connection) -> Option<Cursor> {
        let position = self.position();
        match connection.state.borrow().mode {
            Mode::Live => Some(position),
            Mode::Behind { next, .. } => Some(position.epoch.at(next.saturating_sub(1))),
            Mode::Held | Mode::Ended => None,
        }
    }

    /// Tells the shard of the next events of the log.
    pub fn publish(&self, now: Instant, events: &[Arc<LogEvent>]) {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return;
        };
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        for event in events {
            state.ring.push(Arc::clone(event), now);
        }
        state.position = last.cursor();
        state.behind.retain(|connection| is_behind(connection));
        let mut wakers = Vec::new();
        let mut frames: Vec<Bytes> = Vec::new();
        for (class, members) in &mut state.classes {
            frames.clear();
            let admitted = events.iter().filter(|event| class.admits(event));
            frames.extend(admitted.map(|event| event.frame(class.view())));
            if frames.is_empty() {
                continue;
            }
            let bytes = frames.iter().map(Bytes::len).sum();
            members.retain(|member| {
                let offer = member.offer(now, &frames, bytes, &self.limits);
                match offer {
                    Offer::Wake(waker) => wakers.extend(waker),
                    Offer::Later => state.marked.push(Rc::clone(member)),
                    Offer::Queued => {}
                    Offer::Full => {
                        fall_behind(member, first.cursor().offset);
                        state.behind.push(Rc::clone(member));
                        return false;
                    }
                    Offer::Gone => return false,
                }
                self.counters.count_delivered(frames.len());
                true
            });
        }
        // Those that were behind before may have waited for just these events.
        let waiting = state.behind.iter();
        wakers.extend(waiting.filter_map(|connection| connection.waker()));
        drop(guard);
        for waker in wakers {
            waker.wake();
        }
    }

    /// Wakes the transports that waited for more to write. To be called every [`Limits::flush`]
    /// while [`Shard::has_unflushed`].
    pub fn flush(&self, now: Instant) {
        let marked = std::mem::take(&mut self.state.borrow_mut().marked);
        for connection in marked {
            connection.flush(now);
        }
    }

    /// Whether a transport waits for the next [`Shard::flush`].
    pub fn has_unflushed(&self) -> bool {
        !self.state.borrow().marked.is_empty()
    }

    /// Takes the connection's next frame. Ready with none: the connection has come to its end.
    pub fn poll_frame(
        &self,
        connection: &Rc<Connection>,
        now: Instant,
        context: &Context<'_>,
    ) -> Poll<Option<Bytes>> {
        loop {
            match connection.take(now) {
                Taken::Frame(frame) => return Poll::Ready(Some(frame)),
                Taken::End => return Poll::Ready(None),
                Taken::Empty => {
                    connection.wait(context);
                    return Poll::Pending;
                }
                Taken::Behind => match self.catch_up(connection, now) {
                    CaughtUp::Changed => {}
                    CaughtUp::Scanned => {
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    CaughtUp::Ahead => {
                        connection.wait(context);
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    /// Closes those that are too slow, forgets those that ended, and gives back memory. To be
    /// called every second or so.
    pub fn sweep(&self, now: Instant) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let mut slow = Vec::new();
        for members in state.classes.values_mut() {
            members.retain(|member| {
                let mut inner = member.state.borrow_mut();
                inner.shrink();
                if !inner.is_empty() && inner.stalled(now) > self.limits.lag {
                    slow.push(Rc::clone(member));
                }
                inner.mode == Mode::Live
            });
        }
        state.classes.retain(|_, members| !members.is_empty());
        let State { behind, ring, .. } = state;
        behind.retain(|connection| {
            let inner = connection.state.borrow();
            let Mode::Behind { next, replay_until } = inner.mode else {
                return false;
            };
            let late = if next <= replay_until {
                inner.stalled(now)
            } else {
                ring.get(next).map_or(Duration::ZERO, |recent| {
                    now.saturating_duration_since(recent.arrived)
                })
            };
            if late > self.limits.lag || next <= ring.floor() {
                slow.push(Rc::clone(connection));
            }
            true
        });
        drop(guard);
        for connection in slow {
            self.close_slow(&connection, now);
        }
    }

    /// The log has a new history, of which the shard will be told what follows `position`. Every
    /// connection gets `notice` and then goes on from there.
    pub fn reset(&self, now: Instant, position: Cursor, notice: &Bytes) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        state.position = position;
        state.ring.clear(position.offset);
        let behind = std::mem::take(&mut state.behind);
        let mut told: Vec<_> = state.classes.values().flatten().cloned().collect();
        for connection in behind {
            if is_behind(&connection) {
                state.join(&connection);
                told.push(connection);
            }
        }
        drop(guard);
        for connection in told {
            connection.send(now, notice.clone());
        }
    }

    /// Queues events that the connection's owner read from the log, before it follows the ring.
    pub fn replay(&self, connection: &Connection, now: Instant, events: &[LogEvent]) {
        let class = connection.subscription();
        for event in events.iter().filter(|event| class.admits(event)) {
            self.counters.count_delivered(1);
            connection.send(now, event.frame(class.view()));
        }
    }

    /// Closes the connection as too slow.
    pub fn close_slow(&self, connection: &Connection, now: Instant) {
        if connection.closing_since().is_none() {
            self.counters.count_slow();
            connection.close_now(
                now,
                TOO_SLOW,
                "reading too slowly: resume from the last cursor",
            );
        }
    }

    /// The class of the subscription: one allocation for all its connections.
    fn class(&self, subscription: Subscription) -> Rc<Subscription> {
        let state = self.state.borrow();
        let known = state.classes.get_key_value(&subscription);
        known.map_or_else(|| Rc::new(subscription), |(class, _)| Rc::clone(class))
    }

    /// Queues a few more events from the ring.
    fn catch_up(&self, connection: &Rc<Connection>, now: Instant) -> CaughtUp {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let mut inner = connection.state.borrow_mut();
        let Mode::Behind {
            mut next,
            replay_until,
        } = inner.mode
        else {
            return CaughtUp::Changed;
        };
        if next <= state.ring.floor() {
            drop(inner);
            drop(guard);
            self.close_slow(connection, now);
            return CaughtUp::Changed;
        }
        let class = Rc::clone(&inner.subscription);
        let end = next.saturating_add(SCANNED_AT_ONCE);
        let mut queued = 0_usize;
        while next < end && inner.has_room(&self.limits) {
            let Some(recent) = state.ring.get(next) else {
                break;
            };
            if class.admits(&recent.event) {
                inner.push(now, recent.event.frame(class.view()));
                queued = queued.saturating_add(1);
            }
            next = next.saturating_add(1);
        }
        self.counters.count_delivered(queued);
        inner.mode = Mode::Behind { next, replay_until };
        let position = state.position.offset;
        drop(inner);
        if next == position.saturating_add(1) {
            state.join(connection);
            CaughtUp::Changed
        } else if next > position {
            CaughtUp::Ahead
        } else if queued > 0 {
            CaughtUp::Changed
        } else {
            CaughtUp::Scanned
        }
    }
}

/// What a look into the ring came to.
enum CaughtUp {
    /// There are frames now, or the connection is live or closing.
    Changed,
    /// Nothing among those looked at, but there are more.
    Scanned,
    /// The next event has not arrived.
    Ahead,
}

impl State {
    /// Makes the connection a live member of its class.
    fn join(&mut self, connection: &Rc<Connection>) {
        let mut inner = connection.state.borrow_mut();
        inner.mode = Mode::Live;
        let known = self.classes.get_key_value(&inner.subscription);
        if let Some((class, _)) = known {
            inner.subscription = Rc::clone(class);
        }
        self.classes
            .entry(Rc::clone(&inner.subscription))
            .or_default()
            .push(Rc::clone(connection));
    }
}

fn is_behind(connection: &Connection) -> bool {
    matches!(connection.state.borrow().mode, Mode::Behind { .. })
}

fn fall_behind(connection: &Connection, next: u64) {
    connection.state.borrow_mut().mode = Mode::Behind {
        next,
        replay_until: 0,
    };
}
