//! The server itself.

use mdm_proto::system::{Health, WebSocketStatus};

use crate::{Client, ClientError, http::answer};

impl Client {
    /// The server's health. An unhealthy server answers, too: then this is an error with status 503.
    pub async fn health(&self) -> Result<Health, ClientError> {
        answer(self.request(reqwest::Method::GET, "/health")).await
    }

    /// What the event stream is doing.
    pub async fn websocket_status(&self) -> Result<WebSocketStatus, ClientError> {
        self.get("/api/v1/websocket/status").await
    }
}
