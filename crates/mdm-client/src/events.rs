//! The event log: piece by piece, and as a stream.

use std::{fmt, time::Duration};

use futures_util::SinkExt as _;
use mdm_proto::events::{ClientFrame, EventPage, Filters, Frame};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::{
    Client, ClientError,
    channel::{Closed, Socket, connect, next_text},
    http::with_query,
};

/// A server pings every 25 s at the latest, so that it is gone by then.
const SILENCE: Duration = Duration::from_secs(90);

/// Which events. An event must pass each filter that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Only events after the one with this id.
    pub after: Option<String>,
    /// Only events of these types; of all if empty.
    pub types: Vec<String>,
    /// Only events of these devices, by the server's ids; of all if empty.
    pub device_ids: Vec<Uuid>,
    /// Only events of these groups; of all if empty.
    pub group_ids: Vec<Uuid>,
    /// How many at most, 1 to 500, by default 50. A stream has no limit.
    pub limit: Option<u16>,
}

impl fmt::Display for EventQuery {
    /// The query string.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = |ids: &[Uuid]| {
            let ids: Vec<_> = ids.iter().map(Uuid::to_string).collect();
            ids.join(",")
        };
        let pairs = [
            ("after", self.after.clone().unwrap_or_default()),
            ("types", self.types.join(",")),
            ("device_id", ids(&self.device_ids)),
            ("group_id", ids(&self.group_ids)),
            (
                "limit",
                self.limit
                    .map(|limit| limit.to_string())
                    .unwrap_or_default(),
            ),
        ];
        let mut writer = url::form_urlencoded::Serializer::new(String::new());
        let given = pairs.into_iter().filter(|(_, value)| !value.is_empty());
        f.write_str(&writer.extend_pairs(given).finish())
    }
}

impl Client {
    /// A piece of the event log, from its oldest event on if `after` is not given. A cursor that
    /// leads nowhere is a 410.
    pub async fn events(&self, query: &EventQuery) -> Result<EventPage, ClientError> {
        self.get(&with_query("/api/v1/events", &query.to_string()))
            .await
    }
}

/// One connection to the event stream. It ends with its connection: connect again after
/// [`cursor`](Self::cursor), and nothing is missed and nothing comes twice. [`Follower`] does so.
///
/// [`Follower`]: crate::Follower
pub struct EventStream {
    socket: Socket,
    cursor: Option<String>,
}

impl EventStream {
    /// Connects, after the event `after` if one is given; `types` are event types, all if empty.
    pub async fn connect(
        client: &Client,
        after: Option<&str>,
        types: &[&str],
    ) -> Result<Self, ClientError> {
        let query = EventQuery {
            after: after.map(str::to_owned),
            types: types.iter().map(|&kind| kind.to_owned()).collect(),
            ..EventQuery::default()
        };
        Self::follow(client, &query).await
    }

    /// Connects with all filters that there are.
    pub async fn follow(client: &Client, query: &EventQuery) -> Result<Self, ClientError> {
        let query = EventQuery {
            limit: None,
            ..query.clone()
        };
        let path = with_query("/api/v1/ws", &query.to_string());
        let socket = connect(client, &path).await?;
        Ok(Self {
            socket,
            cursor: query.after,
        })
    }

    /// Waits for the next frame: an event, which has an id, or a control frame, which has none. A
    /// server that gives no sign of life for 90 s counts as gone. Safe to cancel.
    pub async fn next(&mut self) -> Result<Frame, Closed> {
        loop {
            let heard = timeout(SILENCE, next_text(&mut self.socket)).await;
            let Some(text) = heard.map_err(|_elapsed| Closed::silent())?? else {
                continue;
            };
            let Ok(frame) = serde_json::from_str::<Frame>(&text) else {
                continue;
            };
            self.note(&frame);
            return Ok(frame);
        }
    }

    /// How far the stream has come. A welcome before a replay names a position that is yet to come.
    fn note(&mut self, frame: &Frame) {
        let told = frame.data.get("cursor").and_then(Value::as_str);
        match (&frame.id, frame.kind.as_str()) {
            (Some(id), _) => self.cursor = Some(id.clone()),
            (None, "heartbeat" | "resync") => self.cursor = told.map(str::to_owned),
            (None, "welcome") if self.cursor.is_none() => self.cursor = told.map(str::to_owned),
            _ => {}
        }
    }

    /// Where to go on: after the last event that came, or further where filters left events out.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Sets the filters anew, for what comes after the frame `subscribed`. `after` and `limit` of
    /// the query count for nothing here.
    pub async fn subscribe(&mut self, query: &EventQuery) -> Result<(), Closed> {
        let filters = Filters {
            types: query.types.clone(),
            device_ids: query.device_ids.clone(),
            group_ids: query.group_ids.clone(),
        };
        self.say(&ClientFrame::Subscribe(filters)).await
    }

    /// Keeps the connection beyond the end of its token: to be called, after the frame
    /// `token_expiring`, with a client that has a newer token of the same session.
    pub async fn renew(&mut self, client: &Client) -> Result<(), Closed> {
        match client.token() {
            Some(token) => {
                let token = token.expose_secret().to_owned();
                self.say(&ClientFrame::Authenticate { token }).await
            }
            // A key needs no renewal.
            None => Ok(()),
        }
    }

    async fn say(&mut self, frame: &ClientFrame) -> Result<(), Closed> {
        let text = serde_json::to_string(frame).map_err(|error| Closed {
            code: None,
            reason: error.to_string(),
        })?;
        Ok(self.socket.send(Message::text(text)).await?)
    }
}
