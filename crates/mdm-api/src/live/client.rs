//! One connected subscriber.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use mdm_core::{Timestamp, ids::ConnectionId, sessions::AccessClaims};
use mdm_events::{
    Cursor,
    envelope::control,
    hub::{Connection, Shard},
    websocket,
};
use mdm_proto::{Timestamp as WireTimestamp, channel::close, events::Welcome};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{HEARTBEAT, socket::SocketHandle, upgrade::Hearing};

/// How long before a token's end the client is told.
const TOKEN_NOTICE: chrono::Duration = chrono::Duration::seconds(60);
/// Control messages that may wait. Who asks for more without reading is too slow.
const MAX_QUEUED: usize = 512;
/// How long a closing connection may take before its socket is reset.
const CLOSING_PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Client {
    pub(super) id: ConnectionId,
    connection: Rc<Connection>,
    claims: RefCell<AccessClaims>,
    expiry_announced: Cell<bool>,
    welcomed: Cell<bool>,
    last_heard: Cell<Instant>,
    next_heartbeat: Cell<Instant>,
    socket: Option<SocketHandle>,
    hearing: Hearing,
    opened: Notify,
    gone: Notify,
}

impl Client {
    pub(super) fn new(
        id: ConnectionId,
        connection: Rc<Connection>,
        claims: AccessClaims,
        socket: Option<SocketHandle>,
        hearing: Hearing,
    ) -> Self {
        let now = Instant::now();
        Self {
            id,
            connection,
            claims: RefCell::new(claims),
            expiry_announced: Cell::new(false),
            welcomed: Cell::new(false),
            last_heard: Cell::new(now),
            next_heartbeat: Cell::new(now + HEARTBEAT),
            socket,
            hearing,
            opened: Notify::new(),
            gone: Notify::new(),
        }
    }

    /// The transport has ended.
    pub(super) fn left(&self) {
        self.gone.notify_one();
    }

    /// Waits for the end of the transport.
    pub(super) async fn gone(&self) {
        self.gone.notified().await;
    }

    pub(super) const fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    pub(super) fn claims(&self) -> AccessClaims {
        self.claims.borrow().clone()
    }

    pub(super) fn renew(&self, claims: AccessClaims) {
        self.claims.replace(claims);
        self.expiry_announced.set(false);
    }

    /// Something came from the client: it lives.
    pub(super) fn heard(&self) {
        self.last_heard.set(Instant::now());
    }

    /// Queues a control message.
    pub(super) fn tell(&self, kind: &'static str, at: Timestamp, data: &impl Serialize) {
        let now = Instant::now();
        if self.connection.queued() >= MAX_QUEUED {
            let reason = "reading too slowly: resume from the last cursor";
            self.connection.close_now(now, close::TOO_SLOW, reason);
            return;
        }
        let data = serde_json::to_value(data).unwrap_or(Value::Null);
        self.connection.send(now, control(kind, at, &data));
    }

    /// Waits for the welcome: nothing is said before it, and so nothing is listened to.
    pub(super) async fn opened(&self) {
        self.opened.notified().await;
    }

    /// Queues the first message.
    pub(super) fn welcome(&self, at: Timestamp, cursor: Cursor, replayed: Option<u64>) {
        let welcome = Welcome {
            connection_id: self.id.uuid(),
            cursor: cursor.to_string(),
            recovered: replayed.is_some(),
            replayed: replayed.unwrap_or_default(),
            heartbeat_seconds: HEARTBEAT.as_secs(),
            token_expires_at: WireTimestamp(self.claims.borrow().expires_at),
        };
        self.tell("welcome", at, &welcome);
        self.welcomed.set(true);
        self.heard();
        self.opened.notify_one();
    }

    /// Does what time asks for. Called every second.
    pub(super) fn tick(&self, shard: &Shard, now: Instant, at: Timestamp, silence: Duration) {
        if let Some(since) = self.connection.closing_since() {
            if now.saturating_duration_since(since) > CLOSING_PATIENCE {
                self.socket.inspect(|socket| socket.abort());
            }
            return;
        }
        if !self.welcomed.get() {
            return;
        }
        let silent = now.saturating_duration_since(self.last_heard.get()) > silence;
        if silent && self.hearing == Hearing::Answers {
            let reason = "nothing was heard from the client";
            self.connection.close_now(now, close::SILENT, reason);
            return;
        }
        self.watch_token(now, at);
        if now >= self.next_heartbeat.get() {
            self.next_heartbeat.set(now + HEARTBEAT);
            self.connection.send(now, websocket::ping());
            if let Some(cursor) = shard.reached(&self.connection) {
                self.tell("heartbeat", at, &json!({ "cursor": cursor }));
            }
        }
    }

    fn watch_token(&self, now: Instant, at: Timestamp) {
        let expires_at = self.claims.borrow().expires_at;
        if at >= expires_at {
            let reason = "the access token has expired: connect with a new one";
            self.connection.close(now, close::TOKEN_EXPIRED, reason);
        } else if expires_at - at <= TOKEN_NOTICE && !self.expiry_announced.replace(true) {
            let data = json!({ "token_expires_at": WireTimestamp(expires_at) });
            self.tell("token_expiring", at, &data);
        }
    }
}
