//! Cold start, idle memory, stop.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::{
    installation::ServerOptions,
    percentiles,
    process::{Server, scratch},
};

/// How it is measured.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    server: ServerOptions,
    /// How often it is started, after the first start that makes the database
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// How long it idles before its memory is read, in seconds
    #[arg(long, default_value_t = 5)]
    idle_seconds: u64,
}

/// Starts and stops a server several times.
pub async fn measure(options: Options) -> anyhow::Result<Value> {
    let directory = scratch()?;
    let data_dir = directory.path().join("data");
    let first = Server::start(&options.server.binary, &data_dir, &[])?;
    let first_start = first.started_in;
    first.stop()?;
    let (mut starts, mut stops, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.runs {
        let server = Server::start(&options.server.binary, &data_dir, &[])?;
        starts.push(server.started_in);
        tokio::time::sleep(Duration::from_secs(options.idle_seconds)).await;
        memory.push(server.resident_kib()?);
        stops.push(server.stop()?);
    }
    memory.sort_unstable();
    Ok(json!({
        "measurement": "start",
        "first_start_ms": first_start.as_millis(),
        "start": percentiles::of(&starts),
        "stop": percentiles::of(&stops),
        "idle_memory_kib": { "min": memory.first(), "max": memory.last() },
    }))
}
