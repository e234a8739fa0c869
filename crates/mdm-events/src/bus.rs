//! The bus between nodes, on NATS JetStream: events of the log, and wake-ups for devices.
//!
//! It makes things fast and nothing more. What NATS loses, repeats, or keeps for too long is found
//! out by the offsets of the events, and the log in PostgreSQL has them all: so a node behaves
//! alike with NATS, without it, and while it comes and goes.
//!
//! The leader publishes what it reads from the log; each node follows with an ordered consumer.
//! Subjects carry the stream's id, so that several installations can share one NATS.

mod consumer;
mod publisher;
mod wire;

use std::{sync::Arc, time::Duration};

use async_nats::{
    Client, ConnectOptions,
    connection::State,
    jetstream::{
        self,
        stream::{Config, DiscardPolicy, StorageType, Stream},
    },
};
use futures_util::StreamExt;
use mdm_core::ids::{DeviceId, OrganizationId};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::envelope::LogEvent;

/// Batches that may wait to be published, or to be taken. What comes on top is left to the log.
const WAITING: usize = 64;
/// How long a task waits after a failure before it tries again.
const RETRY: Duration = Duration::from_millis(500);
/// How long NATS may take to answer a probe.
const PROBE: Duration = Duration::from_secs(2);
/// How long NATS keeps events: a node that is further behind reads the log.
const KEEP: Duration = Duration::from_mins(2);
/// How much of NATS's memory the events may take.
const KEEP_BYTES: i64 = 64 * 1024 * 1024;

/// The URL is not one of a NATS server, or says something that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BusError(String);

/// A node's connection to the bus. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    client: Client,
    jetstream: jetstream::Context,
    /// What the subjects begin with.
    prefix: Arc<str>,
    outgoing: mpsc::Sender<Arc<[Arc<LogEvent>]>>,
}

/// What comes from the bus, and what [`Bus::run`] needs.
pub struct BusEnds {
    /// Events of the log, in pieces of consecutive ones; pieces may be missing or come twice.
    pub events: mpsc::Receiver<Vec<LogEvent>>,
    tasks: Tasks,
}

/// The ends that the bus's tasks hold.
pub struct Tasks {
    outgoing: mpsc::Receiver<Arc<[Arc<LogEvent>]>>,
    incoming: mpsc::Sender<Vec<LogEvent>>,
}

impl BusEnds {
    /// Parts the events from what the tasks hold.
    pub fn split(self) -> (mpsc::Receiver<Vec<LogEvent>>, Tasks) {
        (self.events, self.tasks)
    }
}

impl Bus {
    /// Begins to connect to the servers of `url` (`nats://host:4222`, several with commas). That
    /// none can be reached is no error: the connection is made when one can.
    pub async fn connect(url: &str, stream: Uuid) -> Result<(Self, BusEnds), BusError> {
        let servers: Result<Vec<async_nats::ServerAddr>, _> =
            url.split(',').map(|server| server.trim().parse()).collect();
        let servers = servers.map_err(|error| BusError(error.to_string()))?;
        let client = ConnectOptions::new()
            .name("mobius-mdm")
            .retry_on_initial_connect()
            .connection_timeout(PROBE)
            .reconnect_delay_callback(|attempts| {
                let doubled = 1_u64 << attempts.min(6);
                Duration::from_millis(50 * doubled)
            })
            .event_callback(|event| async move { tracing::info!(%event, "NATS") })
            .connect(servers)
            .await
            .map_err(|error| BusError(error.to_string()))?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(PROBE);
        let (outgoing, to_publish) = mpsc::channel(WAITING);
        let (incoming, events) = mpsc::channel(WAITING);
        let bus = Self {
            client,
            jetstream,
            prefix: format!("mdm-{}", stream.simple()).into(),
            outgoing,
        };
        let tasks = Tasks {
            outgoing: to_publish,
            incoming,
        };
        Ok((bus, BusEnds { events, tasks }))
    }

    /// Whether there is a connection at the moment.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Asks the server for a sign of life, and whether it has JetStream.
    pub async fn probe(&self) -> Result<(), BusError> {
        if !self.is_connected() {
            return Err(BusError("not connected".to_owned()));
        }
        let asked = tokio::time::timeout(PROBE, self.jetstream.query_account()).await;
        match asked {
            Ok(Ok(_account)) => Ok(()),
            Ok(Err(error)) => Err(BusError(format!("JetStream does not answer: {error}"))),
            Err(_elapsed) => Err(BusError("no answer within 2 s".to_owned())),
        }
    }

    /// Offers events of the log to the other nodes. To be called by the leader, in the log's order.
    pub fn publish(&self, events: &Arc<[Arc<LogEvent>]>) {
        if !self.is_connected() || self.outgoing.try_send(Arc::clone(events)).is_err() {
            metrics::counter!("mdm_bus_events_left_to_the_log_total")
                .increment(u64::try_from(events.len()).unwrap_or_default());
        }
    }

    /// Tells the node that holds the device's channel that a command waits.
    pub async fn wake(&self, organization: OrganizationId, device: DeviceId) {
        if self.is_connected() {
            let payload = [organization.uuid().into_bytes(), device.uuid().into_bytes()].concat();
            let subject = format!("{}.wake", self.prefix);
            // The log tells it, too.
            let _lost = self.client.publish(subject, payload.into()).await;
        }
    }

    /// Works until it is cancelled. `wake` is called for each device that a command waits for.
    pub async fn run(
        self,
        tasks: Tasks,
        wake: impl Fn(OrganizationId, DeviceId) + Send + Sync,
        cancel: CancellationToken,
    ) {
        let Tasks { outgoing, incoming } = tasks;
        let work = async {
            tokio::join!(
                publisher::run(&self, outgoing),
                consumer::run(&self, incoming),
                self.hear_wakes(wake),
            )
        };
        cancel.run_until_cancelled(work).await;
    }

    async fn hear_wakes(&self, wake: impl Fn(OrganizationId, DeviceId)) {
        loop {
            if let Ok(mut messages) = self.client.subscribe(format!("{}.wake", self.prefix)).await {
                while let Some(message) = messages.next().await {
                    if let Some((organization, device)) = read_wake(&message.payload) {
                        wake(organization, device);
                    }
                }
            }
            sleep(RETRY).await;
        }
    }

    /// The stream that holds the newest events, made if it is not there.
    async fn stream(&self) -> Result<Stream, jetstream::context::CreateStreamError> {
        let config = Config {
            name: self.prefix.to_string(),
            description: Some("Mobius MDM: the newest events of the log".to_owned()),
            subjects: vec![self.events_subject()],
            // The log is the truth, and this its fast copy: it need not outlive a restart.
            storage: StorageType::Memory,
            max_age: KEEP,
            max_bytes: KEEP_BYTES,
            discard: DiscardPolicy::Old,
            duplicate_window: KEEP,
            ..Config::default()
        };
        self.jetstream.get_or_create_stream(config).await
    }

    fn events_subject(&self) -> String {
        format!("{}.events", self.prefix)
    }
}

fn read_wake(payload: &[u8]) -> Option<(OrganizationId, DeviceId)> {
    let (organization, device) = payload.split_at_checked(16)?;
    let organization = Uuid::from_slice(organization).ok()?;
    let device = Uuid::from_slice(device).ok()?;
    Some((
        OrganizationId::from_uuid(organization),
        DeviceId::from_uuid(device),
    ))
}
