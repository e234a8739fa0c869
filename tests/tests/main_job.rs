//! The main job, end to end: a real machine enrols, obeys a command, and everyone watching sees it.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    events::{Watcher, ids},
    processes::Site,
};

fn status_change<'a>(device: &'a str, from: &'a str, to: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |event| {
        event["type"] == "device_status_change"
            && event["data"] == json!({ "device_id": device, "old_status": from, "new_status": to })
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, told in its order")]
async fn a_real_machine_enrols_obeys_and_everyone_watching_sees_it() {
    let site = Site::start().await;
    let mut watcher = Watcher::connect(&site.server.url, &site.token, None)
        .await
        .unwrap();
    let mut agent = site.agent("this-machine").await;
    agent.run();

    let enrolled = watcher
        .until("the enrolment", |event| {
            event["data"]["new_status"] == "enrolled"
        })
        .await;
    let device = enrolled["data"]["device_id"].as_str().unwrap().to_owned();
    assert_eq!(enrolled["data"]["old_status"], "");
    watcher
        .until("online", status_change(&device, "enrolled", "online"))
        .await;

    let command = site
        .send(&device, json!({ "command": "system_info" }))
        .await;
    assert_eq!(command["status"], "completed", "{command}");
    let machine = rustix::system::uname();
    assert_eq!(
        command["result"]["hostname"],
        machine.nodename().to_str().unwrap()
    );
    assert_eq!(
        command["result"]["kernel"],
        machine.release().to_str().unwrap()
    );
    let is_told = |status: &'static str| {
        let id = command["id"].clone();
        move |event: &Value| {
            event["type"] == "command_execution"
                && event["data"]["command_id"] == id
                && event["data"]["status"] == status
        }
    };
    watcher.until("pending", is_told("pending")).await;
    watcher.until("sent", is_told("sent")).await;
    let done = watcher.until("completed", is_told("completed")).await;
    assert_eq!(
        done["data"]["result"]["kernel"],
        command["result"]["kernel"]
    );

    let query = async |sql: &str| {
        site.server
            .post(
                &format!("/api/v1/devices/{device}/osquery"),
                &site.token,
                json!({ "query": sql }),
            )
            .await
    };
    let info = query("SELECT name, version, platform FROM osquery_info").await;
    assert_eq!(info["columns"], json!(["name", "version", "platform"]));
    assert_eq!(
        info["rows"],
        json!([{ "name": "mobius-agent", "version": env!("CARGO_PKG_VERSION"), "platform": "linux" }])
    );
    let counted = query("SELECT count(*) AS n FROM processes").await["rows"][0]["n"]
        .as_i64()
        .unwrap();
    let real = std::fs::read_dir("/proc").unwrap().filter(|entry| {
        entry.as_ref().is_ok_and(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .bytes()
                .all(|b| b.is_ascii_digit())
        })
    });
    let real = i64::try_from(real.count()).unwrap();
    assert!(
        (real - 200..=real + 200).contains(&counted) && counted > 3,
        "{counted} processes, /proc has {real}"
    );
    let (status, problem) = site
        .server
        .call(
            "POST",
            &format!("/api/v1/devices/{device}/osquery"),
            &site.token,
            Some(json!({ "query": "SELEC 1" })),
        )
        .await;
    assert_eq!(status, 422, "{problem}");

    for dangerous in ["run_script", "restart", "shutdown", "lock", "wipe"] {
        let parameters = if dangerous == "run_script" {
            json!({ "script": "true" })
        } else {
            json!({})
        };
        let refused = site
            .send(
                &device,
                json!({ "command": dangerous, "parameters": parameters }),
            )
            .await;
        assert_eq!(refused["status"], "failed", "{dangerous}");
        assert!(
            refused["error"].as_str().unwrap().contains("not allowed"),
            "{refused}"
        );
    }
    for harmless in ["collect_logs", "refresh_inventory"] {
        assert_eq!(
            site.send(&device, json!({ "command": harmless })).await["status"],
            "completed",
            "{harmless}"
        );
    }
    let known = site
        .server
        .get(&format!("/api/v1/devices/{device}"), &site.token)
        .await;
    assert_eq!(
        known["hardware_info"]["kernel"],
        command["result"]["kernel"]
    );
    assert!(known["observed_at"].is_string());

    agent.stop();
    watcher
        .until("offline", status_change(&device, "online", "offline"))
        .await;
    let seen = watcher.close().await;
    let log = site
        .server
        .get("/api/v1/events?limit=500", &site.token)
        .await;
    assert_eq!(
        ids(&seen),
        ids(log["events"].as_array().unwrap()),
        "the watcher saw the whole log, in order, each event once"
    );
}

#[tokio::test]
async fn a_restart_of_the_server_loses_nothing_and_who_resumes_gets_exactly_what_they_missed() {
    let mut site = Site::start().await;
    let mut agent = site.agent("this-machine").await;
    agent.run();
    site.server
        .wait_for_status("this-machine", "online", &site.token)
        .await;
    let mut watcher = Watcher::connect(&site.server.url, &site.token, None)
        .await
        .unwrap();
    let before = site
        .send("this-machine", json!({ "command": "system_info" }))
        .await;
    watcher
        .until("completed", |event| event["data"]["status"] == "completed")
        .await;
    let cursor = watcher.last_id().unwrap();
    watcher.close().await;

    let missed = site
        .send("this-machine", json!({ "command": "collect_logs" }))
        .await;
    let devices = site.server.get("/api/v1/devices", &site.token).await;
    let took = site.server.stop(Signal::TERM);
    assert!(took.as_secs_f64() < 5.0, "stopping took {took:?}");
    assert!(
        site.server.postmaster().is_none(),
        "PostgreSQL has stopped, too"
    );
    site.server.restart();
    assert!(site.server.password.is_none(), "the password is shown once");

    let (again, same) = (
        site.server.get("/api/v1/devices", &site.token).await,
        &devices["devices"][0],
    );
    for key in ["id", "uuid", "hostname", "enrolled_at"] {
        assert_eq!(again["devices"][0][key], same[key]);
    }
    let known = site
        .server
        .get(
            &format!("/api/v1/commands/{}", before["id"].as_str().unwrap()),
            &site.token,
        )
        .await;
    assert_eq!(known["result"], before["result"]);
    // The agent comes back by itself.
    let after =
        mdm_testkit::wait_until("an answer", std::time::Duration::from_mins(1), async || {
            let answer = site
                .send("this-machine", json!({ "command": "system_info" }))
                .await;
            (answer["status"] == "completed").then_some(answer)
        })
        .await;

    let mut resumed = Watcher::connect(&site.server.url, &site.token, Some(&cursor))
        .await
        .unwrap();
    assert_eq!(resumed.welcome["data"]["recovered"], true);
    resumed
        .until("the last answer", |event| {
            event["data"]["command_id"] == after["id"] && event["data"]["status"] == "completed"
        })
        .await;
    let seen = resumed.close().await;
    let log = site
        .server
        .get(
            &format!("/api/v1/events?limit=500&after={cursor}"),
            &site.token,
        )
        .await;
    assert_eq!(ids(&seen), ids(log["events"].as_array().unwrap()));
    assert!(
        seen.iter()
            .any(|event| event["data"]["command_id"] == missed["id"])
    );
}

#[tokio::test]
async fn an_unenrolled_agent_ends_and_says_why() {
    let site = Site::start().await;
    let mut agent = site.agent("this-machine").await;
    agent.run();
    site.server
        .wait_for_status("this-machine", "online", &site.token)
        .await;
    let (status, _) = site
        .server
        .call("DELETE", "/api/v1/devices/this-machine", &site.token, None)
        .await;
    assert_eq!(status, 204);
    assert_eq!(agent.wait(), 1);
    let log = std::fs::read_to_string(agent.state_dir.with_extension("log")).unwrap();
    assert!(log.contains("unenrolled"), "{log}");
}

#[tokio::test]
async fn an_agent_that_unenrols_itself_is_gone_for_the_server_too() {
    let site = Site::start().await;
    let agent = site.agent("this-machine").await;
    let done = agent.call(&["unenroll"]);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    site.server
        .wait_for_status("this-machine", "unenrolled", &site.token)
        .await;
}
