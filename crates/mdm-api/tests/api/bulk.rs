//! Many at once: enrolments, and commands as a batch.

use serde_json::{Value, json};

use crate::app::{TestApp, device, text};

#[actix_web::test]
async fn a_bulk_gives_each_device_its_own_outcome() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    app.enroll(&admin, "hw-1").await;
    let secret = app
        .secret(
            &admin,
            json!({ "name": "s", "labels": { "site": "a" }, "max_uses": 1 }),
        )
        .await;
    let mut with_secret = device("hw-2");
    with_secret["enrollment_secret"] = json!(secret);
    let mut wrong_secret = device("hw-3");
    wrong_secret["enrollment_secret"] = json!("mdme_nonsense");
    let mut wrong = device("hw-4");
    wrong["platform"] = json!("beos");
    let devices = json!({ "devices": [device("hw-1"), with_secret, wrong_secret, wrong, device("hw-5"), device("hw-5")] });
    let done = app
        .post("/api/v1/devices/bulk", &admin, devices)
        .await
        .expect(200);
    assert_eq!((&done["enrolled"], &done["failed"]), (&json!(2), &json!(4)));
    let outcomes: Vec<_> = done["outcomes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|outcome| {
            (
                outcome["status"].as_u64().unwrap(),
                outcome["code"].as_str().unwrap_or(""),
            )
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            (409, "DEVICE_ALREADY_ENROLLED"),
            (201, ""),
            (403, "ENROLLMENT_SECRET_UNKNOWN"),
            (422, "UNKNOWN_PLATFORM"),
            (201, ""),
            (409, "DEVICE_ALREADY_ENROLLED")
        ]
    );
    assert_eq!(
        done["outcomes"][1]["device"]["labels"],
        json!({ "site": "a" })
    );
    app.check_in(text(&done["outcomes"][4], "device_token"), json!({}))
        .await;
}

#[actix_web::test]
async fn two_bulks_with_the_same_devices_enrol_each_once() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let up: Vec<_> = (0..300)
        .map(|number| device(&format!("hw-{number}")))
        .collect();
    let down: Vec<_> = up.iter().rev().cloned().collect();
    let send = |devices: Vec<Value>| {
        app.post(
            "/api/v1/devices/bulk",
            &admin,
            json!({ "devices": devices }),
        )
    };
    let (first, second) = futures_util::future::join(send(up), send(down)).await;
    let enrolled = first.expect(200)["enrolled"].as_u64().unwrap()
        + second.expect(200)["enrolled"].as_u64().unwrap();
    assert_eq!(enrolled, 300);
    assert_eq!(
        app.get("/api/v1/devices", &admin).await.expect(200)["total"],
        300
    );
}

#[actix_web::test]
async fn a_batch_reaches_a_group_a_filter_or_named_devices_and_tells_its_progress() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (first, token) = app.enroll(&admin, "hw-1").await;
    app.enroll(&admin, "hw-2").await;
    let mut windows = device("hw-3");
    windows["platform"] = json!("windows");
    app.post("/api/v1/devices", &admin, windows)
        .await
        .expect(201);
    let group = app
        .post(
            "/api/v1/device-groups",
            &admin,
            json!({ "name": "g", "filters": { "platform": "linux" } }),
        )
        .await
        .expect(201);
    let send = async |targets: Value| {
        let body = json!({ "command": "refresh_inventory", "targets": targets });
        app.post("/api/v1/commands", &admin, body).await
    };
    let batch = send(json!({ "group_id": group["id"] })).await;
    let location = batch.headers["location"].clone();
    let batch = batch.expect(202);
    assert_eq!(
        (
            &batch["total"],
            &batch["expanded"],
            &batch["counts"]["pending"]
        ),
        (&json!(2), &json!(true), &json!(2))
    );
    let handed = app.check_in(&token, json!({})).await;
    let result = json!({ "command_id": handed["commands"][0]["id"], "status": "completed" });
    app.check_in(&token, json!({ "command_results": [result] }))
        .await;
    let progress = app.get(&location, &admin).await.expect(200);
    assert_eq!(
        (
            &progress["counts"]["completed"],
            &progress["counts"]["pending"]
        ),
        (&json!(1), &json!(1))
    );
    let commands = app
        .get(
            &format!("/api/v1/commands?batch_id={}", text(&batch, "id")),
            &admin,
        )
        .await
        .expect(200);
    assert_eq!(commands["total"], 2);
    let everybody = send(json!({ "filter": {} })).await.expect(202);
    assert_eq!(everybody["total"], 3);
    let some = send(json!({ "filter": { "platform": "windows" } }))
        .await
        .expect(202);
    assert_eq!(some["total"], 1);
    let missing = "019be5c0-0000-7000-8000-000000000001";
    let named = send(json!({ "device_ids": [first["id"], first["id"], missing] }))
        .await
        .expect(202);
    assert_eq!((&named["total"], &named["skipped"]), (&json!(1), &json!(1)));
    send(json!({ "group_id": missing }))
        .await
        .expect_problem(422, "INVALID");
    send(json!({})).await.expect_problem(422, "INVALID");
    send(json!({ "device_ids": [], "filter": {} }))
        .await
        .expect_problem(422, "INVALID");
}

#[actix_web::test]
async fn every_device_of_a_large_batch_gets_its_command_once() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    sqlx::query(
        "INSERT INTO devices (organization_id, id, uuid, hostname, platform, status, enrolled_at, labels, hardware_info)
         SELECT u.organization_id, gen_random_uuid(), 'hw-' || n, 'host-' || n, 'linux', 'enrolled', now(), '{}', '{}'
           FROM users u, generate_series(1, 12000) n WHERE u.email = 'admin@mobius.local'",
    )
    .execute(app.database.pool())
    .await
    .unwrap();
    let body = json!({ "command": "system_info", "targets": { "filter": {} } });
    let batch = app.post("/api/v1/commands", &admin, body).await.expect(202);
    let path = format!("/api/v1/command-batches/{}", text(&batch, "id"));
    let done = mdm_testkit::wait_until(
        "all have it",
        std::time::Duration::from_secs(30),
        async || {
            let batch = app.get(&path, &admin).await.expect(200);
            (batch["expanded"] == true).then_some(batch)
        },
    )
    .await;
    assert_eq!(done["total"], 12_000);
}
