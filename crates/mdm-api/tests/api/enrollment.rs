use serde_json::json;

use crate::app::{TestApp, device, text};

#[actix_web::test]
async fn a_secret_is_shown_once_and_gives_its_labels() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let secret = app
        .secret(
            &admin,
            json!({ "name": "north", "labels": { "site": "north", "kind": "desk" } }),
        )
        .await;
    let listed = app.get("/api/v1/enrollment-secrets", &admin).await;
    assert!(!listed.text.contains(&secret));
    let mut body = device("hw-1");
    body["enrollment_secret"] = secret.into();
    body["labels"] = json!({ "kind": "lap" });
    let enrolled = app
        .call("POST", "/api/v1/device/enroll", None, Some(body))
        .await
        .expect(201);
    assert_eq!(
        enrolled["labels"],
        json!({ "site": "north", "kind": "lap" })
    );
}

#[actix_web::test]
async fn secrets_that_are_unknown_revoked_expired_or_used_up_let_nobody_in() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let enroll = |secret: &str, uuid: &str| {
        let mut body = device(uuid);
        body["enrollment_secret"] = secret.into();
        app.call("POST", "/api/v1/device/enroll", None, Some(body))
    };
    app.call("POST", "/api/v1/device/enroll", None, Some(device("hw")))
        .await
        .expect_problem(401, "ENROLLMENT_SECRET_MISSING");
    enroll("mdme_nonsense", "hw")
        .await
        .expect_problem(403, "ENROLLMENT_SECRET_UNKNOWN");

    let created = app
        .post("/api/v1/enrollment-secrets", &admin, json!({ "name": "x" }))
        .await
        .expect(201);
    let path = format!("/api/v1/enrollment-secrets/{}", text(&created, "id"));
    app.call("DELETE", &path, Some(&admin), None)
        .await
        .expect(204);
    enroll(text(&created, "secret"), "hw")
        .await
        .expect_problem(403, "ENROLLMENT_SECRET_REVOKED");

    let used_up = app
        .secret(&admin, json!({ "name": "once", "max_uses": 1 }))
        .await;
    enroll(&used_up, "hw-1").await.expect(201);
    enroll(&used_up, "hw-2")
        .await
        .expect_problem(403, "ENROLLMENT_SECRET_USED_UP");

    let expired = app
        .secret(
            &admin,
            json!({ "name": "old", "expires_at": "2999-01-01T00:00:00Z" }),
        )
        .await;
    sqlx::query(
        "UPDATE enrollment_secrets SET expires_at = now() - interval '1 s' WHERE name = 'old'",
    )
    .execute(app.database.pool())
    .await
    .unwrap();
    enroll(&expired, "hw-3")
        .await
        .expect_problem(403, "ENROLLMENT_SECRET_EXPIRED");
    assert_eq!(
        app.get("/api/v1/devices", &admin).await.expect(200)["total"],
        1
    );
}

#[actix_web::test]
async fn a_secret_for_ten_devices_lets_exactly_ten_of_sixty_four_in() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let secret = app
        .secret(&admin, json!({ "name": "ten", "max_uses": 10 }))
        .await;
    let attempts = (0..64).map(|number| {
        let mut body = device(&format!("hw-{number}"));
        body["enrollment_secret"] = secret.clone().into();
        app.call("POST", "/api/v1/device/enroll", None, Some(body))
    });
    let answers = futures_util::future::join_all(attempts).await;
    assert_eq!(
        answers.iter().filter(|answer| answer.status == 201).count(),
        10
    );
    for answer in answers.into_iter().filter(|answer| answer.status != 201) {
        answer.expect_problem(403, "ENROLLMENT_SECRET_USED_UP");
    }
    assert_eq!(
        app.get("/api/v1/devices", &admin).await.expect(200)["total"],
        10
    );
}

#[actix_web::test]
async fn an_operator_needs_no_secret_but_a_wrong_one_is_refused() {
    let app = TestApp::start().await;
    let operator = app.user("op@mobius.local", "operator").await;
    let mut body = device("hw-1");
    body["enrollment_secret"] = "mdme_wrong".into();
    app.post("/api/v1/devices", &operator, body)
        .await
        .expect_problem(403, "ENROLLMENT_SECRET_UNKNOWN");
    assert_eq!(
        app.get("/api/v1/devices", &operator).await.expect(200)["total"],
        0
    );
}

#[actix_web::test]
async fn a_secret_of_another_organisation_is_not_known_here() {
    let app = TestApp::start().await;
    let (admin, stranger) = (app.admin().await, app.stranger().await);
    let theirs = app
        .post(
            "/api/v1/enrollment-secrets",
            &stranger,
            json!({ "name": "theirs" }),
        )
        .await
        .expect(201);
    let mut body = device("hw-1");
    body["enrollment_secret"] = theirs["secret"].clone();
    app.post("/api/v1/devices", &admin, body)
        .await
        .expect_problem(403, "ENROLLMENT_SECRET_UNKNOWN");
    let path = format!("/api/v1/enrollment-secrets/{}", text(&theirs, "id"));
    app.call("DELETE", &path, Some(&admin), None)
        .await
        .expect_problem(404, "ENROLLMENT_SECRET_NOT_FOUND");
}
