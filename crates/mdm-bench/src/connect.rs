//! Many subscribers that come back at the same moment, and want what they missed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::{runtime::Handle, task::spawn_blocking};

use crate::{
    installation::{Installation, ServerOptions},
    percentiles::{self, real},
    process::cpu,
    stamp,
    subscribers::{PATIENCE, Stream, Subscribers, Tally},
};

/// PostgreSQL's backends tell what they did at the latest after having been idle for ten seconds.
const STATISTICS: Duration = Duration::from_secs(11);

/// How it is measured.
#[derive(Debug, Clone, Args)]
pub struct Options {
    #[command(flatten)]
    server: ServerOptions,
    /// How many subscribers connect at once
    #[arg(long, default_value_t = 10_000)]
    subscribers: usize,
    /// How many are connected before, and stay; the memory per connection is the slope from here
    #[arg(long, default_value_t = 100)]
    before: usize,
    /// How many events each of them missed
    #[arg(long, default_value_t = 100)]
    missed: u32,
    /// Check that each subscriber gets consecutive ids. The load then takes more of the processors
    #[arg(long)]
    check: bool,
}

/// Connects them, and waits until the last one has what it missed.
pub async fn measure(options: Options) -> anyhow::Result<Value> {
    ensure!(
        options.subscribers > 0 && options.before > 0,
        "at least one subscriber, and one before"
    );
    let installation = Installation::start(&options.server).await?;
    // Driving the load blocks its thread.
    spawn_blocking(move || run(&options, &installation)).await?
}

fn run(options: &Options, installation: &Installation) -> anyhow::Result<Value> {
    let runtime = Handle::current();
    let mut load = Subscribers::new(Instant::now(), options.check)?;
    let mut database = runtime.block_on(installation.database())?;
    let stream = before(&mut load, options, installation)?;
    load.rest(STATISTICS)?;
    let idle_from = (
        Instant::now(),
        runtime.block_on(transactions(&mut database))?,
    );
    load.rest(STATISTICS)?;
    let idle_until = runtime.block_on(transactions(&mut database))?;
    let memory_before = installation.server.resident_kib()?;
    let idle = real(idle_until - idle_from.1) / idle_from.0.elapsed().as_secs_f64();

    let storm_from = Instant::now();
    let storm = storm(&mut load, options, installation, &stream)?;
    load.rest(STATISTICS)?;
    let memory = installation.server.resident_kib()?;
    let all = runtime.block_on(transactions(&mut database))? - idle_until;
    let in_background = idle * storm_from.elapsed().as_secs_f64();

    let subscribers = real(u64::try_from(options.subscribers)?);
    let rate = subscribers / storm.welcomed.as_secs_f64();
    let grown = (real(memory) - real(memory_before)) / subscribers;
    Ok(json!({
        "measurement": "connect",
        "subscribers": options.subscribers,
        "missed_events": options.missed,
        "ids_checked": options.check,
        "until_all_are_welcomed_s": storm.welcomed.as_secs_f64(),
        "until_all_have_what_they_missed_s": storm.served.as_secs_f64(),
        "connects_per_second": rate.round(),
        "from_connect_to_welcome": percentiles::of(&storm.tally.welcomes),
        "server_cpu_us_per_connect": (storm.cpu.as_secs_f64() * 1_000_000.0 / subscribers).round(),
        "transactions": {
            "of_the_storm": (real(all) - in_background).round(),
            "measured": all,
            "idle_per_second": (idle * 10.0).round() / 10.0,
        },
        "memory_kib": { "before": memory_before, "connected": memory },
        "memory_per_connection_kib": (grown * 10.0).round() / 10.0,
    }))
}

/// The few who were there when it happened; gives the stream of those who were not.
fn before(
    load: &mut Subscribers,
    options: &Options,
    installation: &Installation,
) -> anyhow::Result<Stream> {
    let runtime = Handle::current();
    let live = installation.stream()?;
    let group = load.group(&live);
    load.join(group, &live, options.before)?;
    let cursor = load.take(group).cursor.context("no cursor")?;
    let mut publisher = runtime.block_on(installation.publisher())?;
    let data: Vec<_> = (0..u64::from(options.missed))
        .map(|number| stamp::data(installation.device, number))
        .collect();
    runtime.block_on(publisher.publish(&data))?;
    let expected = u64::from(options.missed) * u64::try_from(options.before)?;
    load.drive(PATIENCE, |load| load.deliveries(group) >= expected)?;
    Ok(Stream {
        path: format!("{}?after={cursor}", live.path),
        ..live
    })
}

struct Storm {
    welcomed: Duration,
    served: Duration,
    cpu: Duration,
    tally: Tally,
}

fn storm(
    load: &mut Subscribers,
    options: &Options,
    installation: &Installation,
    stream: &Stream,
) -> anyhow::Result<Storm> {
    let (group, count) = (load.group(stream), options.subscribers);
    let expected = u64::from(options.missed) * u64::try_from(count)?;
    let cpu_before = cpu(installation.server.pid())?;
    let begun = Instant::now();
    load.storm(group, stream, count)?;
    load.drive(PATIENCE, |load| load.open(group) == count)?;
    let welcomed = begun.elapsed();
    load.drive(PATIENCE, |load| load.deliveries(group) >= expected)?;
    let served = begun.elapsed();
    let cpu = cpu(installation.server.pid())?.saturating_sub(cpu_before);
    let each = load.equal(group)?;
    ensure!(
        each == u64::from(options.missed),
        "{each} missed events came"
    );
    let tally = load.take(group);
    ensure!(
        tally.recovered == u64::try_from(count)?,
        "{} of {count} were told that all follows",
        tally.recovered
    );
    Ok(Storm {
        welcomed,
        served,
        cpu,
        tally,
    })
}

/// Transactions that the database committed so far.
async fn transactions(database: &mut PgConnection) -> anyhow::Result<u64> {
    let count: i64 = sqlx::query_scalar(
        "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()",
    )
    .fetch_one(database)
    .await?;
    Ok(u64::try_from(count)?)
}
