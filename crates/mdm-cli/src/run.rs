//! `mdmctl run` and `mdmctl query`.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, bail};
use clap::Args;
use mdm_client::Client;
use mdm_proto::commands::{
    Command, CommandBatch, OsqueryRequest, SendCommand, SendToMany, Targets,
};
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};

use crate::{
    events::device_ids,
    groups::group_id,
    input::{json, pair},
    output::Output,
    session::Connection,
};

/// The longest that one call waits for a device.
const ONE_WAIT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_secs(1);

/// Send a command to devices.
#[derive(Debug, Args)]
pub struct Run {
    /// Such as system_info, run_script, install_app, lock, restart, wipe
    command: String,
    #[command(flatten)]
    targets: TargetOptions,
    /// A parameter of the command, as text; may be repeated
    #[arg(long = "param", short, value_name = "KEY=VALUE", value_parser = pair)]
    params: Vec<(String, String)>,
    /// The parameters as JSON
    #[arg(long, value_name = "JSON", value_parser = json)]
    parameters: Option<Value>,
    /// After how many seconds it is too late
    #[arg(long, value_name = "SECONDS")]
    expires_in: Option<i64>,
    /// Commands with a higher one go first
    #[arg(long)]
    priority: Option<i64>,
    /// Wait until it has ended everywhere; exits with 1 if it did not succeed everywhere
    #[arg(long, short)]
    wait: bool,
    /// How long to wait at most, in seconds
    #[arg(long, default_value_t = 300, requires = "wait", value_name = "SECONDS")]
    timeout: u64,
    /// The same command with the same key is sent once only, however often this is repeated
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Do not ask before a command that cannot be undone
    #[arg(long, short)]
    yes: bool,
}

/// Which devices.
#[derive(Debug, Args)]
#[group(required = true)]
struct TargetOptions {
    /// A device, by id or by the hardware's identifier; may be repeated
    #[arg(long = "device", short, value_name = "DEVICE")]
    devices: Vec<String>,
    /// The members of a group, by id or name
    #[arg(long, short)]
    group: Option<String>,
    /// The devices that meet these conditions, such as '{"platform": "linux"}'
    #[arg(long, value_name = "JSON", value_parser = json)]
    filter: Option<Value>,
}

impl Run {
    pub async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode> {
        let parameters = parameters(self.parameters, &self.params)?;
        if self.command == "wipe" && !self.yes {
            confirm("A wipe erases everything on the devices.")?;
        }
        let mut client = connection.client().await?;
        if let Some(key) = &self.idempotency_key {
            client = client.with_idempotency_key(key.as_str());
        }
        let wait = self.wait.then(|| Duration::from_secs(self.timeout));
        if let [device] = self.targets.devices.as_slice() {
            let command = SendCommand {
                command: self.command,
                parameters,
                expires_in_seconds: self.expires_in,
                priority: self.priority,
            };
            return run_on_one(&client, device, &command, wait, output).await;
        }
        let targets = match &self.targets.group {
            Some(group) => Targets {
                group_id: Some(group_id(&client, group).await?),
                ..Targets::default()
            },
            None if self.targets.filter.is_some() => Targets {
                filter: self.targets.filter,
                ..Targets::default()
            },
            None => Targets {
                device_ids: Some(device_ids(&client, &self.targets.devices).await?),
                ..Targets::default()
            },
        };
        let command = SendToMany {
            command: self.command,
            parameters,
            expires_in_seconds: self.expires_in,
            priority: self.priority,
            targets,
        };
        let batch = client.send_to_many(&command).await?;
        let Some(wait) = wait else {
            output.show(&batch)?;
            return Ok(ExitCode::SUCCESS);
        };
        let batch = follow_batch(connection, batch, wait, output).await?;
        output.show(&batch)?;
        let done = batch.counts.get("completed").copied().unwrap_or(0);
        Ok(verdict(
            batch.expanded && done == batch.total && batch.skipped == 0,
        ))
    }
}

fn verdict(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn parameters(json: Option<Value>, pairs: &[(String, String)]) -> Result<Option<Value>> {
    if pairs.is_empty() {
        return Ok(json);
    }
    let mut fields = match json {
        None => Map::new(),
        Some(Value::Object(fields)) => fields,
        Some(_) => bail!("--parameters must be a JSON object if there is a --param, too"),
    };
    for (key, value) in pairs {
        fields.insert(key.clone(), Value::from(value.clone()));
    }
    Ok(Some(Value::Object(fields)))
}

fn confirm(what: &str) -> Result<()> {
    if !io::stdin().is_terminal() {
        bail!("{what} Say --yes if that is meant.");
    }
    eprint!("{what} Go on? Type yes: ");
    io::stderr().flush()?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    if line.trim() == "yes" {
        return Ok(());
    }
    bail!("nothing was sent");
}

async fn run_on_one(
    client: &Client,
    device: &str,
    command: &SendCommand,
    wait: Option<Duration>,
    output: Output,
) -> Result<ExitCode> {
    let until = Instant::now() + wait.unwrap_or_default();
    let first = wait.map(|wait| {
        u8::try_from(wait.min(ONE_WAIT).as_secs())
            .unwrap_or(1)
            .max(1)
    });
    let mut sent = client.send_command(device, command, first, None).await?;
    while wait.is_some() && !sent.has_ended() && Instant::now() < until {
        sleep(POLL).await;
        sent = client.command(sent.id).await?;
    }
    output.show(&sent)?;
    if wait.is_some() && !sent.has_ended() {
        bail!(
            "the device has not answered in time; `mdmctl commands get {}` tells later",
            sent.id
        );
    }
    Ok(verdict(wait.is_none() || is_success(&sent)))
}

fn is_success(command: &Command) -> bool {
    command.status == "completed"
}

/// Waits with a bar until a batch has ended or the time is over.
async fn follow_batch(
    connection: &Connection,
    mut batch: CommandBatch,
    wait: Duration,
    output: Output,
) -> Result<CommandBatch> {
    let until = Instant::now() + wait;
    let bar = output.progress(0, "{wide_bar} {pos}/{len} devices {eta}")?;
    while !batch.has_ended() && Instant::now() < until {
        bar.set_length(u64::try_from(batch.total).unwrap_or(0));
        bar.set_position(u64::try_from(batch.total - batch.open()).unwrap_or(0));
        sleep(POLL).await;
        // A session may have to be renewed while a long batch runs.
        batch = connection.client().await?.command_batch(batch.id).await?;
    }
    bar.finish_and_clear();
    Ok(batch)
}

/// Ask a device an SQL query over its live tables.
#[derive(Debug, Args)]
pub struct Query {
    /// Such as "SELECT name, version FROM os_version"
    sql: String,
    /// Which device, by id or by the hardware's identifier
    #[arg(long, short)]
    device: String,
    /// How many seconds the device may take
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<i64>,
}

impl Query {
    pub async fn run(self, client: &Client, output: Output) -> Result<()> {
        let request = OsqueryRequest {
            query: self.sql,
            timeout_seconds: self.timeout,
        };
        let result = client.query_device(&self.device, &request).await?;
        let columns: Vec<_> = result.columns.iter().map(String::as_str).collect();
        output.rows(&result.rows, &columns)
    }
}
