//! What handlers share, and how requests find them.

use std::{path::PathBuf, sync::Arc};

use actix_web::{HttpRequest, http::StatusCode, web};
use mdm_core::{
    Clock, Entropy,
    ids::{ConnectionId, new_uuid},
};
use mdm_service::Services;
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::{channel, live, live::LiveState, problem::ApiError, routes};

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
}

impl AppState {
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

/// Adds every route.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .configure(routes::system::configure_root)
        .configure(live::configure_root)
        .service(
            web::scope("/api/v1")
                .configure(routes::system::configure)
                .configure(routes::auth::configure)
                .configure(routes::devices::configure)
                .configure(routes::commands::configure)
                .configure(routes::enrollment_secrets::configure)
                .configure(routes::device_side::configure)
                .configure(channel::configure)
                .configure(live::configure),
        )
        .default_service(web::to(no_such_route));
}

async fn no_such_route(request: HttpRequest) -> Result<String, ApiError> {
    let detail = format!("there is no {} {}", request.method(), request.path());
    Err(ApiError::new(
        StatusCode::NOT_FOUND,
        "NO_SUCH_ROUTE",
        "Not found",
        detail,
    ))
}
