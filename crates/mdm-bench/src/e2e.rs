//! From a change to those who watch.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;
use mdm_client::{Client, EventStream};
use serde_json::{Value, json};
use tokio::{
    runtime::Handle,
    task::{JoinHandle, spawn_blocking},
};
use url::Url;
use uuid::Uuid;

use crate::{
    http::{Connection, request},
    installation::{Installation, Publisher, ServerOptions, scheduled, sleep_until},
    percentiles, stamp,
    subscribers::{PATIENCE, Subscribers},
};

/// Those who call the API in turn: one that has to wait does not hold up the next.
const CALLERS: u32 = 4;

/// How it is measured.
#[derive(Debug, Clone, Args)]
pub struct Options {
    #[command(flatten)]
    server: ServerOptions,
    /// How many subscribers there are
    #[arg(long, default_value_t = 100)]
    subscribers: usize,
    /// Changes per second, one per transaction, on schedule whatever became of those before
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// How many changes are measured of each kind
    #[arg(long, default_value_t = 1_000)]
    changes: u32,
    /// How many, before, are not counted
    #[arg(long, default_value_t = 100)]
    warm_up: u32,
    /// How many more subscribers connect, for one more measurement, and never read
    #[arg(long, default_value_t = 0)]
    stopped: usize,
    /// Check that each subscriber gets consecutive ids
    #[arg(long)]
    check: bool,
}

/// First rows that are inserted into the log, then changes by the API.
pub async fn measure(options: Options) -> anyhow::Result<Value> {
    ensure!(
        options.subscribers > 0 && options.changes > 0 && options.rate > 0.0,
        "at least one subscriber and one change"
    );
    let installation = Installation::start(&options.server).await?;
    // Driving the load blocks its thread.
    spawn_blocking(move || run(&options, &installation)).await?
}

fn run(options: &Options, installation: &Installation) -> anyhow::Result<Value> {
    let runtime = Handle::current();
    let base = Instant::now();
    let mut load = Subscribers::new(base, options.check)?;
    load.noting = true;
    let stream = installation.stream()?;
    let group = load.group(&stream);
    load.join(group, &stream, options.subscribers)?;
    let mut bench = Bench {
        load,
        group,
        options,
        base,
    };

    let inserted = bench.insertions(installation)?;
    let beside = bench.beside_stopped(installation)?;

    let api = Arc::new(Api {
        url: installation.server.url.parse()?,
        key: installation.tenant.api_key.clone(),
        devices: runtime.block_on(installation.devices())?,
        rate: options.rate,
    });
    let calling = runtime.spawn(call(api, bench.changes()));
    let called = bench.receipts(calling)?;
    Ok(json!({
        "measurement": "e2e",
        "subscribers": options.subscribers,
        "changes": options.changes,
        "changes_per_second": options.rate,
        "ids_checked": options.check,
        "from_commit_to_receipt": percentiles::of(&inserted),
        "beside_readers_that_stopped": beside,
        "from_api_call_to_receipt": percentiles::of(&called),
    }))
}

struct Bench<'a> {
    load: Subscribers,
    group: usize,
    options: &'a Options,
    base: Instant,
}

impl Bench<'_> {
    /// Rows that are inserted into the log.
    fn insertions(&mut self, installation: &Installation) -> anyhow::Result<Vec<Duration>> {
        let publisher = Handle::current().block_on(installation.publisher())?;
        let (changes, rate, device) = (self.changes(), self.options.rate, installation.device);
        let inserting = spawn_blocking(move || {
            Handle::current().block_on(insert(publisher, device, changes, rate))
        });
        self.receipts(inserting)
    }

    /// The same beside subscribers that never read what they are sent.
    fn beside_stopped(&mut self, installation: &Installation) -> anyhow::Result<Value> {
        let count = self.options.stopped;
        if count == 0 {
            return Ok(Value::Null);
        }
        let client = Client::new(installation.server.url.parse()?, None)?;
        let client = client.with_api_key(installation.tenant.api_key.clone().into());
        let before = installation.server.resident_kib()?;
        let mut stopped = Vec::new();
        for _ in 0..count {
            // Without somebody who waits for the next frame nothing is read.
            let stream = EventStream::connect(&client, None, &[]);
            stopped.push(Handle::current().block_on(stream)?);
        }
        let receipts = self.insertions(installation)?;
        let grown = installation.server.resident_kib()?.saturating_sub(before);
        drop(stopped);
        Ok(json!({
            "stopped": count,
            "from_commit_to_receipt": percentiles::of(&receipts),
            "memory_grown_kib": grown,
        }))
    }

    /// With those that do not count.
    fn changes(&self) -> u32 {
        self.options.changes + self.options.warm_up
    }

    /// Waits for the changes to be made and to be received; gives how long each receipt took after
    /// the moment that `changing` gives for it, without those of the warm-up.
    fn receipts(
        &mut self,
        changing: JoinHandle<anyhow::Result<Vec<Instant>>>,
    ) -> anyhow::Result<Vec<Duration>> {
        let group = self.group;
        let subscribers = u64::try_from(self.load.count(group))?;
        let expected = u64::from(self.changes()) * subscribers;
        let lasts = Duration::from_secs_f64(f64::from(self.changes()) / self.options.rate);
        let driven = self
            .load
            .drive(PATIENCE + lasts, |load| load.deliveries(group) >= expected);
        let moments = Handle::current().block_on(changing)??;
        driven?;
        let each = self.load.equal(group)?;
        ensure!(
            each == u64::from(self.changes()),
            "{each} events for each instead of {}",
            self.changes()
        );
        let warm_up = u64::from(self.options.warm_up);
        let mut receipts = Vec::new();
        for (number, at) in self.load.take(group).arrivals {
            let moment = moments.get(usize::try_from(number)?);
            let moment = moment.context("an event that nobody caused")?;
            // What comes before the commit has returned to its caller took no time.
            let waited = at.saturating_sub(stamp::of(self.base, *moment));
            if number >= warm_up {
                receipts.push(Duration::from_nanos(waited));
            }
        }
        let counted = u64::from(self.options.changes) * subscribers;
        ensure!(
            u64::try_from(receipts.len())? == counted,
            "{} receipts of {counted}",
            receipts.len()
        );
        Ok(receipts)
    }
}

/// Inserts events on schedule; gives when each commit had returned. For a thread that may block.
async fn insert(
    mut publisher: Publisher,
    device: Uuid,
    changes: u32,
    rate: f64,
) -> anyhow::Result<Vec<Instant>> {
    let mut commits = Vec::new();
    let begun = Instant::now();
    for number in 0..changes {
        sleep_until(scheduled(begun, number, rate));
        let data = stamp::data(device, u64::from(number));
        commits.push(publisher.publish(&[data]).await?);
    }
    Ok(commits)
}

struct Api {
    url: Url,
    key: String,
    devices: Vec<Uuid>,
    rate: f64,
}

/// Changes labels on schedule; gives when each request was sent.
async fn call(api: Arc<Api>, changes: u32) -> anyhow::Result<Vec<Instant>> {
    let begun = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let api = Arc::clone(&api);
            spawn_blocking(move || {
                Handle::current().block_on(call_in_turn(&api, begun, caller, changes))
            })
        })
        .collect();
    let mut sent = Vec::new();
    for caller in callers {
        sent.extend(caller.await??);
    }
    sent.sort_unstable();
    Ok(sent.into_iter().map(|(_number, moment)| moment).collect())
}

/// Every so many-th change. For a thread that may block.
async fn call_in_turn(
    api: &Api,
    begun: Instant,
    caller: u32,
    changes: u32,
) -> anyhow::Result<Vec<(u32, Instant)>> {
    let mut connection = Connection::open(&api.url).await?;
    let mut sent = Vec::new();
    let turns = (0..changes).skip(usize::try_from(caller)?);
    for number in turns.step_by(usize::try_from(CALLERS)?) {
        let place = usize::try_from(number)? % api.devices.len().max(1);
        let device = api.devices.get(place).context("no devices")?;
        let request = request(
            &api.url,
            "PUT",
            &format!("/api/v1/devices/{device}"),
            &[("X-API-Key", &api.key)],
            &json!({ "labels": { "at": stamp::text(u64::from(number)) } }).to_string(),
        );
        sleep_until(scheduled(begun, number, api.rate));
        sent.push((number, Instant::now()));
        let (status, body) = connection.call(&request).await?;
        ensure!(
            status == 200,
            "the API answers {status} {}",
            String::from_utf8_lossy(body)
        );
    }
    Ok(sent)
}
