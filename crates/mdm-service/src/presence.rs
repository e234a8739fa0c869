//! Presence: who is online. Sightings touch memory first and the database in batches.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mdm_core::{
    Timestamp,
    devices::{Device, DeviceStatus},
    events::{EventData, NewEvent},
    ids::{ConnectionId, DeviceId, OrganizationId},
};
use mdm_store::{StoreError, devices, devices::Sighting, events};
use tokio_util::sync::CancellationToken;

use crate::{channels::ChannelSeat, groups::Changed, services::Services};

/// How long a channel that broke without a word may take to come back before its device is
/// offline.
const RECONNECT_GRACE: Duration = Duration::from_secs(3);
const FLUSH_EVERY: Duration = Duration::from_secs(1);
const BATCH: usize = 1_000;
/// How many devices that count as online are looked at each second: of a million, each every
/// fifty seconds, which is short against the silence that is looked for.
const SWEPT_AT_ONCE: i64 = 20_000;

/// How far the look for silent devices has come; none at the beginning.
type Place = Option<(OrganizationId, DeviceId)>;

/// Sightings that are not in the database yet.
#[derive(Default)]
pub struct Presence(Mutex<HashMap<(OrganizationId, DeviceId), Timestamp>>);

impl Presence {
    fn table(&self) -> MutexGuard<'_, HashMap<(OrganizationId, DeviceId), Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self, organization: OrganizationId, device: DeviceId, at: Timestamp) {
        self.table().insert((organization, device), at);
    }

    fn seen_since(&self, organization: OrganizationId, device: DeviceId, since: Timestamp) -> bool {
        self.table()
            .get(&(organization, device))
            .is_some_and(|at| *at > since)
    }

    fn batch(&self) -> Vec<Sighting> {
        self.table()
            .iter()
            .take(BATCH)
            .map(|(&(organization_id, device_id), &at)| Sighting {
                organization_id,
                device_id,
                at,
            })
            .collect()
    }

    /// Forgets a written sighting, unless the device was seen again since.
    fn written(&self, sighting: &Sighting) {
        let mut table = self.table();
        let key = (sighting.organization_id, sighting.device_id);
        if table.get(&key) == Some(&sighting.at) {
            table.remove(&key);
        }
    }
}

impl Services {
    /// Notes that a device was heard from, without a word to the database.
    pub fn device_seen(&self, organization: OrganizationId, device: DeviceId) {
        self.presence.touch(organization, device, self.now());
    }

    /// A device checked in: it is online from now on, until it is silent for twice the interval.
    pub async fn device_checked_in(&self, device: &Device) -> Result<(), StoreError> {
        self.device_seen(device.organization_id, device.id);
        if device.status == DeviceStatus::Online {
            return Ok(());
        }
        self.device_online(device.organization_id, device.id).await
    }

    /// When a device shall check in again, in seconds, jittered.
    pub fn next_checkin_seconds(&self) -> i64 {
        let mut fraction = [0_u8; 1];
        self.entropy.fill(&mut fraction);
        let [fraction] = fraction;
        self.pace.jittered_seconds(fraction)
    }

    /// A device's channel is open: it is online from now on.
    pub async fn channel_opened(
        &self,
        organization: OrganizationId,
        device: DeviceId,
        connection: ConnectionId,
    ) -> Result<ChannelSeat, StoreError> {
        let seat = self.channels.open(organization, device, connection);
        self.device_seen(organization, device);
        self.device_online(organization, device).await?;
        Ok(seat)
    }

    /// A device's channel is closed, on which it was last heard at `heard`. After an orderly goodbye
    /// the device is offline at once, otherwise if it is not heard of again within some seconds, on
    /// whichever node.
    pub async fn channel_closed(
        &self,
        organization: OrganizationId,
        device: DeviceId,
        connection: ConnectionId,
        heard: Timestamp,
        orderly: bool,
    ) {
        if !self.channels.close(organization, device, connection) {
            return;
        }
        if !orderly {
            tokio::time::sleep(RECONNECT_GRACE).await;
        }
        if let Err(error) = self.device_offline(organization, device, heard).await {
            // The sweep for silent devices finds it later.
            tracing::warn!(%device, %error, "cannot note that the device went offline");
        }
    }

    /// Makes a device online unless it is, with the event.
    pub async fn device_online(
        &self,
        organization: OrganizationId,
        id: DeviceId,
    ) -> Result<(), StoreError> {
        let now = self.now();
        let mut tx = self.begin().await?;
        let Some(device) = devices::lock(&mut tx, organization, id).await? else {
            return Ok(());
        };
        if matches!(
            device.status,
            DeviceStatus::Online | DeviceStatus::Unenrolled
        ) {
            return Ok(());
        }
        devices::set_status(&mut tx, &device, DeviceStatus::Online, Some(now)).await?;
        let event = status_change(&device, DeviceStatus::Online);
        events::append(&mut tx, now, &event).await?;
        let device = Device {
            status: DeviceStatus::Online,
            ..device
        };
        self.follow_filters(&mut tx, &device, Changed::Status)
            .await?;
        self.commit(tx).await
    }

    /// Another node has noted that the device is offline, but its channel is here.
    pub(crate) async fn device_back_online(
        &self,
        organization: OrganizationId,
        device: DeviceId,
    ) -> Result<(), StoreError> {
        if self.channels.is_open(organization, device) {
            self.device_online(organization, device).await?;
        }
        Ok(())
    }

    /// Makes a device offline if it is online, has no channel here, and was not seen after
    /// `since`.
    async fn device_offline(
        &self,
        organization: OrganizationId,
        id: DeviceId,
        since: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let Some(device) = devices::lock(&mut tx, organization, id).await? else {
            return Ok(());
        };
        let heard = device.last_seen.is_some_and(|at| at > since)
            || self.presence.seen_since(organization, id, since);
        if device.status != DeviceStatus::Online || heard || self.channels.is_open(organization, id)
        {
            return Ok(());
        }
        devices::set_status(&mut tx, &device, DeviceStatus::Offline, None).await?;
        events::append(
            &mut tx,
            self.now(),
            &status_change(&device, DeviceStatus::Offline),
        )
        .await?;
        let device = Device {
            status: DeviceStatus::Offline,
            ..device
        };
        self.follow_filters(&mut tx, &device, Changed::Status)
            .await?;
        self.commit(tx).await
    }

    /// Writes sightings and looks for silent devices until told to stop; then writes the rest.
    pub async fn run_presence(self, stop: CancellationToken) {
        let mut swept_to = None;
        loop {
            let stopping = stop
                .run_until_cancelled(tokio::time::sleep(FLUSH_EVERY))
                .await
                .is_none();
            if let Err(error) = self.flush_sightings().await {
                tracing::warn!(%error, "cannot write when devices were last seen; trying again");
            }
            if stopping {
                return;
            }
            if !self.lead.is_held() {
                continue;
            }
            match self.sweep_silent(swept_to).await {
                Ok(place) => swept_to = place,
                Err(error) => {
                    tracing::warn!(%error, "cannot look for devices that fell silent; trying again");
                }
            }
        }
    }

    async fn flush_sightings(&self) -> Result<(), StoreError> {
        // As many rounds as the table has batches: rows that are locked now wait for the next call.
        let rounds = self.presence.table().len().div_ceil(BATCH);
        for _ in 0..rounds {
            let batch = self.presence.batch();
            let mut conn = self.pool.acquire().await?;
            let written = devices::record_sightings(&mut conn, &batch).await?;
            for sighting in batch
                .iter()
                .filter(|sighting| written.contains(&sighting.device_id))
            {
                self.presence.written(sighting);
            }
        }
        Ok(())
    }

    /// Looks at the next devices for silent ones, and says where to go on.
    async fn sweep_silent(&self, after: Place) -> Result<Place, StoreError> {
        let since = self.pace.offline_before(self.now());
        let mut conn = self.pool.acquire().await?;
        let slice = devices::online_slice(&mut conn, since, after, SWEPT_AT_ONCE).await?;
        drop(conn);
        for (organization, device) in slice.silent {
            self.device_offline(organization, device, since).await?;
        }
        Ok(slice.next)
    }
}

/// The event of a device that moves to another status.
pub(crate) fn status_change(device: &Device, to: DeviceStatus) -> NewEvent {
    let data = EventData::DeviceStatusChange {
        device_id: device.id,
        old_status: Some(device.status),
        new_status: to,
    };
    NewEvent::new(device.organization_id, data)
}
