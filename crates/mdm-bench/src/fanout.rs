//! From one event to many subscribers, beside what it would cost at the least.

use std::{
    ffi::OsStr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::{Map, Value, json};
use tokio::{runtime::Handle, task::spawn_blocking};
use uuid::Uuid;

use crate::{
    hub::{Hub, HubPublisher},
    installation::{Installation, Publisher, ServerOptions, scheduled, sleep_until},
    percentiles::{self, real, spread},
    process::{cpu, data_segments},
    stamp,
    subscribers::{PATIENCE, Stream, Subscribers},
};

/// How it is measured.
#[derive(Debug, Clone, Args)]
pub struct Options {
    #[command(flatten)]
    server: ServerOptions,
    /// How many subscribers the server has; the floor and the peer have as many each
    #[arg(long, default_value_t = 1_000)]
    subscribers: usize,
    /// Events of a burst, committed in one transaction
    #[arg(long, default_value_t = 2_000)]
    burst_events: u32,
    /// Events per second of the paced load, one per transaction, each on schedule whatever became
    /// of those before
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// How long the paced load lasts, in seconds
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How many rounds count; one more, before, is the warm-up
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Check that each subscriber gets consecutive ids. The load then takes more of the processors
    #[arg(long)]
    check: bool,
    /// A hub to compare with, started as PROGRAM PORT: see crates/mdm-bench/peers
    #[arg(long, value_name = "PROGRAM")]
    peer: Option<PathBuf>,
}

/// What takes events for the subscribers.
enum Source {
    Log(Publisher),
    Hub(HubPublisher),
}

impl Source {
    async fn publish(&mut self, data: &[String]) -> anyhow::Result<Instant> {
        match self {
            Self::Log(publisher) => publisher.publish(data).await,
            Self::Hub(publisher) => publisher.publish(data).await,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Burst { events: u32 },
    Paced { events: u32, rate: f64 },
}

impl Shape {
    fn events(self) -> u32 {
        match self {
            Self::Burst { events } | Self::Paced { events, .. } => events,
        }
    }

    fn lasts(self) -> Duration {
        match self {
            Self::Burst { .. } => Duration::ZERO,
            Self::Paced { events, rate } => Duration::from_secs_f64(f64::from(events) / rate),
        }
    }

    /// Publishes all; gives when the first part was committed. For a thread that may block.
    fn publish(self, source: &mut Source, device: Uuid, base: Instant) -> anyhow::Result<Instant> {
        let runtime = Handle::current();
        let now = Instant::now();
        match self {
            Self::Burst { events } => {
                let stamp = stamp::of(base, now);
                let data = vec![stamp::data(device, stamp); usize::try_from(events)?];
                runtime.block_on(source.publish(&data))
            }
            Self::Paced { events, rate } => {
                for number in 0..events {
                    let moment = scheduled(now, number, rate);
                    sleep_until(moment);
                    let data = stamp::data(device, stamp::of(base, moment));
                    runtime.block_on(source.publish(&[data]))?;
                }
                Ok(now)
            }
        }
    }
}

/// What one shape came to in one round.
struct Figures {
    rate: f64,
    cpu_us: f64,
    segments: f64,
    frames_per_read: f64,
    bytes_per_frame: f64,
    p99_ms: f64,
}

#[derive(Default)]
struct Measured {
    rounds: Vec<Figures>,
    latencies: Vec<Duration>,
}

impl Measured {
    fn of(&self, figure: fn(&Figures) -> f64) -> Vec<f64> {
        self.rounds.iter().map(figure).collect()
    }

    /// The figure as a multiple of the other's, round by round.
    fn ratios(&self, other: &Self, figure: fn(&Figures) -> f64) -> Value {
        let pairs = self.of(figure).into_iter().zip(other.of(figure));
        spread(&pairs.map(|(one, other)| one / other).collect::<Vec<_>>())
    }

    fn told(&self) -> Value {
        // One round that was disturbed shows in the spread, and would rule the tail of all.
        let paced = !self.latencies.is_empty();
        json!({
            "deliveries_per_second": spread(&self.of(|figures| figures.rate)),
            "cpu_us_per_delivery": spread(&self.of(|figures| figures.cpu_us)),
            "segments_per_delivery": spread(&self.of(|figures| figures.segments)),
            "frames_per_read": spread(&self.of(|figures| figures.frames_per_read)),
            "bytes_per_frame": spread(&self.of(|figures| figures.bytes_per_frame)),
            "latency_from_the_schedule": paced.then(|| percentiles::of(&self.latencies)),
            "latency_p99_ms_of_rounds": paced.then(|| spread(&self.of(|figures| figures.p99_ms))),
        })
    }
}

/// The server, the floor or the peer, with its subscribers.
struct Contestant {
    name: &'static str,
    pid: u32,
    group: usize,
    source: Option<Source>,
    burst: Measured,
    paced: Measured,
}

impl Contestant {
    fn new(name: &'static str, pid: u32, group: usize, source: Source) -> Self {
        Self {
            name,
            pid,
            group,
            source: Some(source),
            burst: Measured::default(),
            paced: Measured::default(),
        }
    }
}

/// Measures in rounds: in each the server, the floor and the peer, one after the other.
pub async fn measure(options: Options) -> anyhow::Result<Value> {
    ensure!(
        options.subscribers > 0
            && options.burst_events > 0
            && options.rounds > 0
            && options.rate > 0.0,
        "at least one subscriber, one event and one round"
    );
    let installation = Installation::start(&options.server).await?;
    // Driving the load blocks its thread.
    spawn_blocking(move || run(&options, &installation)).await?
}

fn run(options: &Options, installation: &Installation) -> anyhow::Result<Value> {
    let runtime = Handle::current();
    let base = Instant::now();
    let mut load = Subscribers::new(base, options.check)?;
    let (group, memory) = join_server(&mut load, options, installation)?;
    let publisher = runtime.block_on(installation.publisher())?;
    let (server, source) = (installation.server.pid(), Source::Log(publisher));
    let mut contestants = vec![Contestant::new("server", server, group, source)];
    let this = std::env::current_exe()?;
    let floor = Hub::start(this.as_os_str(), &["raw-send"])?;
    contestants.push(join_hub("floor", &mut load, options, &floor)?);
    let peer = options.peer.as_deref().map(AsRef::<OsStr>::as_ref);
    let peer = peer.map(|program| Hub::start(program, &[])).transpose()?;
    if let Some(peer) = &peer {
        contestants.push(join_hub("peer", &mut load, options, peer)?);
    }
    let mut bench = Bench {
        load,
        base,
        device: installation.device,
    };
    for round in 0..=options.rounds {
        if round == 1 {
            for contestant in &mut contestants {
                contestant.burst = Measured::default();
                contestant.paced = Measured::default();
            }
        }
        for contestant in &mut contestants {
            bench.round(options, contestant)?;
        }
        // Who is first in one round is last in the next.
        contestants.reverse();
    }
    contestants.sort_by_key(|contestant| contestant.group);
    Ok(told(options, &contestants, memory))
}

/// Connects the server's subscribers; gives their group and what a connection takes, in KiB.
fn join_server(
    load: &mut Subscribers,
    options: &Options,
    installation: &Installation,
) -> anyhow::Result<(usize, f64)> {
    let stream = installation.stream()?;
    let group = load.group(&stream);
    let few = options.subscribers.div_ceil(10);
    let memory = memory_of(load, installation, group, &stream, few, options.subscribers)?;
    Ok((group, memory))
}

/// Joins subscribers up to `all`; gives the slope of the server's memory from the first `few` on.
fn memory_of(
    load: &mut Subscribers,
    installation: &Installation,
    group: usize,
    stream: &Stream,
    few: usize,
    all: usize,
) -> anyhow::Result<f64> {
    let more = all.saturating_sub(few);
    load.join(group, stream, few)?;
    load.rest(Duration::from_secs(2))?;
    let before = installation.server.resident_kib()?;
    load.join(group, stream, more)?;
    load.rest(Duration::from_secs(2))?;
    let grown = real(installation.server.resident_kib()?) - real(before);
    Ok(grown / real(u64::try_from(more.max(1))?))
}

fn join_hub(
    name: &'static str,
    load: &mut Subscribers,
    options: &Options,
    hub: &Hub,
) -> anyhow::Result<Contestant> {
    let stream = hub.stream();
    let group = load.group(&stream);
    load.join(group, &stream, options.subscribers)?;
    let publisher = Handle::current().block_on(hub.publisher())?;
    let source = Source::Hub(publisher);
    Ok(Contestant::new(name, hub.pid(), group, source))
}

struct Bench {
    load: Subscribers,
    base: Instant,
    device: Uuid,
}

impl Bench {
    fn round(&mut self, options: &Options, contestant: &mut Contestant) -> anyhow::Result<()> {
        let burst = Shape::Burst {
            events: options.burst_events,
        };
        let paced = Shape::Paced {
            events: events_of(options),
            rate: options.rate,
        };
        for shape in [burst, paced] {
            let (figures, latencies) = self
                .shape(contestant, shape)
                .with_context(|| format!("{}, {shape:?}", contestant.name))?;
            let measured = match shape {
                Shape::Burst { .. } => &mut contestant.burst,
                Shape::Paced { .. } => &mut contestant.paced,
            };
            measured.rounds.push(figures);
            measured.latencies.extend(latencies);
            self.load.rest(Duration::from_millis(300))?;
        }
        Ok(())
    }

    fn shape(
        &mut self,
        contestant: &mut Contestant,
        shape: Shape,
    ) -> anyhow::Result<(Figures, Vec<Duration>)> {
        let (group, base, device) = (contestant.group, self.base, self.device);
        let subscribers = u64::try_from(self.load.count(group))?;
        let expected = subscribers * u64::from(shape.events());
        self.load.take(group);
        self.load.noting = matches!(shape, Shape::Paced { .. });
        let mut source = contestant.source.take().context("publishes already")?;
        let (cpu_before, segments) = (cpu(contestant.pid)?, data_segments()?);
        let publishing = spawn_blocking(move || {
            let begun = shape.publish(&mut source, device, base);
            (source, begun)
        });
        let driven = self.load.drive(PATIENCE + shape.lasts(), |load| {
            load.deliveries(group) >= expected
        });
        let (source, begun) = Handle::current().block_on(publishing)?;
        contestant.source = Some(source);
        let begun = begun?.saturating_duration_since(base);
        driven?;
        let cpu = cpu(contestant.pid)?.saturating_sub(cpu_before);
        let segments = data_segments()?.saturating_sub(segments);
        let each = self.load.equal(group)?;
        ensure!(
            each == u64::from(shape.events()),
            "{each} events for each instead of {}",
            shape.events()
        );
        let tally = self.load.take(group);
        let deliveries = real(tally.deliveries);
        let waited = |(from, to): &(u64, u64)| Duration::from_nanos(to.saturating_sub(*from));
        let latencies: Vec<_> = tally.arrivals.iter().map(waited).collect();
        let p99 = percentiles::of(&latencies)
            .get("p99_ms")
            .and_then(Value::as_f64);
        let figures = Figures {
            rate: deliveries / tally.last.saturating_sub(begun).as_secs_f64(),
            cpu_us: cpu.as_secs_f64() * 1_000_000.0 / deliveries,
            segments: real(segments) / deliveries,
            frames_per_read: deliveries / real(tally.reads),
            bytes_per_frame: real(tally.bytes / tally.deliveries.max(1)),
            p99_ms: p99.unwrap_or_default(),
        };
        Ok((figures, latencies))
    }
}

fn events_of(options: &Options) -> u32 {
    let events = Duration::from_secs_f64((options.seconds * options.rate).max(1.0));
    u32::try_from(events.as_secs()).unwrap_or(u32::MAX)
}

fn told(options: &Options, contestants: &[Contestant], memory: f64) -> Value {
    let (mut burst, mut paced) = (Map::new(), Map::new());
    for contestant in contestants {
        burst.insert(contestant.name.to_owned(), contestant.burst.told());
        paced.insert(contestant.name.to_owned(), contestant.paced.told());
    }
    if let [server, floor, peers @ ..] = contestants {
        let cpu = |figures: &Figures| figures.cpu_us;
        let name = "server_cpu_of_the_floor".to_owned();
        burst.insert(name.clone(), server.burst.ratios(&floor.burst, cpu));
        paced.insert(name, server.paced.ratios(&floor.paced, cpu));
        if let [peer] = peers {
            let rate = server.burst.ratios(&peer.burst, |figures| figures.rate);
            burst.insert("server_rate_of_the_peer".to_owned(), rate);
        }
    }
    json!({
        "measurement": "fanout",
        "subscribers": options.subscribers,
        "rounds": options.rounds,
        "burst_events": options.burst_events,
        "paced_events": events_of(options),
        "paced_events_per_second": options.rate,
        "ids_checked": options.check,
        "burst": burst,
        "paced": paced,
        "memory_per_connection_kib": (memory * 10.0).round() / 10.0,
    })
}
