use serde_json::{Value, json};

use crate::app::{PASSWORD, TestApp, text};

#[actix_web::test]
async fn a_user_signs_in_by_address_or_by_name_and_sees_who_they_are() {
    let app = TestApp::start().await;
    for name in [
        json!({ "email": "ADMIN@mobius.local" }),
        json!({ "username": "admin" }),
        json!({ "username": "admin@mobius.local" }),
    ] {
        let mut body = name;
        body["password"] = PASSWORD.into();
        let signed_in = app
            .call("POST", "/api/v1/auth/login", None, Some(body))
            .await
            .expect(200);
        assert_eq!(signed_in["user"]["email"], "admin@mobius.local");
        let me = app
            .get("/api/v1/auth/me", text(&signed_in, "token"))
            .await
            .expect(200);
        assert_eq!(me, signed_in["user"]);
    }
}

#[actix_web::test]
async fn a_wrong_password_and_an_unknown_user_get_the_same_answer() {
    let app = TestApp::start().await;
    let mut details = Vec::new();
    for email in ["admin@mobius.local", "nobody@mobius.local"] {
        let body = json!({ "email": email, "password": "wrong horse battery" });
        let answer = app
            .call("POST", "/api/v1/auth/login", None, Some(body))
            .await;
        details.push(answer.expect_problem(401, "WRONG_CREDENTIALS")["detail"].clone());
    }
    assert_eq!(details[0], details[1]);
}

#[actix_web::test]
async fn who_keeps_failing_is_shut_out_for_a_while_and_told_for_how_long() {
    let app = TestApp::start().await;
    let wrong = json!({ "email": "admin@mobius.local", "password": "wrong horse battery" });
    for _ in 0..11 {
        app.call("POST", "/api/v1/auth/login", None, Some(wrong.clone()))
            .await
            .expect_problem(401, "WRONG_CREDENTIALS");
    }
    let right = json!({ "email": "admin@mobius.local", "password": PASSWORD });
    let answer = app
        .call("POST", "/api/v1/auth/login", None, Some(right))
        .await;
    assert!(answer.headers["retry-after"].parse::<u64>().unwrap() >= 1);
    answer.expect_problem(429, "TOO_MANY_ATTEMPTS");
}

#[actix_web::test]
async fn logout_ends_the_tokens_of_its_session_at_once_and_of_no_other() {
    let app = TestApp::start().await;
    let (one, other) = (app.login().await, app.login().await);
    app.call(
        "POST",
        "/api/v1/auth/logout",
        Some(text(&one, "token")),
        None,
    )
    .await
    .expect(204);
    app.get("/api/v1/auth/me", text(&one, "token"))
        .await
        .expect_problem(401, "SESSION_ENDED");
    let refresh = json!({ "refresh_token": one["refresh_token"] });
    app.call("POST", "/api/v1/auth/refresh", None, Some(refresh))
        .await
        .expect_problem(401, "REFRESH_TOKEN_INVALID");
    app.get("/api/v1/auth/me", text(&other, "token"))
        .await
        .expect(200);
}

#[actix_web::test]
async fn a_refresh_token_works_once_and_its_second_use_ends_the_session() {
    let app = TestApp::start().await;
    let first = app.login().await;
    let refresh = |token: &Value| {
        let body = json!({ "refresh_token": token });
        app.call("POST", "/api/v1/auth/refresh", None, Some(body))
    };
    let second = refresh(&first["refresh_token"]).await.expect(200);
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    app.get("/api/v1/auth/me", text(&second, "token"))
        .await
        .expect(200);
    refresh(&first["refresh_token"])
        .await
        .expect_problem(401, "REFRESH_TOKEN_REUSED");
    refresh(&second["refresh_token"])
        .await
        .expect_problem(401, "REFRESH_TOKEN_INVALID");
    app.get("/api/v1/auth/me", text(&second, "token"))
        .await
        .expect_problem(401, "SESSION_ENDED");
}

#[actix_web::test]
async fn of_eight_uses_of_a_refresh_token_at_once_at_most_one_succeeds_and_the_session_ends() {
    let app = TestApp::start().await;
    let first = app.login().await;
    let body = json!({ "refresh_token": first["refresh_token"] });
    let uses = (0..8).map(|_| app.call("POST", "/api/v1/auth/refresh", None, Some(body.clone())));
    let answers = futures_util::future::join_all(uses).await;
    let successes = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(successes, 1, "{answers:?}");
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 || answer.status == 401)
    );
    app.get("/api/v1/auth/me", text(&first, "token"))
        .await
        .expect_problem(401, "SESSION_ENDED");
}

#[actix_web::test]
async fn the_published_keys_verify_the_tokens() {
    let app = TestApp::start().await;
    let token = app.admin().await;
    let keys = app
        .call("GET", "/.well-known/jwks.json", None, None)
        .await
        .expect(200);
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_value(keys).unwrap();
    let header = jsonwebtoken::decode_header(&token).unwrap();
    let key =
        jsonwebtoken::DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
    validation.set_issuer(&["mobius-mdm"]);
    let claims = jsonwebtoken::decode::<Value>(&token, &key, &validation)
        .unwrap()
        .claims;
    assert_eq!(claims["role"], "admin");
    let lifetime = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(lifetime, 900);
}

#[actix_web::test]
async fn forged_tokens_are_refused() {
    let app = TestApp::start().await;
    let token = app.admin().await;
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let forged = [
        "garbage".to_owned(),
        "a.b.c".to_owned(),
        format!("{signed}."),
        format!("{none}.{claims}."),
        format!("{header}.{claims}A.{signature}"),
        format!("{signed}.{}", signature.chars().rev().collect::<String>()),
    ];
    for token in forged {
        app.get("/api/v1/auth/me", &token)
            .await
            .expect_problem(401, "TOKEN_INVALID");
    }
    app.call("GET", "/api/v1/auth/me", None, None)
        .await
        .expect_problem(401, "TOKEN_MISSING");
}
