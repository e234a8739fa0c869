//! The license: keys, limits under concurrency, grace.

use mdm_core::{
    Clock, OsEntropy, SystemClock,
    ids::OrganizationId,
    licenses::{LicenseTerms, Tier},
};
use mdm_service::licenses::{self, LicensePrivateKey};
use serde_json::{Value, json};

use crate::app::{TestApp, device, text};

struct Issuer(LicensePrivateKey);

impl Issuer {
    fn new() -> Self {
        Self(LicensePrivateKey::generate(&OsEntropy))
    }

    async fn app(&self) -> TestApp {
        TestApp::start_with(&[("MDM_LICENSE_PUBLIC_KEYS", &self.0.public().to_text())]).await
    }

    fn key(
        &self,
        organization: &str,
        devices: i64,
        change: impl FnOnce(&mut LicenseTerms),
    ) -> String {
        let organization = OrganizationId::from_uuid(organization.parse().unwrap());
        let ends = SystemClock.now() + chrono::Duration::days(30);
        let mut terms = licenses::terms(
            "l".to_owned(),
            organization,
            Tier::Professional,
            Some(devices),
            Vec::new(),
            ends,
        );
        change(&mut terms);
        licenses::issue(&self.0, &terms, SystemClock.now()).unwrap()
    }
}

async fn organization(app: &TestApp, admin: &str) -> String {
    let status = app.get("/api/v1/license/status", admin).await.expect(200);
    text(&status, "organization_id").to_owned()
}

async fn put(app: &TestApp, admin: &str, key: Value) -> crate::app::Answer {
    app.call(
        "PUT",
        "/api/v1/license",
        Some(admin),
        Some(json!({ "key": key })),
    )
    .await
}

#[actix_web::test]
async fn without_a_key_everything_is_free_and_a_good_key_sets_the_limit() {
    let issuer = Issuer::new();
    let app = issuer.app().await;
    let admin = app.admin().await;
    app.enroll(&admin, "hw-1").await;
    let status = app.get("/api/v1/license/status", &admin).await.expect(200);
    assert_eq!(
        (
            &status["tier"],
            &status["device_limit"],
            &status["devices_enrolled"]
        ),
        (&json!("community"), &Value::Null, &json!(1))
    );
    let key = issuer.key(&organization(&app, &admin).await, 2, |_| {});
    let status = put(&app, &admin, json!(key)).await.expect(200);
    assert_eq!(
        (
            &status["tier"],
            &status["device_limit"],
            &status["devices_enrolled"]
        ),
        (&json!("professional"), &json!(2), &json!(1))
    );
    app.enroll(&admin, "hw-2").await;
    app.post("/api/v1/devices", &admin, device("hw-3"))
        .await
        .expect_problem(409, "LICENSE_LIMIT_REACHED");
    app.post("/api/v1/devices?re_enroll=true", &admin, device("hw-2"))
        .await
        .expect(201);
    app.call("DELETE", "/api/v1/devices/hw-2", Some(&admin), None)
        .await
        .expect(204);
    app.enroll(&admin, "hw-3").await;
    app.post("/api/v1/devices", &admin, device("hw-2"))
        .await
        .expect_problem(409, "LICENSE_LIMIT_REACHED");
    put(&app, &admin, Value::Null).await.expect(200);
    app.enroll(&admin, "hw-4").await;
    let events = app.events(&admin, 8).await;
    let told = events
        .iter()
        .filter(|event| event["type"] == "license_changed")
        .count();
    assert_eq!(told, 2);
}

#[actix_web::test]
async fn wrong_expired_and_foreign_keys_are_refused() {
    let issuer = Issuer::new();
    let app = issuer.app().await;
    let admin = app.admin().await;
    let own = organization(&app, &admin).await;
    let past = SystemClock.now() - chrono::Duration::days(1);
    let expired = issuer.key(&own, 5, |terms| {
        (terms.expires_at, terms.grace_until) = (past, past);
    });
    let foreign = issuer.key("019be5c0-0000-7000-8000-000000000001", 5, |_| {});
    let strange = Issuer::new().key(&own, 5, |_| {});
    for (key, code) in [
        (expired, "EXPIRED"),
        (foreign, "WRONG_ORGANIZATION"),
        (strange, "INVALID_LICENSE"),
        ("x".to_owned(), "INVALID_LICENSE"),
    ] {
        let problem = put(&app, &admin, json!(key))
            .await
            .expect_problem(422, "INVALID");
        assert_eq!(problem["errors"][0]["code"], code);
    }
    let status = app.get("/api/v1/license/status", &admin).await.expect(200);
    assert_eq!(status["tier"], "community");
}

#[actix_web::test]
async fn of_sixty_four_at_once_no_more_are_enrolled_than_the_limit_allows() {
    let issuer = Issuer::new();
    let app = issuer.app().await;
    let admin = app.admin().await;
    let key = issuer.key(&organization(&app, &admin).await, 20, |_| {});
    // The key is set while devices are being enrolled: those count as well.
    let enrol = |number: usize| {
        let (app, admin) = (&app, &admin);
        async move {
            app.post("/api/v1/devices", admin, device(&format!("hw-{number}")))
                .await
                .status
        }
    };
    let first = futures_util::future::join_all((0..10).map(enrol));
    let (first, set) = futures_util::future::join(first, put(&app, &admin, json!(key))).await;
    set.expect(200);
    assert!(first.iter().all(|status| *status == 201), "{first:?}");
    let rest = futures_util::future::join_all((10..74).map(enrol)).await;
    assert_eq!(
        rest.iter().filter(|status| **status == 201).count(),
        10,
        "{rest:?}"
    );
    assert!(
        rest.iter().all(|status| [201, 409].contains(status)),
        "{rest:?}"
    );
    let status = app.get("/api/v1/license/status", &admin).await.expect(200);
    assert_eq!(status["devices_enrolled"], 20);
    assert_eq!(
        app.get("/api/v1/devices", &admin).await.expect(200)["total"],
        20
    );
}

#[actix_web::test]
async fn a_bulk_enrols_as_many_as_the_license_allows() {
    let issuer = Issuer::new();
    let app = issuer.app().await;
    let admin = app.admin().await;
    let key = issuer.key(&organization(&app, &admin).await, 3, |_| {});
    put(&app, &admin, json!(key)).await.expect(200);
    let devices: Vec<_> = (0..5)
        .map(|number| device(&format!("hw-{number}")))
        .collect();
    let done = app
        .post(
            "/api/v1/devices/bulk",
            &admin,
            json!({ "devices": devices }),
        )
        .await
        .expect(200);
    assert_eq!((&done["enrolled"], &done["failed"]), (&json!(3), &json!(2)));
    assert_eq!(done["outcomes"][4]["code"], "LICENSE_LIMIT_REACHED");
}

#[actix_web::test]
async fn after_its_grace_a_license_lets_nobody_in_and_each_step_is_told_once() {
    let issuer = Issuer::new();
    let app = issuer.app().await;
    let admin = app.admin().await;
    let key = issuer.key(&organization(&app, &admin).await, 5, |_| {});
    put(&app, &admin, json!(key)).await.expect(200);
    let age = |sql: &'static str| sqlx::query(sql).execute(app.database.pool());
    let told = async |count: usize| {
        let events = app.events(&admin, count).await;
        let last = events
            .iter()
            .rfind(|event| event["type"] == "license_changed")
            .cloned();
        text(&last.unwrap()["data"], "state").to_owned()
    };
    age("UPDATE licenses SET expires_at = now() - interval '1 day'")
        .await
        .unwrap();
    assert_eq!(told(2).await, "grace");
    app.enroll(&admin, "hw-1").await;
    age("UPDATE licenses SET grace_until = now() - interval '1 hour'")
        .await
        .unwrap();
    assert_eq!(told(4).await, "expired");
    app.post("/api/v1/devices", &admin, device("hw-2"))
        .await
        .expect_problem(409, "LICENSE_EXPIRED");
    let status = app.get("/api/v1/license/status", &admin).await.expect(200);
    assert_eq!(
        (&status["valid"], &status["state"]),
        (&json!(false), &json!("expired"))
    );
}
