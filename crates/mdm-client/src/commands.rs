//! Commands, for operators.

use mdm_proto::commands::{
    Command, CommandBatch, CommandList, OsqueryRequest, OsqueryResult, SendCommand, SendToMany,
};
use reqwest::Method;
use uuid::Uuid;

use crate::{Client, ClientError, ListQuery, http::segment};

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
        match idempotency_key {
            Some(key) => {
                let client = self.clone().with_idempotency_key(key);
                client.post(&path, command).await
            }
            None => self.post(&path, command).await,
        }
    }

    /// Sends one command to many devices. Their number may still grow when the answer comes; the
    /// batch says in `expanded` whether it does.
    pub async fn send_to_many(&self, command: &SendToMany) -> Result<CommandBatch, ClientError> {
        self.post("/api/v1/commands", command).await
    }

    /// How far one command to many devices has come.
    pub async fn command_batch(&self, id: Uuid) -> Result<CommandBatch, ClientError> {
        self.get(&format!("/api/v1/command-batches/{id}")).await
    }

    /// A command with its steps.
    pub async fn command(&self, id: Uuid) -> Result<Command, ClientError> {
        self.get(&format!("/api/v1/commands/{id}")).await
    }

    /// A page of commands, the newest first. Filters: `status`, `command`, `batch_id`.
    pub async fn commands(&self, query: &ListQuery) -> Result<CommandList, ClientError> {
        self.list("/api/v1/commands", query).await
    }

    /// A page of a device's commands, with the same filters.
    pub async fn device_commands(
        &self,
        device: &str,
        query: &ListQuery,
    ) -> Result<CommandList, ClientError> {
        let path = format!("/api/v1/devices/{}/commands", segment(device));
        self.list(&path, query).await
    }

    /// Withdraws a command. A destructive one that is with its device stays: 409.
    pub async fn cancel_command(&self, id: Uuid) -> Result<Command, ClientError> {
        let path = format!("/api/v1/commands/{id}/cancel");
        self.call(Method::POST, &path)?.answer().await
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
