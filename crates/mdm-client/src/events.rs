//! The event stream.

use mdm_proto::events::Frame;

use crate::{
    Client, ClientError,
    channel::{Closed, Socket, connect, next_text},
    http::segment,
};

/// A subscription to the event stream. It ends with its connection: connect again with
/// [`last_id`](Self::last_id), and nothing is missed and nothing comes twice.
pub struct EventStream {
    socket: Socket,
    last_id: Option<String>,
}

impl EventStream {
    /// Connects, after the event `after` if one is given; `types` are event types, all if empty.
    pub async fn connect(
        client: &Client,
        after: Option<&str>,
        types: &[&str],
    ) -> Result<Self, ClientError> {
        let after_query = after.map(|after| format!("after={}", segment(after)));
        let types_query =
            (!types.is_empty()).then(|| format!("types={}", segment(&types.join(","))));
        let query: Vec<_> = [after_query, types_query].into_iter().flatten().collect();
        let path = if query.is_empty() {
            "/api/v1/ws".to_owned()
        } else {
            format!("/api/v1/ws?{}", query.join("&"))
        };
        let socket = connect(client, &path).await?;
        Ok(Self {
            socket,
            last_id: after.map(str::to_owned),
        })
    }

    /// Waits for the next frame: an event, which has an id, or a control frame, which has none.
    pub async fn next(&mut self) -> Result<Frame, Closed> {
        loop {
            let Some(text) = next_text(&mut self.socket).await? else {
                continue;
            };
            let Ok(frame) = serde_json::from_str::<Frame>(&text) else {
                continue;
            };
            if let Some(id) = &frame.id {
                self.last_id = Some(id.clone());
            }
            return Ok(frame);
        }
    }

    /// The cursor of the last event that came: where to go on.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }
}
