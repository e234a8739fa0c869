use serde_json::json;

use crate::app::{TestApp, device, text};

#[actix_web::test]
async fn an_operator_enrols_lists_reads_changes_and_unenrols_a_device() {
    let app = TestApp::start().await;
    let operator = app.user("op@mobius.local", "operator").await;
    let (enrolled, device_token) = app.enroll(&operator, "hw-1").await;
    let path = format!("/api/v1/devices/{}", text(&enrolled, "id"));
    assert_eq!(enrolled["status"], "enrolled");

    let by_id = app.get(&path, &operator).await;
    assert_eq!(by_id.headers["etag"], "\"1\"");
    let by_id = by_id.expect(200);
    assert_eq!(
        by_id,
        app.get("/api/v1/devices/hw-1", &operator).await.expect(200)
    );
    assert!(by_id.get("device_token").is_none());

    let change =
        json!({ "hostname": "renamed", "os_version": null, "labels": { "site": "north" } });
    let changed = app
        .call("PUT", &path, Some(&operator), Some(change))
        .await
        .expect(200);
    assert_eq!(
        (
            text(&changed, "hostname"),
            &changed["os_version"],
            &changed["version"]
        ),
        ("renamed", &json!(null), &json!(2))
    );
    let listed = app
        .get(
            "/api/v1/devices?label=site:north&search=RENAM&platform=linux&status=enrolled",
            &operator,
        )
        .await
        .expect(200);
    assert_eq!(
        (&listed["total"], &listed["devices"][0]),
        (&json!(1), &changed)
    );

    app.call("DELETE", &path, Some(&operator), None)
        .await
        .expect(204);
    app.call("DELETE", &path, Some(&operator), None)
        .await
        .expect(204);
    app.post("/api/v1/device/checkin", &device_token, json!({}))
        .await
        .expect_problem(401, "DEVICE_TOKEN_INVALID");
    assert_eq!(
        app.get(&path, &operator).await.expect(200)["status"],
        "unenrolled"
    );
    assert_eq!(
        app.get("/api/v1/devices", &operator).await.expect(200)["total"],
        0
    );
}

#[actix_web::test]
async fn a_change_based_on_an_old_version_is_refused_and_changes_nothing() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    app.enroll(&admin, "hw-1").await;
    let put = |etag: &str, name: &str| {
        let request = app
            .request("PUT", "/api/v1/devices/hw-1")
            .bearer_auth(&admin);
        TestApp::read(
            request
                .header("if-match", etag)
                .json(&json!({ "hostname": name })),
        )
    };
    put("\"1\"", "first").await.expect(200);
    put("\"1\"", "second").await.expect_problem(412, "STALE");
    put("W/\"2\"", "weak").await.expect_problem(412, "STALE");
    put("nonsense", "none").await.expect_problem(412, "STALE");
    put("*", "third").await.expect(200);
    let device = app.get("/api/v1/devices/hw-1", &admin).await.expect(200);
    assert_eq!(
        (text(&device, "hostname"), &device["version"]),
        ("third", &json!(3))
    );
}

#[actix_web::test]
async fn the_same_uuid_from_many_at_once_becomes_exactly_one_device() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let secret = app.secret(&admin, json!({ "name": "all" })).await;
    let mut body = device("one-and-only");
    body["enrollment_secret"] = secret.into();
    let attempts =
        (0..32).map(|_| app.call("POST", "/api/v1/device/enroll", None, Some(body.clone())));
    let answers = futures_util::future::join_all(attempts).await;
    assert_eq!(
        answers.iter().filter(|answer| answer.status == 201).count(),
        1
    );
    for answer in answers.into_iter().filter(|answer| answer.status != 201) {
        answer.expect_problem(409, "DEVICE_ALREADY_ENROLLED");
    }
    assert_eq!(
        app.get("/api/v1/devices", &admin).await.expect(200)["total"],
        1
    );
    let secrets = app
        .get("/api/v1/enrollment-secrets", &admin)
        .await
        .expect(200);
    assert_eq!(
        secrets["enrollment_secrets"][0]["uses"], 1,
        "a refused enrolment is no use"
    );
    assert_eq!(app.events(&admin, 1).await.len(), 1);
}

#[actix_web::test]
async fn sixty_four_machines_enrol_at_once_and_all_are_there() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let secret = app.secret(&admin, json!({ "name": "all" })).await;
    let attempts = (0..64).map(|number| {
        let mut body = device(&format!("hw-{number}"));
        body["enrollment_secret"] = secret.clone().into();
        app.call("POST", "/api/v1/device/enroll", None, Some(body))
    });
    let answers = futures_util::future::join_all(attempts).await;
    let mut tokens = Vec::new();
    for (number, answer) in answers.into_iter().enumerate() {
        let enrolled = answer.expect(201);
        assert_eq!(text(&enrolled, "uuid"), format!("hw-{number}"));
        tokens.push(text(&enrolled, "device_token").to_owned());
    }
    // Each token is that of the device beside which it came.
    for (number, token) in tokens.iter().enumerate() {
        let info = json!({ "hostname": format!("by-{number}") });
        app.check_in(token, json!({ "system_info": info })).await;
    }
    for number in 0..64 {
        let path = format!("/api/v1/devices/hw-{number}");
        let device = app.get(&path, &admin).await.expect(200);
        assert_eq!(text(&device, "hostname"), format!("by-{number}"));
    }
    assert_eq!(
        app.get("/api/v1/devices", &admin).await.expect(200)["total"],
        64
    );
    // Each has also come online by its check-in.
    let enrolled = app.events(&admin, 128).await;
    let enrolled = enrolled
        .iter()
        .filter(|event| event["data"]["old_status"] == "");
    assert_eq!(enrolled.count(), 64);
}

#[actix_web::test]
async fn enrolling_anew_ends_the_old_token_and_keeps_the_device() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (first, old_token) = app.enroll(&admin, "hw-1").await;
    app.post("/api/v1/devices", &admin, device("hw-1"))
        .await
        .expect_problem(409, "DEVICE_ALREADY_ENROLLED");
    let second = app
        .post("/api/v1/devices?re_enroll=true", &admin, device("hw-1"))
        .await
        .expect(201);
    assert_eq!(first["id"], second["id"]);
    app.post("/api/v1/device/checkin", &old_token, json!({}))
        .await
        .expect_problem(401, "DEVICE_TOKEN_INVALID");
    app.check_in(text(&second, "device_token"), json!({})).await;
}

#[actix_web::test]
async fn a_check_in_brings_a_device_online_and_takes_over_what_it_says() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (_, token) = app.enroll(&admin, "hw-1").await;
    let info = json!({ "hostname": "told", "os_version": "13", "observed_at": "2026-01-01T00:00:00.000Z" });
    let answer = app.check_in(&token, json!({ "system_info": info })).await;
    let pause = answer["next_checkin_seconds"].as_i64().unwrap();
    assert!((54..=60).contains(&pause), "{pause}");
    let device = app.get("/api/v1/devices/hw-1", &admin).await.expect(200);
    assert_eq!(text(&device, "status"), "online");
    assert_eq!(
        (text(&device, "hostname"), text(&device, "os_version")),
        ("told", "13")
    );
    assert_eq!(
        (&device["hardware_info"], text(&device, "observed_at")),
        (&info, "2026-01-01T00:00:00.000Z")
    );
    app.check_in(&token, json!({})).await;
    let again = app.get("/api/v1/devices/hw-1", &admin).await.expect(200);
    assert_eq!(
        again["version"], device["version"],
        "a check-in without news changes nothing"
    );
}

#[actix_web::test]
async fn pages_follow_each_other_without_gap_or_repetition() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    for number in 0..7 {
        app.enroll(&admin, &format!("hw-{number}")).await;
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/devices?limit=3".to_owned();
    loop {
        let page = app.get(&path, &admin).await.expect(200);
        assert_eq!(page["total"], 7);
        seen.extend(
            page["devices"]
                .as_array()
                .unwrap()
                .iter()
                .map(|device| text(device, "uuid").to_owned()),
        );
        // Devices that come while somebody leafs through must not shift the pages.
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/api/v1/devices?limit=3&cursor={cursor}");
    }
    let expected: Vec<_> = (0..7).map(|number| format!("hw-{number}")).collect();
    assert_eq!(seen, expected);
}

#[actix_web::test]
async fn what_a_list_is_asked_wrongly_is_refused_by_name() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    for (query, pointer) in [
        ("limit=0", "/limit"),
        ("limit=501", "/limit"),
        ("limit=many", "/limit"),
        ("offset=-1", "/offset"),
        ("cursor=nonsense", "/cursor"),
        ("platform=beos", "/platform"),
        ("status=sleeping", "/status"),
        ("label=novalue", "/label"),
        ("colour=red", "/colour"),
        ("limit=1&limit=2", "/limit"),
    ] {
        let problem = app
            .get(&format!("/api/v1/devices?{query}"), &admin)
            .await
            .expect_problem(422, "INVALID");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{query}");
    }
}
