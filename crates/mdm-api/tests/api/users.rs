//! Users, sessions, API keys.

use serde_json::{Value, json};

use crate::app::{PASSWORD, TestApp, text};

async fn login(app: &TestApp, email: &str, password: &str) -> crate::app::Answer {
    let body = json!({ "email": email, "password": password });
    app.call("POST", "/api/v1/auth/login", None, Some(body))
        .await
}

#[actix_web::test]
async fn a_user_is_made_changed_closed_out_and_deleted() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let wish = json!({ "email": "Ada@Example.org", "role": "operator", "password": PASSWORD });
    let created = app
        .post("/api/v1/users", &admin, wish.clone())
        .await
        .expect(201);
    assert_eq!(
        (&created["email"], &created["name"]),
        (&json!("ada@example.org"), &json!("ada@example.org"))
    );
    app.post("/api/v1/users", &admin, wish)
        .await
        .expect_problem(409, "EMAIL_TAKEN");
    let path = format!("/api/v1/users/{}", text(&created, "id"));
    let token = login(&app, "ada@example.org", PASSWORD).await.expect(200);
    let token = text(&token, "token");
    app.get("/api/v1/devices", token).await.expect(200);
    let put = async |body: Value| app.call("PUT", &path, Some(&admin), Some(body)).await;
    put(json!({ "role": "viewer" })).await.expect(200);
    app.get("/api/v1/devices", token)
        .await
        .expect_problem(401, "SESSION_ENDED");
    let fresh = login(&app, "ada@example.org", PASSWORD).await.expect(200);
    assert_eq!(fresh["user"]["role"], "viewer");
    put(json!({ "disabled": true })).await.expect(200);
    app.get("/api/v1/devices", text(&fresh, "token"))
        .await
        .expect_problem(401, "SESSION_ENDED");
    login(&app, "ada@example.org", PASSWORD)
        .await
        .expect_problem(401, "WRONG_CREDENTIALS");
    put(json!({ "disabled": false, "password": "a password that is new" }))
        .await
        .expect(200);
    login(&app, "ada@example.org", "a password that is new")
        .await
        .expect(200);
    app.call("DELETE", &path, Some(&admin), None)
        .await
        .expect(204);
    app.get(&path, &admin)
        .await
        .expect_problem(404, "USER_NOT_FOUND");
    login(&app, "ada@example.org", "a password that is new")
        .await
        .expect_problem(401, "WRONG_CREDENTIALS");
}

#[actix_web::test]
async fn the_last_administrator_stays_whoever_asks_at_once() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let me = app.get("/api/v1/auth/me", &admin).await.expect(200);
    let path = format!("/api/v1/users/{}", text(&me, "id"));
    for body in [json!({ "role": "viewer" }), json!({ "disabled": true })] {
        app.call("PUT", &path, Some(&admin), Some(body))
            .await
            .expect_problem(409, "LAST_ADMINISTRATOR");
    }
    app.call("DELETE", &path, Some(&admin), None)
        .await
        .expect_problem(409, "LAST_ADMINISTRATOR");
    let other = json!({ "email": "b@example.org", "role": "admin", "password": PASSWORD });
    let other = app.post("/api/v1/users", &admin, other).await.expect(201);
    let other_path = format!("/api/v1/users/{}", text(&other, "id"));
    let token = login(&app, "b@example.org", PASSWORD).await.expect(200);
    let demote = json!({ "role": "viewer" });
    let (first, second) = futures_util::future::join(
        app.call(
            "PUT",
            &path,
            Some(text(&token, "token")),
            Some(demote.clone()),
        ),
        app.call("PUT", &other_path, Some(&admin), Some(demote)),
    )
    .await;
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    // One is demoted; the other is then the last one, or its session has ended meanwhile.
    assert_eq!(statuses[0], 200);
    assert!([401, 409].contains(&statuses[1]), "{statuses:?}");
}

#[actix_web::test]
async fn ones_own_password_and_sessions() {
    let app = TestApp::start().await;
    let first = app.admin().await;
    let second = app.admin().await;
    let sessions = app.get("/api/v1/auth/sessions", &first).await.expect(200);
    let sessions = sessions["sessions"].as_array().unwrap().clone();
    assert_eq!(sessions.len(), 2);
    assert_eq!(
        sessions
            .iter()
            .filter(|session| session["current"] == true)
            .count(),
        1
    );
    let wrong = json!({ "current_password": "wrong", "new_password": "a password that is new" });
    app.call("PUT", "/api/v1/auth/password", Some(&first), Some(wrong))
        .await
        .expect_problem(422, "INVALID");
    let right = json!({ "current_password": PASSWORD, "new_password": "a password that is new" });
    app.call("PUT", "/api/v1/auth/password", Some(&first), Some(right))
        .await
        .expect(204);
    app.get("/api/v1/auth/me", &first).await.expect(200);
    app.get("/api/v1/auth/me", &second)
        .await
        .expect_problem(401, "SESSION_ENDED");
    let own = sessions
        .iter()
        .find(|session| session["current"] == true)
        .unwrap();
    let path = format!("/api/v1/auth/sessions/{}", text(own, "id"));
    app.call("DELETE", &path, Some(&first), None)
        .await
        .expect(204);
    app.get("/api/v1/auth/me", &first)
        .await
        .expect_problem(401, "SESSION_ENDED");
}

async fn with_key(app: &TestApp, method: &str, path: &str, key: &str) -> crate::app::Answer {
    TestApp::read(app.request(method, path).header("x-api-key", key)).await
}

#[actix_web::test]
async fn an_api_key_may_do_what_its_scopes_say_until_it_is_deleted() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let wish = json!({ "name": "export", "role": "operator", "scopes": ["devices:read"] });
    let created = app.post("/api/v1/api-keys", &admin, wish).await.expect(201);
    let (key, path) = (
        text(&created, "key"),
        format!("/api/v1/api-keys/{}", text(&created, "id")),
    );
    with_key(&app, "GET", "/api/v1/devices", key)
        .await
        .expect(200);
    with_key(&app, "GET", "/api/v1/policies", key)
        .await
        .expect_problem(403, "FORBIDDEN");
    with_key(&app, "GET", "/api/v1/auth/sessions", key)
        .await
        .expect_problem(403, "FORBIDDEN");
    with_key(&app, "GET", "/api/v1/events", key)
        .await
        .expect_problem(403, "FORBIDDEN");
    let read = app.get(&path, &admin).await.expect(200);
    assert!(read["last_used_at"].is_string());
    assert_eq!(read["key"], Value::Null);
    let beyond = json!({ "name": "x", "role": "viewer", "scopes": ["devices:write"] });
    app.post("/api/v1/api-keys", &admin, beyond)
        .await
        .expect_problem(422, "INVALID");
    let past = json!({ "expires_at": "2020-01-01T00:00:00Z" });
    app.call("PUT", &path, Some(&admin), Some(past))
        .await
        .expect_problem(422, "INVALID");
    app.call("DELETE", &path, Some(&admin), None)
        .await
        .expect(204);
    with_key(&app, "GET", "/api/v1/devices", key)
        .await
        .expect_problem(401, "API_KEY_INVALID");
}

#[actix_web::test]
async fn the_keys_of_a_user_who_is_closed_out_do_not_work() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let other = json!({ "email": "b@example.org", "role": "admin", "password": PASSWORD });
    let other = app.post("/api/v1/users", &admin, other).await.expect(201);
    let token = login(&app, "b@example.org", PASSWORD).await.expect(200);
    let created = app
        .post(
            "/api/v1/api-keys",
            text(&token, "token"),
            json!({ "name": "k" }),
        )
        .await
        .expect(201);
    let key = text(&created, "key");
    with_key(&app, "GET", "/api/v1/devices", key)
        .await
        .expect(200);
    let path = format!("/api/v1/users/{}", text(&other, "id"));
    app.call(
        "PUT",
        &path,
        Some(&admin),
        Some(json!({ "disabled": true })),
    )
    .await
    .expect(200);
    with_key(&app, "GET", "/api/v1/devices", key)
        .await
        .expect_problem(401, "API_KEY_INVALID");
}
