//! What the agent can do. To add a command: a file here and a line in [`execute`].

mod apply_policies;
mod collect_logs;
mod packages;
mod power;
mod run_osquery;
mod run_script;
mod system_info;

use mdm_client::Client;
use mdm_proto::device_side::DeliveredCommand;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{Config, StateDir, executor::News};

/// How a command ended.
#[derive(Debug, Clone, PartialEq)]
pub enum CommandOutcome {
    /// It was done; this is the answer.
    Completed(Value),
    /// It was not, or not wholly; this is why.
    Failed(String),
}

/// What commands work with.
pub struct Context {
    /// How the agent was started.
    pub config: Config,
    /// The server.
    pub client: Client,
    /// Where the agent keeps what it knows.
    pub state: StateDir,
}

/// Carries a command out.
pub async fn execute(
    command: &DeliveredCommand,
    context: &Context,
    news: &mpsc::Sender<News>,
) -> CommandOutcome {
    let config = &context.config;
    match command.command.as_str() {
        "system_info" | "refresh_inventory" => system_info::execute().await,
        "collect_logs" => collect_logs::execute(&command.parameters, config).await,
        "run_osquery" => run_osquery::execute(&command.parameters).await,
        "run_script" => run_script::execute(command, config).await,
        "restart" | "shutdown" | "lock" | "wipe" => power::execute(command, config).await,
        "apply_policies" => apply_policies::execute(context, news).await,
        "install_app" => packages::install(command, context).await,
        "uninstall_app" => packages::uninstall(command, context).await,
        other => CommandOutcome::Failed(format!(
            "{other} is not supported by this version of the agent"
        )),
    }
}

/// Refuses what the agent's owner did not allow.
fn check_allowed(kind: &str, config: &Config) -> Result<(), CommandOutcome> {
    if config.allow.contains(kind) {
        return Ok(());
    }
    let refusal = format!(
        "{kind} is not allowed by this agent's configuration (start it with --allow {kind})"
    );
    Err(CommandOutcome::Failed(refusal))
}

/// A whole number among the parameters, brought within its bounds.
fn number(parameters: &Value, name: &str, default: u64, least: u64, most: u64) -> u64 {
    parameters
        .get(name)
        .and_then(Value::as_u64)
        .unwrap_or(default)
        .clamp(least, most)
}
