use std::time::Duration;

use sqlx::Connection as _;

use serde_json::json;

use crate::app::{TestApp, text};

#[actix_web::test]
async fn health_names_each_component_and_tells_when_the_database_is_gone() {
    let app = TestApp::start().await;
    for path in ["/health", "/api/v1/health"] {
        let health = app.call("GET", path, None, None).await.expect(200);
        assert_eq!(text(&health, "status"), "healthy");
        for component in ["database", "bus", "storage"] {
            assert_eq!(
                health["components"][component]["status"], "up",
                "{component}"
            );
        }
    }
    app.call("GET", "/readyz", None, None).await;
    // The database refuses everybody from now on: what is unhealthy must say so, and come back.
    let name: String = sqlx::query_scalar("SELECT current_database()")
        .fetch_one(app.database.pool())
        .await
        .unwrap();
    let other = app.database.connect_options().database("postgres");
    let mut conn = sqlx::postgres::PgConnection::connect_with(&other)
        .await
        .unwrap();
    let refuse = format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS false");
    let cut_off =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    sqlx::query(sqlx::AssertSqlSafe(refuse))
        .execute(&mut conn)
        .await
        .unwrap();
    sqlx::query(sqlx::AssertSqlSafe(cut_off))
        .execute(&mut conn)
        .await
        .unwrap();
    let health = app.call("GET", "/health", None, None).await.expect(503);
    assert_eq!(
        (
            text(&health, "status"),
            text(&health["components"]["database"], "status")
        ),
        ("unhealthy", "down")
    );
    assert_eq!(app.call("GET", "/readyz", None, None).await.status, 503);
    assert_eq!(app.call("GET", "/livez", None, None).await.status, 200);
    let allow = format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS true");
    sqlx::query(sqlx::AssertSqlSafe(allow))
        .execute(&mut conn)
        .await
        .unwrap();
    mdm_testkit::wait_until("health", Duration::from_secs(20), async || {
        (app.call("GET", "/health", None, None).await.status == 200).then_some(())
    })
    .await;
}

#[actix_web::test]
async fn request_ids_are_taken_over_if_well_formed_and_made_otherwise() {
    let app = TestApp::start().await;
    let ask = |id: &str| TestApp::read(app.request("GET", "/livez").header("x-request-id", id));
    assert_eq!(ask("abc-1.2_3").await.headers["x-request-id"], "abc-1.2_3");
    for bad in ["", "with space", &"x".repeat(65)] {
        let given = ask(bad).await.headers["x-request-id"].clone();
        assert_ne!(given, bad);
        assert_eq!(given.len(), 32);
    }
}

#[actix_web::test]
async fn a_route_that_is_not_there_is_a_problem_and_so_is_a_method() {
    let app = TestApp::start().await;
    app.call("GET", "/api/v1/nothing", None, None)
        .await
        .expect_problem(404, "NO_SUCH_ROUTE");
    app.call("GET", "/nothing", None, None)
        .await
        .expect_problem(404, "NO_SUCH_ROUTE");
    let wrong = app.call("PATCH", "/api/v1/devices", None, None).await;
    assert_eq!(wrong.headers["allow"], "GET, POST");
    wrong.expect_problem(405, "METHOD_NOT_ALLOWED");
}

#[actix_web::test]
async fn metrics_name_routes_and_not_paths() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    app.enroll(&admin, "hw-1").await;
    app.get("/api/v1/devices/hw-1", &admin).await.expect(200);
    let metrics = app.call("GET", "/metrics", None, None).await.text;
    assert!(
        metrics.contains("route=\"/api/v1/devices/{device}\""),
        "{metrics}"
    );
    assert!(!metrics.contains("hw-1"));
}

#[actix_web::test]
async fn status_tells_anyone_a_little_and_the_signed_in_everything() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let anyone = app
        .call("GET", "/api/v1/websocket/status", None, None)
        .await
        .expect(200);
    assert_eq!(
        anyone,
        json!({ "status": "running", "connected_clients": 0 })
    );
    let all = app
        .get("/api/v1/websocket/status", &admin)
        .await
        .expect(200);
    assert_eq!(all["nodes"].as_array().unwrap().len(), 1);
    assert!(all["latest_cursor"].is_string());
}

#[actix_web::test]
async fn probes_by_head_are_answered_and_a_socket_route_says_what_it_is() {
    let app = TestApp::start().await;
    for path in ["/health", "/api/v1/health", "/livez", "/readyz"] {
        assert_eq!(
            app.call("HEAD", path, None, None).await.status,
            200,
            "{path}"
        );
    }
    let admin = app.admin().await;
    app.get("/api/v1/ws", &admin)
        .await
        .expect_problem(400, "NOT_A_WEBSOCKET");
    let (_, device) = app.enroll(&admin, "hw-1").await;
    app.get("/api/v1/device/channel", &device)
        .await
        .expect_problem(400, "NOT_A_WEBSOCKET");
}
