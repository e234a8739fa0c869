//! Webhooks, with a receiver that keeps what it is sent.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::StatusCode, web};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::app::{TestApp, text};

const PATIENCE: Duration = Duration::from_secs(30);

/// A request as it came.
#[derive(Debug, Clone)]
struct Received {
    id: String,
    timestamp: String,
    signature: String,
    body: String,
}

impl Received {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Checks the signature as the documentation says it is to be checked.
    fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD
            .decode(secret.strip_prefix("whsec_").unwrap())
            .unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.{}", self.id, self.timestamp, self.body).as_bytes());
        let signature = STANDARD
            .decode(self.signature.strip_prefix("v1,").unwrap())
            .unwrap();
        mac.verify_slice(&signature).is_ok()
    }
}

#[derive(Default)]
struct Inbox {
    received: Mutex<Vec<Received>>,
    /// The statuses of the next answers; then 200.
    answers: Mutex<VecDeque<u16>>,
}

/// An endpoint of another program.
struct Receiver {
    url: String,
    inbox: Arc<Inbox>,
}

async fn take(request: HttpRequest, body: String, inbox: web::Data<Inbox>) -> HttpResponse {
    let header = |name: &str| {
        let value = request.headers().get(name).unwrap();
        value.to_str().unwrap().to_owned()
    };
    inbox.received.lock().unwrap().push(Received {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
        body,
    });
    let status = inbox.answers.lock().unwrap().pop_front().unwrap_or(200);
    HttpResponse::build(StatusCode::from_u16(status).unwrap())
        // Where a redirect would lead, if anybody followed it.
        .insert_header(("location", "/elsewhere"))
        .finish()
}

impl Receiver {
    fn start() -> Self {
        let inbox = Arc::new(Inbox::default());
        let data = web::Data::from(Arc::clone(&inbox));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .default_service(web::to(take))
        });
        let server = server
            .workers(1)
            .disable_signals()
            .bind("127.0.0.1:0")
            .unwrap();
        let url = format!("http://{}/hook", server.addrs()[0]);
        actix_web::rt::spawn(server.run());
        Self { url, inbox }
    }

    fn answer_next(&self, statuses: &[u16]) {
        self.inbox.answers.lock().unwrap().extend(statuses);
    }

    async fn received(&self, count: usize) -> Vec<Received> {
        mdm_testkit::wait_until(format!("{count} requests"), PATIENCE, async || {
            let received = self.inbox.received.lock().unwrap().clone();
            (received.len() >= count).then_some(received)
        })
        .await
    }
}

async fn start() -> (TestApp, String, Receiver) {
    let app = TestApp::start_with(&[("MDM_WEBHOOK_ALLOW_PRIVATE", "true")]).await;
    let admin = app.admin().await;
    (app, admin, Receiver::start())
}

async fn create(app: &TestApp, admin: &str, receiver: &Receiver, types: &[&str]) -> Value {
    let wish = json!({ "name": "hook", "url": receiver.url, "event_types": types });
    app.post("/api/v1/webhooks", admin, wish).await.expect(201)
}

fn path(webhook: &Value) -> String {
    format!("/api/v1/webhooks/{}", text(webhook, "id"))
}

async fn until(
    app: &TestApp,
    admin: &str,
    webhook: &Value,
    what: impl Fn(&Value) -> bool,
) -> Value {
    mdm_testkit::wait_until("the webhook", PATIENCE, async || {
        let found = app.get(&path(webhook), admin).await.expect(200);
        what(&found).then_some(found)
    })
    .await
}

#[actix_web::test]
async fn events_come_in_order_signed_and_only_those_that_are_wanted() {
    let (app, admin, receiver) = start().await;
    let webhook = create(&app, &admin, &receiver, &["device_status_change"]).await;
    for number in 0..5 {
        app.enroll(&admin, &format!("hw-{number}")).await;
        app.post("/api/v1/policies", &admin, json!({ "name": "noise" }))
            .await
            .expect(201);
    }
    let received = receiver.received(5).await;
    let log = "/api/v1/events?types=device_status_change";
    let log = app.get(log, &admin).await.expect(200);
    let bodies: Vec<_> = received.iter().map(Received::json).collect();
    assert_eq!(&bodies, log["events"].as_array().unwrap());
    let secret = text(&webhook, "secret");
    for request in &received {
        assert_eq!(request.id, text(&request.json(), "id"));
        assert!(request.is_signed_with(secret));
        let altered = Received {
            body: request.body.replace("enrolled", "offline"),
            ..request.clone()
        };
        assert!(!altered.is_signed_with(secret));
    }
    let last = received[4].id.clone();
    until(&app, &admin, &webhook, |webhook| {
        text(webhook, "cursor") >= last.as_str()
    })
    .await;
    let shown = app.get(&path(&webhook), &admin).await.expect(200);
    assert!(shown["secret"].is_null(), "{shown}");
}

#[actix_web::test]
async fn what_fails_is_tried_again_before_anything_else_comes() {
    let (app, admin, receiver) = start().await;
    receiver.answer_next(&[500, 302, 404]);
    let webhook = create(&app, &admin, &receiver, &["policy_changed"]).await;
    for name in ["one", "two"] {
        app.post("/api/v1/policies", &admin, json!({ "name": name }))
            .await
            .expect(201);
    }
    for attempts in 1..=3 {
        receiver.received(attempts).await;
        let failing = until(&app, &admin, &webhook, |webhook| webhook["failures"] == 1).await;
        assert!(failing["next_attempt_at"].is_string() && failing["failing_since"].is_string());
        if attempts == 1 {
            assert!(text(&failing, "last_error").contains("500"), "{failing}");
        }
        // A change by a person does not wait for the next attempt, and begins to count anew.
        let change = json!({ "name": "again" });
        app.call("PUT", &path(&webhook), Some(&admin), Some(change))
            .await
            .expect(200);
    }
    let received = receiver.received(5).await;
    let names: Vec<_> = received
        .iter()
        .map(|request| text(&request.json()["data"], "name").to_owned())
        .collect();
    assert_eq!(names, ["one", "one", "one", "one", "two"]);
    let ids: std::collections::BTreeSet<_> = received.iter().map(|request| &request.id).collect();
    assert_eq!(ids.len(), 2, "an attempt has the id of its event");
    let healthy = until(&app, &admin, &webhook, |webhook| webhook["failures"] == 0).await;
    assert!(healthy["last_error"].is_null() && healthy["failing_since"].is_null());
    let all = app
        .get(&format!("{}/deliveries", path(&webhook)), &admin)
        .await
        .expect(200);
    assert_eq!(all["total"], 5);
    assert_eq!(
        all["deliveries"][0]["delivered"], true,
        "the newest come first"
    );
    let failed = format!("{}/deliveries?delivered=false&sort=id", path(&webhook));
    let failed = app.get(&failed, &admin).await.expect(200);
    let statuses: Vec<_> = failed["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["status"].clone())
        .collect();
    assert_eq!(statuses, [500, 302, 404]);
}

#[actix_web::test]
async fn an_endpoint_that_fails_for_days_is_disabled_and_goes_on_where_it_stood() {
    let (app, admin, receiver) = start().await;
    receiver.answer_next(&[500]);
    let webhook = create(&app, &admin, &receiver, &["policy_changed"]).await;
    app.post("/api/v1/policies", &admin, json!({ "name": "one" }))
        .await
        .expect(201);
    until(&app, &admin, &webhook, |webhook| webhook["failures"] == 1).await;
    receiver.answer_next(&[500]);
    let sql =
        "UPDATE webhooks SET failing_since = now() - interval '73 hours', next_attempt_at = now()";
    sqlx::query(sql).execute(app.database.pool()).await.unwrap();
    // The first pause, of up to ten seconds, ends by itself.
    let disabled = until(&app, &admin, &webhook, |webhook| {
        webhook["enabled"] == false
    })
    .await;
    assert!(
        text(&disabled, "disabled_reason").contains("three days"),
        "{disabled}"
    );
    let told = "/api/v1/events?types=webhook_changed";
    let told = mdm_testkit::wait_until("the event", PATIENCE, async || {
        let told = app.get(told, &admin).await.expect(200);
        let last = told["events"].as_array().unwrap().last().unwrap().clone();
        (last["data"]["action"] == "disabled").then_some(last)
    })
    .await;
    assert_eq!(told["data"]["webhook_id"], webhook["id"]);
    app.post("/api/v1/policies", &admin, json!({ "name": "two" }))
        .await
        .expect(201);
    let enable = json!({ "enabled": true });
    let enabled = app
        .call("PUT", &path(&webhook), Some(&admin), Some(enable))
        .await
        .expect(200);
    assert!(enabled["disabled_reason"].is_null());
    let received = receiver.received(4).await;
    let names: Vec<_> = received
        .iter()
        .map(|request| text(&request.json()["data"], "name").to_owned())
        .collect();
    assert_eq!(names, ["one", "one", "one", "two"]);
}

#[actix_web::test]
async fn an_endpoint_whose_place_in_the_log_is_gone_is_told_so() {
    let (app, admin, receiver) = start().await;
    let wish = json!({ "name": "hook", "url": receiver.url, "enabled": false });
    let webhook = app.post("/api/v1/webhooks", &admin, wish).await.expect(201);
    app.enroll(&admin, "hw-missed").await;
    app.events(&admin, 2).await;
    sqlx::query("UPDATE webhooks SET cursor = 'zz-0000000000000001'")
        .execute(app.database.pool())
        .await
        .unwrap();
    app.call(
        "PUT",
        &path(&webhook),
        Some(&admin),
        Some(json!({ "enabled": true })),
    )
    .await
    .expect(200);
    let received = receiver.received(1).await;
    assert_eq!(received[0].json()["type"], "resync");
    app.enroll(&admin, "hw-after").await;
    let received = receiver.received(2).await;
    let cursor = text(&received[0].json()["data"], "cursor").to_owned();
    assert!(received[1..].iter().all(|request| request.id > cursor));
}

#[actix_web::test]
async fn deliveries_are_replayed_and_endpoints_tried_out() {
    let (app, admin, receiver) = start().await;
    let webhook = create(&app, &admin, &receiver, &["policy_changed"]).await;
    let tested = app
        .post(&format!("{}/test", path(&webhook)), &admin, Value::Null)
        .await
        .expect(200);
    assert_eq!(
        (&tested["delivered"], &tested["is_replay"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(receiver.received(1).await[0].json()["type"], "webhook_test");
    app.post("/api/v1/policies", &admin, json!({ "name": "one" }))
        .await
        .expect(201);
    let first = receiver.received(2).await[1].clone();
    let deliveries = format!("{}/deliveries", path(&webhook));
    let delivery = mdm_testkit::wait_until("the delivery", PATIENCE, async || {
        let all = app
            .get(&format!("{deliveries}?sort=id"), &admin)
            .await
            .expect(200);
        all["deliveries"].get(1).cloned()
    })
    .await;
    receiver.answer_next(&[503]);
    let replay = format!("{deliveries}/{}/replay", text(&delivery, "id"));
    let failed = app.post(&replay, &admin, Value::Null).await.expect(200);
    assert_eq!(
        (&failed["delivered"], &failed["status"]),
        (&json!(false), &json!(503))
    );
    let taken = app.post(&replay, &admin, Value::Null).await.expect(200);
    assert_eq!(taken["delivered"], true);
    let received = receiver.received(4).await;
    assert_eq!(
        (&received[3].id, &received[3].body),
        (&first.id, &first.body)
    );
    let untouched = app.get(&path(&webhook), &admin).await.expect(200);
    assert_eq!(
        untouched["failures"], 0,
        "a replay is no attempt of the webhook's own"
    );
    let test = format!("{deliveries}/{}/replay", text(&tested, "id"));
    app.post(&test, &admin, Value::Null)
        .await
        .expect_problem(410, "EVENT_GONE");
}

#[actix_web::test]
async fn the_servers_own_network_is_not_called() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    for url in [
        "http://127.0.0.1:1/",
        "http://[::1]/",
        "http://169.254.169.254/latest",
        "http://2130706433/",
    ] {
        let wish = json!({ "name": "hook", "url": url });
        let problem = app
            .post("/api/v1/webhooks", &admin, wish)
            .await
            .expect_problem(422, "INVALID");
        assert_eq!(problem["errors"][0]["code"], "PRIVATE_ADDRESS", "{url}");
    }
    // A name tells only when it is resolved.
    let receiver = Receiver::start();
    let port = receiver
        .url
        .rsplit(':')
        .next()
        .unwrap()
        .trim_end_matches("/hook")
        .to_owned();
    let wish = json!({ "name": "hook", "url": format!("http://localhost:{port}/") });
    let webhook = app.post("/api/v1/webhooks", &admin, wish).await.expect(201);
    let tested = app
        .post(&format!("{}/test", path(&webhook)), &admin, Value::Null)
        .await
        .expect(200);
    assert!(
        text(&tested, "error").contains("private network"),
        "{tested}"
    );
    assert!(receiver.inbox.received.lock().unwrap().is_empty());
    for (field, value) in [
        ("event_types", json!(["session_ended"])),
        ("url", json!("ftp://x/")),
        ("name", json!(" ")),
    ] {
        let mut wish = json!({ "name": "hook", "url": "https://example.org/" });
        wish[field] = value;
        let problem = app
            .post("/api/v1/webhooks", &admin, wish)
            .await
            .expect_problem(422, "INVALID");
        assert!(
            text(&problem["errors"][0], "pointer").starts_with(&format!("/{field}")),
            "{problem}"
        );
    }
}
