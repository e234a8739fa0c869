//! Health: each component is probed when somebody asks.

use std::{collections::BTreeMap, time::Duration};

use mdm_proto::system::{ComponentHealth, Health};
use mdm_service::Services;

use crate::state::AppState;

const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How far behind the log's head the fan-out may be before it counts as down.
const BUS_LAG_AT_MOST: u64 = 10_000;

/// Probes everything and sums it up: unhealthy without the database, degraded without the rest.
pub async fn probe(state: &AppState) -> Health {
    let (database, bus, storage) =
        tokio::join!(database(&state.services), bus(state), storage(state));
    let summed_up = if database.status == "down" {
        "unhealthy"
    } else if bus.status == "down" || storage.status == "down" {
        "degraded"
    } else {
        "healthy"
    };
    let components = BTreeMap::from([
        ("database".to_owned(), database),
        ("bus".to_owned(), bus),
        ("storage".to_owned(), storage),
    ]);
    Health {
        status: summed_up.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        timestamp: state.services.now().into(),
        components,
    }
}

fn up(message: impl Into<String>) -> ComponentHealth {
    ComponentHealth {
        status: "up".to_owned(),
        message: message.into(),
    }
}

fn down(message: impl Into<String>) -> ComponentHealth {
    ComponentHealth {
        status: "down".to_owned(),
        message: message.into(),
    }
}

async fn database(services: &Services) -> ComponentHealth {
    match tokio::time::timeout(PROBE_TIMEOUT, services.probe_database()).await {
        Ok(Ok(version)) => up(format!("PostgreSQL {version} answers")),
        Ok(Err(_)) => down("PostgreSQL does not answer"),
        Err(_) => down(format!(
            "PostgreSQL did not answer within {} s",
            PROBE_TIMEOUT.as_secs()
        )),
    }
}

/// The bus is up if what the log holds also reaches this node's subscribers, and NATS answers where
/// there is one. Without NATS events still flow, by the database.
async fn bus(state: &AppState) -> ComponentHealth {
    let nats = match state.services.bus() {
        Some(bus) => Some(bus.probe().await),
        None => None,
    };
    let by = match &nats {
        None => "by the database".to_owned(),
        Some(Ok(())) => "by NATS".to_owned(),
        Some(Err(error)) => format!("NATS: {error}; by the database"),
    };
    match tokio::time::timeout(PROBE_TIMEOUT, state.live.lag()).await {
        Ok(Ok(lag)) => {
            let message = format!("{by}; {lag} events behind the log");
            if lag <= BUS_LAG_AT_MOST && !matches!(nats, Some(Err(_))) {
                up(message)
            } else {
                down(message)
            }
        }
        Ok(Err(_)) | Err(_) => down("the log cannot be read"),
    }
}

/// The storage is up if a file can be written in the data directory now, and an object where the
/// packages are kept.
async fn storage(state: &AppState) -> ComponentHealth {
    let name = state.new_request_id();
    let packages = state.services.packages().probe(&name);
    match tokio::time::timeout(PROBE_TIMEOUT, packages).await {
        Ok(Ok(())) => data_directory(state).await,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the storage of packages does not work");
            down("packages cannot be stored")
        }
        Err(_) => down("the storage of packages did not answer in time"),
    }
}

async fn data_directory(state: &AppState) -> ComponentHealth {
    let probe = state
        .data_dir
        .join(format!(".probe-{}", state.new_request_id()));
    let written = async {
        tokio::fs::write(&probe, b"probe").await?;
        tokio::fs::remove_file(&probe).await
    };
    match written.await {
        Ok(()) => up("the data directory can be written"),
        Err(error) => down(format!(
            "the data directory cannot be written: {}",
            error.kind()
        )),
    }
}
