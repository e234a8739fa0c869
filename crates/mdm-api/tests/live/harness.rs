use std::{pin::Pin, sync::Arc, time::Duration};

use actix_web::{App, HttpServer, dev::ServerHandle, web};
use futures_util::{SinkExt, StreamExt};
use mdm_api::live::{self, Authenticate, LiveConfig, LiveParts, LiveState};
use mdm_core::{
    Clock, SystemClock,
    commands::{CommandKind, CommandStatus},
    entropy::SeededEntropy,
    events::{EventData, NewEvent},
    ids::{CommandId, DeviceId, NodeId, OrganizationId, SessionId, UserId},
    roles::Role,
    sessions::AccessClaims,
};
use mdm_service::{
    stream::{EventStream, EventWake, Lead, StreamParts},
    tokens::TokenError,
};
use mdm_store::{PgPool, events, nodes::Node};
use mdm_testkit::TestDatabase;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest, http::Request},
};
use tokio_util::sync::CancellationToken;
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

/// Nothing in these tests takes longer, unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Takes tokens that say what they stand for: `role.organisation.session.seconds`.
struct PlainTokens;

impl Authenticate for PlainTokens {
    fn verify<'a>(
        &'a self,
        token: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<AccessClaims, TokenError>> + Send + 'a>> {
        Box::pin(async move { claims(token).ok_or(TokenError::Invalid) })
    }

    fn redeem<'a>(
        &'a self,
        _ticket: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<SecretString, TokenError>> + Send + 'a>> {
        Box::pin(async { Err(TokenError::TicketInvalid) })
    }
}

fn claims(token: &str) -> Option<AccessClaims> {
    let mut parts = token.split('.');
    let role = parts.next()?.parse().ok()?;
    let organization: u128 = parts.next()?.parse().ok()?;
    let session: u128 = parts.next()?.parse().ok()?;
    let seconds: i64 = parts.next()?.parse().ok()?;
    Some(AccessClaims {
        user_id: UserId::from_uuid(Uuid::from_u128(session)),
        organization_id: OrganizationId::from_uuid(Uuid::from_u128(organization)),
        session_id: SessionId::from_uuid(Uuid::from_u128(session)),
        permissions: mdm_core::roles::Permissions::of(role),
        role,
        expires_at: SystemClock.now() + chrono::Duration::seconds(seconds),
    })
}

pub fn token(role: Role) -> String {
    format!("{role}.1.{}.900", role.as_str().len())
}

/// A server, its tasks and its database.
pub struct Live {
    pub database: TestDatabase,
    pub state: LiveState,
    pub address: String,
    wake: EventWake,
    server: ServerHandle,
    tasks: CancellationToken,
}

impl Live {
    pub async fn start() -> Self {
        Self::with(LiveConfig::default()).await
    }

    pub async fn with(config: LiveConfig) -> Self {
        let database = TestDatabase::create().await;
        let pool = database.pool().clone();
        let wake = EventWake::default();
        let parts = StreamParts {
            pool: pool.clone(),
            wake: wake.clone(),
            lead: Lead::default(),
            bus: None,
            clock: Arc::new(SystemClock),
            observers: Vec::new(),
            keep: EventStream::KEEP,
        };
        let stream = EventStream::start(parts).await.unwrap();
        let tasks = CancellationToken::new();
        let state = LiveState::new(LiveParts {
            pool,
            feed: stream.feed(),
            tokens: Arc::new(PlainTokens),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SeededEntropy::new(1)),
            lead: Lead::default(),
            nodes: Box::new(|subscribers| vec![this_node(subscribers)]),
            stopping: CancellationToken::new(),
            config,
        });
        tokio::spawn(stream.run(tasks.clone()));
        let shared = state.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(shared.worker())
                .configure(|config| live::configure_root(&mut ServiceConfig::new(config)))
                .service(web::scope("/api/v1").configure(|config| {
                    live::configure(&mut ServiceConfig::new(config));
                }))
        })
        .workers(2)
        .tcp_nodelay(true)
        .h1_allow_half_closed(false)
        .on_connect(live::on_connect)
        .disable_signals()
        .bind("127.0.0.1:0")
        .unwrap();
        let address = server.addrs()[0].to_string();
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self {
            database,
            state,
            address,
            wake,
            server: handle,
            tasks,
        }
    }

    pub async fn append(&self, events: &[NewEvent]) {
        append(self.database.pool(), &self.wake, events).await;
    }

    /// Goes on appending numbered events in the background.
    pub fn keep_appending(&self, numbers: std::ops::Range<u32>) -> tokio::task::JoinHandle<()> {
        let (pool, wake) = (self.database.pool().clone(), self.wake.clone());
        tokio::spawn(async move {
            for number in numbers {
                append(&pool, &wake, &[event(number)]).await;
            }
        })
    }

    pub fn request(&self, path: &str) -> Request<()> {
        let url = format!("ws://{}{path}", self.address);
        url.into_client_request().unwrap()
    }

    /// Connects and takes the welcome.
    pub async fn connect(&self, role: Role, query: &str) -> (Client, Value) {
        let path = format!("/ws?token={}&{query}", token(role));
        let mut client = self.open(self.request(&path)).await.unwrap();
        let welcome = client.frame().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        (client, welcome["data"].clone())
    }

    pub async fn open(&self, request: Request<()>) -> Result<Client, tungstenite::Error> {
        let (socket, _response) = connect_async(request).await?;
        Ok(Client(socket))
    }

    /// The status and body of a GET request.
    pub async fn get(&self, path: &str, token: Option<&str>) -> (u16, Value) {
        let mut socket = TcpStream::connect(&self.address).await.unwrap();
        let bearer = token.map_or_else(String::new, |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{bearer}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    pub async fn wait_until(&self, what: &str, condition: impl Fn(&LiveState) -> bool) {
        let reached = async {
            while !condition(&self.state) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let outcome = tokio::time::timeout(PATIENCE, reached).await;
        assert!(outcome.is_ok(), "never came about: {what}");
    }

    pub async fn stop(self) {
        self.tasks.cancel();
        self.server.stop(false).await;
    }
}

async fn append(pool: &PgPool, wake: &EventWake, events: &[NewEvent]) {
    // The database may be going up or down: what counts is what was committed.
    loop {
        let appended = async {
            let mut transaction = pool.begin().await?;
            events::append_all(&mut transaction, SystemClock.now(), events).await?;
            transaction.commit().await?;
            Ok::<_, mdm_store::StoreError>(())
        };
        match appended.await {
            Ok(()) => break,
            Err(error) => assert!(error.is_unavailable(), "{error}"),
        }
    }
    wake.wake();
}

/// An event with a number that only operators get.
pub fn event(number: u32) -> NewEvent {
    sized_event(number, 0)
}

pub fn sized_event(number: u32, padding: usize) -> NewEvent {
    let organization = OrganizationId::from_uuid(Uuid::from_u128(1));
    NewEvent::new(
        organization,
        EventData::CommandExecution {
            command_id: CommandId::from_uuid(Uuid::from_u128(u128::from(number))),
            device_id: DeviceId::from_uuid(Uuid::from_u128(u128::from(number % 2))),
            command: CommandKind::SystemInfo,
            status: CommandStatus::Completed,
            result: Some(json!({ "number": number, "padding": "x".repeat(padding) })),
        },
    )
}

/// A subscriber.
pub struct Client(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn message(&mut self) -> Option<Message> {
        let message = tokio::time::timeout(PATIENCE, self.0.next()).await;
        message
            .expect("nothing arrived")
            .transpose()
            .unwrap_or(None)
    }

    /// The next text frame.
    pub async fn frame(&mut self) -> Value {
        loop {
            match self.message().await {
                Some(Message::Text(text)) => return serde_json::from_str(&text).unwrap(),
                Some(Message::Ping(_)) => {}
                other => panic!("a frame was expected, not {other:?}"),
            }
        }
    }

    /// The next `count` events, after it was checked that they follow each other by their ids.
    pub async fn events(&mut self, count: usize) -> Vec<Value> {
        let mut events: Vec<Value> = Vec::new();
        while events.len() < count {
            let frame = self.frame().await;
            assert!(frame["id"].is_string(), "not an event: {frame}");
            if let Some(last) = events.last() {
                assert!(last["id"].as_str() < frame["id"].as_str());
            }
            events.push(frame);
        }
        events
    }

    /// The code of the close frame, after any other frames.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            match self.message().await {
                Some(Message::Close(Some(frame))) => return frame.code.into(),
                Some(Message::Text(_) | Message::Ping(_)) => {}
                other => panic!("a close frame was expected, not {other:?}"),
            }
        }
    }

    pub async fn say(&mut self, message: Value) {
        self.0
            .send(Message::text(message.to_string()))
            .await
            .unwrap();
    }
}

/// The number of an event made by [`event`].
pub fn number(event: &Value) -> u64 {
    event["data"]["result"]["number"].as_u64().unwrap()
}

fn this_node(subscribers: u64) -> Node {
    Node {
        id: NodeId::from_uuid(Uuid::from_u128(1)),
        version: "0".to_owned(),
        is_leader: true,
        subscribers,
        devices: 3,
        started_at: SystemClock.now(),
    }
}
