//! Three nodes, followed by many, while nodes are killed and stand still, connections of the database
//! are cut, and NATS is stopped, frozen and loses its stream.
//!
//! Whoever follows gets exactly the permitted events, in the log's order, each once; what was
//! acknowledged is there, once.
//!
//! Alone: `cargo test -p mdm-e2e --features slow upheaval -- --nocapture`. `MDM_TEST_UPHEAVALS` and
//! `MDM_TEST_SEED` change the number of blows (15 in each test) and their moments. With NATS it
//! needs `nats-server` on the path.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mdm_testkit::wait_until;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::{
    dice::{Dice, setting},
    events::{Watcher, ids},
    fleet::{Fleet, PATIENCE},
    nats::Nats,
};

/// After the last blow everything has to come to rest within this time.
const SETTLE: Duration = Duration::from_mins(2);
/// A follower of a node that stands still looks for another one after this long.
const STILL: Duration = Duration::from_secs(2);

/// Who follows, with which filters.
struct Follower {
    name: &'static str,
    token: String,
    filters: String,
    seen: JoinHandle<Vec<Value>>,
    until: watch::Sender<Option<String>>,
}

fn start_following(
    fleet: &Fleet,
    name: &'static str,
    token: &str,
    filters: &str,
    start: &str,
    seed: u64,
) -> Follower {
    let urls = fleet.nodes.iter().map(|node| node.url.clone()).collect();
    let (until, told) = watch::channel(None);
    let follow = follow(
        urls,
        token.to_owned(),
        filters.to_owned(),
        start.to_owned(),
        told,
        Dice::new(seed),
    );
    Follower {
        name,
        token: token.to_owned(),
        filters: filters.to_owned(),
        seen: tokio::spawn(follow),
        until,
    }
}

/// Follows through all breaks, at one node or another, until the event that `until` names has come.
async fn follow(
    urls: Vec<String>,
    token: String,
    filters: String,
    mut last: String,
    until: watch::Receiver<Option<String>>,
    mut dice: Dice,
) -> Vec<Value> {
    let mut seen: Vec<Value> = Vec::new();
    let reached = |last: &str| until.borrow().as_deref().is_some_and(|until| last >= until);
    while !reached(&last) {
        let url = &urls[dice.choose(urls.len())];
        let query = format!("after={last}&{filters}");
        let opening = Watcher::connect_with(url, &token, &query);
        let Ok(Ok(mut watcher)) = timeout(STILL, opening).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        assert_eq!(
            watcher.welcome["data"]["recovered"], true,
            "{}",
            watcher.welcome
        );
        // Now and then it goes to another node though nothing broke.
        let stays = dice.below(60);
        for _ in 0..stays {
            if !matches!(timeout(STILL, watcher.next()).await, Ok(Some(_))) {
                break;
            }
        }
        last = watcher.last_id().unwrap_or(last);
        seen.append(&mut watcher.seen);
    }
    seen
}

/// Makes changes of all kinds until told to stop; each until it is acknowledged. Tells how many.
async fn change(urls: Vec<String>, token: String, stop: Arc<AtomicBool>, writer: usize) -> usize {
    let http = mdm_client::http_client(Duration::from_secs(3)).unwrap();
    let mut dice = Dice::new(writer as u64);
    let mut made = 0;
    while !stop.load(Ordering::Relaxed) {
        let name = format!("{writer}-{made}");
        let (path, body) = match made % 3 {
            0 => ("/api/v1/policies", json!({ "name": name })),
            1 => ("/api/v1/api-keys", json!({ "name": name })),
            _ => (
                "/api/v1/devices",
                json!({ "uuid": name, "hostname": name, "platform": "linux" }),
            ),
        };
        loop {
            let url = &urls[dice.choose(urls.len())];
            let request = http
                .post(format!("{url}{path}"))
                .bearer_auth(&token)
                .header("idempotency-key", &name)
                .json(&body);
            let Ok(answer) = request.send().await else {
                continue;
            };
            let status = answer.status().as_u16();
            let problem: Value = answer.json().await.unwrap_or_default();
            // A node died after the commit and before it had kept its answer.
            if status == 201 || problem["code"] == "IDEMPOTENCY_ANSWER_LOST" {
                break;
            }
            // The first try may still be under way, or the database away.
            assert!(status == 409 || status >= 500, "{path}: {status} {problem}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        made += 1;
    }
    made
}

async fn log_of(fleet: &Fleet, token: &str, filters: &str, start: &str) -> Vec<Value> {
    let mut events = Vec::new();
    let mut after = start.to_owned();
    loop {
        let path = format!("/api/v1/events?limit=500&after={after}&{filters}");
        let page = fleet.nodes[0].get(&path, token).await;
        events.extend(page["events"].as_array().unwrap().iter().cloned());
        let next = page["next_cursor"].as_str().unwrap();
        if next == after {
            return events;
        }
        next.clone_into(&mut after);
    }
}

/// One blow, and what brings things back in order.
async fn strike(fleet: &mut Fleet, nats: Option<&mut Nats>, dice: &mut Dice) -> &'static str {
    let node = match dice.below(3) {
        0 => fleet.leader().await,
        _ => dice.choose(fleet.nodes.len()),
    };
    let pause = Duration::from_millis(dice.below(2_500));
    let blows = if nats.is_some() { 7 } else { 4 };
    match dice.below(blows) {
        0 => {
            fleet.nodes[node].kill();
            tokio::time::sleep(pause).await;
            fleet.nodes[node].restart();
            "a node killed"
        }
        1 => {
            fleet.nodes[node].freeze();
            tokio::time::sleep(pause).await;
            fleet.nodes[node].thaw();
            "a node frozen"
        }
        2 => {
            let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                       WHERE datname = current_database() AND pid <> pg_backend_pid()";
            sqlx::query(cut)
                .execute(fleet.database.pool())
                .await
                .unwrap();
            "the database's connections cut"
        }
        3 => {
            fleet.nodes[node].stop(Signal::TERM);
            fleet.nodes[node].restart();
            "a node restarted in order"
        }
        4 => {
            let nats = nats.unwrap();
            nats.stop();
            tokio::time::sleep(pause).await;
            nats.run().await;
            "NATS restarted"
        }
        5 => {
            let nats = nats.unwrap();
            nats.freeze();
            tokio::time::sleep(pause).await;
            nats.thaw();
            "NATS frozen"
        }
        _ => {
            nats.unwrap().delete_streams().await;
            "NATS's stream deleted"
        }
    }
}

/// Makes changes while blows fall. Tells how many were acknowledged.
async fn change_under_blows(
    fleet: &mut Fleet,
    mut nats: Option<&mut Nats>,
    blows: u64,
    dice: &mut Dice,
) -> usize {
    let stop = Arc::new(AtomicBool::new(false));
    let urls: Vec<_> = fleet.nodes.iter().map(|node| node.url.clone()).collect();
    let start = |writer| change(urls.clone(), fleet.token.clone(), Arc::clone(&stop), writer);
    let writers: Vec<_> = (0..4).map(|writer| tokio::spawn(start(writer))).collect();
    let mut struck = BTreeMap::<_, u32>::new();
    for _ in 0..blows {
        tokio::time::sleep(Duration::from_millis(dice.below(500))).await;
        let blow = strike(fleet, nats.as_deref_mut(), dice).await;
        println!("{blow}");
        *struck.entry(blow).or_default() += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let mut made = 0;
    for writer in writers {
        made += timeout(SETTLE, writer)
            .await
            .expect("the writers end")
            .unwrap();
    }
    println!("{blows} blows: {struck:?}; {made} changes");
    assert!(made > usize::try_from(blows).unwrap(), "changes flowed");
    made
}

async fn count(fleet: &Fleet, sql: &'static str) -> i64 {
    let counted = sqlx::query_scalar(sql).fetch_one(fleet.database.pool());
    counted.await.unwrap()
}

async fn survives(mut fleet: Fleet, mut nats: Option<Nats>) {
    let (blows, seed) = (
        setting("MDM_TEST_UPHEAVALS", 15),
        setting("MDM_TEST_SEED", 7),
    );
    let mut dice = Dice::new(seed);
    let viewer = fleet.user("viewer", "viewer").await;
    let operator = fleet.user("operator", "operator").await;
    let status = fleet.status(&fleet.nodes[0]).await.unwrap();
    let start = status["latest_cursor"].as_str().unwrap().to_owned();
    let admin = fleet.token.clone();
    let followers: Vec<_> = [
        ("an administrator", &admin, ""),
        ("an operator", &operator, ""),
        ("a viewer", &viewer, ""),
        ("who wants policies", &viewer, "types=policy_changed"),
        ("who wants keys", &admin, "types=user_changed"),
        ("who wants devices", &operator, "types=device_status_change"),
    ]
    .into_iter()
    .zip(seed..)
    .map(|((name, token, filters), seed)| {
        start_following(&fleet, name, token, filters, &start, seed)
    })
    .collect();
    let made = change_under_blows(&mut fleet, nats.as_mut(), blows, &mut dice).await;
    wait_until("all of it is in the log", PATIENCE, async || {
        let waiting = count(&fleet, "SELECT COUNT(*) FROM outbox").await;
        (waiting == 0).then_some(())
    })
    .await;
    let mut total = 0;
    for follower in followers {
        let log = log_of(&fleet, &follower.token, &follower.filters, &start).await;
        let last = log
            .last()
            .map(|event| event["id"].as_str().unwrap().to_owned());
        follower.until.send_replace(last);
        let seen = timeout(SETTLE, follower.seen).await;
        let seen = seen.unwrap_or_else(|_| panic!("{} never sees the end", follower.name));
        let seen = seen.unwrap();
        assert_eq!(
            ids(&seen),
            ids(&log),
            "{}: each once, in order",
            follower.name
        );
        assert_eq!(seen, log, "{}: as the log has it", follower.name);
        total += seen.len();
    }
    println!("seed {seed}: {total} events seen by six followers");
    let there = count(
        &fleet,
        "SELECT (SELECT COUNT(*) FROM policies) + (SELECT COUNT(*) FROM api_keys) + (SELECT COUNT(*) FROM devices)",
    );
    let made = i64::try_from(made).unwrap();
    assert_eq!(there.await, made, "what was acknowledged is there, once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_on_a_database_lose_nothing_and_double_nothing() {
    survives(Fleet::start(3, &[]).await, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_with_nats_lose_nothing_and_double_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let nats = Nats::start(directory.path()).await;
    let fleet = Fleet::start(3, &[("MDM_NATS_URL", &nats.url)]).await;
    survives(fleet, Some(nats)).await;
}
