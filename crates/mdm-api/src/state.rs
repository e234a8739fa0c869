//! What handlers share.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use mdm_core::{
    Clock, Entropy,
    ids::{ConnectionId, new_uuid},
};
use mdm_service::Services;
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::live::LiveState;

/// What handlers share.
pub struct AppState {
    /// The use cases.
    pub services: Services,
    /// The event stream.
    pub live: LiveState,
    /// Cancelled when the server begins to stop.
    pub stopping: CancellationToken,
    /// How often agents send a heartbeat.
    pub heartbeat_seconds: u64,
    /// Where the server keeps its files.
    pub data_dir: PathBuf,
    /// What lets others than loopback read the metrics.
    pub metrics_token: Option<SecretString>,
    /// The metrics.
    pub metrics: PrometheusHandle,
    /// Time, for ids.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for ids.
    pub entropy: Arc<dyn Entropy>,
    /// Whether the example pages are served: only where the server is tried out.
    pub examples: AtomicBool,
}

impl AppState {
    /// Serves the example pages, too.
    pub fn show_examples(&self) {
        self.examples.store(true, Ordering::Relaxed);
    }

    /// Whether the example pages are served.
    pub fn shows_examples(&self) -> bool {
        self.examples.load(Ordering::Relaxed)
    }

    /// Whether the server has begun to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// A new id for a request that brought none.
    pub fn new_request_id(&self) -> String {
        new_uuid(self.clock.as_ref(), self.entropy.as_ref())
            .simple()
            .to_string()
    }

    /// A new id for a connection.
    pub fn new_connection_id(&self) -> ConnectionId {
        ConnectionId::new(self.clock.as_ref(), self.entropy.as_ref())
    }

    /// Reads the gauges that are read when somebody asks.
    pub fn observe(&self) {
        metrics::gauge!("mdm_device_channels").set(count(self.services.channels().count()));
        self.live.observe();
    }
}

/// A count as a gauge wants it; exact far beyond any number of connections.
fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}
