//! What the services learn from the event log, whichever node wrote it: that a command waits for
//! a device whose channel is here, that a command moved which somebody waits for, that a session
//! ended.

use std::sync::Arc;

use mdm_core::{commands::CommandStatus, events::EventKind, ids::CommandId};
use mdm_events::{Cursor, LogEvent};
use serde::Deserialize;

use crate::{services::Services, stream::Observer};

/// Passes on to the services what the log tells.
pub struct ServiceObserver(Services);

#[derive(Deserialize)]
struct Moved {
    command_id: CommandId,
    status: CommandStatus,
}

impl ServiceObserver {
    /// For these services.
    pub const fn new(services: Services) -> Self {
        Self(services)
    }

    fn command_moved(&self, event: &LogEvent) {
        let record = event.record();
        let Some(device) = record.device_id else {
            return;
        };
        let here = self.0.channels().is_open(record.organization_id, device);
        if !here && self.0.watch().is_idle() {
            return;
        }
        let Ok(moved) = serde_json::from_str::<Moved>(record.payload.get()) else {
            return;
        };
        self.0.watch().moved(moved.command_id);
        if here && moved.status == CommandStatus::Pending {
            self.0.channels().wake(record.organization_id, device);
        }
    }
}

impl Observer for ServiceObserver {
    fn observe(&self, events: &[Arc<LogEvent>]) {
        for event in events {
            match event.record().kind {
                Some(EventKind::CommandExecution) => self.command_moved(event),
                Some(EventKind::SessionEnded) => {
                    if let Some(session) = event.ended_session() {
                        self.0.tokens().session_ended(session);
                    }
                }
                _ => {}
            }
        }
    }

    fn missed(&self, _position: Cursor) {
        self.0.channels().wake_all();
        self.0.watch().all_moved();
        let tokens = Arc::clone(self.0.tokens());
        tokio::spawn(async move {
            if let Err(error) = tokens.reload().await {
                tracing::warn!(%error, "cannot read which sessions ended; trying again within seconds");
            }
        });
    }
}
