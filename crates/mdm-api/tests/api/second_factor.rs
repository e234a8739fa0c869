//! A second factor: set up, needed, used once, recovered from, removed.

use mdm_core::{Clock, SystemClock};
use serde_json::{Value, json};
use totp_rs::{Builder, Secret};

use crate::app::{PASSWORD, TestApp, text};

/// The code of `steps` steps from now.
fn code(secret: &str, steps: u64) -> String {
    let secret = Secret::try_from_base32(secret).unwrap();
    let totp = Builder::new().with_secret(secret).build().unwrap();
    let now = u64::try_from(SystemClock.now().timestamp()).unwrap();
    totp.generate(now + 30 * steps).to_string()
}

async fn login(app: &TestApp, totp: Option<&str>) -> crate::app::Answer {
    let mut body = json!({ "username": "admin", "password": PASSWORD });
    if let Some(totp) = totp {
        body["totp"] = json!(totp);
    }
    app.call("POST", "/api/v1/auth/login", None, Some(body))
        .await
}

/// A second factor that was set up.
struct SetUp {
    secret: String,
    used: String,
    recovery_codes: Vec<String>,
}

/// Sets the first administrator's second factor up.
async fn set_up(app: &TestApp, admin: &str) -> SetUp {
    let begun = app
        .post("/api/v1/auth/totp", admin, Value::Null)
        .await
        .expect(201);
    let secret = text(&begun, "secret").to_owned();
    let uri = text(&begun, "uri");
    assert!(
        uri.starts_with("otpauth://totp/") && uri.contains(&secret),
        "{uri}"
    );
    let used = code(&secret, 0);
    let body = json!({ "code": used });
    let confirmed = app
        .post("/api/v1/auth/totp/confirm", admin, body)
        .await
        .expect(200);
    SetUp {
        secret,
        used,
        recovery_codes: serde_json::from_value(confirmed["recovery_codes"].clone()).unwrap(),
    }
}

#[actix_web::test]
async fn a_confirmed_second_factor_is_needed_and_each_code_works_once() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let set_up = set_up(&app, &admin).await;
    login(&app, None).await.expect_problem(401, "TOTP_REQUIRED");
    let wrong = json!({ "username": "admin", "password": "not the password at all" });
    let wrong = app
        .call("POST", "/api/v1/auth/login", None, Some(wrong))
        .await;
    wrong.expect_problem(401, "WRONG_CREDENTIALS");
    // It was taken when it confirmed.
    login(&app, Some(&set_up.used))
        .await
        .expect_problem(401, "WRONG_TOTP");
    let next = code(&set_up.secret, 1);
    let (one, other) = tokio::join!(login(&app, Some(&next)), login(&app, Some(&next)));
    let mut both = [one.status, other.status];
    both.sort_unstable();
    assert_eq!(both, [200, 401], "one code signs in once");
    let me = app.get("/api/v1/auth/me", &admin).await.expect(200);
    assert_eq!(me["totp_enabled"], true);
    let again = app.post("/api/v1/auth/totp", &admin, Value::Null).await;
    again.expect_problem(409, "TOTP_ENABLED");
}

#[actix_web::test]
async fn a_recovery_code_signs_in_once_and_another_removes_the_factor() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let codes = set_up(&app, &admin).await.recovery_codes;
    assert_eq!(codes.len(), 10);
    login(&app, Some(&codes[0].to_uppercase()))
        .await
        .expect(200);
    login(&app, Some(&codes[0]))
        .await
        .expect_problem(401, "WRONG_TOTP");
    let remove = |code: &str| {
        let body = Some(json!({ "code": code }));
        app.call("DELETE", "/api/v1/auth/totp", Some(&admin), body)
    };
    let refused = remove(&codes[0]).await.expect_problem(422, "INVALID");
    assert_eq!(refused["errors"][0]["pointer"], "/code");
    remove(&codes[1]).await.expect(204);
    login(&app, None).await.expect(200);
    remove(&codes[2])
        .await
        .expect_problem(409, "TOTP_NOT_BEGUN");
}

#[actix_web::test]
async fn what_is_not_confirmed_is_not_needed_and_can_be_made_anew() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let nothing = app
        .post(
            "/api/v1/auth/totp/confirm",
            &admin,
            json!({ "code": "123456" }),
        )
        .await;
    nothing.expect_problem(409, "TOTP_NOT_BEGUN");
    let first = app
        .post("/api/v1/auth/totp", &admin, Value::Null)
        .await
        .expect(201);
    let second = app
        .post("/api/v1/auth/totp", &admin, Value::Null)
        .await
        .expect(201);
    let body = json!({ "code": code(text(&first, "secret"), 0) });
    let old = app.post("/api/v1/auth/totp/confirm", &admin, body).await;
    old.expect_problem(422, "INVALID");
    login(&app, None).await.expect(200);
    let body = json!({ "code": code(text(&second, "secret"), 0) });
    app.post("/api/v1/auth/totp/confirm", &admin, body)
        .await
        .expect(200);
    login(&app, None).await.expect_problem(401, "TOTP_REQUIRED");
}
