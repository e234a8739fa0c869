//! WebSockets: the device channel, and what it shares with the event stream.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use mdm_proto::channel::{AgentFrame, ServerFrame};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::{Client, ClientError, error::chain, http::install_crypto};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const SEND_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The connection has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the connection ended: {reason}")]
pub struct Closed {
    /// The server's close code, if it gave one; see [`mdm_proto::channel::close`].
    pub code: Option<u16>,
    /// Its reason, or what broke.
    pub reason: String,
}

impl Closed {
    /// The other end gave no sign of life for too long.
    pub(crate) fn silent() -> Self {
        Self {
            code: None,
            reason: "the server is silent".to_owned(),
        }
    }
}

impl From<Error> for Closed {
    fn from(error: Error) -> Self {
        Self {
            code: None,
            reason: chain(&error),
        }
    }
}

/// Connects a WebSocket to a path of the client's server, with the client's token.
pub(crate) async fn connect(client: &Client, path: &str) -> Result<Socket, ClientError> {
    install_crypto();
    let url = format!(
        "{}{path}",
        client
            .base()
            .as_str()
            .trim_end_matches('/')
            .replacen("http", "ws", 1)
    );
    let mut request = url
        .into_client_request()
        .map_err(|error| ClientError::Transport(chain(&error)))?;
    if let Some((name, value)) = client.credential()? {
        request.headers_mut().insert(name, value);
    }
    match timeout(CONNECT_TIMEOUT, tokio_tungstenite::connect_async(request)).await {
        Ok(Ok((socket, _response))) => Ok(socket),
        Ok(Err(Error::Http(response))) => {
            let status = response.status().as_u16();
            let body = response.into_body().unwrap_or_default();
            Err(serde_json::from_slice(&body).map_or_else(
                |_| ClientError::Unexpected {
                    status,
                    body: String::from_utf8_lossy(&body).chars().take(200).collect(),
                },
                |problem| ClientError::Problem(Box::new(problem)),
            ))
        }
        Ok(Err(error)) => Err(ClientError::Transport(chain(&error))),
        Err(_) => Err(ClientError::Transport(
            "connecting took too long".to_owned(),
        )),
    }
}

/// The next text frame; `None` for a sign of life without text. Pings are answered by the socket.
pub(crate) async fn next_text(socket: &mut Socket) -> Result<Option<String>, Closed> {
    match socket.next().await {
        None => Err(Closed {
            code: None,
            reason: "the server is gone".to_owned(),
        }),
        Some(Err(error)) => Err(error.into()),
        Some(Ok(Message::Text(text))) => Ok(Some(text.to_string())),
        Some(Ok(Message::Close(frame))) => Err(frame.map_or_else(
            || Closed {
                code: None,
                reason: "closed without a reason".to_owned(),
            },
            |frame| Closed {
                code: Some(frame.code.into()),
                reason: frame.reason.to_string(),
            },
        )),
        Some(Ok(Message::Ping(_))) => {
            // The answer is queued by the socket; without a write it would wait for one.
            socket.flush().await?;
            Ok(None)
        }
        Some(Ok(_)) => Ok(None),
    }
}

/// The agent's end of the device channel.
pub struct DeviceChannel {
    socket: Socket,
}

/// What came in.
#[derive(Debug)]
pub enum Incoming {
    /// A frame of the channel.
    Frame(Box<ServerFrame>),
    /// A frame of a newer server, a ping or a pong: a sign of life.
    Other,
}

impl DeviceChannel {
    /// Connects with the client's token, which must be a device token. A token that is not valid
    /// any more is an error with status 401.
    pub async fn connect(client: &Client) -> Result<Self, ClientError> {
        connect(client, "/api/v1/device/channel")
            .await
            .map(|socket| Self { socket })
    }

    /// Waits for what comes next. Safe to cancel.
    pub async fn next(&mut self) -> Result<Incoming, Closed> {
        let Some(text) = next_text(&mut self.socket).await? else {
            return Ok(Incoming::Other);
        };
        Ok(serde_json::from_str(&text)
            .map_or(Incoming::Other, |frame| Incoming::Frame(Box::new(frame))))
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &AgentFrame) -> Result<(), Closed> {
        let text = serde_json::to_string(frame).map_err(|error| Closed {
            code: None,
            reason: error.to_string(),
        })?;
        self.send_message(Message::text(text)).await
    }

    /// Sends a ping: a server that is there answers.
    pub async fn ping(&mut self) -> Result<(), Closed> {
        self.send_message(Message::Ping(Vec::new().into())).await
    }

    async fn send_message(&mut self, message: Message) -> Result<(), Closed> {
        match timeout(SEND_TIMEOUT, self.socket.send(message)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(Closed {
                code: None,
                reason: "the server does not read".to_owned(),
            }),
        }
    }

    /// Says goodbye: the server then knows that the device is gone on purpose.
    pub async fn close(mut self) {
        let goodbye = CloseFrame {
            code: CloseCode::Normal,
            reason: "the agent is stopping".into(),
        };
        let _gone = timeout(Duration::from_secs(1), self.socket.close(Some(goodbye))).await;
        // Until the server has answered, the goodbye may still be on its way.
        let answered = async { while next_text(&mut self.socket).await.is_ok() {} };
        let _gone = timeout(Duration::from_secs(1), answered).await;
    }
}
