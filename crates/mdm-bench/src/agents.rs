//! From the API to the agent and back.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;
use mdm_client::{Client, DeviceChannel, Incoming};
use mdm_proto::{
    channel::{AgentFrame, ServerFrame},
    commands::SendCommand,
    device_side::CommandResult,
    devices::{EnrollRequest, UpdateDevice},
    enrollment::CreateEnrollmentSecret,
    patch::Patch,
};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    percentiles,
    process::{PASSWORD, Server},
};

/// How it is measured.
#[derive(Debug, Args)]
pub struct Options {
    /// The server's binary
    #[arg(long, default_value = "target/release/mdm-api")]
    binary: PathBuf,
    /// How many agents are connected
    #[arg(long, default_value_t = 1_000)]
    agents: usize,
    /// How many commands are sent, one after the other, each to another agent
    #[arg(long, default_value_t = 1_000)]
    commands: usize,
    /// Commands that are not counted, before
    #[arg(long, default_value_t = 100)]
    warm_up: usize,
}

/// When each command reached its agent.
type Arrivals = Arc<Mutex<HashMap<uuid::Uuid, Instant>>>;

/// Connects the agents, then sends commands one by one.
pub async fn measure(options: Options) -> anyhow::Result<Value> {
    let directory = tempfile::tempdir()?;
    // PostgreSQL's user must be able to pass through.
    std::fs::set_permissions(
        directory.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o711),
    )?;
    let server = Server::start(&options.binary, &directory.path().join("data"))?;
    let anyone = Client::new(server.url.parse()?, None)?;
    let token = anyone
        .login("admin", PASSWORD.to_owned().into())
        .await?
        .token;
    let operator = anyone.clone().with_token(token.into());
    let before_kib = server.resident_kib()?;

    let begun = Instant::now();
    let devices = enroll(&anyone, &operator, options.agents).await?;
    let enrolled_in = begun.elapsed();
    let enrolled_kib = server.resident_kib()?;
    let (stop, arrivals) = (CancellationToken::new(), Arrivals::default());
    let begun = Instant::now();
    let mut agents = connect(&anyone, &devices, &stop, &arrivals).await?;
    let connected_in = begun.elapsed();
    // Inventory, status changes and the like settle.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let connected_kib = server.resident_kib()?;

    let figures = send(&options, &operator, &devices, &arrivals).await?;
    stop.cancel();
    while agents.join_next().await.is_some() {}
    server.stop()?;
    let per_agent = |kib: u64| {
        f64::from(u32::try_from(kib).unwrap_or(u32::MAX))
            / f64::from(u32::try_from(options.agents).unwrap_or(u32::MAX))
    };
    Ok(json!({
        "measurement": "agents",
        "agents": options.agents,
        "enrolled_in_s": enrolled_in.as_secs_f64(),
        "connected_in_s": connected_in.as_secs_f64(),
        "memory_kib": { "before": before_kib, "enrolled": enrolled_kib, "connected": connected_kib },
        "memory_per_connected_agent_kib": per_agent(connected_kib.saturating_sub(enrolled_kib)),
        "until_the_agent_has_it": percentiles::of(&figures.delivered),
        "until_the_caller_has_the_answer": percentiles::of(&figures.answered),
        "floor_one_durable_write_by_the_api": percentiles::of(&figures.floor),
    }))
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

async fn connect(
    anyone: &Client,
    devices: &[Device],
    stop: &CancellationToken,
    arrivals: &Arrivals,
) -> anyhow::Result<JoinSet<()>> {
    let places = Arc::new(Semaphore::new(64));
    let mut connecting = JoinSet::new();
    for device in devices {
        let (client, places) = (
            anyone.clone().with_token(device.token.clone().into()),
            Arc::clone(&places),
        );
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
    let mut agents = JoinSet::new();
    while let Some(connected) = connecting.join_next().await {
        let (channel, heartbeat) = connected??;
        agents.spawn(serve(
            channel,
            heartbeat,
            stop.clone(),
            Arc::clone(arrivals),
        ));
    }
    Ok(agents)
}

/// An agent that notes when a command came, answers it, and sends its heartbeats.
async fn serve(
    mut channel: DeviceChannel,
    heartbeat_seconds: u64,
    stop: CancellationToken,
    arrivals: Arrivals,
) {
    let mut heartbeat = tokio::time::interval(Duration::from_secs(heartbeat_seconds));
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
    for (number, device) in devices
        .iter()
        .cycle()
        .enumerate()
        .take(options.warm_up + options.commands)
    {
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
