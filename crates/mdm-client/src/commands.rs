//! Commands, for operators.

use mdm_proto::commands::{Command, CommandList, OsqueryRequest, OsqueryResult, SendCommand};
use reqwest::Method;
use uuid::Uuid;

use crate::{
    Client, ClientError,
    http::{answer, segment},
};

impl Client {
    /// Sends a command. With `wait_seconds` (at most 60) the answer comes when it has ended or the
    /// time is over. With an idempotency key it can be repeated without becoming a second command.
    pub async fn send_command(
        &self,
        device: &str,
        command: &SendCommand,
        wait_seconds: Option<u8>,
        idempotency_key: Option<&str>,
    ) -> Result<Command, ClientError> {
        let wait = wait_seconds
            .map(|seconds| format!("?wait={seconds}"))
            .unwrap_or_default();
        let path = format!("/api/v1/devices/{}/commands{wait}", segment(device));
        let mut request = self.request(Method::POST, &path).json(command);
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        answer(request).await
    }

    /// A command with its steps.
    pub async fn command(&self, id: Uuid) -> Result<Command, ClientError> {
        self.get(&format!("/api/v1/commands/{id}")).await
    }

    /// A page of commands, the newest first; `query` is the query string.
    pub async fn list_commands(&self, query: &str) -> Result<CommandList, ClientError> {
        self.get(&format!("/api/v1/commands?{query}")).await
    }

    /// Withdraws a command.
    pub async fn cancel_command(&self, id: Uuid) -> Result<Command, ClientError> {
        answer(self.request(Method::POST, &format!("/api/v1/commands/{id}/cancel"))).await
    }

    /// Asks a device that is online an SQL query.
    pub async fn query_device(
        &self,
        device: &str,
        request: &OsqueryRequest,
    ) -> Result<OsqueryResult, ClientError> {
        self.post(
            &format!("/api/v1/devices/{}/osquery", segment(device)),
            request,
        )
        .await
    }
}
