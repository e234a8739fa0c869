//! One subscriber's queue of encoded frames.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::Limits;
use crate::{subscription::Subscription, websocket};

/// Where a connection's next event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// From nowhere yet: its owner queues what must come first.
    Held,
    /// From the ring, at the transport's pace: it is being replayed to, or fell behind.
    Behind {
        /// The offset of the next event to look at.
        next: u64,
        /// The end of the replay that the client asked for. That far, being late is no lag.
        replay_until: u64,
    },
    /// Events are queued as they arrive.
    Live,
    /// From nowhere any more.
    Ended,
}

#[derive(Debug)]
struct Closing {
    frame: Option<Bytes>,
    since: Instant,
}

#[derive(Debug)]
struct Queued {
    frame: Bytes,
    at: Instant,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) subscription: Rc<Subscription>,
    pub(super) mode: Mode,
    frames: VecDeque<Queued>,
    bytes: usize,
    last_taken: Instant,
    last_woken: Option<Instant>,
    marked: bool,
    waker: Option<Waker>,
    closing: Option<Closing>,
}

/// A subscriber's connection, as the hub sees it.
#[derive(Debug)]
pub struct Connection {
    pub(super) state: RefCell<State>,
    drained: Notify,
}

/// What became of frames that were offered to a live connection.
#[derive(Debug)]
pub(super) enum Offer {
    /// Queued; the transport is to be woken now.
    Wake(Option<Waker>),
    /// Queued; the transport was woken so recently that it waits for more.
    Later,
    /// Queued; the transport is waiting for more already.
    Queued,
    /// They do not fit; nothing was queued.
    Full,
    /// The connection is not live.
    Gone,
}

/// What the transport finds in the queue.
#[derive(Debug)]
pub(super) enum Taken {
    Frame(Bytes),
    /// Nothing, and nothing comes.
    End,
    /// Nothing; there may be more in the ring.
    Behind,
    /// Nothing yet.
    Empty,
}

impl Connection {
    pub(super) fn new(subscription: Rc<Subscription>, now: Instant) -> Self {
        Self {
            state: RefCell::new(State {
                subscription,
                mode: Mode::Held,
                frames: VecDeque::new(),
                bytes: 0,
                last_taken: now,
                last_woken: None,
                marked: false,
                waker: None,
                closing: None,
            }),
            drained: Notify::new(),
        }
    }

    /// Queues a frame that is no event of the hub's: a control message, or an event that its
    /// owner read from the log. Nothing is queued once the connection is closing.
    pub fn send(&self, now: Instant, frame: Bytes) {
        let waker = {
            let mut state = self.state.borrow_mut();
            if state.closing.is_some() {
                return;
            }
            state.push(now, frame);
            state.waker.take()
        };
        wake(waker);
    }

    /// Waits until the transport has taken everything, or the connection is closing.
    pub async fn drained(&self) {
        while !self.is_drained() {
            self.drained.notified().await;
        }
    }

    /// How many frames wait for the transport.
    pub fn queued(&self) -> usize {
        self.state.borrow().frames.len()
    }

    /// Ends the connection with a close frame, after what is queued already.
    pub fn close(&self, now: Instant, code: u16, reason: &str) {
        self.end(now, code, reason, false);
    }

    /// Ends the connection with a close frame; what is queued is not sent any more.
    pub fn close_now(&self, now: Instant, code: u16, reason: &str) {
        self.end(now, code, reason, true);
    }

    /// Since when the connection has been closing.
    pub fn closing_since(&self) -> Option<Instant> {
        self.state
            .borrow()
            .closing
            .as_ref()
            .map(|closing| closing.since)
    }

    /// The subscription as it stands.
    pub fn subscription(&self) -> Rc<Subscription> {
        Rc::clone(&self.state.borrow().subscription)
    }

    fn is_drained(&self) -> bool {
        let state = self.state.borrow();
        state.frames.is_empty() || state.closing.is_some()
    }

    fn end(&self, now: Instant, code: u16, reason: &str, discard: bool) {
        let waker = {
            let mut state = self.state.borrow_mut();
            if state.closing.is_some() {
                return;
            }
            state.mode = Mode::Ended;
            if discard {
                state.frames = VecDeque::new();
                state.bytes = 0;
            }
            state.closing = Some(Closing {
                frame: Some(websocket::close(code, reason)),
                since: now,
            });
            state.waker.take()
        };
        self.drained.notify_one();
        wake(waker);
    }

    /// Queues all of the frames or none.
    pub(super) fn offer(
        &self,
        now: Instant,
        frames: &[Bytes],
        bytes: usize,
        limits: &Limits,
    ) -> Offer {
        let mut state = self.state.borrow_mut();
        if state.mode != Mode::Live {
            return Offer::Gone;
        }
        if state.frames.len().saturating_add(frames.len()) > limits.queue_events
            || state.bytes.saturating_add(bytes) > limits.queue_bytes
        {
            return Offer::Full;
        }
        for frame in frames {
            state.push(now, frame.clone());
        }
        let rested = state
            .last_woken
            .is_none_or(|at| now.saturating_duration_since(at) >= limits.flush);
        // A quarter of the queue is worth a send on its own; waiting on would only fill it.
        if rested || state.frames.len() >= limits.queue_events / 4 {
            Offer::Wake(state.flush(now))
        } else if state.marked {
            Offer::Queued
        } else {
            state.marked = true;
            Offer::Later
        }
    }

    pub(super) fn flush(&self, now: Instant) {
        let waker = self.state.borrow_mut().flush(now);
        wake(waker);
    }

    pub(super) fn take(&self, now: Instant) -> Taken {
        let mut state = self.state.borrow_mut();
        if let Some(queued) = state.frames.pop_front() {
            state.bytes = state.bytes.saturating_sub(queued.frame.len());
            state.last_taken = now;
            if state.frames.is_empty() {
                self.drained.notify_one();
            }
            return Taken::Frame(queued.frame);
        }
        if let Some(closing) = &mut state.closing {
            return closing.frame.take().map_or(Taken::End, Taken::Frame);
        }
        match state.mode {
            Mode::Behind { .. } => Taken::Behind,
            Mode::Held | Mode::Live | Mode::Ended => Taken::Empty,
        }
    }

    pub(super) fn wait(&self, context: &Context<'_>) {
        let mut state = self.state.borrow_mut();
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            empty => *empty = Some(context.waker().clone()),
        }
    }

    pub(super) fn waker(&self) -> Option<Waker> {
        self.state.borrow_mut().waker.take()
    }
}

impl State {
    pub(super) fn push(&mut self, now: Instant, frame: Bytes) {
        self.bytes = self.bytes.saturating_add(frame.len());
        self.frames.push_back(Queued { frame, at: now });
    }

    /// Whether the queue has room for more events from the ring.
    pub(super) fn has_room(&self, limits: &Limits) -> bool {
        self.frames.len() < limits.queue_events / 4 && self.bytes < limits.queue_bytes / 4
    }

    /// How long the oldest frame has waited, or, with none waiting, how long ago one was taken.
    pub(super) fn stalled(&self, now: Instant) -> Duration {
        let since = self
            .frames
            .front()
            .map_or(self.last_taken, |queued| queued.at);
        now.saturating_duration_since(since)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Gives back the memory that a burst took.
    pub(super) fn shrink(&mut self) {
        const KEPT: usize = 16;
        if self.frames.is_empty() && self.frames.capacity() > KEPT {
            self.frames = VecDeque::new();
        }
    }

    fn flush(&mut self, now: Instant) -> Option<Waker> {
        self.last_woken = Some(now);
        self.marked = false;
        self.waker.take()
    }
}

pub(super) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
