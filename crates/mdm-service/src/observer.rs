//! What the services learn from the event log, whichever node wrote it: that a command waits for
//! a device whose channel is here or was called off, that a device's token is another one now, that
//! a command moved which somebody waits for, that a session ended.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mdm_core::{
    commands::CommandStatus,
    devices::DeviceStatus,
    events::EventKind,
    ids::{CommandId, OrganizationId},
};
use mdm_events::{Cursor, LogEvent};
use serde::Deserialize;

use crate::{channels::ChannelSignal, services::Services, stream::Observer};

/// Connected devices are told of a change in portions, so that they do not all ask at once.
const TELL_AT_ONCE: usize = 100;
const TELL_AFTER: Duration = Duration::from_millis(200);

/// The organisations whose connected devices are about to be told of a change.
#[derive(Debug, Default)]
pub struct Telling(Mutex<HashSet<OrganizationId>>);

impl Telling {
    fn begin(&self, organization: OrganizationId) -> bool {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.insert(organization)
    }

    fn end(&self, organization: OrganizationId) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.remove(&organization);
    }
}

/// Passes on to the services what the log tells.
pub struct ServiceObserver(Services);

#[derive(Deserialize)]
struct Moved {
    command_id: CommandId,
    status: CommandStatus,
}

#[derive(Deserialize)]
struct Changed {
    new_status: DeviceStatus,
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
        if !here {
            return;
        }
        let (organization, channels) = (record.organization_id, self.0.channels());
        match moved.status {
            CommandStatus::Pending => channels.wake(organization, device),
            CommandStatus::Cancelled => {
                let cancel = ChannelSignal::Cancel(moved.command_id);
                channels.signal(organization, device, cancel);
            }
            _ => {}
        }
    }

    fn status_changed(&self, event: &LogEvent) {
        let record = event.record();
        let (organization, channels) = (record.organization_id, self.0.channels());
        let Some(device) = record
            .device_id
            .filter(|device| channels.is_open(organization, *device))
        else {
            return;
        };
        let Ok(changed) = serde_json::from_str::<Changed>(record.payload.get()) else {
            return;
        };
        match changed.new_status {
            DeviceStatus::Enrolled | DeviceStatus::Unenrolled => {
                channels.signal(organization, device, ChannelSignal::EnrollmentChanged);
            }
            // Another node lost its channel and did not know of the one here.
            DeviceStatus::Offline => {
                let services = self.0.clone();
                tokio::spawn(async move {
                    if let Err(error) = services.device_back_online(organization, device).await {
                        tracing::warn!(%device, %error, "cannot note that the device is online");
                    }
                });
            }
            _ => {}
        }
    }
}

impl ServiceObserver {
    /// Tells the device that the event is about, or, if it is about many, the organisation's
    /// devices that are connected here, one after the other: each of them will ask for its policies.
    fn policies_changed(&self, event: &LogEvent) {
        let record = event.record();
        let (organization, channels) = (record.organization_id, self.0.channels());
        if let Some(device) = record.device_id {
            channels.signal_if_open(organization, device, ChannelSignal::PoliciesChanged);
            return;
        }
        if !self.0.telling.begin(organization) {
            return;
        }
        let services = self.0.clone();
        tokio::spawn(async move {
            // Changes come in bursts; one round tells of all that were made until it begins.
            tokio::time::sleep(TELL_AFTER).await;
            services.telling.end(organization);
            for devices in services.channels().of(organization).chunks(TELL_AT_ONCE) {
                for device in devices {
                    services.channels().signal_if_open(
                        organization,
                        *device,
                        ChannelSignal::PoliciesChanged,
                    );
                }
                tokio::time::sleep(TELL_AFTER).await;
            }
        });
    }
}

impl Observer for ServiceObserver {
    fn observe(&self, events: &[Arc<LogEvent>]) {
        self.0.changes.happened();
        self.0.endpoints.observe(events);
        for event in events {
            match event.record().kind {
                Some(EventKind::CommandExecution) => self.command_moved(event),
                Some(EventKind::DeviceStatusChange) => self.status_changed(event),
                Some(EventKind::SessionEnded) => {
                    if let Some(session) = event.ended_session() {
                        self.0.tokens().session_ended(session);
                    }
                }
                Some(
                    EventKind::PolicyAssignment
                    | EventKind::PolicyChanged
                    | EventKind::GroupMembership
                    | EventKind::ApplicationChanged,
                ) => self.policies_changed(event),
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
