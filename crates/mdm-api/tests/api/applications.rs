//! Applications: uploads, downloads, assignment, and what devices say of them.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::app::{Answer, TestApp, text};

fn form(package: Vec<u8>) -> Form {
    Form::new()
        .text("name", "Editor")
        .text("version", "2.1")
        .text("platform", "linux")
        .part("package", Part::bytes(package).file_name("editor.deb"))
}

async fn upload(app: &TestApp, token: &str, form: Form) -> Answer {
    let request = app
        .request("POST", "/api/v1/applications")
        .bearer_auth(token)
        .multipart(form);
    TestApp::read(request).await
}

/// What is in the storage, of packages and of uploads under way.
fn stored(app: &TestApp) -> Vec<String> {
    fn walk(directory: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path.display().to_string());
            }
        }
    }
    let mut found = Vec::new();
    walk(&app.data_dir().join("packages"), &mut found);
    found
}

#[actix_web::test]
async fn a_package_goes_up_and_comes_down_as_it_was() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let package: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let created = upload(&app, &admin, form(package.clone()))
        .await
        .expect(201);
    let checksum = hex::encode(Sha256::digest(&package));
    assert_eq!(
        (&created["checksum"], &created["size"]),
        (&json!(checksum), &json!(package.len()))
    );
    assert_eq!(created["file_name"], "editor.deb");
    let path = format!("/api/v1/applications/{}/package", text(&created, "id"));
    let get = async |name: &'static str, value: String| {
        let request = app
            .request("GET", &path)
            .bearer_auth(&admin)
            .header(name, value);
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, headers, response.bytes().await.unwrap())
    };
    let (status, headers, whole) = get("accept", "*/*".to_owned()).await;
    assert_eq!(status, 200);
    assert_eq!(headers["etag"], format!("\"{checksum}\""));
    assert_eq!(whole, package);
    let (status, headers, part) = get("range", "bytes=100-199".to_owned()).await;
    assert_eq!((status, &part[..]), (206, &package[100..200]));
    assert_eq!(
        headers["content-range"],
        format!("bytes 100-199/{}", package.len())
    );
    let (status, _, part) = get("range", "bytes=-10".to_owned()).await;
    assert_eq!((status, &part[..]), (206, &package[package.len() - 10..]));
    assert_eq!(get("range", "bytes=9999999-".to_owned()).await.0, 416);
    assert_eq!(get("if-none-match", format!("\"{checksum}\"")).await.0, 304);
}

#[actix_web::test]
async fn an_upload_that_is_refused_leaves_nothing_behind() {
    let app = TestApp::start_with(&[("MDM_PACKAGE_LIMIT_MIB", "1")]).await;
    let admin = app.admin().await;
    let wrong = form(vec![1; 1000]).text("checksum", "0".repeat(64));
    let problem = upload(&app, &admin, wrong)
        .await
        .expect_problem(422, "INVALID");
    assert_eq!(problem["errors"][0]["code"], "WRONG_CHECKSUM");
    upload(&app, &admin, form(vec![1; 2_000_000]))
        .await
        .expect_problem(413, "PACKAGE_TOO_LARGE");
    upload(&app, &admin, form(Vec::new()))
        .await
        .expect_problem(422, "INVALID");
    let nameless = Form::new()
        .text("platform", "linux")
        .part("package", Part::bytes(vec![1; 10]));
    let problem = upload(&app, &admin, nameless)
        .await
        .expect_problem(422, "INVALID");
    assert_eq!(problem["errors"][0]["pointer"], "/name");
    upload(&app, &admin, Form::new().text("name", "x"))
        .await
        .expect_problem(422, "INVALID");
    upload(&app, &admin, form(vec![1]).text("colour", "red"))
        .await
        .expect_problem(422, "INVALID");
    app.post("/api/v1/applications", &admin, json!({ "name": "x" }))
        .await
        .expect_problem(415, "UNSUPPORTED_MEDIA_TYPE");
    assert_eq!(stored(&app), Vec::<String>::new());
    assert_eq!(
        app.get("/api/v1/applications", &admin).await.expect(200)["total"],
        0
    );
}

#[actix_web::test]
async fn an_upload_that_is_cut_off_leaves_nothing_behind() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let begun = tokio::sync::Notify::new();
    let begun = std::sync::Arc::new(begun);
    let told = std::sync::Arc::clone(&begun);
    // Twelve megabytes, so that parts of it are in the storage, and then the connection breaks.
    let chunks = stream::unfold(0_u32, move |sent| {
        let told = std::sync::Arc::clone(&told);
        async move {
            if sent == 12 {
                told.notify_one();
                std::future::pending::<()>().await;
            }
            Some((
                Ok::<_, std::io::Error>(Bytes::from(vec![7_u8; 1 << 20])),
                sent + 1,
            ))
        }
    });
    let part = Part::stream(reqwest::Body::wrap_stream(chunks)).file_name("big.deb");
    let form = Form::new()
        .text("name", "x")
        .text("version", "1")
        .text("platform", "linux")
        .part("package", part);
    let request = app
        .request("POST", "/api/v1/applications")
        .bearer_auth(&admin)
        .multipart(form);
    tokio::select! {
        _answered = request.send() => panic!("an unfinished upload was answered"),
        () = begun.notified() => {}
    }
    mdm_testkit::wait_until(
        "nothing is left",
        std::time::Duration::from_secs(10),
        async || stored(&app).is_empty().then_some(()),
    )
    .await;
    assert_eq!(
        app.get("/api/v1/applications", &admin).await.expect(200)["total"],
        0
    );
}

#[actix_web::test]
async fn an_upload_with_a_key_is_made_once() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let send = async |package: Vec<u8>| {
        let request = app
            .request("POST", "/api/v1/applications")
            .bearer_auth(&admin)
            .header("idempotency-key", "k")
            .multipart(form(package));
        TestApp::read(request).await
    };
    let first = send(vec![1; 100]).await.expect(201);
    assert_eq!(send(vec![1; 100]).await.expect(201), first);
    send(vec![2; 100])
        .await
        .expect_problem(422, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(stored(&app).len(), 1);
}

#[actix_web::test]
async fn an_assigned_application_is_not_deleted_and_its_package_goes_with_it() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (_, token) = app.enroll(&admin, "hw-1").await;
    let (_, other) = app.enroll(&admin, "hw-2").await;
    let created = upload(&app, &admin, form(vec![1; 100])).await.expect(201);
    let path = format!("/api/v1/applications/{}", text(&created, "id"));
    let own = format!(
        "/api/v1/device/applications/{}/package",
        text(&created, "id")
    );
    app.get(&own, &token)
        .await
        .expect_problem(404, "APPLICATION_NOT_FOUND");
    let assign = json!({ "device_id": "hw-1", "intent": "available" });
    app.post(&format!("{path}/devices"), &admin, assign.clone())
        .await
        .expect(201);
    app.post(&format!("{path}/devices"), &admin, assign)
        .await
        .expect_problem(409, "ALREADY_ASSIGNED");
    assert_eq!(app.get(&own, &token).await.status, 200);
    app.get(&own, &other)
        .await
        .expect_problem(404, "APPLICATION_NOT_FOUND");
    let listed = app
        .get("/api/v1/device/applications", &token)
        .await
        .expect(200);
    assert_eq!(listed["applications"][0]["intent"], "available");
    app.call("DELETE", &path, Some(&admin), None)
        .await
        .expect_problem(409, "APPLICATION_ASSIGNED");
    app.call(
        "DELETE",
        &format!("{path}/devices/hw-1"),
        Some(&admin),
        None,
    )
    .await
    .expect(204);
    let change = json!({ "name": "Editor 2", "description": "d" });
    assert_eq!(
        app.call("PUT", &path, Some(&admin), Some(change))
            .await
            .expect(200)["name"],
        "Editor 2"
    );
    app.call("DELETE", &path, Some(&admin), None)
        .await
        .expect(204);
    assert_eq!(stored(&app), Vec::<String>::new());
}

#[actix_web::test]
async fn a_device_is_sent_what_it_shall_have_once_and_its_word_is_the_state() {
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
    let created = upload(&app, &admin, form(vec![1; 100])).await.expect(201);
    let path = format!("/api/v1/applications/{}", text(&created, "id"));
    let assign = json!({ "group_id": group["id"] });
    app.post(&format!("{path}/groups"), &admin, assign)
        .await
        .expect(201);
    let state = async || {
        let installs = app
            .get(&format!("{path}/installs"), &admin)
            .await
            .expect(200);
        text(&installs["installs"][0], "state").to_owned()
    };
    assert_eq!(state().await, "pending");
    let handed = app.check_in(&token, json!({})).await;
    let command = handed["commands"][0].clone();
    assert_eq!(command["command"], "install_app");
    assert_eq!(command["parameters"]["checksum"], created["checksum"]);
    let report = |status: &str| json!({ "command_results": [{ "command_id": command["id"], "status": status }] });
    app.check_in(&token, report("running")).await;
    assert_eq!(state().await, "installing");
    let after = app.check_in(&token, report("completed")).await;
    assert_eq!(after["commands"], json!([]));
    assert_eq!(state().await, "installed");
    let gone = json!({ "group_id": group["id"], "intent": "uninstall" });
    app.post(&format!("{path}/groups"), &admin, gone)
        .await
        .expect(201);
    let handed = app.check_in(&token, json!({})).await;
    assert_eq!(handed["commands"][0]["command"], "uninstall_app");
    let events: Vec<Value> = app.events(&admin, 10).await;
    let states: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "application_install")
        .map(|event| text(&event["data"], "state").to_owned())
        .collect();
    assert_eq!(states, ["installing", "installed"]);
}

#[actix_web::test]
async fn an_install_that_broke_off_has_failed_and_one_that_never_began_is_sent_again() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (began, began_token) = app.enroll(&admin, "hw-began").await;
    let (silent, silent_token) = app.enroll(&admin, "hw-silent").await;
    let created = upload(&app, &admin, form(vec![1; 100])).await.expect(201);
    let path = format!("/api/v1/applications/{}", text(&created, "id"));
    let both = json!({ "device_ids": [began["id"], silent["id"]] });
    app.post(&format!("{path}/devices"), &admin, both)
        .await
        .expect(201);
    let handed = app.check_in(&began_token, json!({})).await;
    let running = json!({ "command_results":
        [{ "command_id": handed["commands"][0]["id"], "status": "running" }] });
    app.check_in(&began_token, running).await;
    let first = app.check_in(&silent_token, json!({})).await;
    let first = text(&first["commands"][0], "id").to_owned();
    sqlx::query("UPDATE commands SET expires_at = created_at + interval '1 microsecond'")
        .execute(app.database.pool())
        .await
        .unwrap();
    for id in [text(&handed["commands"][0], "id"), &first] {
        let command = format!("/api/v1/commands/{id}");
        mdm_testkit::wait_until("the end", Duration::from_secs(10), async || {
            let command = app.get(&command, &admin).await.expect(200);
            (command["status"] == "expired").then_some(())
        })
        .await;
    }
    let installs = app
        .get(&format!("{path}/installs"), &admin)
        .await
        .expect(200);
    let state_of = |device: &Value| {
        let mut all = installs["installs"].as_array().unwrap().iter();
        let install = all.find(|install| install["device_id"] == device["id"]);
        text(install.unwrap(), "state").to_owned()
    };
    assert_eq!(
        (state_of(&began), state_of(&silent)),
        ("failed".to_owned(), "pending".to_owned())
    );
    let failures = mdm_testkit::wait_until("the log tells", Duration::from_secs(10), async || {
        let path = "/api/v1/events?types=application_install&limit=500";
        let told = app.get(path, &admin).await.expect(200);
        let told = told["events"].as_array().unwrap().clone();
        let failures = told
            .iter()
            .filter(|event| event["data"]["state"] == "failed");
        Some(failures.count()).filter(|count| *count > 0)
    })
    .await;
    assert_eq!(failures, 1);
    let again = app.check_in(&silent_token, json!({})).await;
    assert_eq!(again["commands"][0]["command"], "install_app");
    assert_ne!(text(&again["commands"][0], "id"), first);
}
