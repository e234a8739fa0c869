//! `restart`, `shutdown`, `lock`, `wipe`: only where the agent's owner allowed it.

use std::{process::Stdio, time::Duration};

use mdm_proto::device_side::DeliveredCommand;
use serde_json::json;
use tokio::{process::Command, time::timeout};

use super::{CommandOutcome, check_allowed};
use crate::Config;

/// The system's programs answer at once and act a little later.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) async fn execute(command: &DeliveredCommand, config: &Config) -> CommandOutcome {
    let kind = command.command.as_str();
    if let Err(refusal) = check_allowed(kind, config) {
        return refusal;
    }
    let mut program = match (&config.destructive_exec, kind) {
        (Some(drill), _) => {
            let mut program = Command::new(drill);
            program.arg(kind).arg(command.id.to_string());
            program
        }
        (None, "restart") => systemctl("reboot"),
        (None, "shutdown") => systemctl("poweroff"),
        (None, "lock") => {
            let mut program = Command::new("loginctl");
            program.arg("lock-sessions");
            program
        }
        (None, _) => {
            return CommandOutcome::Failed(format!(
                "{kind} is not supported on this platform by this version of the agent"
            ));
        }
    };
    let ended = timeout(
        PATIENCE,
        program.stdin(Stdio::null()).kill_on_drop(true).output(),
    )
    .await;
    let Ok(ended) = ended else {
        return CommandOutcome::Failed(format!(
            "{kind} took longer than {} s and was ended",
            PATIENCE.as_secs()
        ));
    };
    match ended {
        Ok(output) if output.status.success() => CommandOutcome::Completed(json!({})),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr)
                .chars()
                .take(1_000)
                .collect::<String>();
            CommandOutcome::Failed(format!(
                "{kind} ended with {}: {}",
                output.status,
                said.trim()
            ))
        }
        Err(error) => CommandOutcome::Failed(format!("{kind} cannot be carried out: {error}")),
    }
}

fn systemctl(verb: &str) -> Command {
    let mut program = Command::new("systemctl");
    program.arg(verb);
    program
}
