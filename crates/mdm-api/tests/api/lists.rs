//! Lists: pages, sorting, searching, totals, and cursors while rows come and go.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::app::{TestApp, device, text};

async fn bulk(app: &TestApp, admin: &str, numbers: std::ops::Range<u32>) {
    let devices: Vec<Value> = numbers
        .map(|number| {
            let mut body = device(&format!("hw-{number:04}"));
            body["hostname"] = json!(format!("host-{:04}", (number * 7919) % 10_000));
            body["platform"] = json!(["linux", "windows", "macos"][number as usize % 3]);
            body
        })
        .collect();
    app.post("/api/v1/devices/bulk", admin, json!({ "devices": devices }))
        .await
        .expect(200);
}

fn names(page: &Value) -> Vec<String> {
    page["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|device| text(device, "hostname").to_owned())
        .collect()
}

#[actix_web::test]
async fn a_cursor_shows_every_lasting_device_once_while_others_come_and_go() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    bulk(&app, &admin, 0..200).await;
    for sort in [
        "",
        "&sort=hostname",
        "&sort=-hostname",
        "&sort=platform,-hostname",
        "&sort=-last_seen",
    ] {
        let (mut seen, mut cursor, mut next) =
            (Vec::new(), String::new(), 1_000 + seen_offset(sort));
        loop {
            let path = format!("/api/v1/devices?limit=30{sort}{cursor}");
            let page = app.get(&path, &admin).await.expect(200);
            for device in page["devices"].as_array().unwrap() {
                seen.push(text(device, "uuid").to_owned());
            }
            // A device comes and one that is gone by now was there before.
            bulk(&app, &admin, next..next + 1).await;
            app.call(
                "DELETE",
                &format!("/api/v1/devices/hw-{next:04}"),
                Some(&admin),
                None,
            )
            .await
            .expect(204);
            next += 1;
            match page["next_cursor"].as_str() {
                Some(found) => cursor = format!("&cursor={found}"),
                None => break,
            }
        }
        let lasting: Vec<_> = seen
            .iter()
            .filter(|uuid| uuid.as_str() < "hw-0200")
            .collect();
        let unique: BTreeSet<_> = lasting.iter().collect();
        assert_eq!((lasting.len(), unique.len()), (200, 200), "{sort}");
    }
}

/// New devices of one order must not have the uuids of another.
fn seen_offset(sort: &str) -> u32 {
    u32::try_from(sort.len()).unwrap() * 100
}

#[actix_web::test]
async fn lists_are_sorted_as_asked() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    bulk(&app, &admin, 0..20).await;
    let up = names(
        &app.get("/api/v1/devices?sort=hostname", &admin)
            .await
            .expect(200),
    );
    assert!(up.is_sorted());
    let mut down = names(
        &app.get("/api/v1/devices?sort=-hostname", &admin)
            .await
            .expect(200),
    );
    down.reverse();
    assert_eq!(up, down);
    let refused = app
        .get("/api/v1/devices?sort=colour", &admin)
        .await
        .expect_problem(422, "INVALID");
    assert!(text(&refused, "detail").contains("hostname"), "{refused}");
    let first = app
        .get("/api/v1/devices?limit=5&sort=hostname", &admin)
        .await
        .expect(200);
    let cursor = text(&first, "next_cursor");
    let path = format!("/api/v1/devices?limit=5&sort=-hostname&cursor={cursor}");
    app.get(&path, &admin).await.expect_problem(422, "INVALID");
    let path = format!("/api/v1/devices?offset=5&cursor={cursor}&sort=hostname");
    app.get(&path, &admin).await.expect_problem(422, "INVALID");
}

#[actix_web::test]
async fn a_search_finds_parts_in_any_case_and_takes_wildcards_for_what_they_are() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    for (uuid, hostname) in [("a", "Web-100%"), ("b", "web-1000"), ("c", "db_1")] {
        let body = json!({ "uuid": uuid, "hostname": hostname, "platform": "linux", "serial_number": format!("SN{uuid}9") });
        app.post("/api/v1/devices", &admin, body).await.expect(201);
    }
    for (search, found) in [
        ("WEB", 2),
        ("100%25", 1),
        ("b_1", 1),
        ("sna9", 1),
        ("x", 0),
        ("e", 2),
    ] {
        let page = app
            .get(&format!("/api/v1/devices?search={search}"), &admin)
            .await
            .expect(200);
        assert_eq!(page["total"], found, "{search}");
        assert_eq!(
            page["devices"].as_array().unwrap().len(),
            usize::try_from(found).unwrap()
        );
    }
}

#[actix_web::test]
async fn beyond_ten_thousand_the_total_says_that_it_is_an_estimate() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    sqlx::query(
        "INSERT INTO devices (organization_id, id, uuid, hostname, platform, status, enrolled_at, labels, hardware_info)
         SELECT u.organization_id, gen_random_uuid(), 'hw-' || n, 'host-' || n, 'linux', 'enrolled', now(), '{}', '{}'
           FROM users u, generate_series(1, 10001) n WHERE u.email = 'admin@mobius.local'",
    )
    .execute(app.database.pool())
    .await
    .unwrap();
    sqlx::query("ANALYZE devices")
        .execute(app.database.pool())
        .await
        .unwrap();
    let page = app.get("/api/v1/devices?limit=1", &admin).await.expect(200);
    assert_eq!(page["total_is_estimate"], true);
    let total = page["total"].as_i64().unwrap();
    assert!((10_001..12_000).contains(&total), "{total}");
    let exact = app
        .get("/api/v1/devices?limit=1&search=host-77", &admin)
        .await
        .expect(200);
    assert_eq!(
        (&exact["total"], &exact["total_is_estimate"]),
        (&json!(111), &Value::Null)
    );
}

#[actix_web::test]
async fn every_list_refuses_what_it_does_not_know() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    for list in [
        "devices",
        "commands",
        "device-groups",
        "policies",
        "applications",
        "users",
        "api-keys",
        "enrollment-secrets",
    ] {
        for wrong in [
            "limit=0",
            "limit=501",
            "limit=x",
            "offset=-1",
            "sort=nonsense",
            "cursor=nonsense",
            "colour=red",
            "limit=1&limit=2",
        ] {
            let problem = app
                .get(&format!("/api/v1/{list}?{wrong}"), &admin)
                .await
                .expect_problem(422, "INVALID");
            let parameter = wrong.split('=').next().unwrap();
            assert_eq!(
                problem["errors"][0]["pointer"],
                format!("/{parameter}"),
                "{list}?{wrong}"
            );
        }
        app.get(
            &format!("/api/v1/{list}?limit=500&offset=3&sort=-id"),
            &admin,
        )
        .await
        .expect(200);
    }
}

#[actix_web::test]
async fn a_total_is_never_older_than_the_last_change() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    for count in 1..=5 {
        let (device, _) = app.enroll(&admin, &format!("u-{count}")).await;
        let page = app.get("/api/v1/devices?limit=1", &admin).await;
        assert_eq!(page.expect(200)["total"], count);
        let sort = app.get("/api/v1/devices?limit=1&sort=-hostname", &admin);
        assert_eq!(sort.await.expect(200)["total"], count);
        if count == 5 {
            let path = format!("/api/v1/devices/{}", text(&device, "id"));
            app.call("DELETE", &path, Some(&admin), None)
                .await
                .expect(204);
            let page = app.get("/api/v1/devices?limit=1", &admin).await;
            assert_eq!(page.expect(200)["total"], 4);
        }
    }
}
