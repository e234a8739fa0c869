use std::time::Duration;

use mdm_api::live::LiveConfig;
use mdm_core::{
    events::{EventData, NewEvent},
    ids::{OrganizationId, SessionId},
    roles::Role,
};
use mdm_events::hub::Limits;
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Live, event, number, sized_event, token};

#[actix_web::test]
async fn operators_get_results_and_viewers_do_not() {
    let live = Live::start().await;
    let (mut operator, welcome) = live.connect(Role::Operator, "").await;
    assert_eq!(
        (&welcome["recovered"], &welcome["heartbeat_seconds"]),
        (&json!(false), &json!(25))
    );
    let (mut viewer, _) = live.connect(Role::Viewer, "").await;
    live.append(&[event(1)]).await;
    let full = operator.events(1).await.remove(0);
    assert_eq!(number(&full), 1);
    assert_eq!(full["type"], "command_execution");
    let reduced = viewer.events(1).await.remove(0);
    assert_eq!(reduced["id"], full["id"]);
    assert_eq!(reduced["data"]["status"], "completed");
    assert!(reduced["data"].get("result").is_none(), "{reduced}");
    live.stop().await;
}

#[actix_web::test]
async fn nobody_sees_another_organisation() {
    let live = Live::start().await;
    let mut foreign = live
        .open(live.request("/ws?token=admin.2.7.900"))
        .await
        .unwrap();
    foreign.frame().await;
    let mut theirs = event(2);
    theirs.organization_id = OrganizationId::from_uuid(Uuid::from_u128(2));
    live.append(&[event(1), theirs]).await;
    assert_eq!(number(&foreign.events(1).await[0]), 2);
    live.stop().await;
}

#[actix_web::test]
async fn filters_hold_from_the_start_and_can_be_changed() {
    let live = Live::start().await;
    let odd = Uuid::from_u128(1);
    let (mut client, _) = live.connect(Role::Admin, &format!("device_id={odd}")).await;
    live.append(&(0..4).map(event).collect::<Vec<_>>()).await;
    let seen: Vec<_> = client.events(2).await.iter().map(number).collect();
    assert_eq!(seen, [1, 3]);
    let filters =
        json!({"types": ["command_execution"], "device_ids": [Uuid::nil()], "group_ids": []});
    client
        .say(json!({"type": "subscribe", "data": filters}))
        .await;
    let answer = client.frame().await;
    assert_eq!(
        (&answer["type"], &answer["data"]),
        (&json!("subscribed"), &filters)
    );
    live.append(&(4..8).map(event).collect::<Vec<_>>()).await;
    let seen: Vec<_> = client.events(2).await.iter().map(number).collect();
    assert_eq!(seen, [4, 6]);
    live.stop().await;
}

#[actix_web::test]
async fn a_ping_is_answered_and_mistakes_are_forgiven_for_a_while() {
    let live = Live::start().await;
    let (mut client, _) = live.connect(Role::Viewer, "").await;
    client.say(json!({"type": "ping"})).await;
    assert_eq!(client.frame().await["type"], "pong");
    for message in [
        json!("nonsense"),
        json!({"type": "subscribe", "data": {"types": ["weather"]}}),
    ] {
        client.say(message).await;
        assert_eq!(client.frame().await["type"], "error");
    }
    for _ in 0..3 {
        client.say(json!({"type": "nonsense"})).await;
    }
    assert_eq!(client.close_code().await, 4400);
    live.stop().await;
}

#[actix_web::test]
async fn an_oversized_message_ends_the_connection() {
    let live = Live::start().await;
    let (mut client, _) = live.connect(Role::Viewer, "").await;
    client
        .say(json!({"type": "ping", "padding": "x".repeat(17 * 1024)}))
        .await;
    assert_eq!(client.close_code().await, 4400);
    live.stop().await;
}

#[actix_web::test]
async fn the_end_of_a_session_closes_its_connections_only() {
    let live = Live::start().await;
    let (mut viewer, _) = live.connect(Role::Viewer, "").await;
    let (mut operator, _) = live.connect(Role::Operator, "").await;
    let session = u128::try_from(Role::Viewer.as_str().len()).unwrap();
    let session_id = SessionId::from_uuid(Uuid::from_u128(session));
    let organization = OrganizationId::from_uuid(Uuid::from_u128(1));
    let ended = NewEvent::new(organization, EventData::SessionEnded { session_id });
    live.append(&[ended, event(1)]).await;
    assert_eq!(viewer.close_code().await, 4403);
    assert_eq!(number(&operator.events(1).await[0]), 1);
    live.stop().await;
}

#[actix_web::test]
async fn a_reader_that_stops_is_closed_and_disturbs_nobody() {
    const EVENTS: u32 = 3000;
    let limits = Limits {
        lag: Duration::from_secs(1),
        ..Limits::default()
    };
    let live = Live::with(LiveConfig {
        limits,
        ..LiveConfig::default()
    })
    .await;
    let (mut reader, _) = live.connect(Role::Operator, "").await;
    // Never polled again: its kernel buffers fill up, then its queue.
    let (_stuck, _) = live.connect(Role::Operator, "").await;
    let reading = actix_web::rt::spawn(async move {
        let events = reader.events(usize::try_from(EVENTS).unwrap()).await;
        events.iter().map(number).collect::<Vec<_>>()
    });
    for first in (0..EVENTS).step_by(50) {
        let batch: Vec<_> = (first..first + 50)
            .map(|number| sized_event(number, 8000))
            .collect();
        live.append(&batch).await;
    }
    assert_eq!(
        reading.await.unwrap(),
        (0..u64::from(EVENTS)).collect::<Vec<_>>()
    );
    live.wait_until("the slow one is closed", |state| {
        state.counters().slow() == 1
    })
    .await;
    // Its socket goes too, although it takes not even the close frame. (The reader has left.)
    live.wait_until("it is gone", |state| state.counters().connected() == 0)
        .await;
    live.stop().await;
}

#[actix_web::test]
async fn the_log_can_be_read_page_by_page() {
    let live = Live::start().await;
    let (mut client, _) = live.connect(Role::Operator, "").await;
    live.append(&(0..6).map(event).collect::<Vec<_>>()).await;
    client.events(6).await;
    let token = token(Role::Viewer);
    let (status, first) = live.get("/api/v1/events?limit=4", Some(&token)).await;
    assert_eq!(
        (status, first["events"].as_array().unwrap().len()),
        (200, 4)
    );
    assert!(first["events"][0]["data"].get("result").is_none());
    let next = format!(
        "/api/v1/events?after={}",
        first["next_cursor"].as_str().unwrap()
    );
    let (_, second) = live.get(&next, Some(&token)).await;
    assert_eq!(second["events"].as_array().unwrap().len(), 2);
    assert_eq!(second["next_cursor"], second["events"][1]["id"]);
    assert_eq!(live.get("/api/v1/events", None).await.0, 401);
    assert_eq!(
        live.get("/api/v1/events?after=0-0000000000000001", Some(&token))
            .await
            .0,
        410
    );
    assert_eq!(
        live.get("/api/v1/events?limit=0", Some(&token)).await.0,
        422
    );
    live.stop().await;
}

#[actix_web::test]
async fn the_status_tells_strangers_little() {
    let live = Live::start().await;
    let (mut client, _) = live.connect(Role::Operator, "").await;
    live.append(&[event(1)]).await;
    let seen = client.events(1).await;
    let (_, little) = live.get("/api/v1/websocket/status", None).await;
    assert_eq!(little, json!({"status": "running", "connected_clients": 1}));
    let token = token(Role::Viewer);
    let (_, all) = live.get("/api/v1/websocket/status", Some(&token)).await;
    assert_eq!(all["latest_cursor"], seen[0]["id"]);
    assert_eq!(
        (&all["events_published"], &all["events_delivered"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(all["connected_devices"], 3);
    live.stop().await;
}

#[actix_web::test]
async fn a_burst_reaches_all_and_closes_nobody() {
    const CLIENTS: usize = 20;
    const EVENTS: u32 = 3000;
    let live = Live::start().await;
    let mut reading = Vec::new();
    for _ in 0..CLIENTS {
        let (mut client, _) = live.connect(Role::Operator, "").await;
        reading.push(actix_web::rt::spawn(async move {
            let events = client.events(usize::try_from(EVENTS).unwrap()).await;
            events.iter().map(number).collect::<Vec<_>>()
        }));
    }
    let all: Vec<_> = (0..EVENTS).map(event).collect();
    live.append(&all).await;
    for seen in reading {
        assert_eq!(
            seen.await.unwrap(),
            (0..u64::from(EVENTS)).collect::<Vec<_>>()
        );
    }
    assert_eq!(live.state.counters().slow(), 0);
    live.stop().await;
}
