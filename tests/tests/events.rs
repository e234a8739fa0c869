//! A client of the event stream that remembers what it saw.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Error, Message, client::IntoClientRequest, http::StatusCode},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A subscriber of the event stream.
pub struct Watcher {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub welcome: Value,
    /// Every event that came, in the order in which it came.
    pub seen: Vec<Value>,
}

impl Watcher {
    /// Connects, after the event `after` if one is given. The welcome has come when this returns.
    pub async fn connect(server: &str, token: &str, after: Option<&str>) -> Result<Self, Error> {
        let query = after.map(|after| format!("after={after}"));
        Self::connect_with(server, token, &query.unwrap_or_default()).await
    }

    /// Connects with a query string.
    pub async fn connect_with(server: &str, token: &str, query: &str) -> Result<Self, Error> {
        let address = server.replacen("http", "ws", 1);
        let mut request = format!("{address}/api/v1/ws?{query}").into_client_request()?;
        request
            .headers_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
        let (mut socket, response) = tokio_tungstenite::connect_async(request).await?;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let welcome = next(&mut socket).await?.ok_or(Error::ConnectionClosed)?;
        assert_eq!(welcome["type"], "welcome");
        Ok(Self {
            socket,
            welcome,
            seen: Vec::new(),
        })
    }

    /// The next event; control frames are passed over. `None` when the connection ends.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            let frame = next(&mut self.socket).await.ok().flatten()?;
            assert_ne!(frame["type"], "resync", "{frame}");
            if frame["id"].is_string() {
                self.seen.push(frame.clone());
                return Some(frame);
            }
        }
    }

    /// The code with which the connection is closed, after whatever comes before.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.unwrap() {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("a close frame was expected, not {other:?}"),
            }
        }
    }

    /// Reads until an event comes for which this is true.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let event = self
                    .next()
                    .await
                    .unwrap_or_else(|| panic!("the stream ended before {what}"));
                if wanted(&event) {
                    return event;
                }
            }
        };
        timeout(PATIENCE, found)
            .await
            .unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    pub fn last_id(&self) -> Option<String> {
        self.seen
            .last()
            .map(|event| event["id"].as_str().unwrap().to_owned())
    }

    pub async fn close(mut self) -> Vec<Value> {
        let _gone = self.socket.close(None).await;
        self.seen
    }
}

async fn next(
    socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>,
) -> Result<Option<Value>, Error> {
    while let Some(message) = socket.next().await {
        match message? {
            Message::Text(text) => return Ok(Some(serde_json::from_str(&text).unwrap())),
            Message::Ping(payload) => socket.send(Message::Pong(payload)).await?,
            Message::Close(_) => return Ok(None),
            _ => {}
        }
    }
    Ok(None)
}

pub fn ids(events: &[Value]) -> Vec<String> {
    events
        .iter()
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect()
}
