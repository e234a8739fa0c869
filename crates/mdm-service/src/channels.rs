//! Which devices have a live channel on this node, and who waits for which command.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mdm_core::ids::{CommandId, ConnectionId, DeviceId, OrganizationId};
use tokio::sync::{Notify, mpsc};

/// What a channel's task is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelSignal {
    /// Tell the device not to begin this command.
    Cancel(CommandId),
    /// Another channel of the same device took this one's place.
    Replaced,
    /// The device was unenrolled or enrolled anew: look whether the channel's token still is its.
    EnrollmentChanged,
    /// The device's policies or applications changed.
    PoliciesChanged,
}

/// The task's end of a channel.
pub struct ChannelSeat {
    /// Notified when a command waits.
    pub commands: Arc<Notify>,
    /// What else there is to say. Bounded: closed by the registry when the task does not keep up.
    pub signals: mpsc::Receiver<ChannelSignal>,
}

struct Channel {
    connection: ConnectionId,
    commands: Arc<Notify>,
    signals: mpsc::Sender<ChannelSignal>,
}

type DeviceKey = (OrganizationId, DeviceId);

/// The live channels of this node, one per device.
#[derive(Default)]
pub struct DeviceChannels(Mutex<HashMap<DeviceKey, Channel>>);

const SIGNALS_WAITING: usize = 64;

impl DeviceChannels {
    fn table(&self) -> MutexGuard<'_, HashMap<DeviceKey, Channel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seats a new channel; one that the device had before is told that it was replaced.
    pub fn open(
        &self,
        organization: OrganizationId,
        device: DeviceId,
        connection: ConnectionId,
    ) -> ChannelSeat {
        let (signals, receiver) = mpsc::channel(SIGNALS_WAITING);
        let commands = Arc::new(Notify::new());
        let channel = Channel {
            connection,
            commands: Arc::clone(&commands),
            signals,
        };
        let before = self.table().insert((organization, device), channel);
        if let Some(before) = before {
            // A task whose queue is full sees the queue end instead, and ends as well.
            let _full_or_gone = before.signals.try_send(ChannelSignal::Replaced);
        }
        ChannelSeat {
            commands,
            signals: receiver,
        }
    }

    /// Removes the channel unless a newer one has taken its place; says whether it was removed.
    pub fn close(
        &self,
        organization: OrganizationId,
        device: DeviceId,
        connection: ConnectionId,
    ) -> bool {
        let mut table = self.table();
        let key = (organization, device);
        let own = table
            .get(&key)
            .is_some_and(|channel| channel.connection == connection);
        if own {
            table.remove(&key);
        }
        own
    }

    /// Whether the device has a live channel here.
    pub fn is_open(&self, organization: OrganizationId, device: DeviceId) -> bool {
        self.table().contains_key(&(organization, device))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.table().len()
    }

    /// Tells the device's channel, if it is here, that a command waits.
    pub fn wake(&self, organization: OrganizationId, device: DeviceId) {
        if let Some(channel) = self.table().get(&(organization, device)) {
            channel.commands.notify_one();
        }
    }

    /// The organisation's devices that have a channel here.
    pub fn of(&self, organization: OrganizationId) -> Vec<DeviceId> {
        let table = self.table();
        let own = table.keys().filter(|(owner, _)| *owner == organization);
        own.map(|(_, device)| *device).collect()
    }

    /// Tells every channel to look for commands and at its token: events may have been missed.
    pub fn wake_all(&self) {
        for channel in self.table().values() {
            channel.commands.notify_one();
            let _busy_or_gone = channel.signals.try_send(ChannelSignal::EnrollmentChanged);
        }
    }

    /// Says something that may be missed: the device asks for it at its next check-in anyway.
    pub fn signal_if_open(
        &self,
        organization: OrganizationId,
        device: DeviceId,
        signal: ChannelSignal,
    ) {
        if let Some(channel) = self.table().get(&(organization, device)) {
            let _busy_or_gone = channel.signals.try_send(signal);
        }
    }

    /// Says something to the device's channel, if it is here. A channel that cannot take it is
    /// dropped: its task ends, the agent reconnects and asks for everything anew.
    pub fn signal(&self, organization: OrganizationId, device: DeviceId, signal: ChannelSignal) {
        let mut table = self.table();
        let key = (organization, device);
        if table
            .get(&key)
            .is_some_and(|channel| channel.signals.try_send(signal).is_err())
        {
            table.remove(&key);
        }
    }
}

/// Requests on this node that wait for a command to end.
#[derive(Default)]
pub struct CommandWatch(Mutex<HashMap<CommandId, Arc<Notify>>>);

/// One request's place; leaving it tidies up.
pub struct Watching<'a> {
    watch: &'a CommandWatch,
    command: CommandId,
    notify: Arc<Notify>,
}

impl CommandWatch {
    fn table(&self) -> MutexGuard<'_, HashMap<CommandId, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait; whoever does this before reading the ledger misses nothing.
    pub fn watch(&self, command: CommandId) -> Watching<'_> {
        let notify = Arc::clone(self.table().entry(command).or_default());
        Watching {
            watch: self,
            command,
            notify,
        }
    }

    /// The command moved: who waits for it looks again.
    pub fn moved(&self, command: CommandId) {
        if let Some(notify) = self.table().get(&command) {
            notify.notify_waiters();
        }
    }

    /// Any command may have moved: everybody looks again.
    pub fn all_moved(&self) {
        for notify in self.table().values() {
            notify.notify_waiters();
        }
    }

    /// Whether nobody waits for anything.
    pub fn is_idle(&self) -> bool {
        self.table().is_empty()
    }
}

impl Watching<'_> {
    /// The next move. Create it before reading the ledger, await it after.
    pub fn next_move(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        let mut table = self.watch.table();
        // Two holders are the table and this place: nobody else waits.
        if Arc::strong_count(&self.notify) <= 2 {
            table.remove(&self.command);
        }
    }
}
