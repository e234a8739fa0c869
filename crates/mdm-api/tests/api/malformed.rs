use serde_json::json;

use crate::app::{TestApp, device};

/// Every route that takes a body, with one that it accepts.
fn bodies() -> Vec<(&'static str, &'static str, serde_json::Value)> {
    vec![
        (
            "POST",
            "/api/v1/auth/login",
            json!({ "email": "a@b", "password": "x" }),
        ),
        (
            "POST",
            "/api/v1/auth/refresh",
            json!({ "refresh_token": "x" }),
        ),
        ("POST", "/api/v1/devices", device("hw")),
        ("POST", "/api/v1/device/enroll", device("hw")),
        ("PUT", "/api/v1/devices/hw-1", json!({ "hostname": "x" })),
        (
            "POST",
            "/api/v1/devices/hw-1/commands",
            json!({ "command": "system_info" }),
        ),
        (
            "POST",
            "/api/v1/devices/hw-1/osquery",
            json!({ "query": "SELECT 1" }),
        ),
        ("POST", "/api/v1/enrollment-secrets", json!({ "name": "x" })),
    ]
}

#[actix_web::test]
async fn malformed_json_unknown_fields_wrong_types_and_wrong_media_get_the_right_status_each() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    app.enroll(&admin, "hw-1").await;
    let before = app.get("/api/v1/devices/hw-1", &admin).await.expect(200);
    for (method, path, good) in bodies() {
        let send = |body: String, media: &str| {
            TestApp::read(
                app.request(method, path)
                    .bearer_auth(&admin)
                    .header("content-type", media)
                    .body(body),
            )
        };
        send("{\"".to_owned(), "application/json")
            .await
            .expect_problem(400, "MALFORMED_JSON");
        send(String::new(), "application/json")
            .await
            .expect_problem(400, "MALFORMED_JSON");
        send("\u{0}\u{1}".to_owned(), "application/json")
            .await
            .expect_problem(400, "MALFORMED_JSON");
        send(good.to_string(), "text/plain")
            .await
            .expect_problem(415, "UNSUPPORTED_MEDIA_TYPE");
        send("[]".to_owned(), "application/json")
            .await
            .expect_problem(422, "INVALID");
        let mut unknown = good.clone();
        unknown["colour"] = "red".into();
        let problem = send(unknown.to_string(), "application/json")
            .await
            .expect_problem(422, "INVALID");
        assert_eq!(
            (
                &problem["errors"][0]["pointer"],
                &problem["errors"][0]["code"]
            ),
            (&json!("/colour"), &json!("UNKNOWN_FIELD")),
            "{path}"
        );
        let field = good.as_object().unwrap().keys().next().unwrap().clone();
        let mut wrong = good.clone();
        wrong[&field] = json!([1]);
        let problem = send(wrong.to_string(), "application/json")
            .await
            .expect_problem(422, "INVALID");
        assert_eq!(
            problem["errors"][0]["pointer"],
            format!("/{field}"),
            "{path}"
        );
    }
    assert_eq!(
        app.get("/api/v1/devices/hw-1", &admin).await.expect(200),
        before
    );
    assert_eq!(
        app.get("/api/v1/devices", &admin).await.expect(200)["total"],
        1
    );
}

#[actix_web::test]
async fn a_body_of_ten_megabytes_is_refused_with_an_answer_that_can_be_read() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let huge = format!("{{\"hostname\":\"{}\"}}", "x".repeat(10 * 1024 * 1024));
    for (method, path, _) in bodies() {
        let request = app
            .request(method, path)
            .bearer_auth(&admin)
            .header("content-type", "application/json");
        TestApp::read(request.body(huge.clone()))
            .await
            .expect_problem(413, "BODY_TOO_LARGE");
    }
}

#[actix_web::test]
async fn values_that_are_not_acceptable_are_pointed_at() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    app.enroll(&admin, "hw-1").await;
    let with = |field: &str, value: serde_json::Value| {
        let mut body = device("hw-2");
        body[field] = value;
        ("/api/v1/devices", body, format!("/{field}"))
    };
    let command = |body: serde_json::Value, pointer: &str| {
        ("/api/v1/devices/hw-1/commands", body, pointer.to_owned())
    };
    let secret = |body: serde_json::Value, pointer: &str| {
        ("/api/v1/enrollment-secrets", body, pointer.to_owned())
    };
    let cases = [
        with("uuid", json!("")),
        with("uuid", json!("x".repeat(129))),
        with("hostname", json!("a\u{0}b")),
        with("platform", json!("beos")),
        with("hardware_info", json!([])),
        with("hardware_info", json!({ "a": "\u{0}" })),
        with("hardware_info", json!({ "a": "x".repeat(70_000) })),
        command(json!({ "command": "dance" }), "/command"),
        command(json!({ "command": "run_osquery" }), "/parameters/query"),
        command(
            json!({ "command": "run_script", "parameters": {} }),
            "/parameters/script",
        ),
        command(
            json!({ "command": "system_info", "parameters": 1 }),
            "/parameters",
        ),
        command(
            json!({ "command": "system_info", "priority": 101 }),
            "/priority",
        ),
        command(
            json!({ "command": "system_info", "expires_in_seconds": 2_592_001 }),
            "/expires_in_seconds",
        ),
        secret(json!({ "name": " " }), "/name"),
        secret(json!({ "name": "x", "max_uses": 0 }), "/max_uses"),
        secret(
            json!({ "name": "x", "expires_at": "2020-01-01T00:00:00Z" }),
            "/expires_at",
        ),
        secret(
            json!({ "name": "x", "expires_at": "tomorrow" }),
            "/expires_at",
        ),
    ];
    for (path, body, pointer) in cases {
        let problem = app
            .post(path, &admin, body.clone())
            .await
            .expect_problem(422, "INVALID");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    assert_eq!(
        app.get("/api/v1/devices", &admin).await.expect(200)["total"],
        1
    );
    assert_eq!(
        app.get("/api/v1/commands", &admin).await.expect(200)["total"],
        0
    );
}

#[actix_web::test]
async fn the_character_that_no_text_can_hold_is_no_failure_of_ours() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    for path in ["/api/v1/devices/%00", "/api/v1/devices/a%00b/commands"] {
        app.get(path, &admin)
            .await
            .expect_problem(404, "DEVICE_NOT_FOUND");
    }
    app.get("/api/v1/commands/%00", &admin)
        .await
        .expect_problem(404, "COMMAND_NOT_FOUND");
    for query in ["search=%00", "label=a:%00", "label=%00:b"] {
        app.get(&format!("/api/v1/devices?{query}"), &admin)
            .await
            .expect_problem(422, "INVALID");
    }
    for body in [
        json!({ "username": "a\u{0}", "password": "x" }),
        json!({ "email": "a@\u{0}", "password": "\u{0}" }),
    ] {
        app.call("POST", "/api/v1/auth/login", None, Some(body))
            .await
            .expect_problem(401, "WRONG_CREDENTIALS");
    }
    app.get("/api/v1/events?after=%00", &admin)
        .await
        .expect_problem(422, "INVALID");
    app.get("/api/v1/events?types=%00", &admin)
        .await
        .expect_problem(422, "INVALID");
}
