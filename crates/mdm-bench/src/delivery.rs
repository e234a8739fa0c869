//! From the commit of an event to its subscribers, and from a request to them.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use mdm_client::Client;
use mdm_proto::{
    devices::{EnrollRequest, UpdateDevice},
    patch::Patch,
};
use serde_json::{Value, json};
use tokio::time::sleep_until;

use crate::{
    outbox::Site,
    percentiles, stamp,
    subscribers::{Subscribers, Target},
};

const PATIENCE: Duration = Duration::from_mins(2);

/// How it is measured.
#[derive(Debug, Args)]
pub struct Options {
    /// The server's binary
    #[arg(long, default_value = "target/release/mdm-api")]
    binary: PathBuf,
    /// How many subscribers there are
    #[arg(long, default_value_t = 100)]
    subscribers: usize,
    /// How many events a second are committed
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// How many events
    #[arg(long, default_value_t = 1_000)]
    events: u64,
}

/// Measures both ways, one after the other.
pub async fn measure(options: Options) -> anyhow::Result<Value> {
    let mut site = Site::start(&options.binary).await?;
    let from_commit = from_commit(&mut site, &options).await?;
    let from_request = from_request(&site, &options).await?;
    Ok(json!({
        "measurement": "e2e",
        "subscribers": options.subscribers,
        "events_per_second": options.rate,
        "from_the_commit": percentiles::of(&from_commit),
        "from_the_request": percentiles::of(&from_request),
    }))
}

/// Connects the subscribers; the task waits for the events, each of which bears its number.
async fn follow(
    site: &Site,
    options: &Options,
) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<Vec<(u64, Instant)>>>> {
    let target = Target {
        address: site.address()?,
        path: "/api/v1/ws?types=device_updated".to_owned(),
        token: site.token.clone(),
    };
    let (count, events) = (options.subscribers, options.events);
    let subscribers = tokio::task::spawn_blocking(move || {
        let mut subscribers = Subscribers::connect(&target, count)?;
        subscribers.settle(PATIENCE)?;
        anyhow::Ok(subscribers)
    });
    let mut subscribers = subscribers.await??;
    Ok(tokio::task::spawn_blocking(move || {
        let mut arrivals = Vec::new();
        subscribers.until(events, PATIENCE, &mut |event, now| {
            if let Some(number) = stamp::read(event) {
                arrivals.push((number, now));
            }
        })?;
        Ok(arrivals)
    }))
}

async fn from_commit(site: &mut Site, options: &Options) -> anyhow::Result<Vec<Duration>> {
    let watching = follow(site, options).await?;
    let (base, mut begun) = (Instant::now(), Vec::new());
    for number in 0..options.events {
        let due = Duration::from_nanos(number * 1_000_000_000 / options.rate.max(1));
        sleep_until((base + due).into()).await;
        // Before the commit: what the transaction itself takes is counted, too.
        begun.push(Instant::now());
        site.publish(std::iter::once(number)).await?;
    }
    let arrivals = watching.await??;
    Ok(latencies(&begun, &arrivals))
}

async fn from_request(site: &Site, options: &Options) -> anyhow::Result<Vec<Duration>> {
    let client: Client = site.client()?;
    let wish = EnrollRequest {
        uuid: "bench".to_owned(),
        hostname: "bench".to_owned(),
        platform: "linux".to_owned(),
        ..EnrollRequest::default()
    };
    let device = client
        .enroll_device(&wish, false)
        .await?
        .device
        .id
        .to_string();
    let watching = follow(site, options).await?;
    let (base, mut begun) = (Instant::now(), Vec::new());
    for number in 0..options.events {
        let due = Duration::from_nanos(number * 1_000_000_000 / options.rate.max(1));
        sleep_until((base + due).into()).await;
        let labels = [("at".to_owned(), stamp::text(number))];
        let change = UpdateDevice {
            labels: Patch::Value(labels.into()),
            ..UpdateDevice::default()
        };
        begun.push(Instant::now());
        client.update_device(&device, &change, None).await?;
    }
    let arrivals = watching.await??;
    Ok(latencies(&begun, &arrivals))
}

fn latencies(begun: &[Instant], arrivals: &[(u64, Instant)]) -> Vec<Duration> {
    let arrivals = arrivals.iter().filter_map(|(number, at)| {
        let begun = begun.get(usize::try_from(*number).ok()?)?;
        Some(at.saturating_duration_since(*begun))
    });
    arrivals.collect()
}
