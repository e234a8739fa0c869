//! `system_info` and `refresh_inventory`: what this machine is.

use super::CommandOutcome;
use crate::{clock, platform};

pub(super) async fn execute() -> CommandOutcome {
    let read =
        tokio::task::spawn_blocking(|| serde_json::to_value(platform::system_info(clock::now())))
            .await;
    match read {
        Ok(Ok(info)) => CommandOutcome::Completed(info),
        Ok(Err(error)) => CommandOutcome::Failed(error.to_string()),
        Err(_) => CommandOutcome::Failed("reading the system's information was cut off".to_owned()),
    }
}
