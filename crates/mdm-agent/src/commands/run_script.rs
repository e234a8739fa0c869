//! `run_script`: only where the agent's owner allowed it; bounded in time and output.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use mdm_proto::device_side::DeliveredCommand;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

use super::{CommandOutcome, check_allowed, number};
use crate::Config;

const OUTPUT_AT_MOST: usize = 256 * 1024;

pub(super) async fn execute(command: &DeliveredCommand, config: &Config) -> CommandOutcome {
    if let Err(refusal) = check_allowed("run_script", config) {
        return refusal;
    }
    let Some(script) = command.parameters.get("script").and_then(Value::as_str) else {
        return CommandOutcome::Failed("the parameter script is missing".to_owned());
    };
    let time = Duration::from_secs(number(&command.parameters, "timeout_seconds", 60, 1, 600));
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(script)
        .env("MDM_COMMAND_ID", command.id.to_string());
    shell
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    match run(shell, time).await {
        Ok(result) => CommandOutcome::Completed(result),
        Err(error) => CommandOutcome::Failed(error),
    }
}

pub(super) async fn run(mut shell: Command, time: Duration) -> Result<Value, String> {
    let begun = Instant::now();
    let mut child = shell
        .spawn()
        .map_err(|error| format!("the script cannot be started: {error}"))?;
    let group = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async { tokio::join!(read(stdout), read(stderr), child.wait()) };
    let ended = tokio::time::timeout(time, work).await;
    let Ok((stdout, stderr, status)) = ended else {
        if let Some(group) = group {
            // The whole group: a script's children must not outlive its time.
            let _gone_already = kill_process_group(group, Signal::KILL);
        }
        return Err(format!(
            "the script took longer than {} s and was ended",
            time.as_secs()
        ));
    };
    let status = status.map_err(|error| format!("the script's end cannot be learnt: {error}"))?;
    Ok(json!({
        "exit_code": status.code(),
        "stdout": stdout.0,
        "stderr": stderr.0,
        "truncated": stdout.1 || stderr.1,
        "duration_ms": u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    }))
}

/// Reads to the end and keeps the beginning.
async fn read(source: Option<impl AsyncRead + Unpin>) -> (String, bool) {
    let Some(mut source) = source else {
        return (String::new(), false);
    };
    let (mut kept, mut piece, mut truncated) = (Vec::new(), vec![0_u8; 8192], false);
    while let Ok(length @ 1..) = source.read(&mut piece).await {
        let room = OUTPUT_AT_MOST.saturating_sub(kept.len());
        kept.extend_from_slice(piece.get(..length.min(room)).unwrap_or_default());
        truncated |= length > room;
    }
    (
        String::from_utf8_lossy(&kept).replace('\0', "\u{fffd}"),
        truncated,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn command(parameters: Value) -> DeliveredCommand {
        DeliveredCommand {
            id: Uuid::nil(),
            command: "run_script".to_owned(),
            parameters,
            lane: "script".to_owned(),
            expires_at: crate::clock::now().into(),
            attempt: 1,
        }
    }

    fn allowing() -> Config {
        Config {
            allow: ["run_script".to_owned()].into(),
            ..Config::default()
        }
    }

    #[tokio::test]
    async fn a_script_is_refused_unless_the_owner_allowed_it() {
        let refused = execute(&command(json!({ "script": "exit 0" })), &Config::default()).await;
        assert!(
            matches!(refused, CommandOutcome::Failed(reason) if reason.contains("--allow run_script"))
        );
    }

    #[tokio::test]
    async fn an_allowed_script_tells_its_exit_code_and_output() {
        let done = execute(
            &command(json!({ "script": "echo out; echo err >&2; exit 3" })),
            &allowing(),
        )
        .await;
        let CommandOutcome::Completed(result) = done else {
            panic!("{done:?}")
        };
        assert_eq!(
            (&result["exit_code"], &result["stdout"], &result["stderr"]),
            (&json!(3), &json!("out\n"), &json!("err\n"))
        );
    }

    #[tokio::test]
    async fn a_script_that_takes_too_long_is_ended_with_its_children() {
        let mark = tempfile::NamedTempFile::new().unwrap();
        let script = format!("(sleep 600; echo late > {}) & wait", mark.path().display());
        let begun = Instant::now();
        let ended = execute(
            &command(json!({ "script": script, "timeout_seconds": 1 })),
            &allowing(),
        )
        .await;
        assert!(
            matches!(ended, CommandOutcome::Failed(reason) if reason.contains("longer than 1 s"))
        );
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[tokio::test]
    async fn output_without_end_is_cut() {
        let done = execute(
            &command(json!({ "script": "head -c 1000000 /dev/zero" })),
            &allowing(),
        )
        .await;
        let CommandOutcome::Completed(result) = done else {
            panic!("{done:?}")
        };
        assert_eq!(result["truncated"], true);
    }
}
