use std::time::Duration;

use mdm_api::live::LiveConfig;
use mdm_core::roles::Role;
use mdm_events::hub::Limits;
use serde_json::{Value, json};

use crate::harness::{Live, event, number};

fn id(event: &Value) -> String {
    event["id"].as_str().unwrap().to_owned()
}

/// A ring so small that a resume reads the log first.
fn tiny_ring() -> LiveConfig {
    let limits = Limits {
        ring_events: 20,
        ..Limits::default()
    };
    LiveConfig {
        limits,
        ..LiveConfig::default()
    }
}

#[actix_web::test]
async fn a_resume_misses_nothing_and_repeats_nothing() {
    let live = Live::start().await;
    let (mut client, _) = live.connect(Role::Operator, "").await;
    live.append(&(0..3).map(event).collect::<Vec<_>>()).await;
    let last = id(client.events(3).await.last().unwrap());
    drop(client);
    live.append(&(3..8).map(event).collect::<Vec<_>>()).await;
    let (mut other, _) = live.connect(Role::Operator, &format!("after={last}")).await;
    let missed = other.events(5).await;
    drop(other);
    let after = format!("after={last}");
    let (mut client, welcome) = live.connect(Role::Operator, &after).await;
    assert_eq!(
        (&welcome["recovered"], &welcome["replayed"]),
        (&json!(true), &json!(5))
    );
    assert_eq!(welcome["cursor"], missed[4]["id"]);
    assert_eq!(client.events(5).await, missed);
    live.append(&[event(8)]).await;
    assert_eq!(number(&client.events(1).await[0]), 8);
    live.stop().await;
}

#[actix_web::test]
async fn what_left_the_ring_is_replayed_from_the_log() {
    let live = Live::with(tiny_ring()).await;
    let (mut client, welcome) = live.connect(Role::Operator, "").await;
    let start = welcome["cursor"].as_str().unwrap().to_owned();
    live.append(&(0..500).map(event).collect::<Vec<_>>()).await;
    client.events(500).await;
    let (mut late, welcome) = live
        .connect(Role::Operator, &format!("after={start}"))
        .await;
    assert_eq!(
        (&welcome["recovered"], &welcome["replayed"]),
        (&json!(true), &json!(500))
    );
    live.append(&[event(500)]).await;
    let seen: Vec<_> = late.events(501).await.iter().map(number).collect();
    assert_eq!(seen, (0..=500).collect::<Vec<_>>());
    live.stop().await;
}

#[actix_web::test]
async fn a_client_that_reconnects_again_and_again_sees_each_event_once() {
    const EVENTS: u32 = 1500;
    for config in [LiveConfig::default(), tiny_ring()] {
        let live = Live::with(config).await;
        let (client, welcome) = live.connect(Role::Operator, "").await;
        drop(client);
        let mut after = welcome["cursor"].as_str().unwrap().to_owned();
        let appending = live.keep_appending(0..EVENTS);
        let mut seen = Vec::new();
        let mut step = 1;
        while seen.len() < usize::try_from(EVENTS).unwrap() {
            let (mut client, welcome) = live
                .connect(Role::Operator, &format!("after={after}"))
                .await;
            assert_eq!(welcome["recovered"], true);
            let left = usize::try_from(EVENTS).unwrap() - seen.len();
            for frame in client.events(step.min(left)).await {
                after = id(&frame);
                seen.push(number(&frame));
            }
            // Strides of changing length, so that the cut falls in all places.
            step = step * 7 % 101;
        }
        assert_eq!(seen, (0..u64::from(EVENTS)).collect::<Vec<_>>());
        appending.await.unwrap();
        live.stop().await;
    }
}

#[actix_web::test]
async fn a_cursor_that_leads_nowhere_is_told_and_live_events_follow() {
    let live = Live::start().await;
    let (mut client, welcome) = live.connect(Role::Operator, "").await;
    let here = welcome["cursor"].as_str().unwrap().to_owned();
    let epoch = here.split_once('-').unwrap().0.to_owned();
    let cases = [
        ("zz-0000000000000000".to_owned(), "other_epoch"),
        (format!("{epoch}-0000000000009999"), "from_the_future"),
    ];
    for (cursor, reason) in cases {
        let (mut lost, welcome) = live
            .connect(Role::Operator, &format!("after={cursor}"))
            .await;
        assert_eq!(welcome["recovered"], false);
        let resync = lost.frame().await;
        assert_eq!(
            (&resync["type"], &resync["data"]["reason"]),
            (&json!("resync"), &json!(reason))
        );
        assert!(resync["data"]["cursor"].is_string());
        live.append(&[event(1)]).await;
        assert_eq!(number(&lost.events(1).await[0]), 1);
        client.events(1).await;
    }
    live.stop().await;
}

#[actix_web::test]
async fn what_retention_took_is_told() {
    let live = Live::with(tiny_ring()).await;
    let (mut client, welcome) = live.connect(Role::Operator, "").await;
    let start = welcome["cursor"].as_str().unwrap().to_owned();
    live.append(&(0..100).map(event).collect::<Vec<_>>()).await;
    client.events(100).await;
    sqlx::query(r#"DELETE FROM event_log WHERE "offset" <= 50"#)
        .execute(live.database.pool())
        .await
        .unwrap();
    let (mut lost, welcome) = live
        .connect(Role::Operator, &format!("after={start}"))
        .await;
    assert_eq!(welcome["recovered"], false);
    assert_eq!(lost.frame().await["data"]["reason"], "too_old");
    live.stop().await;
}

#[actix_web::test]
async fn connections_to_the_database_may_break_and_no_event_is_lost() {
    const EVENTS: u32 = 600;
    let live = Live::start().await;
    let (mut client, _) = live.connect(Role::Operator, "").await;
    let appending = live.keep_appending(0..EVENTS);
    let pool = live.database.pool().clone();
    let cutting = tokio::spawn(async move {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            // All of them: sequencer, tailer, listener and writers.
            let _cut = sqlx::query(
                r"
                SELECT pg_terminate_backend(pid)
                FROM pg_stat_activity
                WHERE datname = current_database()
                  AND pid <> pg_backend_pid()
                ",
            )
            .execute(&pool)
            .await;
        }
    });
    appending.await.unwrap();
    cutting.await.unwrap();
    // A writer whose connection was cut at its commit may have appended its event twice.
    let mut seen = Vec::new();
    while seen.last() != Some(&u64::from(EVENTS - 1)) {
        seen.push(number(&client.events(1).await[0]));
    }
    seen.dedup();
    assert_eq!(seen, (0..u64::from(EVENTS)).collect::<Vec<_>>());
    live.stop().await;
}

#[actix_web::test]
async fn a_new_history_of_the_log_sends_everybody_to_start_over() {
    let live = Live::start().await;
    let (mut client, welcome) = live.connect(Role::Operator, "").await;
    sqlx::query("UPDATE stream_head SET stream = gen_random_uuid()")
        .execute(live.database.pool())
        .await
        .unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    sqlx::query(cut)
        .execute(live.database.pool())
        .await
        .unwrap();
    let resync = client.frame().await;
    assert_eq!(resync["data"]["reason"], "new_epoch");
    assert_ne!(resync["data"]["cursor"], welcome["cursor"]);
    assert_eq!(client.close_code().await, 1001);
    let after = resync["data"]["cursor"].as_str().unwrap();
    let (_client, welcome) = live
        .connect(Role::Operator, &format!("after={after}"))
        .await;
    assert_eq!(welcome["recovered"], true);
    live.stop().await;
}
