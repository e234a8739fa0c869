//! What the agent tells of itself when it is asked on its machine.

use mdm_proto::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{AgentError, Config, StateDir, clock, journal::Journal, state::write_whole};

/// How the agent reaches its server at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// By its channel.
    Channel,
    /// By check-ins.
    Polling,
    /// Not at all.
    None,
}

/// What a running agent notes for `status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Contact {
    /// How it reached the server last.
    pub link: Link,
    /// Since when.
    pub since: Timestamp,
    /// What went wrong last, if something did.
    pub last_error: Option<String>,
}

impl Contact {
    /// Notes how the server is reached. That it cannot be noted must not stop the agent.
    pub fn note(state: &StateDir, link: Link, last_error: Option<String>) {
        let contact = Self {
            link,
            since: clock::now().into(),
            last_error,
        };
        let written = serde_json::to_vec(&contact)
            .map_err(std::io::Error::from)
            .and_then(|bytes| write_whole(&state.file("status.json"), &bytes));
        if let Err(error) = written {
            tracing::warn!(%error, "cannot write status.json");
        }
    }
}

/// The answer of `mdm-agent status`.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Whether the machine is enrolled.
    pub enrolled: bool,
    /// Whether an agent runs on this state directory.
    pub running: bool,
    /// The server's address.
    pub server: Option<String>,
    /// The server's id for the device.
    pub device_id: Option<String>,
    /// The hardware's identifier.
    pub uuid: Option<String>,
    /// How the server was reached last.
    pub contact: Option<Contact>,
    /// Outcomes of commands that the server does not know yet.
    pub pending_results: usize,
}

/// Reads the state directory.
pub fn status(config: &Config) -> Result<Status, AgentError> {
    let state = StateDir::open(&config.state_dir)?;
    let identity = state.identity()?;
    let running = state.lock().is_err();
    let contact = std::fs::read(state.file("status.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let journal = state.file("journal.db");
    let pending_results = if journal.exists() {
        Journal::open(&journal)?
            .now(|ledger| ledger.unsent_ids(i64::MAX))?
            .len()
    } else {
        0
    };
    Ok(Status {
        enrolled: identity.is_some(),
        running,
        server: identity
            .as_ref()
            .map(|identity| identity.server.to_string()),
        device_id: identity
            .as_ref()
            .map(|identity| identity.device_id.to_string()),
        uuid: identity.map(|identity| identity.uuid),
        contact,
        pending_results,
    })
}
