//! `kill -9` of the server, of PostgreSQL and of the agent, at random moments while commands flow.
//!
//! Nothing that was acknowledged may be lost, nothing may be executed twice, no event may be lost
//! or doubled, and the ledger must agree with what really happened on the machine.
//!
//! Alone: `cargo test -p mdm-e2e --features slow kills -- --nocapture`. `MDM_TEST_ROUNDS` and
//! `MDM_TEST_SEED` change the number of kills (200) and their moments.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mdm_testkit::wait_until;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    dice::{Dice, setting},
    events::{Watcher, ids},
    processes::{Server, Site},
};

const DEVICE: &str = "this-machine";
/// After the last kill everything has to come to its end within this time.
const SETTLE: Duration = Duration::from_mins(3);

/// What the sender sent and got acknowledged: idempotency key to command id.
type Acknowledged = Arc<Mutex<BTreeMap<String, String>>>;

/// Where the server answers and as whom, for tasks that outlive single servers.
#[derive(Clone)]
struct Door {
    url: String,
    token: Arc<Mutex<String>>,
    http: reqwest::Client,
}

impl Door {
    fn token(&self) -> String {
        self.token.lock().unwrap().clone()
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Option<(u16, Value)> {
        let mut request = self
            .http
            .request(method.parse().unwrap(), format!("{}{path}", self.url))
            .bearer_auth(self.token());
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        Some((status, response.json().await.ok()?))
    }
}

/// Sends commands, each until it is acknowledged: a lost reply is asked for again under its key.
async fn send_until(door: Door, stop: Arc<AtomicBool>, acknowledged: Acknowledged, marks: String) {
    let script = format!("echo \"$MDM_COMMAND_ID\" >> {marks}/scripts");
    let kinds = [
        json!({ "command": "system_info" }),
        json!({ "command": "run_script", "parameters": { "script": script } }),
        json!({ "command": "restart" }),
        json!({ "command": "run_osquery", "parameters": { "query": "SELECT pid FROM osquery_info" } }),
    ];
    for (number, body) in kinds.iter().cycle().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let key = format!("command-{number}");
        loop {
            let answer = door
                .call(
                    "POST",
                    &format!("/api/v1/devices/{DEVICE}/commands"),
                    Some(body),
                    Some(&key),
                )
                .await;
            match answer {
                Some((202, command)) => {
                    acknowledged
                        .lock()
                        .unwrap()
                        .insert(key, command["id"].as_str().unwrap().to_owned());
                    break;
                }
                // Everything else is for a moment: the server or its database is away, or too much waits.
                Some((status, problem)) => {
                    assert!(status >= 500 || status == 409, "{status} {problem}");
                }
                None => {}
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// Follows the events after `last` through all breaks, resuming from the last one that came, until
/// it has seen the one that `until` names.
async fn follow(door: Door, mut last: String, until: Arc<Mutex<Option<String>>>) -> Vec<Value> {
    let mut seen: Vec<Value> = Vec::new();
    while until
        .lock()
        .unwrap()
        .as_ref()
        .is_none_or(|until| last < *until)
    {
        let Ok(mut watcher) = Watcher::connect(&door.url, &door.token(), Some(&last)).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        assert_eq!(
            watcher.welcome["data"]["recovered"], true,
            "{}",
            watcher.welcome
        );
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_secs(2), watcher.next()).await {
        }
        last = watcher.last_id().unwrap_or(last);
        seen.append(&mut watcher.seen);
    }
    seen
}

fn lines(path: &Path) -> BTreeMap<String, u32> {
    let mut counted = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
        *counted
            .entry(line.rsplit(' ').next().unwrap().to_owned())
            .or_default() += 1;
    }
    counted
}

async fn all_pages(server: &Server, token: &str, path: &str, list: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = server
            .get(&format!("{path}?limit=500{cursor}"), token)
            .await;
        all.extend(page[list].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else {
            return all;
        };
        cursor = format!("&cursor={next}");
    }
}

async fn whole_log(server: &Server, token: &str) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let after = all
            .last()
            .map(|event| format!("&after={}", event["id"].as_str().unwrap()))
            .unwrap_or_default();
        let page = server
            .get(&format!("/api/v1/events?limit=500{after}"), token)
            .await;
        let events = page["events"].as_array().unwrap();
        if events.is_empty() {
            return all;
        }
        all.extend(events.iter().cloned());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one story, told in its order")]
async fn two_hundred_kills_lose_nothing_and_double_nothing() {
    let (rounds, seed) = (setting("MDM_TEST_ROUNDS", 200), setting("MDM_TEST_SEED", 7));
    let mut dice = Dice::new(seed);
    let mut site = Site::start().await;
    let marks = site.directory.path().join("marks");
    std::fs::create_dir(&marks).unwrap();
    let drill = marks.join("drill");
    std::fs::write(
        &drill,
        format!(
            "#!/bin/sh\necho \"$1 $2\" >> {}/destructive\n",
            marks.display()
        ),
    )
    .unwrap();
    std::fs::set_permissions(&drill, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut agent = site
        .agent(DEVICE)
        .await
        .allowing("run_script,restart")
        .with("MDM_AGENT_DESTRUCTIVE_EXEC", drill.to_str().unwrap());
    agent.run();
    let door = Door {
        url: site.server.url.clone(),
        token: Arc::new(Mutex::new(site.token.clone())),
        http: mdm_client::http_client(Duration::from_secs(5)).unwrap(),
    };
    let (stop, acknowledged, until) = (
        Arc::new(AtomicBool::new(false)),
        Acknowledged::default(),
        Arc::new(Mutex::new(None)),
    );
    let sender = tokio::spawn(send_until(
        door.clone(),
        Arc::clone(&stop),
        Arc::clone(&acknowledged),
        marks.display().to_string(),
    ));
    // Everything after the enrolment is watched.
    let first = site.server.get("/api/v1/events?limit=1", &site.token).await["events"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let follower = tokio::spawn(follow(door.clone(), first.clone(), Arc::clone(&until)));

    let mut killed = BTreeMap::<&str, u32>::new();
    let begun = Instant::now();
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(100 + dice.below(700))).await;
        match dice.below(3) {
            0 => {
                site.server.kill();
                *killed.entry("server").or_default() += 1;
                site.server.restart();
            }
            1 => {
                if let Some(postmaster) = site.server.postmaster() {
                    let _gone_already = kill_process(postmaster, Signal::KILL);
                    *killed.entry("PostgreSQL").or_default() += 1;
                }
            }
            _ => {
                agent.kill();
                *killed.entry("agent").or_default() += 1;
                agent.run();
            }
        }
        // An access token lasts 15 minutes.
        if begun.elapsed() > Duration::from_mins(10)
            && let Some((200, answer)) = login(&door, &site.password).await
        {
            *door.token.lock().unwrap() = answer;
        }
    }
    stop.store(true, Ordering::Relaxed);
    sender.await.unwrap();
    site.token = wait_until("a login", SETTLE, async || {
        login(&door, &site.password).await.map(|(_, token)| token)
    })
    .await;
    *door.token.lock().unwrap() = site.token.clone();
    wait_until("the end of every command", SETTLE, async || {
        for status in ["pending", "sent", "running"] {
            let (code, page) = door
                .call(
                    "GET",
                    &format!("/api/v1/commands?status={status}&limit=1"),
                    None,
                    None,
                )
                .await?;
            if code != 200 || page["total"] != 0 {
                return None;
            }
        }
        Some(())
    })
    .await;
    agent.stop();
    site.server
        .wait_for_status(DEVICE, "offline", &site.token)
        .await;
    let log = whole_log(&site.server, &site.token).await;
    *until.lock().unwrap() = log
        .last()
        .map(|event| event["id"].as_str().unwrap().to_owned());
    let seen = tokio::time::timeout(SETTLE, follower)
        .await
        .expect("the follower sees the end of the log")
        .unwrap();

    let after_first: Vec<_> = ids(&log).into_iter().filter(|id| *id > first).collect();
    assert_eq!(
        ids(&seen),
        after_first,
        "who follows sees every event once and in order"
    );
    let commands = all_pages(&site.server, &site.token, "/api/v1/commands", "commands").await;
    let acknowledged = acknowledged.lock().unwrap().clone();
    let ledger: BTreeSet<_> = commands
        .iter()
        .map(|command| command["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        ledger,
        acknowledged.values().cloned().collect(),
        "the ledger holds what was acknowledged, each once, and nothing else"
    );
    let (scripts, destructive) = (
        lines(&marks.join("scripts")),
        lines(&marks.join("destructive")),
    );
    check_effects(&commands, &scripts, &destructive);
    check_events(&site.server, &site.token, &commands, &log).await;
    println!(
        "{rounds} kills (seed {seed}): {killed:?}; {} commands, {} events, {} scripts and {} restarts carried out, {:.0} s",
        commands.len(),
        log.len(),
        scripts.len(),
        destructive.len(),
        begun.elapsed().as_secs_f64()
    );
    assert!(
        commands.len() > usize::try_from(rounds).unwrap(),
        "commands flowed"
    );
}

async fn login(door: &Door, password: &str) -> Option<(u16, String)> {
    let body = json!({ "username": "admin", "password": password });
    let (status, answer) = door
        .call("POST", "/api/v1/auth/login", Some(&body), None)
        .await?;
    answer["token"]
        .as_str()
        .map(|token| (status, token.to_owned()))
}

/// What the ledger says against what happened on the machine.
fn check_effects(
    commands: &[Value],
    scripts: &BTreeMap<String, u32>,
    destructive: &BTreeMap<String, u32>,
) {
    for command in commands {
        let (id, kind, status) = (
            command["id"].as_str().unwrap(),
            command["command"].as_str().unwrap(),
            command["status"].as_str().unwrap(),
        );
        assert!(
            ["completed", "failed", "unknown"].contains(&status),
            "{command}"
        );
        let effects = match kind {
            "run_script" => scripts.get(id).copied().unwrap_or(0),
            "restart" => destructive.get(id).copied().unwrap_or(0),
            _ => {
                assert_eq!(status, "completed", "{command}");
                continue;
            }
        };
        assert!(effects <= 1, "{kind} {id} took effect {effects} times");
        if status == "completed" {
            assert_eq!(effects, 1, "{command} is called completed and did nothing");
        }
        if command["error"]
            .as_str()
            .is_some_and(|error| error.contains("never reached"))
        {
            assert_eq!(effects, 0, "{command} never arrived, and took effect");
        }
    }
}

/// Each command's steps in the ledger are its events in the log, one for one.
async fn check_events(server: &Server, token: &str, commands: &[Value], log: &[Value]) {
    let mut told: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in log
        .iter()
        .filter(|event| event["type"] == "command_execution")
    {
        told.entry(event["data"]["command_id"].as_str().unwrap())
            .or_default()
            .push(event["data"]["status"].as_str().unwrap());
    }
    for command in commands {
        let id = command["id"].as_str().unwrap();
        let full = server.get(&format!("/api/v1/commands/{id}"), token).await;
        let steps: Vec<_> = full["transitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step["status"].as_str().unwrap())
            .collect();
        assert_eq!(Some(&steps), told.get(id), "{id}");
    }
}
