//! The server itself.

use mdm_proto::system::{Health, WebSocketStatus};
use reqwest::Method;
use serde_json::Value;

use crate::{Client, ClientError};

impl Client {
    /// The server's health. An unhealthy server answers, too: then this is an error with status 503.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.get("/health").await
    }

    /// Whether the process serves; an error if it does not.
    pub async fn live(&self) -> Result<(), ClientError> {
        self.call(Method::GET, "/livez")?.done().await
    }

    /// Whether the server takes work; an error with status 503 without a database or while it stops.
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.call(Method::GET, "/readyz")?.done().await
    }

    /// The metrics, as Prometheus text. From elsewhere than the server's own machine, the client's
    /// token must be the metrics token.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        self.call(Method::GET, "/metrics")?.text().await
    }

    /// The public keys of the access tokens (RFC 7517).
    pub async fn jwks(&self) -> Result<Value, ClientError> {
        self.get("/.well-known/jwks.json").await
    }

    /// The `OpenAPI` document.
    pub async fn openapi(&self) -> Result<Value, ClientError> {
        self.get("/api/v1/openapi.json").await
    }

    /// What the event stream is doing.
    pub async fn websocket_status(&self) -> Result<WebSocketStatus, ClientError> {
        self.get("/api/v1/websocket/status").await
    }
}
