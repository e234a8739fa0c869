//! Events as they happen: `GET /ws`, and the log behind it as `GET /events`.
//!
//! Each worker has a [`worker::Worker`] with its shard of the hub. An upgrade leaves three things
//! behind: a response body that takes encoded frames from the connection's queue, a task that
//! reads what the client says, and an entry that the worker's task looks at every second.

mod body;
mod client;
mod filters;
mod inbound;
mod log;
mod resume;
mod seats;
mod socket;
mod sse;
mod status;
mod upgrade;
mod worker;

use std::{pin::Pin, rc::Rc, sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, get, web};
use mdm_core::{
    Clock, Entropy,
    ids::{DeviceId, SessionId},
    sessions::AccessClaims,
    tokens::{Token, TokenKind},
};
use mdm_events::hub::{Counters, Limits};
use mdm_proto::{events::EventPage, system::WebSocketStatus};
use mdm_service::{
    Services,
    stream::{EventFeed, Lead},
    tokens::TokenError,
};
use mdm_store::{PgPool, StoreError, events, nodes::Node};
use secrecy::SecretString;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use utoipa_actix_web::service_config::ServiceConfig;

use crate::{extract::SignedIn, openapi::params, problem::ApiError};

pub use seats::SeatLimits;
pub use socket::on_connect;
pub use worker::Worker;

/// How often heartbeats and pings are sent.
const HEARTBEAT: Duration = Duration::from_secs(25);

/// How many connections may be reading old events from the database at once. A whole fleet of
/// clients that were away for long must not take all of its connections.
const LOG_READERS: usize = 4;

/// Who checks access tokens.
pub trait Authenticate: Send + Sync + 'static {
    /// Says whose token it is, if it is good now.
    fn verify<'a>(
        &'a self,
        token: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<AccessClaims, TokenError>> + Send + 'a>>;

    /// Takes a single-use ticket, and gives the credential that it stands for.
    fn redeem<'a>(
        &'a self,
        ticket: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<SecretString, TokenError>> + Send + 'a>>;
}

/// How long a key without an end is good for, as far as a connection is concerned.
const KEY_LIFETIME: chrono::Duration = chrono::Duration::days(3650);

impl Authenticate for Services {
    /// An access token or an API key. A connection that was opened with a key belongs to a session
    /// with the key's id, and ends with it.
    fn verify<'a>(
        &'a self,
        token: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<AccessClaims, TokenError>> + Send + 'a>> {
        Box::pin(async move {
            if Token::parse(TokenKind::ApiKey, token).is_none() {
                return self.tokens().verify_fresh(token).await;
            }
            let found = self.authenticate_api_key(token).await;
            let key = found.map_err(|error| {
                tracing::warn!(%error, "cannot look up an API key");
                TokenError::Unavailable
            })?;
            let key = key.ok_or(TokenError::Invalid)?;
            Ok(AccessClaims {
                user_id: key.created_by,
                organization_id: key.organization_id,
                session_id: SessionId::from_uuid(key.id.uuid()),
                role: key.role,
                permissions: key.permissions(),
                expires_at: key.expires_at.unwrap_or_else(|| self.now() + KEY_LIFETIME),
            })
        })
    }

    fn redeem<'a>(
        &'a self,
        ticket: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<SecretString, TokenError>> + Send + 'a>> {
        Box::pin(self.redeem_ticket(ticket))
    }
}

/// What can be set.
#[derive(Debug, Clone)]
pub struct LiveConfig {
    /// Origins of web pages, such as `https://console.example.org`, that may connect besides
    /// those of the server itself.
    pub allowed_origins: Vec<String>,
    /// How many connections there may be.
    pub seats: SeatLimits,
    /// The hub's bounds, per worker.
    pub limits: Limits,
    /// After how much silence a client is closed.
    pub silence: Duration,
    /// Over how long connections are closed when the server stops.
    pub drain: Duration,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self {
            allowed_origins: Vec::new(),
            seats: SeatLimits::default(),
            limits: Limits::default(),
            silence: Duration::from_mins(1),
            drain: Duration::from_secs(2),
        }
    }
}

/// What [`LiveState::new`] needs.
pub struct LiveParts {
    /// Connections to the database.
    pub pool: PgPool,
    /// Where events come from.
    pub feed: EventFeed,
    /// Who checks access tokens.
    pub tokens: Arc<dyn Authenticate>,
    /// Time, for the end of tokens.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for connections' ids.
    pub entropy: Arc<dyn Entropy>,
    /// Whether this node leads.
    pub lead: Lead,
    /// All nodes that run; called with the number of subscribers that this one has.
    pub nodes: Box<dyn Fn(u64) -> Vec<Node> + Send + Sync>,
    /// Cancelled when the server begins to stop.
    pub stopping: CancellationToken,
    /// What can be set.
    pub config: LiveConfig,
}

/// What all workers share. Cheap to clone.
#[derive(Clone)]
pub struct LiveState(Arc<Shared>);

struct Shared {
    parts: LiveParts,
    counters: Arc<Counters>,
    seats: Arc<seats::Seats>,
    log_readers: Semaphore,
}

impl LiveState {
    /// To be made once, before the workers start.
    pub fn new(parts: LiveParts) -> Self {
        Self(Arc::new(Shared {
            seats: Arc::new(seats::Seats::new(parts.config.seats)),
            parts,
            counters: Arc::default(),
            log_readers: Semaphore::new(LOG_READERS),
        }))
    }

    /// What is counted over all workers.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Makes the calling thread's part and starts its task. To be called in the application's
    /// factory, which every worker runs for itself, and given to `App::app_data`.
    pub fn worker(&self) -> Rc<Worker> {
        Worker::start(self)
    }

    /// Sets the gauges of the metrics.
    pub fn observe(&self) {
        let counters = self.counters();
        let gauge = |number: u64| u32::try_from(number).map_or(f64::MAX, f64::from);
        metrics::gauge!("mdm_subscribers").set(gauge(counters.connected()));
        let leads = u8::from(self.parts().lead.is_held());
        metrics::gauge!("mdm_leader").set(f64::from(leads));
        metrics::counter!("mdm_events_published_total").absolute(self.parts().feed.published());
        metrics::counter!("mdm_events_delivered_total").absolute(counters.delivered());
        metrics::counter!("mdm_slow_subscribers_closed_total").absolute(counters.slow());
    }

    /// How many committed events this node has not taken from the log yet.
    pub async fn lag(&self) -> Result<u64, StoreError> {
        let parts = self.parts();
        let head = events::head(&parts.pool).await?;
        let waiting = events::waiting(&parts.pool).await?;
        let behind = head.offset.saturating_sub(parts.feed.position().offset);
        Ok(behind.saturating_add(waiting))
    }

    /// Takes no more subscribers, closes those that there are, spread over [`LiveConfig::drain`],
    /// and waits until they are gone, a little longer at most. To be called before the server is
    /// stopped: their response bodies would outlive its graceful shutdown.
    pub async fn drain(&self) {
        const PATIENCE: Duration = Duration::from_secs(3);
        self.parts().stopping.cancel();
        let gone = async {
            while self.counters().connected() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let limit = self.parts().config.drain.saturating_add(PATIENCE);
        if tokio::time::timeout(limit, gone).await.is_err() {
            let left = self.counters().connected();
            tracing::warn!(left, "subscribers did not go away and are cut off");
        }
    }

    fn parts(&self) -> &LiveParts {
        &self.0.parts
    }
}

/// Adds the route at the root, for clients of the older API. The application also needs a
/// [`LiveState::worker`] among its data.
pub fn configure_root(config: &mut ServiceConfig<'_>) {
    config.service(connect_at_root);
}

/// Adds the routes of the API's scope.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config
        .service(connect)
        .service(stream)
        .service(list)
        .service(websocket_status);
}

/// Events as they happen: a WebSocket (RFC 6455). The token comes in the query as `token`, as
/// `Authorization`, or as the subprotocols `bearer, <token>`; a ticket as `ticket`; an API key as `X-API-Key`.
#[utoipa::path(tag = "events", params(params::Events, ("token" = Option<String>, Query, description = "An access token"),
    ("ticket" = Option<String>, Query, description = "A single-use ticket")),
    responses((status = 101, description = "The stream begins")))]
#[get("/ws")]
async fn connect_at_root(
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    upgrade::connect(request, payload).await
}

/// Events as they happen: a WebSocket (RFC 6455). The token comes in the query as `token`, as
/// `Authorization`, or as the subprotocols `bearer, <token>`; a ticket as `ticket`; an API key as `X-API-Key`.
#[utoipa::path(tag = "events", params(params::Events, ("token" = Option<String>, Query, description = "An access token"),
    ("ticket" = Option<String>, Query, description = "A single-use ticket")),
    responses((status = 101, description = "The stream begins")))]
#[get("/ws")]
async fn connect(request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, ApiError> {
    upgrade::connect(request, payload).await
}

/// Events as they happen, as server-sent events (WHATWG HTML, section 9.2). `Last-Event-ID` goes on
/// after an event. Credentials as for the WebSocket.
#[utoipa::path(tag = "events", params(params::Events, ("token" = Option<String>, Query, description = "An access token"),
    ("ticket" = Option<String>, Query, description = "A single-use ticket"),
    ("Last-Event-ID" = Option<String>, Header, description = "Go on after this event")),
    responses((status = 200, description = "The stream begins", body = String, content_type = "text/event-stream")))]
#[get("/events/stream")]
async fn stream(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    sse::connect(request).await
}

/// A piece of the event log: what a subscriber would have got.
#[utoipa::path(tag = "events", params(params::Events, params::EventLimit), responses(
    (status = 200, body = EventPage), (status = 410, description = "The log does not go on from this cursor")))]
#[get("/events")]
async fn list(request: HttpRequest) -> Result<web::Json<EventPage>, ApiError> {
    log::list(&request, None).await
}

/// How the event stream is. Without credentials only the first two fields are given.
#[utoipa::path(tag = "events", responses((status = 200, body = WebSocketStatus)))]
#[get("/websocket/status")]
async fn websocket_status(request: HttpRequest) -> Result<web::Json<WebSocketStatus>, ApiError> {
    status::show(request).await
}

/// A piece of the event log, of one device only.
pub async fn events_of_device(
    request: &HttpRequest,
    _caller: &SignedIn,
    device: DeviceId,
) -> Result<web::Json<EventPage>, ApiError> {
    log::list(request, Some(device)).await
}

/// The part of the worker that handles the request.
fn worker(request: &HttpRequest) -> Result<Rc<Worker>, ApiError> {
    let worker = request.app_data::<Rc<Worker>>().cloned();
    worker.ok_or_else(|| {
        let status = actix_web::http::StatusCode::INTERNAL_SERVER_ERROR;
        ApiError::new(
            status,
            "INTERNAL",
            "Internal error",
            "the server is not set up",
        )
    })
}
