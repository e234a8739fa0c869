use std::time::Duration;

use serde_json::{Value, json};

use crate::app::{TestApp, text};

async fn online(app: &TestApp, admin: &str, uuid: &str) -> (Value, String) {
    let (device, token) = app.enroll(admin, uuid).await;
    app.check_in(&token, json!({})).await;
    (device, token)
}

async fn report(app: &TestApp, token: &str, id: &str, body: Value) -> crate::app::Answer {
    app.post(&format!("/api/v1/device/commands/{id}/status"), token, body)
        .await
}

fn steps(command: &Value) -> Vec<&str> {
    command["transitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| text(step, "status"))
        .collect()
}

#[actix_web::test]
async fn a_command_goes_its_way_and_every_step_is_in_ledger_and_log() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (_, token) = online(&app, &admin, "hw-1").await;
    let sent = app
        .post(
            "/api/v1/devices/hw-1/commands",
            &admin,
            json!({ "command": "system_info" }),
        )
        .await;
    let location = sent.headers["location"].clone();
    let sent = sent.expect(202);
    assert_eq!(
        (text(&sent, "status"), text(&sent, "lane")),
        ("pending", "query")
    );
    let id = text(&sent, "id");

    let delivered = app.check_in(&token, json!({})).await;
    assert_eq!(delivered["commands"][0]["id"], id);
    report(&app, &token, id, json!({ "status": "running" }))
        .await
        .expect(200);
    report(&app, &token, id, json!({ "status": "running" }))
        .await
        .expect(200);
    report(
        &app,
        &token,
        id,
        json!({ "status": "completed", "result": { "answer": 42 } }),
    )
    .await
    .expect(200);
    report(
        &app,
        &token,
        id,
        json!({ "status": "completed", "result": { "answer": 43 } }),
    )
    .await
    .expect(200);
    report(&app, &token, id, json!({ "status": "running" }))
        .await
        .expect_problem(409, "COMMAND_ENDED");

    let command = app.get(&location, &admin).await.expect(200);
    assert_eq!(steps(&command), ["pending", "sent", "running", "completed"]);
    assert_eq!(
        command["result"],
        json!({ "answer": 42 }),
        "the first outcome counts"
    );
    let events = app.events(&admin, 6).await;
    let told: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "command_execution")
        .map(|event| text(&event["data"], "status"))
        .collect();
    assert_eq!(told, ["pending", "sent", "running", "completed"]);
    assert_eq!(app.check_in(&token, json!({})).await["commands"], json!([]));
}

#[actix_web::test]
async fn a_viewer_sees_commands_and_events_without_results() {
    let app = TestApp::start().await;
    let (admin, viewer) = (
        app.admin().await,
        app.user("v@mobius.local", "viewer").await,
    );
    let (_, token) = online(&app, &admin, "hw-1").await;
    let sent = app
        .post(
            "/api/v1/devices/hw-1/commands",
            &admin,
            json!({ "command": "system_info" }),
        )
        .await
        .expect(202);
    app.check_in(&token, json!({})).await;
    report(
        &app,
        &token,
        text(&sent, "id"),
        json!({ "status": "completed", "result": { "secret": "yes" } }),
    )
    .await
    .expect(200);
    app.events(&admin, 5).await;
    for path in [
        "/api/v1/commands",
        "/api/v1/devices/hw-1/commands",
        &format!("/api/v1/commands/{}", text(&sent, "id")),
        "/api/v1/events",
    ] {
        assert!(
            app.get(path, &admin).await.text.contains("\"secret\""),
            "{path}"
        );
        assert!(
            !app.get(path, &viewer).await.text.contains("\"secret\""),
            "{path}"
        );
    }
}

#[actix_web::test]
async fn who_waits_for_a_command_gets_its_outcome_the_moment_it_comes() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (_, token) = online(&app, &admin, "hw-1").await;
    let waiting = app.post(
        "/api/v1/devices/hw-1/commands?wait=30",
        &admin,
        json!({ "command": "system_info" }),
    );
    let answering = async {
        let id = mdm_testkit::wait_until("the command", Duration::from_secs(10), async || {
            app.check_in(&token, json!({})).await["commands"][0]["id"]
                .as_str()
                .map(str::to_owned)
        })
        .await;
        report(
            &app,
            &token,
            &id,
            json!({ "status": "completed", "result": {} }),
        )
        .await
        .expect(200);
    };
    let (answer, ()) = tokio::join!(waiting, answering);
    assert_eq!(answer.expect(200)["status"], "completed");
    let answer = app
        .post(
            "/api/v1/devices/hw-1/commands?wait=0",
            &admin,
            json!({ "command": "system_info" }),
        )
        .await;
    assert_eq!(answer.expect(202)["status"], "pending");
}

#[actix_web::test]
async fn the_same_idempotency_key_gives_the_same_command_and_another_body_is_refused() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    app.enroll(&admin, "hw-1").await;
    app.enroll(&admin, "hw-2").await;
    let send = |device: &str, command: &str| {
        let request = app
            .request("POST", &format!("/api/v1/devices/{device}/commands"))
            .bearer_auth(&admin);
        TestApp::read(
            request
                .header("idempotency-key", "once")
                .json(&json!({ "command": command })),
        )
    };
    let answers =
        futures_util::future::join_all((0..16).map(|_| send("hw-1", "system_info"))).await;
    let ids: std::collections::BTreeSet<_> = answers
        .into_iter()
        .map(|answer| text(&answer.expect(202), "id").to_owned())
        .collect();
    assert_eq!(ids.len(), 1);
    send("hw-1", "collect_logs")
        .await
        .expect_problem(422, "IDEMPOTENCY_KEY_REUSED");
    send("hw-2", "system_info")
        .await
        .expect_problem(422, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(
        app.get("/api/v1/commands", &admin).await.expect(200)["total"],
        1
    );
}

#[actix_web::test]
async fn commands_come_in_the_order_of_their_priority_and_then_of_their_sending() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (_, token) = online(&app, &admin, "hw-1").await;
    let mut expected = Vec::new();
    for priority in [0, 0, 50, -1] {
        let body = json!({ "command": "system_info", "priority": priority });
        let sent = app
            .post("/api/v1/devices/hw-1/commands", &admin, body)
            .await
            .expect(202);
        expected.push((std::cmp::Reverse(priority), text(&sent, "id").to_owned()));
    }
    expected.sort();
    let delivered = app.check_in(&token, json!({})).await;
    let got: Vec<_> = delivered["commands"]
        .as_array()
        .unwrap()
        .iter()
        .map(|command| text(command, "id").to_owned())
        .collect();
    assert_eq!(
        got,
        expected.into_iter().map(|(_, id)| id).collect::<Vec<_>>()
    );
}

#[actix_web::test]
async fn a_lost_reply_brings_a_query_again_but_never_a_destructive_command() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (_, token) = online(&app, &admin, "hw-1").await;
    let query = app
        .post(
            "/api/v1/devices/hw-1/commands",
            &admin,
            json!({ "command": "system_info" }),
        )
        .await
        .expect(202);
    let wipe = app
        .post(
            "/api/v1/devices/hw-1/commands",
            &admin,
            json!({ "command": "wipe" }),
        )
        .await
        .expect(202);
    let ids = |answer: &Value| {
        answer["commands"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| text(c, "id").to_owned())
            .collect::<Vec<_>>()
    };
    let first = app.check_in(&token, json!({})).await;
    assert_eq!(ids(&first).len(), 2);
    let again = app.check_in(&token, json!({})).await;
    assert_eq!(ids(&again), [text(&query, "id")]);
    assert_eq!(again["commands"][0]["attempt"], 2);
    assert_eq!(
        again["reconcile"],
        json!([wipe["id"]]),
        "the device is asked what became of it"
    );
    let lost = json!({ "command_results": [{ "command_id": wipe["id"], "status": "failed", "error": "never arrived" }] });
    let answer = app.check_in(&token, lost).await;
    assert_eq!(answer["command_acks"][0]["accepted"], true);
    assert_eq!(answer["reconcile"], json!([]));
}

#[actix_web::test]
async fn what_can_still_be_cancelled_is_and_what_cannot_is_not_called_so() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (_, token) = online(&app, &admin, "hw-1").await;
    let send = async |command: &str| {
        let sent = app
            .post(
                "/api/v1/devices/hw-1/commands",
                &admin,
                json!({ "command": command }),
            )
            .await
            .expect(202);
        text(&sent, "id").to_owned()
    };
    let cancel = async |id: &str| {
        app.call(
            "POST",
            &format!("/api/v1/commands/{id}/cancel"),
            Some(&admin),
            None,
        )
        .await
    };
    let pending = send("restart").await;
    assert_eq!(cancel(&pending).await.expect(200)["status"], "cancelled");
    cancel(&pending).await.expect(200);
    assert_eq!(app.check_in(&token, json!({})).await["commands"], json!([]));

    let (query, restart) = (send("system_info").await, send("restart").await);
    app.check_in(&token, json!({})).await;
    cancel(&restart)
        .await
        .expect_problem(409, "COMMAND_HANDED_OVER");
    cancel(&query).await.expect(200);
    report(
        &app,
        &token,
        &query,
        json!({ "status": "completed", "result": {} }),
    )
    .await
    .expect_problem(409, "COMMAND_ENDED");
    let command = app
        .get(&format!("/api/v1/commands/{query}"), &admin)
        .await
        .expect(200);
    assert_eq!(command["status"], "cancelled");
    let last = command["transitions"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(
        text(&last, "cause"),
        "after its end the device reported completed",
        "the ledger does not hide that it ran"
    );
    report(&app, &token, &restart, json!({ "status": "completed" }))
        .await
        .expect(200);
    cancel(&restart).await.expect_problem(409, "COMMAND_ENDED");
}

#[actix_web::test]
async fn a_command_whose_time_runs_out_expires_and_a_destructive_one_with_the_device_is_unknown() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (_, token) = online(&app, &admin, "hw-1").await;
    let send = async |command: &str| {
        let body = json!({ "command": command, "expires_in_seconds": 1 });
        text(
            &app.post("/api/v1/devices/hw-1/commands", &admin, body)
                .await
                .expect(202),
            "id",
        )
        .to_owned()
    };
    let handed_over = send("restart").await;
    app.check_in(&token, json!({})).await;
    let waiting = send("system_info").await;
    for (id, end) in [(waiting, "expired"), (handed_over, "unknown")] {
        let status = mdm_testkit::wait_until("the end", Duration::from_secs(10), async || {
            let command = app
                .get(&format!("/api/v1/commands/{id}"), &admin)
                .await
                .expect(200);
            command["completed_at"]
                .is_string()
                .then(|| text(&command, "status").to_owned())
        })
        .await;
        assert_eq!(status, end);
    }
    let answer = app.check_in(&token, json!({})).await;
    assert_eq!(
        (&answer["commands"], &answer["reconcile"]),
        (&json!([]), &json!([]))
    );
}

#[actix_web::test]
async fn a_query_to_a_device_that_is_not_online_is_refused_and_one_without_answer_is_withdrawn() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (_, token) = app.enroll(&admin, "hw-1").await;
    let query = json!({ "query": "SELECT 1", "timeout_seconds": 1 });
    app.post("/api/v1/devices/hw-1/osquery", &admin, query.clone())
        .await
        .expect_problem(409, "DEVICE_NOT_ONLINE");
    app.check_in(&token, json!({})).await;
    app.post("/api/v1/devices/hw-1/osquery", &admin, query)
        .await
        .expect_problem(504, "DEVICE_TIMEOUT");
    assert_eq!(
        app.check_in(&token, json!({})).await["commands"],
        json!([]),
        "nobody waits for it any more"
    );
    for (body, pointer) in [
        (json!({ "query": "" }), "/query"),
        (
            json!({ "query": "SELECT 1", "timeout_seconds": 61 }),
            "/timeout_seconds",
        ),
    ] {
        let problem = app
            .post("/api/v1/devices/hw-1/osquery", &admin, body)
            .await
            .expect_problem(422, "INVALID");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
}

#[actix_web::test]
async fn unenrolling_a_device_ends_what_waits_for_it() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    app.enroll(&admin, "hw-1").await;
    let sent = app
        .post(
            "/api/v1/devices/hw-1/commands",
            &admin,
            json!({ "command": "system_info" }),
        )
        .await
        .expect(202);
    app.call("DELETE", "/api/v1/devices/hw-1", Some(&admin), None)
        .await
        .expect(204);
    let command = app
        .get(&format!("/api/v1/commands/{}", text(&sent, "id")), &admin)
        .await
        .expect(200);
    assert_eq!(command["status"], "cancelled");
    app.post(
        "/api/v1/devices/hw-1/commands",
        &admin,
        json!({ "command": "system_info" }),
    )
    .await
    .expect_problem(409, "DEVICE_UNENROLLED");
}

#[actix_web::test]
async fn a_device_cannot_report_on_the_commands_of_another() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    online(&app, &admin, "hw-1").await;
    let (_, other) = online(&app, &admin, "hw-2").await;
    let sent = app
        .post(
            "/api/v1/devices/hw-1/commands",
            &admin,
            json!({ "command": "system_info" }),
        )
        .await
        .expect(202);
    report(
        &app,
        &other,
        text(&sent, "id"),
        json!({ "status": "completed" }),
    )
    .await
    .expect_problem(404, "COMMAND_NOT_FOUND");
}
