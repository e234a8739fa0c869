//! Results of every size, and agents without a channel.

use std::process::{Child, Stdio};

use serde_json::json;

use crate::processes::{Site, bare, signal};

#[tokio::test]
async fn a_result_that_no_frame_can_hold_arrives_and_one_that_is_too_large_is_refused() {
    let site = Site::start().await;
    let mut agent = site.agent("this-machine").await.allowing("run_script");
    agent.run();
    site.server
        .wait_for_status("this-machine", "online", &site.token)
        .await;
    let wide = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) SELECT i, hex(zeroblob(100)) AS x FROM n";
    let answer = site
        .server
        .post(
            "/api/v1/devices/this-machine/osquery",
            &site.token,
            json!({ "query": wide }),
        )
        .await;
    assert_eq!(answer["rows"].as_array().unwrap().len(), 5_000);
    assert_eq!(answer["rows"][4_999]["i"], 5_000);
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let (status, problem) = site
        .server
        .call(
            "POST",
            "/api/v1/devices/this-machine/osquery",
            &site.token,
            Some(json!({ "query": endless })),
        )
        .await;
    assert_eq!((status, problem["code"].as_str()), (422, Some("INVALID")));
    assert!(
        problem["detail"].as_str().unwrap().contains("LIMIT"),
        "{problem}"
    );
    let script = json!({ "command": "run_script", "parameters": { "script": "head -c 200000 /dev/zero | tr '\\0' x" } });
    let done = site.send("this-machine", script).await;
    assert_eq!(done["result"]["stdout"].as_str().unwrap().len(), 200_000);
    // The ledger has the whole result; the event does not repeat one of this size.
    let log = site
        .server
        .get(
            "/api/v1/events?limit=500&types=command_execution",
            &site.token,
        )
        .await;
    let ended = log["events"]
        .as_array()
        .unwrap()
        .iter()
        .rfind(|event| event["data"]["status"] == "completed")
        .unwrap()
        .clone();
    assert_eq!(ended["data"]["command_id"], done["id"]);
    assert!(ended["data"].get("result").is_none());
}

/// An agent that only checks in.
struct Poller(Child);

impl Drop for Poller {
    fn drop(&mut self) {
        signal(&self.0, rustix::process::Signal::TERM);
        let _ended = self.0.wait();
    }
}

#[tokio::test]
async fn an_agent_without_a_channel_gets_its_commands_by_checking_in() {
    let site = Site::start_with(&[("MDM_CHECKIN_INTERVAL_SECONDS", "5")]).await;
    let agent = site.agent("this-machine").await;
    let mut command = bare("mdm-agent");
    command
        .arg("--state-dir")
        .arg(&agent.state_dir)
        .args(["run", "--poll-only"])
        .stderr(Stdio::null());
    let poller = Poller(command.spawn().unwrap());
    site.server
        .wait_for_status("this-machine", "online", &site.token)
        .await;
    let done = site
        .send("this-machine", json!({ "command": "system_info" }))
        .await;
    assert_eq!(done["status"], "completed");
    let status = agent.call(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(
        (
            &status["enrolled"],
            &status["running"],
            &status["contact"]["link"]
        ),
        (&json!(true), &json!(true), &json!("polling"))
    );
    // Silence for twice the interval is offline.
    drop(poller);
    site.server
        .wait_for_status("this-machine", "offline", &site.token)
        .await;
}
