//! Many agents on one node that all send heartbeats, and commands from the API to them and back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;
use mdm_client::{Client, DeviceChannel, Incoming};
use mdm_core::entropy::{Entropy, OsEntropy};
use mdm_proto::{
    channel::{AgentFrame, ServerFrame},
    commands::SendCommand,
    device_side::CommandResult,
    devices::{EnrollRequest, UpdateDevice},
    enrollment::CreateEnrollmentSecret,
    patch::Patch,
};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet, time::Interval};
use tokio_util::sync::CancellationToken;

use crate::{
    installation::{ServerOptions, UNLIMITED},
    percentiles::{self, real},
    process::{PASSWORD, Server, cpu, scratch},
};

/// How it is measured.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    server: ServerOptions,
    /// How many agents are connected. Each takes a descriptor here and one of the server
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
    /// How many commands are sent, one after the other, each to an agent drawn by lot
    #[arg(long, default_value_t = 500)]
    commands: usize,
    /// Commands that are not counted, before
    #[arg(long, default_value_t = 100)]
    warm_up: usize,
    /// How long the agents only send heartbeats, before the commands, in seconds. The server closes
    /// channels that are silent for 60
    #[arg(long, default_value_t = 65)]
    hold_seconds: u64,
}

/// When each command reached its agent.
type Arrivals = Arc<Mutex<HashMap<uuid::Uuid, Instant>>>;

/// Connects the agents, lets them be, then sends commands one by one.
pub async fn measure(options: Options) -> anyhow::Result<Value> {
    ensure!(options.agents > 1, "at least two agents");
    let directory = scratch()?;
    let data_dir = directory.path().join("data");
    let start = || {
        let settings = [("MDM_CONNECTIONS", UNLIMITED)];
        Server::start(&options.server.binary, &data_dir, &settings)
    };
    let server = start()?;
    let (anyone, operator) = clients(&server).await?;
    let begun = Instant::now();
    let devices = enroll(&anyone, &operator, options.agents).await?;
    let enrolled_in = begun.elapsed();
    // What enrolments left behind would be taken by the channels, and look as if they took nothing.
    server.stop()?;
    let server = start()?;
    let (anyone, operator) = clients(&server).await?;
    let mut fleet = Fleet::default();
    // From the first few on: what the server takes once for all channels is not theirs.
    let (few, others) = devices.split_at(devices.len().div_ceil(10));
    fleet.connect(&anyone, few).await?;
    let few_kib = settled_kib(&server).await?;
    let begun = Instant::now();
    fleet.connect(&anyone, others).await?;
    let connected_in = begun.elapsed();
    let connected_kib = settled_kib(&server).await?;

    let (begun, before) = (Instant::now(), cpu(server.pid())?);
    tokio::time::sleep(Duration::from_secs(options.hold_seconds)).await;
    let busy = cpu(server.pid())?.saturating_sub(before).as_secs_f64();
    let busy = busy / begun.elapsed().as_secs_f64();
    let held_kib = server.resident_kib()?;
    let figures = send(&options, &operator, &devices, &fleet.arrivals).await?;
    fleet.disconnect().await?;
    server.stop()?;
    let more = real(u64::try_from(others.len())?);
    let grown = |kib: u64| ((real(kib) - real(few_kib)) / more * 10.0).round() / 10.0;
    Ok(json!({
        "measurement": "agents",
        "agents": options.agents,
        "enrolled_in_s": enrolled_in.as_secs_f64(),
        "connected_per_second": (more / connected_in.as_secs_f64()).round(),
        "memory_kib": { "few": few_kib, "connected": connected_kib, "held": held_kib },
        "memory_per_connected_agent_kib": grown(connected_kib),
        "memory_per_held_agent_kib": grown(held_kib),
        "processors_taken_by_heartbeats": (busy * 1_000.0).round() / 1_000.0,
        "until_the_agent_has_it": percentiles::of(&figures.delivered),
        "until_the_caller_has_the_answer": percentiles::of(&figures.answered),
        "floor_one_durable_write_by_the_api": percentiles::of(&figures.floor),
    }))
}

/// A client for whoever has no token yet, and the administrator's.
async fn clients(server: &Server) -> anyhow::Result<(Client, Client)> {
    let anyone = Client::new(server.url.parse()?, None)?;
    let signed_in = anyone.login("admin", PASSWORD.to_owned().into()).await?;
    let operator = anyone.clone().with_token(signed_in.token.into());
    Ok((anyone, operator))
}

/// The server's memory once inventory, status changes and the like have settled.
async fn settled_kib(server: &Server) -> anyhow::Result<u64> {
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.resident_kib()
}

struct Device {
    id: uuid::Uuid,
    token: String,
}

async fn enroll(anyone: &Client, operator: &Client, count: usize) -> anyhow::Result<Vec<Device>> {
    let wish = CreateEnrollmentSecret {
        name: "bench".to_owned(),
        ..CreateEnrollmentSecret::default()
    };
    let secret = operator.create_enrollment_secret(&wish).await?.secret;
    let places = Arc::new(Semaphore::new(64));
    let mut enrolling = JoinSet::new();
    for number in 0..count {
        let (anyone, secret, places) = (anyone.clone(), secret.clone(), Arc::clone(&places));
        enrolling.spawn(async move {
            let _place = places.acquire().await?;
            let request = EnrollRequest {
                uuid: format!("bench-{number}"),
                hostname: format!("bench-{number}"),
                platform: "linux".to_owned(),
                enrollment_secret: Some(secret),
                ..EnrollRequest::default()
            };
            let enrolled = anyone.enroll_self(&request, false).await?;
            anyhow::Ok(Device {
                id: enrolled.device.id,
                token: enrolled.device_token,
            })
        });
    }
    let mut devices = Vec::with_capacity(count);
    while let Some(device) = enrolling.join_next().await {
        devices.push(device??);
    }
    Ok(devices)
}

/// The agents that are connected.
#[derive(Default)]
struct Fleet {
    agents: JoinSet<()>,
    stop: CancellationToken,
    arrivals: Arrivals,
}

impl Fleet {
    async fn connect(&mut self, anyone: &Client, devices: &[Device]) -> anyhow::Result<()> {
        let places = Arc::new(Semaphore::new(64));
        let mut connecting = JoinSet::new();
        for device in devices {
            let client = anyone.clone().with_token(device.token.clone().into());
            let places = Arc::clone(&places);
            connecting.spawn(async move {
                let _place = places.acquire().await?;
                let mut channel = DeviceChannel::connect(&client).await?;
                let Incoming::Frame(frame) = channel.next().await? else {
                    anyhow::bail!("no welcome")
                };
                let ServerFrame::Welcome(welcome) = *frame else {
                    anyhow::bail!("no welcome")
                };
                anyhow::Ok((channel, welcome.heartbeat_seconds))
            });
        }
        let count = u32::try_from(devices.len())?;
        for number in 0..count {
            let connected = connecting.join_next().await.context("nobody connects")?;
            let (channel, seconds) = connected??;
            // Spread over the time between heartbeats, as those of agents that came by and by are.
            let every = Duration::from_secs(seconds);
            let first = tokio::time::Instant::now() + every * number / count;
            let heartbeat = tokio::time::interval_at(first, every);
            let (stop, arrivals) = (self.stop.clone(), Arc::clone(&self.arrivals));
            self.agents.spawn(serve(channel, heartbeat, stop, arrivals));
        }
        Ok(())
    }

    /// Ends it; fails if one of them has lost its channel.
    async fn disconnect(mut self) -> anyhow::Result<()> {
        let mut lost = 0;
        while self.agents.try_join_next().is_some() {
            lost += 1;
        }
        ensure!(lost == 0, "{lost} agents lost their channels");
        self.stop.cancel();
        while self.agents.join_next().await.is_some() {}
        Ok(())
    }
}

/// An agent that notes when a command came, answers it, and sends its heartbeats.
async fn serve(
    mut channel: DeviceChannel,
    mut heartbeat: Interval,
    stop: CancellationToken,
    arrivals: Arrivals,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = heartbeat.tick() => {
                if channel.send(&AgentFrame::Heartbeat {}).await.is_err() {
                    return;
                }
            }
            incoming = channel.next() => {
                let Ok(incoming) = incoming else { return };
                let Incoming::Frame(frame) = incoming else { continue };
                let ServerFrame::Command(command) = *frame else { continue };
                arrivals.lock().unwrap_or_else(PoisonError::into_inner).insert(command.id, Instant::now());
                let result = CommandResult { command_id: command.id, status: "completed".to_owned(), result: Some(json!({})), error: None };
                if channel.send(&AgentFrame::CommandStatus(result)).await.is_err() {
                    return;
                }
            }
        }
    }
}

struct Figures {
    delivered: Vec<Duration>,
    answered: Vec<Duration>,
    floor: Vec<Duration>,
}

/// Sends commands and, in between, does the least that the API can do durably: the floor.
async fn send(
    options: &Options,
    operator: &Client,
    devices: &[Device],
    arrivals: &Arrivals,
) -> anyhow::Result<Figures> {
    let command = SendCommand {
        command: "system_info".to_owned(),
        ..SendCommand::default()
    };
    let change = UpdateDevice {
        os_version: Patch::Value("1".to_owned()),
        ..UpdateDevice::default()
    };
    let mut figures = Figures {
        delivered: Vec::new(),
        answered: Vec::new(),
        floor: Vec::new(),
    };
    for number in 0..options.warm_up + options.commands {
        let device = drawn(devices).context("no devices")?;
        let id = device.id.to_string();
        let begun = Instant::now();
        let done = operator.send_command(&id, &command, Some(30), None).await?;
        let answered = begun.elapsed();
        ensure!(done.status == "completed", "a command is {}", done.status);
        let arrived = arrivals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&done.id)
            .context("no agent had the command")?;
        let begun_floor = Instant::now();
        operator.update_device(&id, &change, None).await?;
        if number >= options.warm_up {
            figures.delivered.push(arrived.duration_since(begun));
            figures.answered.push(answered);
            figures.floor.push(begun_floor.elapsed());
        }
    }
    Ok(figures)
}

/// One of them, by lot.
fn drawn(devices: &[Device]) -> Option<&Device> {
    let mut lot = [0; 8];
    OsEntropy.fill(&mut lot);
    let count = u64::try_from(devices.len()).ok()?;
    let place = u64::from_le_bytes(lot).checked_rem(count)?;
    devices.get(usize::try_from(place).ok()?)
}
