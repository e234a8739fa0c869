//! Policies: the catalogue, assignments, what counts on a device, compliance.

use serde_json::{Value, json};

use crate::app::{TestApp, device, text};

async fn policy(app: &TestApp, admin: &str, body: Value) -> String {
    let policy = app.post("/api/v1/policies", admin, body).await.expect(201);
    text(&policy, "id").to_owned()
}

fn firewall() -> Value {
    json!({ "name": "p", "configuration": { "firewall_enabled": true } })
}

#[actix_web::test]
async fn a_policy_is_made_changed_with_versions_and_deleted() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let created = app.post("/api/v1/policies", &admin, firewall()).await;
    let location = created.headers["location"].clone();
    let created = created.expect(201);
    assert_eq!(
        (
            &created["platform"],
            &created["enabled"],
            &created["version"]
        ),
        (&json!("all"), &json!(true), &json!(1))
    );
    let change =
        json!({ "configuration": { "firewall_enabled": true, "screen_lock_seconds": 300 } });
    let changed = app
        .call("PUT", &location, Some(&admin), Some(change))
        .await
        .expect(200);
    assert_eq!(changed["version"], 2);
    let stale = app
        .request("PUT", &location)
        .bearer_auth(&admin)
        .header("if-match", "\"1\"")
        .json(&json!({ "enabled": false }));
    TestApp::read(stale).await.expect_problem(412, "STALE");
    app.call("DELETE", &location, Some(&admin), None)
        .await
        .expect(204);
    app.get(&location, &admin)
        .await
        .expect_problem(404, "POLICY_NOT_FOUND");
    let kinds: Vec<_> = app
        .events(&admin, 3)
        .await
        .iter()
        .map(|event| text(&event["data"], "action").to_owned())
        .collect();
    assert_eq!(kinds, ["created", "updated", "deleted"]);
}

#[actix_web::test]
async fn clients_of_the_older_api_send_type_and_rules() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let body = json!({ "name": "p", "type": "security", "rules": { "password_min_length": 12 } });
    let created = app.post("/api/v1/policies", &admin, body).await.expect(201);
    assert_eq!(created["type"], "security");
    assert_eq!(
        created["configuration"],
        json!({ "password_min_length": 12 })
    );
    let both = json!({ "name": "p", "rules": {}, "configuration": {} });
    app.post("/api/v1/policies", &admin, both)
        .await
        .expect_problem(422, "INVALID");
}

#[actix_web::test]
async fn every_wrong_setting_is_pointed_at() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let body = json!({ "name": "p", "platform": "linux", "configuration": {
        "firewall": true, "gatekeeper_enabled": true, "screen_lock_seconds": "soon",
        "checks": [{ "name": "a" }] } });
    let problem = app
        .post("/api/v1/policies", &admin, body)
        .await
        .expect_problem(422, "INVALID");
    let pointers: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| text(e, "pointer"))
        .collect();
    assert_eq!(
        pointers,
        [
            "/configuration/checks/0",
            "/configuration/firewall",
            "/configuration/gatekeeper_enabled",
            "/configuration/screen_lock_seconds"
        ]
    );
}

#[actix_web::test]
async fn the_catalogue_has_twenty_settings_and_every_default_can_be_set() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let catalogue = app.get("/api/v1/policy-settings", &admin).await.expect(200);
    let settings = catalogue["settings"].as_array().unwrap();
    assert!(settings.len() >= 20);
    let all: serde_json::Map<_, _> = settings
        .iter()
        .map(|setting| (text(setting, "name").to_owned(), setting["default"].clone()))
        .collect();
    let body = json!({ "name": "everything", "configuration": all });
    app.post("/api/v1/policies", &admin, body).await.expect(201);
}

#[actix_web::test]
async fn assigning_twice_is_a_conflict_and_tells_nothing() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    app.enroll(&admin, "hw-1").await;
    app.enroll(&admin, "hw-2").await;
    let id = policy(&app, &admin, firewall()).await;
    let devices = format!("/api/v1/policies/{id}/devices");
    app.post(&devices, &admin, json!({ "device_id": "hw-1" }))
        .await
        .expect(201);
    app.call("POST", &format!("{devices}/hw-1"), Some(&admin), None)
        .await
        .expect_problem(409, "ALREADY_ASSIGNED");
    let both = app
        .post(&devices, &admin, json!({ "device_ids": ["hw-1", "hw-2"] }))
        .await
        .expect(201);
    assert_eq!(both["assigned"].as_array().unwrap().len(), 1);
    assert_eq!(app.get(&devices, &admin).await.expect(200)["total"], 2);
    app.call("DELETE", &format!("{devices}/hw-2"), Some(&admin), None)
        .await
        .expect(204);
    app.call("DELETE", &format!("{devices}/hw-2"), Some(&admin), None)
        .await
        .expect_problem(404, "NOT_ASSIGNED");
    let missing = json!({ "device_ids": ["hw-1", "nobody"] });
    let problem = app
        .post(&devices, &admin, missing)
        .await
        .expect_problem(422, "INVALID");
    assert_eq!(problem["errors"][0]["pointer"], "/device_ids/1");
    let told = app.events(&admin, 6).await;
    let told: Vec<_> = told
        .iter()
        .filter(|event| event["type"] == "policy_assignment")
        .map(|event| text(&event["data"], "action"))
        .collect();
    assert_eq!(told, ["assigned", "assigned", "unassigned"]);
}

#[actix_web::test]
async fn a_policy_for_another_platform_is_not_assigned() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    app.enroll(&admin, "hw-1").await;
    let body = json!({ "name": "p", "platform": "windows", "configuration": { "defender_enabled": true } });
    let id = policy(&app, &admin, body).await;
    let problem = app
        .call(
            "POST",
            &format!("/api/v1/policies/{id}/devices/hw-1"),
            Some(&admin),
            None,
        )
        .await
        .expect_problem(422, "INVALID");
    assert_eq!(problem["errors"][0]["code"], "PLATFORM_MISMATCH");
}

#[actix_web::test]
async fn what_counts_on_a_device_tells_the_paths_and_the_strictest_value() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (_, token) = app.enroll(&admin, "hw-1").await;
    let group = app
        .post(
            "/api/v1/device-groups",
            &admin,
            json!({ "name": "g", "filters": { "platform": "linux" } }),
        )
        .await
        .expect(201);
    let mild = policy(
        &app,
        &admin,
        json!({ "name": "mild", "configuration": { "screen_lock_seconds": 900 } }),
    )
    .await;
    let strict = policy(
        &app,
        &admin,
        json!({ "name": "strict", "configuration": { "screen_lock_seconds": 300 } }),
    )
    .await;
    let off = policy(
        &app,
        &admin,
        json!({ "name": "off", "enabled": false, "configuration": { "screen_lock_seconds": 60 } }),
    )
    .await;
    for id in [&mild, &off] {
        let path = format!("/api/v1/policies/{id}/devices/hw-1");
        app.call("POST", &path, Some(&admin), None)
            .await
            .expect(201);
    }
    for id in [&mild, &strict] {
        let body = json!({ "group_id": group["id"] });
        app.post(&format!("/api/v1/policies/{id}/groups"), &admin, body)
            .await
            .expect(201);
    }
    let found = app
        .get("/api/v1/devices/hw-1/policies", &admin)
        .await
        .expect(200);
    assert_eq!(
        (&found["total"], &found["compliance"]),
        (&json!(2), &json!("pending"))
    );
    let vias: Vec<_> = found["policies"][0]["paths"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| text(p, "via"))
        .collect();
    assert_eq!(vias, ["direct", "group"]);
    let setting = &found["settings"]["screen_lock_seconds"];
    assert_eq!(setting["value"], 300);
    assert_eq!(setting["policy_ids"], json!([strict]));
    assert_eq!(
        setting["overruled"],
        json!([{ "policy_id": mild, "value": 900 }])
    );
    let own = app.get("/api/v1/device/policies", &token).await.expect(200);
    assert_eq!(own["policies"].as_array().unwrap().len(), 2);
    assert_eq!(own["settings"]["screen_lock_seconds"]["value"], 300);
    assert_eq!(own["policy_revision"], found["policy_revision"]);
}

#[actix_web::test]
async fn every_change_that_reaches_a_device_changes_its_revision() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (_, token) = app.enroll(&admin, "hw-1").await;
    let mut last = app.check_in(&token, json!({})).await["policy_revision"].clone();
    let group = app
        .post("/api/v1/device-groups", &admin, json!({ "name": "g" }))
        .await
        .expect(201);
    let group = text(&group, "id");
    let id = policy(&app, &admin, firewall()).await;
    for (method, path, body) in [
        ("POST", format!("/api/v1/policies/{id}/devices/hw-1"), None),
        (
            "PUT",
            format!("/api/v1/policies/{id}"),
            Some(json!({ "enabled": false })),
        ),
        (
            "POST",
            format!("/api/v1/device-groups/{group}/devices/hw-1"),
            None,
        ),
        (
            "POST",
            format!("/api/v1/policies/{id}/groups/{group}"),
            None,
        ),
        (
            "DELETE",
            format!("/api/v1/policies/{id}/devices/hw-1"),
            None,
        ),
        ("DELETE", format!("/api/v1/device-groups/{group}"), None),
        ("DELETE", format!("/api/v1/policies/{id}"), None),
    ] {
        let status = app.call(method, &path, Some(&admin), body).await.status;
        assert!(status < 300, "{method} {path}: {status}");
        let next = app.check_in(&token, json!({})).await["policy_revision"].clone();
        assert!(
            next.as_i64() > last.as_i64(),
            "{method} {path}: {last} {next}"
        );
        last = next;
    }
}

#[actix_web::test]
async fn compliance_is_what_the_device_said_of_the_present_version() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (_, token) = app.enroll(&admin, "hw-1").await;
    let body = json!({ "name": "p", "configuration": {
        "firewall_enabled": true, "checks": [{ "name": "c", "query": "SELECT 1" }] } });
    let id = policy(&app, &admin, body).await;
    app.call(
        "POST",
        &format!("/api/v1/policies/{id}/devices/hw-1"),
        Some(&admin),
        None,
    )
    .await
    .expect(201);
    let report = |version: i64, firewall: &str, check: &str| {
        json!({ "policy_results": [{ "policy_id": id, "policy_version": version, "observed_at": "2026-01-22T13:50:00.000Z",
            "rules": [{ "rule": "firewall_enabled", "state": firewall }, { "rule": "check:c", "state": check, "detail": "because" }] }] })
    };
    let state = async || {
        let found = app
            .get("/api/v1/devices/hw-1/policies", &admin)
            .await
            .expect(200);
        text(&found["policies"][0]["compliance"], "state").to_owned()
    };
    assert_eq!(state().await, "pending");
    app.check_in(&token, report(1, "passed", "failed")).await;
    assert_eq!(state().await, "non_compliant");
    app.check_in(&token, report(1, "passed", "passed")).await;
    assert_eq!(state().await, "compliant");
    app.check_in(&token, report(7, "passed", "failed")).await;
    assert_eq!(state().await, "compliant");
    let compliant = app
        .get("/api/v1/devices?compliance=compliant", &admin)
        .await
        .expect(200);
    assert_eq!(compliant["total"], 1);
    let none = app
        .get(
            &format!("/api/v1/devices?compliance=error&policy_id={id}"),
            &admin,
        )
        .await
        .expect(200);
    assert_eq!(none["total"], 0);
    let of_policy = app
        .get(&format!("/api/v1/policies/{id}/compliance"), &admin)
        .await
        .expect(200);
    assert_eq!(of_policy["counts"]["compliant"], 1);
    assert_eq!(of_policy["devices"][0]["rules"][1]["detail"], "because");
    let summary = app
        .get("/api/v1/compliance/summary", &admin)
        .await
        .expect(200);
    assert_eq!(
        (
            &summary["devices"]["compliant"],
            &summary["devices"]["no_policy"]
        ),
        (&json!(1), &json!(0))
    );
    let change = json!({ "description": "newer" });
    app.call(
        "PUT",
        &format!("/api/v1/policies/{id}"),
        Some(&admin),
        Some(change),
    )
    .await
    .expect(200);
    assert_eq!(state().await, "pending");
    let told: Vec<_> = app.events(&admin, 7).await;
    let told: Vec<_> = told
        .iter()
        .filter(|event| event["type"] == "compliance_change")
        .map(|event| {
            (
                text(&event["data"], "old_state").to_owned(),
                text(&event["data"], "new_state").to_owned(),
            )
        })
        .collect();
    let step = |old: &str, new: &str| (old.to_owned(), new.to_owned());
    assert_eq!(
        told,
        [
            step("pending", "non_compliant"),
            step("non_compliant", "compliant")
        ]
    );
}

#[actix_web::test]
async fn a_rule_that_a_device_does_not_report_is_an_error_and_never_compliance() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (_, token) = app.enroll(&admin, "hw-1").await;
    let id = policy(&app, &admin, firewall()).await;
    app.call(
        "POST",
        &format!("/api/v1/policies/{id}/devices/hw-1"),
        Some(&admin),
        None,
    )
    .await
    .expect(201);
    let empty = json!({ "policy_results": [{ "policy_id": id, "policy_version": 1,
        "observed_at": "2026-01-22T13:50:00.000Z", "rules": [] }] });
    app.check_in(&token, empty).await;
    let found = app
        .get("/api/v1/devices/hw-1/policies", &admin)
        .await
        .expect(200);
    assert_eq!(found["policies"][0]["compliance"]["state"], "error");
}

#[actix_web::test]
async fn writers_at_once_leave_no_dangling_row_and_no_event_that_contradicts() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let devices: Vec<_> = (0..8)
        .map(|number| device(&format!("hw-{number}")))
        .collect();
    app.post(
        "/api/v1/devices/bulk",
        &admin,
        json!({ "devices": devices }),
    )
    .await
    .expect(200);
    let mut policies = Vec::new();
    for _ in 0..4 {
        policies.push(policy(&app, &admin, firewall()).await);
    }
    let work = futures_util::future::join_all((0..64).map(|number| {
        let (app, admin, policies) = (&app, &admin, &policies);
        async move {
            let (id, device) = (&policies[number % 4], number % 8);
            let path = format!("/api/v1/policies/{id}/devices/hw-{device}");
            let (method, path, body) = match number % 7 {
                0..=2 => ("POST", path, None),
                3 => ("DELETE", path, None),
                4 => (
                    "PUT",
                    format!("/api/v1/policies/{id}"),
                    Some(json!({ "name": format!("n{number}") })),
                ),
                5 if number > 40 => ("DELETE", format!("/api/v1/policies/{id}"), None),
                _ if number > 50 => ("DELETE", format!("/api/v1/devices/hw-{device}"), None),
                _ => ("POST", path, None),
            };
            let status = app.call(method, &path, Some(admin), body).await.status;
            assert!(status < 500, "{method} {path}: {status}");
        }
    }));
    work.await;
    let rows: Vec<(uuid::Uuid, uuid::Uuid)> =
        sqlx::query_as("SELECT policy_id, device_id FROM policy_devices")
            .fetch_all(app.database.pool())
            .await
            .unwrap();
    let mut present: Vec<_> = rows
        .iter()
        .map(|(p, d)| (p.to_string(), d.to_string()))
        .collect();
    present.sort();
    // Every assignment that the log leads to is there, and no other.
    mdm_testkit::wait_until(
        "the log agrees",
        std::time::Duration::from_secs(10),
        async || {
            let page = app
                .get("/api/v1/events?limit=500&types=policy_assignment", &admin)
                .await
                .expect(200);
            let mut told: Vec<(String, String)> = Vec::new();
            for event in page["events"].as_array().unwrap() {
                let data = &event["data"];
                let row = (
                    text(data, "policy_id").to_owned(),
                    text(data, "device_id").to_owned(),
                );
                let known = told.contains(&row);
                if data["action"] == "assigned" {
                    assert!(!known, "assigned twice");
                    told.push(row);
                } else {
                    assert!(known, "taken away without having been assigned");
                    told.retain(|other| *other != row);
                }
            }
            told.sort();
            (told == present).then_some(())
        },
    )
    .await;
}
