//! Device groups: members by hand and by filters, and the events of both.

use std::time::Duration;

use serde_json::{Value, json};

use crate::app::{TestApp, device, text};

async fn group(app: &TestApp, admin: &str, body: Value) -> String {
    let group = app
        .post("/api/v1/device-groups", admin, body)
        .await
        .expect(201);
    text(&group, "id").to_owned()
}

async fn count(app: &TestApp, admin: &str, group: &str) -> i64 {
    let group = app
        .get(&format!("/api/v1/device-groups/{group}"), admin)
        .await
        .expect(200);
    group["device_count"].as_i64().unwrap()
}

/// The memberships that the log tells of, as (device, action, source).
async fn memberships(app: &TestApp, admin: &str, events: usize) -> Vec<(String, String, String)> {
    app.events(admin, events)
        .await
        .iter()
        .filter(|event| event["type"] == "group_membership")
        .map(|event| {
            let data = &event["data"];
            (
                text(data, "device_id").to_owned(),
                text(data, "action").to_owned(),
                text(data, "source").to_owned(),
            )
        })
        .collect()
}

#[actix_web::test]
async fn a_group_is_made_read_changed_and_deleted() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let wish = json!({ "name": "Servers", "description": "all of them", "labels": { "a": "b" } });
    let created = app.post("/api/v1/device-groups", &admin, wish).await;
    let location = created.headers["location"].clone();
    let created = created.expect(201);
    assert_eq!(created["device_count"], 0);
    assert_eq!(created["filters"], Value::Null);
    let read = app.get(&location, &admin).await;
    assert_eq!(read.headers["etag"], "\"1\"");
    assert_eq!(read.expect(200), created);
    let change = json!({ "name": "All servers", "description": null });
    let changed = app
        .call("PUT", &location, Some(&admin), Some(change))
        .await
        .expect(200);
    assert_eq!(
        (&changed["name"], &changed["version"]),
        (&json!("All servers"), &json!(2))
    );
    assert_eq!(changed["description"], Value::Null);
    assert_eq!(changed["labels"], json!({ "a": "b" }));
    let stale = app
        .request("PUT", &location)
        .bearer_auth(&admin)
        .header("if-match", "\"1\"")
        .json(&json!({ "name": "x" }));
    TestApp::read(stale).await.expect_problem(412, "STALE");
    app.call("DELETE", &location, Some(&admin), None)
        .await
        .expect(204);
    app.get(&location, &admin)
        .await
        .expect_problem(404, "DEVICE_GROUP_NOT_FOUND");
}

#[actix_web::test]
async fn adding_twice_is_a_conflict_and_tells_nothing() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (target, _) = app.enroll(&admin, "hw-1").await;
    let id = text(&target, "id");
    let group = group(&app, &admin, json!({ "name": "g" })).await;
    let members = format!("/api/v1/device-groups/{group}/devices");
    let added = app
        .post(&members, &admin, json!({ "device_id": "hw-1" }))
        .await
        .expect(201);
    assert_eq!(
        added,
        json!({ "group_id": group, "device_id": id, "added": [id] })
    );
    app.call("POST", &format!("{members}/{id}"), Some(&admin), None)
        .await
        .expect_problem(409, "ALREADY_MEMBER");
    let listed = app.get(&members, &admin).await.expect(200);
    assert_eq!(
        (&listed["total"], &listed["devices"][0]["id"]),
        (&json!(1), &json!(id))
    );
    let groups = app
        .get("/api/v1/devices/hw-1/groups", &admin)
        .await
        .expect(200);
    assert_eq!(groups["device_groups"][0]["id"], json!(group));
    app.call("DELETE", &format!("{members}/hw-1"), Some(&admin), None)
        .await
        .expect(204);
    app.call("DELETE", &format!("{members}/hw-1"), Some(&admin), None)
        .await
        .expect_problem(404, "NOT_A_MEMBER");
    let told = memberships(&app, &admin, 3).await;
    let step = |action: &str| (id.to_owned(), action.to_owned(), "manual".to_owned());
    assert_eq!(told, [step("added"), step("removed")]);
}

#[actix_web::test]
async fn membership_by_filter_follows_the_devices_data() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (before, _) = app.enroll(&admin, "hw-1").await;
    let filters = json!({ "platform": "linux", "os_version": ">=12", "labels": { "env": "prod" } });
    let group = group(&app, &admin, json!({ "name": "g", "filters": filters })).await;
    assert_eq!(count(&app, &admin, &group).await, 0);
    let put = async |body: Value| {
        app.call("PUT", "/api/v1/devices/hw-1", Some(&admin), Some(body))
            .await
            .expect(200);
    };
    put(json!({ "labels": { "env": "prod" } })).await;
    assert_eq!(count(&app, &admin, &group).await, 1);
    put(json!({ "os_version": "11.9" })).await;
    assert_eq!(count(&app, &admin, &group).await, 0);
    let mut new = device("hw-2");
    new["labels"] = json!({ "env": "prod" });
    let new = app.post("/api/v1/devices", &admin, new).await.expect(201);
    assert_eq!(count(&app, &admin, &group).await, 1);
    app.call("DELETE", "/api/v1/devices/hw-2", Some(&admin), None)
        .await
        .expect(204);
    assert_eq!(count(&app, &admin, &group).await, 0);
    let told = memberships(&app, &admin, 9).await;
    let step = |device: &Value, action: &str| {
        (
            text(device, "id").to_owned(),
            action.to_owned(),
            "filter".to_owned(),
        )
    };
    assert_eq!(
        told,
        [
            step(&before, "added"),
            step(&before, "removed"),
            step(&new, "added"),
            step(&new, "removed")
        ]
    );
}

#[actix_web::test]
async fn new_filters_look_at_every_device_and_leave_members_by_hand_alone() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    for name in ["web-1", "web-2", "db-1"] {
        let mut body = device(name);
        body["hostname"] = json!(name);
        app.post("/api/v1/devices", &admin, body).await.expect(201);
    }
    let group = group(
        &app,
        &admin,
        json!({ "name": "g", "filters": { "hostname": "web-*" } }),
    )
    .await;
    assert_eq!(count(&app, &admin, &group).await, 2);
    let path = format!("/api/v1/device-groups/{group}");
    app.call("POST", &format!("{path}/devices/db-1"), Some(&admin), None)
        .await
        .expect(201);
    app.call(
        "DELETE",
        &format!("{path}/devices/web-1"),
        Some(&admin),
        None,
    )
    .await
    .expect_problem(409, "MEMBER_BY_FILTER");
    let change = json!({ "filters": { "hostname": "*-2" } });
    let changed = app
        .call("PUT", &path, Some(&admin), Some(change))
        .await
        .expect(200);
    assert_eq!(
        (&changed["device_count"], &changed["up_to_date"]),
        (&json!(2), &json!(true))
    );
    let change = json!({ "filters": null });
    let changed = app
        .call("PUT", &path, Some(&admin), Some(change))
        .await
        .expect(200);
    assert_eq!(changed["device_count"], 1);
    let preview = json!({ "filters": { "hostname": "WEB-?" } });
    let preview = app
        .post("/api/v1/device-groups/preview", &admin, preview)
        .await
        .expect(200);
    assert_eq!(preview["device_count"], 2);
    assert_eq!(preview["devices"].as_array().unwrap().len(), 2);
}

#[actix_web::test]
async fn status_filters_follow_presence() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (_, token) = app.enroll(&admin, "hw-1").await;
    let group = group(
        &app,
        &admin,
        json!({ "name": "g", "filters": { "status": "online" } }),
    )
    .await;
    assert_eq!(count(&app, &admin, &group).await, 0);
    app.check_in(&token, json!({})).await;
    assert_eq!(count(&app, &admin, &group).await, 1);
}

#[actix_web::test]
async fn wrong_filters_are_pointed_at() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    for (filters, pointer) in [
        (json!({ "colour": "red" }), "/filters/colour"),
        (json!({ "os_version": "new" }), "/filters/os_version/0"),
        (json!("linux"), "/filters"),
    ] {
        let body = json!({ "name": "g", "filters": filters });
        let problem = app
            .post("/api/v1/device-groups", &admin, body)
            .await
            .expect_problem(422, "INVALID");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
}

#[actix_web::test]
async fn deleting_a_group_takes_its_policies_away_and_tells_of_everything() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    app.enroll(&admin, "hw-1").await;
    let group = group(&app, &admin, json!({ "name": "g" })).await;
    let path = format!("/api/v1/device-groups/{group}");
    app.call("POST", &format!("{path}/devices/hw-1"), Some(&admin), None)
        .await
        .expect(201);
    let policy = json!({ "name": "p", "configuration": { "firewall_enabled": true } });
    let policy = app
        .post("/api/v1/policies", &admin, policy)
        .await
        .expect(201);
    let assign = format!("/api/v1/policies/{}/groups/{group}", text(&policy, "id"));
    app.call("POST", &assign, Some(&admin), None)
        .await
        .expect(201);
    let of_device = "/api/v1/devices/hw-1/policies";
    assert_eq!(app.get(of_device, &admin).await.expect(200)["total"], 1);
    app.call("DELETE", &path, Some(&admin), None)
        .await
        .expect(204);
    assert_eq!(app.get(of_device, &admin).await.expect(200)["total"], 0);
    let events = app.events(&admin, 6).await;
    let last: Vec<_> = events.iter().rev().take(2).collect();
    let about =
        |kind: &str| last.iter().find(|event| event["type"] == kind).unwrap()["data"].clone();
    assert_eq!(about("policy_assignment")["action"], "unassigned");
    assert_eq!(about("group_membership")["action"], "removed");
}

#[actix_web::test]
async fn filters_keep_up_with_devices_that_change_at_the_same_time() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let devices: Vec<_> = (0..60)
        .map(|number| device(&format!("hw-{number}")))
        .collect();
    app.post(
        "/api/v1/devices/bulk",
        &admin,
        json!({ "devices": devices }),
    )
    .await
    .expect(200);
    let group = group(
        &app,
        &admin,
        json!({ "name": "g", "filters": { "labels": { "turn": "0" } } }),
    )
    .await;
    let changes = futures_util::future::join_all((0..60).map(|number| {
        let (app, admin) = (&app, &admin);
        async move {
            let body = json!({ "labels": { "turn": (number % 3).to_string() } });
            app.call(
                "PUT",
                &format!("/api/v1/devices/hw-{number}"),
                Some(admin),
                Some(body),
            )
            .await
            .status
        }
    }));
    let filters = async {
        for turn in ["1", "2", "0", "1"] {
            let body = json!({ "filters": { "labels": { "turn": turn } } });
            let path = format!("/api/v1/device-groups/{group}");
            app.call("PUT", &path, Some(&admin), Some(body))
                .await
                .expect(200);
        }
    };
    let (statuses, ()) = futures_util::future::join(changes, filters).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    // What the last filters say of the last labels, whoever came last.
    assert_eq!(count(&app, &admin, &group).await, 20);
    assert_agreement(&app, &admin, &group).await;
}

/// The members that the log leads to are the members that the group has.
async fn assert_agreement(app: &TestApp, admin: &str, group: &str) {
    let listed = app
        .get(
            &format!("/api/v1/device-groups/{group}/devices?limit=500"),
            admin,
        )
        .await
        .expect(200);
    let mut members: Vec<String> = listed["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|device| text(device, "id").to_owned())
        .collect();
    members.sort();
    mdm_testkit::wait_until("the log agrees", Duration::from_secs(10), async || {
        let mut told: Vec<String> = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("/api/v1/events?limit=500&types=group_membership{after}");
            let page = app.get(&path, admin).await.expect(200);
            let events = page["events"].as_array().unwrap().clone();
            for event in &events {
                let data = &event["data"];
                let device = text(data, "device_id").to_owned();
                let known = told.contains(&device);
                if data["action"] == "added" {
                    assert!(!known, "added twice: {device}");
                    told.push(device);
                } else {
                    assert!(known, "removed without having been added: {device}");
                    told.retain(|other| *other != device);
                }
            }
            if events.len() < 500 {
                break;
            }
            after = format!("&after={}", text(&page, "next_cursor"));
        }
        told.sort();
        (told == members).then_some(())
    })
    .await;
}
