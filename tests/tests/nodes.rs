//! Several nodes are one: whatever is done at one is seen at all, and the end of one is nobody's
//! loss.

use std::time::{Duration, Instant};

use mdm_client::{Client, ClientError, EventQuery, Follower, Step};
use mdm_proto::events::Event;
use mdm_testkit::wait_until;
use serde_json::json;

use crate::{
    events::{Watcher, ids},
    fleet::{Fleet, PATIENCE, is_leader},
    processes::{Agent, Site},
};

async fn agent(fleet: &Fleet, node: usize, uuid: &str) -> Agent {
    let wish = json!({ "name": uuid });
    let path = "/api/v1/enrollment-secrets";
    let secret = fleet.nodes[0].post(path, &fleet.token, wish).await;
    let state_dir = fleet.directory.path().join(format!("agent-{uuid}"));
    let secret = secret["secret"].as_str().unwrap();
    Agent::enroll(&state_dir, &fleet.nodes[node].url, secret, uuid)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_at_one_node_is_seen_and_carried_out_at_the_others() {
    let fleet = Fleet::start(3, &[]).await;
    let (one, two, three) = (&fleet.nodes[0], &fleet.nodes[1], &fleet.nodes[2]);
    let mut watchers = Vec::new();
    for node in &fleet.nodes {
        watchers.push(
            Watcher::connect(&node.url, &fleet.token, None)
                .await
                .unwrap(),
        );
    }
    let mut agent = agent(&fleet, 1, "hw-1").await;
    agent.run();
    one.wait_for_status("hw-1", "online", &fleet.token).await;
    // The agent's channel is at the second node, the command comes to the third.
    let query = json!({ "query": "SELECT 1 AS one" });
    let answer = three
        .post("/api/v1/devices/hw-1/osquery", &fleet.token, query)
        .await;
    assert_eq!(answer["rows"][0]["one"], 1);
    let done = |event: &serde_json::Value| event["data"]["status"] == "completed";
    let mut seen = Vec::new();
    for mut watcher in watchers {
        watcher.until("the end of the command", done).await;
        seen.push(watcher.close().await);
    }
    assert!(!seen[0].is_empty() && seen.iter().all(|events| *events == seen[0]));
    let everywhere = wait_until("presence over all nodes", PATIENCE, async || {
        let mut statuses = Vec::new();
        for node in &fleet.nodes {
            statuses.push(fleet.status(node).await?);
        }
        let agreed = statuses
            .iter()
            .all(|status| status["connected_devices"] == 1 && status["connected_clients"] == 0);
        agreed.then_some(statuses)
    })
    .await;
    let leaders = everywhere[0]["nodes"].as_array().unwrap().iter();
    assert_eq!(leaders.filter(|node| node["is_leader"] == true).count(), 1);
    // Its release at the first node closes the channel at the second.
    let path = "/api/v1/devices/hw-1";
    assert_eq!(one.call("DELETE", path, &fleet.token, None).await.0, 204);
    wait_until("the channel is closed", PATIENCE, async || {
        let status = fleet.status(two).await?;
        (status["connected_devices"] == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_at_one_node_ends_at_all_within_a_second() {
    let fleet = Fleet::start(2, &[]).await;
    let token = fleet.user("viewer", "viewer").await;
    let mut watcher = Watcher::connect(&fleet.nodes[1].url, &token, None)
        .await
        .unwrap();
    let begun = Instant::now();
    let path = "/api/v1/auth/logout";
    assert_eq!(fleet.nodes[0].call("POST", path, &token, None).await.0, 204);
    assert_eq!(watcher.close_code().await, 4403);
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    let (status, _) = fleet.nodes[1]
        .call("GET", "/api/v1/auth/me", &token, None)
        .await;
    assert_eq!(status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_misses_nothing_when_its_server_is_killed() {
    let mut site = Site::start().await;
    let client = Client::new(site.server.url.parse().unwrap(), None).unwrap();
    let client = client.with_token(site.token.clone().into());
    let only_devices = EventQuery {
        types: vec!["device_status_change".to_owned()],
        ..EventQuery::default()
    };
    let mut follower = Follower::new(only_devices, async || Ok::<_, ClientError>(client.clone()));
    let mut breaks = 0;
    let mut seen = Vec::new();
    for round in 0..3 {
        if round == 1 {
            site.server.kill();
            site.server.restart();
        }
        let enroll = async {
            for number in 0..10 {
                let uuid = format!("hw-{round}-{number}");
                let device = json!({ "uuid": uuid, "hostname": "h", "platform": "linux" });
                site.server
                    .post("/api/v1/devices", &site.token, device)
                    .await;
                let policy = json!({ "name": "noise" });
                site.server
                    .post("/api/v1/policies", &site.token, policy)
                    .await;
            }
        };
        if round == 0 {
            // It follows from now on, and nothing happens yet.
            let nothing = tokio::time::timeout(Duration::from_millis(500), follower.next());
            assert!(nothing.await.is_err());
        }
        let watch = async {
            while seen.len() < 10 * (round + 1) {
                match tokio::time::timeout(PATIENCE, follower.next())
                    .await
                    .unwrap()
                    .unwrap()
                {
                    Step::Event(frame) => match frame.event() {
                        Some(Event::DeviceStatusChange(_)) => seen.push(frame.id.unwrap()),
                        other => panic!("nobody asked for {other:?}"),
                    },
                    Step::Broken { .. } => breaks += 1,
                    Step::Resync { reason } => panic!("{reason}"),
                }
            }
        };
        tokio::join!(enroll, watch);
    }
    assert!(breaks >= 1, "the server was killed");
    let log = "/api/v1/events?types=device_status_change&limit=500";
    let log = site.server.get(log, &site.token).await;
    assert_eq!(seen, ids(log["events"].as_array().unwrap()));
}

/// From the loss of the leader until an event that was committed after it has reached a subscriber
/// of another node.
async fn taken_over(
    fleet: &mut Fleet,
    lose: impl FnOnce(&mut crate::processes::Server),
) -> Duration {
    let leader = fleet.leader().await;
    let other = (leader + 1) % fleet.nodes.len();
    let url = fleet.nodes[other].url.clone();
    let mut watcher = Watcher::connect(&url, &fleet.token, None).await.unwrap();
    lose(&mut fleet.nodes[leader]);
    let begun = Instant::now();
    let wish = json!({ "name": "after the loss" });
    fleet.nodes[other]
        .post("/api/v1/policies", &fleet.token, wish)
        .await;
    let is_it = |event: &serde_json::Value| event["type"] == "policy_changed";
    watcher.until("the event", is_it).await;
    let took = begun.elapsed();
    println!("another node took over after {} ms", took.as_millis());
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_takes_over_when_the_leader_dies_or_stands_still() {
    let mut fleet = Fleet::start(2, &[]).await;
    let died = taken_over(&mut fleet, crate::processes::Server::kill).await;
    assert!(died < Duration::from_secs(2), "{died:?}");
    let dead = wait_until("who is dead", PATIENCE, async || {
        for (number, node) in fleet.nodes.iter().enumerate() {
            if fleet.status(node).await.is_none() {
                return Some(number);
            }
        }
        None
    })
    .await;
    fleet.nodes[dead].restart();
    let frozen = fleet.leader().await;
    let stood_still = taken_over(&mut fleet, |node| node.freeze()).await;
    // A second of silence, and what it takes to notice. The rest is for a machine that is busy
    // with other tests; docs/performance.md has the figure.
    assert!(stood_still < Duration::from_secs(4), "{stood_still:?}");
    // When it wakes up, it follows the other one.
    let node = &fleet.nodes[frozen];
    node.thaw();
    wait_until("one leads", PATIENCE, async || {
        let both = (is_leader(node).await, fleet.leader().await);
        matches!(both, (false, leader) if leader != frozen).then_some(())
    })
    .await;
}
