//! A storm: subscribers that all come back at once and want what they missed.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use mdm_client::EventStream;
use serde_json::{Value, json};

use crate::{
    outbox::Site,
    percentiles,
    subscribers::{Subscribers, Target},
};

const PATIENCE: Duration = Duration::from_mins(2);

/// How it is measured.
#[derive(Debug, Args)]
pub struct Options {
    /// The server's binary
    #[arg(long, default_value = "target/release/mdm-api")]
    binary: PathBuf,
    /// How many come in each storm, one storm after the other
    #[arg(long, value_delimiter = ',', default_value = "100,1000,9000")]
    subscribers: Vec<usize>,
    /// How many events each has missed
    #[arg(long, default_value_t = 100)]
    missed: u64,
}

/// Lets storms of several sizes come over one server.
pub async fn measure(options: Options) -> anyhow::Result<Value> {
    let mut site = Site::start(&options.binary).await?;
    let mut stream = EventStream::connect(&site.client()?, None, &[]).await?;
    let welcome = stream.next().await?;
    let cursor = welcome.data.get("cursor").and_then(Value::as_str);
    let cursor = cursor.context("no cursor in the welcome")?.to_owned();
    site.publish((0..options.missed).map(|_| 0)).await?;
    for _ in 0..options.missed {
        while stream.next().await?.id.is_none() {}
    }
    drop(stream);
    let mut storms = Vec::new();
    for &count in &options.subscribers {
        storms.push(storm(&mut site, &cursor, count, options.missed).await?);
    }
    Ok(json!({ "measurement": "connect", "missed": options.missed, "storms": storms }))
}

async fn storm(site: &mut Site, cursor: &str, count: usize, missed: u64) -> anyhow::Result<Value> {
    let target = Target {
        address: site.address()?,
        path: format!("/api/v1/ws?after={cursor}"),
        token: site.token.clone(),
    };
    let quiet = {
        let before = site.transactions().await?;
        site.transactions().await? - before
    };
    let (before, memory) = (site.transactions().await?, site.server.resident_kib()?);
    let begun = std::time::Instant::now();
    let (took, subscribers) = tokio::task::spawn_blocking(move || {
        let mut subscribers = Subscribers::connect(&target, count)?;
        subscribers.settle(PATIENCE)?;
        subscribers.until(missed, PATIENCE, &mut |_, _| {})?;
        anyhow::Ok((begun.elapsed(), subscribers))
    })
    .await??;
    let grown = site.server.resident_kib()?.saturating_sub(memory);
    let transactions = site.transactions().await? - before;
    let number = f64::from(u32::try_from(count)?);
    Ok(json!({
        "subscribers": count,
        "all_have_everything_after_s": took.as_secs_f64(),
        "per_second": (number / took.as_secs_f64()).round(),
        "until_welcome": percentiles::of(&subscribers.welcomed_after()),
        "database_transactions": transactions,
        "database_transactions_in_1500_ms_of_quiet": quiet,
        "memory_per_connection_kib": (f64::from(u32::try_from(grown)?) / number * 10.0).round() / 10.0,
    }))
}
