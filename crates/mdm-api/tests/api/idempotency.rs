//! `Idempotency-Key` on every `POST`.

use serde_json::{Value, json};

use crate::app::{Answer, TestApp, device, text};

async fn post(app: &TestApp, path: &str, token: &str, key: &str, body: &Value) -> Answer {
    let request = app
        .request("POST", path)
        .bearer_auth(token)
        .header("idempotency-key", key)
        .json(body);
    TestApp::read(request).await
}

#[actix_web::test]
async fn the_same_key_and_body_answers_with_the_first_outcome() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let body = json!({ "name": "g" });
    let first = post(&app, "/api/v1/device-groups", &admin, "k", &body).await;
    let second = post(&app, "/api/v1/device-groups", &admin, "k", &body).await;
    assert_eq!(second.headers["idempotency-replayed"], "true");
    assert_eq!(first.headers["location"], second.headers["location"]);
    assert_eq!(first.expect(201), second.expect(201));
    let groups = app.get("/api/v1/device-groups", &admin).await.expect(200);
    assert_eq!(groups["total"], 1);
    let other = json!({ "name": "h" });
    post(&app, "/api/v1/device-groups", &admin, "k", &other)
        .await
        .expect_problem(422, "IDEMPOTENCY_KEY_REUSED");
    post(&app, "/api/v1/policies", &admin, "k", &body)
        .await
        .expect_problem(422, "IDEMPOTENCY_KEY_REUSED");
}

#[actix_web::test]
async fn of_many_at_once_one_is_carried_out_and_all_get_its_outcome() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let body = device("hw-1");
    let answers = futures_util::future::join_all(
        (0..16).map(|_| post(&app, "/api/v1/devices", &admin, "k", &body)),
    )
    .await;
    let mut tokens: Vec<_> = answers
        .into_iter()
        .map(|answer| text(&answer.expect(201), "device_token").to_owned())
        .collect();
    tokens.dedup();
    assert_eq!(tokens.len(), 1);
    app.check_in(&tokens[0], json!({})).await;
}

#[actix_web::test]
async fn a_kept_answer_is_sealed() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let created = post(
        &app,
        "/api/v1/api-keys",
        &admin,
        "k",
        &json!({ "name": "x" }),
    )
    .await
    .expect(201);
    let kept: Vec<u8> = sqlx::query_scalar("SELECT answer FROM idempotency_keys")
        .fetch_one(app.database.pool())
        .await
        .unwrap();
    let key = text(&created, "key").as_bytes();
    assert!(!kept.windows(key.len()).any(|window| window == key));
}

#[actix_web::test]
async fn two_callers_may_use_the_same_key() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let operator = app.user("o@mobius.local", "operator").await;
    let first = post(
        &app,
        "/api/v1/device-groups",
        &admin,
        "k",
        &json!({ "name": "a" }),
    )
    .await
    .expect(201);
    let second = post(
        &app,
        "/api/v1/device-groups",
        &operator,
        "k",
        &json!({ "name": "b" }),
    )
    .await
    .expect(201);
    assert_ne!(first["id"], second["id"]);
}

#[actix_web::test]
async fn what_was_refused_for_lack_of_rights_can_be_tried_again() {
    let app = TestApp::start().await;
    let viewer = app.user("v@mobius.local", "viewer").await;
    let body = json!({ "name": "a" });
    post(&app, "/api/v1/device-groups", &viewer, "k", &body)
        .await
        .expect_problem(403, "FORBIDDEN");
    sqlx::query("UPDATE users SET role = 'operator' WHERE email = 'v@mobius.local'")
        .execute(app.database.pool())
        .await
        .unwrap();
    let login = json!({ "email": "v@mobius.local", "password": crate::app::PASSWORD });
    let login = app
        .call("POST", "/api/v1/auth/login", None, Some(login))
        .await
        .expect(200);
    post(
        &app,
        "/api/v1/device-groups",
        text(&login, "token"),
        "k",
        &body,
    )
    .await
    .expect(201);
}

#[actix_web::test]
async fn a_reservation_of_a_process_that_died_is_taken_over_and_one_that_was_carried_out_is_not() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let body = json!({ "name": "g" });
    post(&app, "/api/v1/device-groups", &admin, "k", &body)
        .await
        .expect(201);
    let age = |sql: &'static str| sqlx::query(sql).execute(app.database.pool());
    // As a crash leaves it before the commit: nothing was done, so it is done now.
    age("UPDATE idempotency_keys SET status = NULL, answer = NULL, carried_out = false, reserved_at = now() - interval '3 minutes'")
        .await
        .unwrap();
    post(&app, "/api/v1/device-groups", &admin, "k", &body)
        .await
        .expect(201);
    // As a crash leaves it after the commit: it must not be done again.
    age("UPDATE idempotency_keys SET status = NULL, answer = NULL, reserved_at = now() - interval '3 minutes'")
        .await
        .unwrap();
    post(&app, "/api/v1/device-groups", &admin, "k", &body)
        .await
        .expect_problem(409, "IDEMPOTENCY_ANSWER_LOST");
    let groups = app.get("/api/v1/device-groups", &admin).await.expect(200);
    assert_eq!(groups["total"], 2);
}

#[actix_web::test]
async fn a_key_that_is_none_is_refused() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    for key in ["", "a b", &"x".repeat(129)] {
        let refused = post(
            &app,
            "/api/v1/device-groups",
            &admin,
            key,
            &json!({ "name": "g" }),
        )
        .await;
        assert_eq!(refused.status, 422, "{key:?}");
    }
}
