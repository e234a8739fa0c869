//! One event to many subscribers: what it costs the server, beside what it costs a loop that does
//! nothing but `send`.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};
use tokio::{sync::mpsc, time::sleep_until};

use crate::{
    outbox::Site,
    percentiles,
    process::{processor_time, resident_kib, segments_sent},
    sender::Sender,
    stamp,
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
    #[arg(long, default_value_t = 1_000)]
    subscribers: usize,
    /// How many rounds count; one more, before, is the warm-up
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many events a burst has, committed together
    #[arg(long, default_value_t = 4_000)]
    burst: u64,
    /// How many events a second come when they are paced
    #[arg(long, default_value_t = 50)]
    rate: u64,
    /// How many events come one by one in a round
    #[arg(long, default_value_t = 250)]
    paced: u64,
    /// A hub to compare with: it prints `listening on ADDRESS` and sends each line of its standard
    /// input to all subscribers, such as peers/gorilla-hub
    #[arg(long)]
    peer: Option<PathBuf>,
}

/// What publishes: the server under test, the floor, or a peer.
enum Hub {
    Server(Box<Site>),
    Sender(Sender, u64),
}

impl Hub {
    fn pid(&self) -> u32 {
        match self {
            Self::Server(site) => site.server.pid(),
            Self::Sender(sender, _) => sender.pid(),
        }
    }

    async fn publish(&mut self, stamps: impl Iterator<Item = u64>) -> anyhow::Result<()> {
        match self {
            Self::Server(site) => site.publish(stamps).await,
            Self::Sender(sender, number) => {
                let mut lines = String::new();
                for at in stamps {
                    *number += 1;
                    lines.push_str(&stamp::event(*number, &stamp::data(uuid::Uuid::nil(), at)));
                    lines.push('\n');
                }
                // A pipe that is full must not hold up the thread that others wait on.
                tokio::task::block_in_place(|| sender.publish(lines.as_bytes()))
            }
        }
    }
}

/// What one shape cost one hub in one round.
#[derive(Debug, Clone, Copy)]
struct Cost {
    cpu_us_per_delivery: f64,
    sends_per_delivery: f64,
    frames_per_read: f64,
    deliveries_per_second: f64,
}

/// A hub with its subscribers, and what it cost in each round.
struct Contender {
    name: &'static str,
    hub: Hub,
    load: mpsc::Sender<Job>,
    published: u64,
    burst: Vec<Cost>,
    paced: Vec<Cost>,
    latencies: Vec<Duration>,
    memory_per_connection_kib: f64,
}

/// What the thread with the subscribers is to wait for.
struct Job {
    base: Instant,
    until: u64,
    done: tokio::sync::oneshot::Sender<anyhow::Result<Seen>>,
}

/// What it saw.
struct Seen {
    last: Instant,
    reads: u64,
    latencies: Vec<Duration>,
}

/// Measures all hubs in turn, round by round.
pub async fn measure(options: Options) -> anyhow::Result<Value> {
    let site = Site::start(&options.binary).await?;
    let (address, token) = (site.address()?, site.token.clone());
    let mut contenders = vec![
        contender(
            "floor",
            Hub::Sender(Sender::floor(options.subscribers)?, 0),
            None,
            &options,
        )
        .await?,
        contender(
            "server",
            Hub::Server(Box::new(site)),
            Some((address, token)),
            &options,
        )
        .await?,
    ];
    if let Some(program) = &options.peer {
        let hub = Hub::Sender(Sender::peer(program)?, 0);
        contenders.push(contender("peer", hub, None, &options).await?);
    }
    for round in 0..=options.rounds {
        for contender in &mut contenders {
            let paced = contender.paced(&options).await?;
            let burst = contender.burst(&options).await?;
            if round == 0 {
                contender.latencies.clear();
            } else {
                contender.paced.push(paced);
                contender.burst.push(burst);
            }
        }
    }
    Ok(figures(&options, &contenders))
}

async fn contender(
    name: &'static str,
    hub: Hub,
    server: Option<(SocketAddr, String)>,
    options: &Options,
) -> anyhow::Result<Contender> {
    let target = match (&hub, server) {
        (_, Some((address, token))) => Target {
            address,
            path: "/api/v1/ws".to_owned(),
            token,
        },
        (Hub::Sender(sender, _), None) => Target {
            address: sender.address,
            path: "/".to_owned(),
            token: "none".to_owned(),
        },
        (Hub::Server(_), None) => anyhow::bail!("a server has an address"),
    };
    let before = resident_kib(hub.pid())?;
    let mut subscribers = Subscribers::connect(&target, options.subscribers)?;
    let mut subscribers = tokio::task::spawn_blocking(move || {
        subscribers.settle(PATIENCE)?;
        anyhow::Ok(subscribers)
    })
    .await??;
    let grown = resident_kib(hub.pid())?.saturating_sub(before);
    let (load, mut jobs) = mpsc::channel::<Job>(1);
    std::thread::spawn(move || {
        while let Some(job) = jobs.blocking_recv() {
            let seen = watch(&mut subscribers, job.base, job.until);
            let _nobody_waits = job.done.send(seen);
        }
    });
    Ok(Contender {
        name,
        hub,
        load,
        published: 0,
        burst: Vec::new(),
        paced: Vec::new(),
        latencies: Vec::new(),
        memory_per_connection_kib: ratio(grown, options.subscribers),
    })
}

fn watch(subscribers: &mut Subscribers, base: Instant, until: u64) -> anyhow::Result<Seen> {
    let reads = subscribers.reads;
    let (mut last, mut latencies) = (base, Vec::new());
    subscribers.until(until, PATIENCE, &mut |event, now| {
        last = now;
        if let Some(scheduled) = stamp::read(event) {
            let scheduled = base + Duration::from_nanos(scheduled);
            latencies.push(now.saturating_duration_since(scheduled));
        }
    })?;
    Ok(Seen {
        last,
        reads: subscribers.reads - reads,
        latencies,
    })
}

impl Contender {
    /// Events that are committed together.
    async fn burst(&mut self, options: &Options) -> anyhow::Result<Cost> {
        let count = options.burst;
        let (cost, _latencies) = self
            .shape(options, count, async |hub, _base| {
                hub.publish((0..count).map(|_| 0)).await
            })
            .await?;
        Ok(cost)
    }

    /// Events that come one by one, when it is time, however the ones before have fared.
    async fn paced(&mut self, options: &Options) -> anyhow::Result<Cost> {
        let (count, rate) = (options.paced, options.rate.max(1));
        let (cost, latencies) = self
            .shape(options, count, async |hub, base| {
                for number in 0..count {
                    let due = Duration::from_nanos(number * 1_000_000_000 / rate);
                    sleep_until((base + due).into()).await;
                    hub.publish(std::iter::once(stamp::nanoseconds(due)))
                        .await?;
                }
                Ok(())
            })
            .await?;
        self.latencies.extend(latencies);
        Ok(cost)
    }

    async fn shape(
        &mut self,
        options: &Options,
        count: u64,
        publish: impl AsyncFnOnce(&mut Hub, Instant) -> anyhow::Result<()>,
    ) -> anyhow::Result<(Cost, Vec<Duration>)> {
        let (cpu, segments) = (processor_time(self.hub.pid())?, segments_sent()?);
        let base = Instant::now();
        self.published += count;
        let (done, seen) = tokio::sync::oneshot::channel();
        let job = Job {
            base,
            until: self.published,
            done,
        };
        self.load.send(job).await.ok().context("the load is gone")?;
        publish(&mut self.hub, base).await?;
        let seen = seen.await??;
        let cpu = processor_time(self.hub.pid())?.saturating_sub(cpu);
        let segments = segments_sent()?.saturating_sub(segments);
        let deliveries = float(count) * float_of(options.subscribers);
        let cost = Cost {
            cpu_us_per_delivery: cpu.as_secs_f64() * 1e6 / deliveries,
            sends_per_delivery: float(segments) / deliveries,
            frames_per_read: deliveries / float(seen.reads.max(1)),
            deliveries_per_second: deliveries / seen.last.duration_since(base).as_secs_f64(),
        };
        Ok((cost, seen.latencies))
    }
}

fn figures(options: &Options, contenders: &[Contender]) -> Value {
    let floor = contenders.first();
    let server = contenders
        .iter()
        .find(|contender| contender.name == "server");
    let mut figures = Map::new();
    for contender in contenders {
        let told = json!({
            "paced": shape(&contender.paced),
            "paced_latency": percentiles::of(&contender.latencies),
            "burst": shape(&contender.burst),
            "memory_per_connection_kib": round(contender.memory_per_connection_kib),
        });
        figures.insert(contender.name.to_owned(), told);
    }
    let cpu = |cost: &Cost| cost.cpu_us_per_delivery;
    let rate = |cost: &Cost| cost.deliveries_per_second;
    let of = |one: Option<&Contender>, other: Option<&Contender>| {
        let (Some(one), Some(other)) = (one, other) else {
            return Value::Null;
        };
        json!({
            "paced_cpu_per_delivery": paired(&one.paced, &other.paced, cpu),
            "burst_cpu_per_delivery": paired(&one.burst, &other.burst, cpu),
            "burst_deliveries_per_second": paired(&one.burst, &other.burst, rate),
        })
    };
    let peer = contenders.iter().find(|contender| contender.name == "peer");
    json!({
        "measurement": "fanout",
        "subscribers": options.subscribers,
        "rounds": options.rounds,
        "burst_events": options.burst,
        "paced_events_per_second": options.rate,
        "hubs": figures,
        "server_to_floor": of(server, floor),
        "server_to_peer": of(server, peer),
    })
}

fn shape(costs: &[Cost]) -> Value {
    let median = |of: fn(&Cost) -> f64| spread(costs.iter().map(of).collect());
    json!({
        "cpu_us_per_delivery": median(|cost| cost.cpu_us_per_delivery),
        "sends_per_delivery": median(|cost| cost.sends_per_delivery),
        "frames_per_read": median(|cost| cost.frames_per_read),
        "deliveries_per_second": median(|cost| cost.deliveries_per_second),
    })
}

/// The ratios of the rounds, each of both in the same one.
fn paired(one: &[Cost], other: &[Cost], of: impl Fn(&Cost) -> f64) -> Value {
    let ratios = one
        .iter()
        .zip(other)
        .map(|(one, other)| of(one) / of(other));
    spread(ratios.collect())
}

fn spread(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    let middle = values.get(values.len() / 2).copied().unwrap_or_default();
    json!({
        "median": round(middle),
        "min": values.first().copied().map(round),
        "max": values.last().copied().map(round),
    })
}

fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

fn ratio(kib: u64, count: usize) -> f64 {
    float(kib) / float_of(count)
}

fn float(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

fn float_of(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}
