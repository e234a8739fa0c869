//! `run_osquery`: one query over the system's live tables.

use std::time::Duration;

use serde_json::Value;

use super::{CommandOutcome, number};
use crate::sql;

pub(super) async fn execute(parameters: &Value) -> CommandOutcome {
    let Some(query) = parameters
        .get("query")
        .and_then(Value::as_str)
        .map(str::to_owned)
    else {
        return CommandOutcome::Failed("the parameter query is missing".to_owned());
    };
    let time = Duration::from_secs(number(parameters, "timeout_seconds", 30, 1, 60));
    let ran = tokio::task::spawn_blocking(move || sql::query(&query, time)).await;
    match ran.map(|result| result.map(serde_json::to_value)) {
        Ok(Ok(Ok(rows))) => CommandOutcome::Completed(rows),
        Ok(Ok(Err(error))) => CommandOutcome::Failed(error.to_string()),
        Ok(Err(error)) => CommandOutcome::Failed(error.to_string()),
        Err(_) => CommandOutcome::Failed("the query was cut off".to_owned()),
    }
}
