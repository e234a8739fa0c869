//! The `mdm-agent` binary. Exit codes: 0 done, 1 failed, 2 wrong usage.
#![expect(
    clippy::doc_markdown,
    reason = "the comments of the arguments are the help that people read"
)]

use std::{
    io::{IsTerminal, Read, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use mdm_agent::{AgentError, Config, EnrollOptions, status};
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, fmt, prelude::*};
use url::Url;

/// Mobius MDM's agent: enrols this machine and carries out what the server asks of it.
#[derive(Debug, Parser)]
#[command(name = "mdm-agent", version, max_term_width = 100)]
struct Cli {
    /// Where the agent keeps its identity and its journal [default: /var/lib/mobius-agent for
    /// root, else ~/.local/state/mobius-agent]
    #[arg(long, env = "MDM_AGENT_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// What is logged
    #[arg(
        long,
        env = "MDM_AGENT_LOG_LEVEL",
        default_value = "info",
        value_name = "FILTER"
    )]
    log_level: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enrol this machine.
    Enroll(EnrollArguments),
    /// Run until Ctrl-C or SIGTERM.
    Run(RunArguments),
    /// Tell whether this machine is enrolled and reaches its server.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Leave the organisation and forget who this machine was.
    Unenroll,
}

#[derive(Debug, Args)]
struct EnrollArguments {
    /// The server, such as https://mdm.example.org
    #[arg(long, env = "MDM_AGENT_SERVER", value_name = "URL")]
    server: Url,
    /// The enrolment secret; `-` reads it from standard input, so that it is in no process list
    #[arg(long, env = "MDM_AGENT_SECRET", hide_env_values = true)]
    secret: String,
    /// The hardware's identifier [default: the firmware's, else derived from /etc/machine-id]
    #[arg(long)]
    uuid: Option<String>,
    /// A label, as key=value; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Take over from a device that is enrolled with the same identifier; its token ends
    #[arg(long)]
    re_enroll: bool,
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Obey these commands too, which are refused otherwise: run_script, install_app (and with
    /// it uninstall_app), restart, shutdown, lock, wipe
    #[arg(long, env = "MDM_AGENT_ALLOW", value_delimiter = ',', value_name = "COMMAND,…",
          value_parser = ["run_script", "install_app", "restart", "shutdown", "lock", "wipe"])]
    allow: Vec<String>,
    /// Run this program instead of the system's own for restart, shutdown, lock and wipe, with the
    /// command's name and id as arguments: for drills
    #[arg(long, env = "MDM_AGENT_DESTRUCTIVE_EXEC", value_name = "PROGRAM")]
    destructive_exec: Option<PathBuf>,
    /// Only check in from time to time, without a channel
    #[arg(long)]
    poll_only: bool,
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "must have the form key=value".to_owned())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = init_log(&cli.log_level) {
        say_error(&error);
        return ExitCode::from(2);
    }
    let config = Config {
        state_dir: cli.state_dir.unwrap_or_else(default_state_dir),
        ..Config::default()
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            say_error(&format!(
                "the system gives no threads or descriptors: {error}"
            ));
            return ExitCode::from(1);
        }
    };
    let done = runtime.block_on(carry_out(cli.command, config));
    // A long query on a thread of its own must not keep the agent from ending: it is in the journal.
    runtime.shutdown_timeout(Duration::from_millis(200));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_error(&error.to_string());
            ExitCode::from(1)
        }
    }
}

fn say_error(text: &str) {
    let _nobody_reads = writeln!(std::io::stderr(), "mdm-agent: {text}");
}

fn say(text: &str) {
    let _nobody_reads = writeln!(std::io::stdout(), "{text}");
}

async fn carry_out(command: Command, config: Config) -> Result<(), AgentError> {
    match command {
        Command::Enroll(options) => {
            let options = EnrollOptions {
                server: options.server,
                secret: read_secret(options.secret)?,
                uuid: options.uuid,
                labels: options.labels.into_iter().collect(),
                re_enroll: options.re_enroll,
            };
            let identity = mdm_agent::enroll(&config, options).await?;
            say(&format!(
                "enrolled as {} (uuid {})",
                identity.device_id, identity.uuid
            ));
        }
        Command::Run(run) => {
            let allow = run.allow.into_iter().collect();
            let config = Config {
                allow,
                destructive_exec: run.destructive_exec,
                poll_only: run.poll_only,
                ..config
            };
            mdm_agent::run(config, stop_on_signal()?).await?;
        }
        Command::Status { json } => show(&status::status(&config)?, json),
        Command::Unenroll => {
            let identity = mdm_agent::enrollment::unenroll(&config).await?;
            say(&format!("{} is not enrolled any more", identity.device_id));
        }
    }
    Ok(())
}

fn read_secret(given: String) -> Result<SecretString, AgentError> {
    if given != "-" {
        return Ok(given.into());
    }
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|error| AgentError::State {
        path: "standard input".into(),
        error,
    })?;
    Ok(text.trim().to_owned().into())
}

fn show(status: &status::Status, json: bool) {
    if json {
        say(&serde_json::to_string_pretty(status).unwrap_or_default());
        return;
    }
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    say(&format!(
        "enrolled         {}",
        if status.enrolled { "yes" } else { "no" }
    ));
    say(&format!(
        "running          {}",
        if status.running { "yes" } else { "no" }
    ));
    say(&format!("server           {}", or_none(&status.server)));
    say(&format!("device id        {}", or_none(&status.device_id)));
    say(&format!("uuid             {}", or_none(&status.uuid)));
    if let Some(contact) = &status.contact {
        say(&format!(
            "last contact     {:?} since {}",
            contact.link, contact.since
        ));
        say(&format!(
            "last error       {}",
            or_none(&contact.last_error)
        ));
    }
    say(&format!("pending results  {}", status.pending_results));
}

fn stop_on_signal() -> Result<CancellationToken, AgentError> {
    let failed = |error| AgentError::State {
        path: "signals".into(),
        error,
    };
    let stop = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}

fn default_state_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/mobius-agent");
    }
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let base = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")));
    base.unwrap_or_else(std::env::temp_dir).join("mobius-agent")
}

fn init_log(level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| format!("--log-level {level:?} cannot be read: {error}"))?;
    let registry = tracing_subscriber::registry().with(filter);
    let terminal = std::io::stderr().is_terminal();
    let result = if terminal {
        registry
            .with(fmt::layer().with_writer(std::io::stderr))
            .try_init()
    } else {
        registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_writer(std::io::stderr),
            )
            .try_init()
    };
    result.map_err(|error| error.to_string())
}
