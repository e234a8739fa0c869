//! What one worker holds: its shard of the hub, and its clients.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use mdm_core::{
    Timestamp,
    ids::{ConnectionId, SessionId},
};
use mdm_events::{Cursor, LogEvent, envelope::control, hub::Shard};
use mdm_proto::channel::close;
use mdm_service::stream::Feed;
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{LiveParts, LiveState, client::Client};

const SWEEP: Duration = Duration::from_secs(1);
/// Events are handed to the shard in pieces, and connections write in between: so a burst flows
/// through the queues instead of filling them.
const PIECE: usize = 64;
/// In how many steps connections are closed when the server stops.
const DRAIN_STEPS: u32 = 20;

/// One worker thread's subscribers.
pub struct Worker {
    state: LiveState,
    shard: Shard,
    clients: RefCell<HashMap<ConnectionId, Rc<Client>>>,
}

impl Worker {
    /// Makes the calling thread's worker and starts its task.
    pub(super) fn start(state: &LiveState) -> Rc<Self> {
        let (position, feed) = state.parts().feed.subscribe();
        let limits = state.parts().config.limits.clone();
        let worker = Rc::new(Self {
            shard: Shard::new(position, limits, Arc::clone(&state.0.counters)),
            state: state.clone(),
            clients: RefCell::default(),
        });
        actix_web::rt::spawn(Rc::clone(&worker).run(feed));
        worker
    }

    pub(super) const fn shard(&self) -> &Shard {
        &self.shard
    }

    pub(super) const fn state(&self) -> &LiveState {
        &self.state
    }

    pub(super) fn parts(&self) -> &LiveParts {
        self.state.parts()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.parts().clock.now()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.parts().stopping.is_cancelled()
    }

    pub(super) fn join(&self, client: &Rc<Client>) {
        self.clients
            .borrow_mut()
            .insert(client.id, Rc::clone(client));
    }

    pub(super) fn leave(&self, client: &Client) {
        self.shard.leave(client.connection());
        self.clients.borrow_mut().remove(&client.id);
        client.left();
    }

    /// Makes room between the present and the events that will follow: the client missed
    /// something and has to start over.
    pub(super) fn resync(&self, client: &Client, reason: &str) {
        let cursor = self.shard.position();
        let data = json!({ "reason": reason, "cursor": cursor });
        client.tell("resync", self.now(), &data);
        self.shard.go_live(client.connection());
    }

    async fn run(self: Rc<Self>, mut feed: mpsc::Receiver<Feed>) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let draining = self.parts().stopping.clone();
        let mut drained = false;
        let mut flush_at = tokio::time::Instant::now();
        loop {
            let unflushed = self.shard.has_unflushed();
            tokio::select! {
                message = feed.recv() => match message {
                    Some(message) => {
                        let was_flushed = !unflushed;
                        self.take(message).await;
                        if was_flushed {
                            flush_at = tokio::time::Instant::now() + self.parts().config.limits.flush;
                        }
                    }
                    None => return,
                },
                () = sleep_until(flush_at), if unflushed => {
                    self.shard.flush(Instant::now());
                }
                _tick = sweep.tick() => self.sweep(),
                () = draining.cancelled(), if !drained => {
                    drained = true;
                    actix_web::rt::spawn(Rc::clone(&self).drain());
                }
            }
        }
    }

    async fn take(&self, message: Feed) {
        match message {
            Feed::Events(events) => {
                for piece in events.chunks(PIECE) {
                    self.shard.publish(Instant::now(), piece);
                    self.end_sessions(piece);
                    tokio::task::yield_now().await;
                }
            }
            Feed::Reset(position) => self.start_over(position),
        }
    }

    fn end_sessions(&self, events: &[Arc<LogEvent>]) {
        for session in events.iter().filter_map(|event| event.ended_session()) {
            self.end_session(session);
        }
    }

    fn end_session(&self, session: SessionId) {
        let reason = "the session has ended";
        for client in self.clients() {
            if client.claims().session_id == session {
                client
                    .connection()
                    .close_now(Instant::now(), close::SESSION_ENDED, reason);
            }
        }
    }

    /// The end of a session may be among what was missed, so nobody stays: who may come back
    /// comes back, and goes on from the position that the notice names.
    fn start_over(&self, position: Cursor) {
        let data = json!({ "reason": "new_epoch", "cursor": position });
        let notice = control("resync", self.now(), &data);
        self.shard.reset(Instant::now(), position, &notice);
        for client in self.clients() {
            let reason = "the log has a new history: connect again";
            client
                .connection()
                .close(Instant::now(), close::GOING_AWAY, reason);
        }
    }

    fn sweep(&self) {
        let (now, at) = (Instant::now(), self.now());
        self.shard.sweep(now);
        let silence = self.parts().config.silence;
        for client in self.clients() {
            client.tick(&self.shard, now, at, silence);
        }
    }

    /// Closes the clients step by step, so that they do not all come to another node at once.
    async fn drain(self: Rc<Self>) {
        let clients = self.clients();
        let steps = usize::try_from(DRAIN_STEPS).unwrap_or(1);
        let share = clients.len().div_ceil(steps).max(1);
        for step in clients.chunks(share) {
            for client in step {
                let reason = "the server is stopping: connect again";
                client
                    .connection()
                    .close(Instant::now(), close::GOING_AWAY, reason);
            }
            sleep(self.parts().config.drain / DRAIN_STEPS).await;
        }
    }

    /// A copy, because closing a client may remove it.
    fn clients(&self) -> Vec<Rc<Client>> {
        self.clients.borrow().values().cloned().collect()
    }
}
