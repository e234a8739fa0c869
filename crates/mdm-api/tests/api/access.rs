//! Every route, for everyone who may come: nobody, somebody with garbage, viewer, operator, admin,
//! a device, and an administrator of another organisation.

use serde_json::{Value, json};

use crate::app::{TestApp, device};

/// Who may use a route.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    Anyone,
    Viewer,
    Operator,
    Admin,
    Device,
}

struct Route {
    method: &'static str,
    path: String,
    who: Who,
    body: Option<Value>,
    /// Whether it names an object of the first organisation.
    names: bool,
}

#[expect(clippy::too_many_lines, reason = "a row for every route")]
fn routes(device_id: &str, command_id: &str, secret_id: &str) -> Vec<Route> {
    let route = |method, path: &str, who, body, names| Route {
        method,
        path: path.to_owned(),
        who,
        body,
        names,
    };
    vec![
        route("GET", "/health", Who::Anyone, None, false),
        route("GET", "/api/v1/health", Who::Anyone, None, false),
        route("GET", "/livez", Who::Anyone, None, false),
        route("GET", "/readyz", Who::Anyone, None, false),
        route("GET", "/metrics", Who::Anyone, None, false),
        route("GET", "/api/v1/metrics", Who::Anyone, None, false),
        route("GET", "/.well-known/jwks.json", Who::Anyone, None, false),
        route("GET", "/api/v1/auth/me", Who::Viewer, None, false),
        route("GET", "/api/v1/events", Who::Viewer, None, false),
        route("GET", "/api/v1/devices", Who::Viewer, None, false),
        route(
            "POST",
            "/api/v1/devices",
            Who::Operator,
            Some(device("new")),
            false,
        ),
        route(
            "GET",
            &format!("/api/v1/devices/{device_id}"),
            Who::Viewer,
            None,
            true,
        ),
        route(
            "PUT",
            &format!("/api/v1/devices/{device_id}"),
            Who::Operator,
            Some(json!({ "labels": {} })),
            true,
        ),
        route(
            "GET",
            &format!("/api/v1/devices/{device_id}/commands"),
            Who::Viewer,
            None,
            true,
        ),
        route(
            "POST",
            &format!("/api/v1/devices/{device_id}/commands"),
            Who::Operator,
            Some(json!({ "command": "system_info" })),
            true,
        ),
        route(
            "POST",
            &format!("/api/v1/devices/{device_id}/osquery"),
            Who::Operator,
            Some(json!({ "query": "SELECT 1" })),
            true,
        ),
        route("GET", "/api/v1/commands", Who::Viewer, None, false),
        route(
            "GET",
            &format!("/api/v1/commands/{command_id}"),
            Who::Viewer,
            None,
            true,
        ),
        route(
            "POST",
            &format!("/api/v1/commands/{command_id}/cancel"),
            Who::Operator,
            None,
            true,
        ),
        route("GET", "/api/v1/enrollment-secrets", Who::Admin, None, false),
        route(
            "POST",
            "/api/v1/enrollment-secrets",
            Who::Admin,
            Some(json!({ "name": "x" })),
            false,
        ),
        route(
            "DELETE",
            &format!("/api/v1/enrollment-secrets/{secret_id}"),
            Who::Admin,
            None,
            true,
        ),
        route(
            "DELETE",
            &format!("/api/v1/devices/{device_id}"),
            Who::Operator,
            None,
            true,
        ),
        route(
            "POST",
            "/api/v1/device/checkin",
            Who::Device,
            Some(json!({})),
            false,
        ),
        route(
            "POST",
            &format!("/api/v1/device/commands/{command_id}/status"),
            Who::Device,
            Some(json!({ "status": "running" })),
            false,
        ),
        route("GET", "/api/v1/device/channel", Who::Device, None, false),
    ]
}

const fn rank(who: Who) -> u8 {
    match who {
        Who::Anyone => 0,
        Who::Viewer => 1,
        Who::Operator => 2,
        Who::Admin => 3,
        Who::Device => 9,
    }
}

#[actix_web::test]
async fn every_route_lets_in_whom_it_names_and_nobody_else() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let tokens = [
        (Who::Viewer, app.user("v@mobius.local", "viewer").await),
        (Who::Operator, app.user("o@mobius.local", "operator").await),
        (Who::Admin, admin.clone()),
    ];
    let stranger = app.stranger().await;
    let secret = app
        .post("/api/v1/enrollment-secrets", &admin, json!({ "name": "x" }))
        .await
        .expect(201);
    let secret_id = secret["id"].as_str().unwrap();
    // A device for each caller, because the last routes take it away.
    for (number, (caller, token)) in tokens.iter().enumerate() {
        let (target, device_token) = app.enroll(&admin, &format!("hw-{number}")).await;
        let device_id = target["id"].as_str().unwrap();
        let command = app
            .post(
                &format!("/api/v1/devices/{device_id}/commands"),
                &admin,
                json!({ "command": "system_info" }),
            )
            .await
            .expect(202);
        for route in routes(device_id, command["id"].as_str().unwrap(), secret_id) {
            let call = |token: Option<&str>| {
                let token = token.map(str::to_owned);
                let (app, route) = (&app, &route);
                async move {
                    app.call(
                        route.method,
                        &route.path,
                        token.as_deref(),
                        route.body.clone(),
                    )
                    .await
                    .status
                }
            };
            let name = format!("{} {}", route.method, route.path);
            if route.who == Who::Anyone {
                assert!(call(None).await < 400, "{name}");
                continue;
            }
            assert_eq!(call(None).await, 401, "{name} without a token");
            assert_eq!(call(Some("garbage")).await, 401, "{name} with garbage");
            if route.names {
                assert_eq!(
                    call(Some(&stranger)).await,
                    404,
                    "{name} from another organisation"
                );
            }
            if route.who == Who::Device {
                assert_eq!(call(Some(token)).await, 401, "{name} with a user's token");
                let status = call(Some(&device_token)).await;
                // The device of an administrator or operator was unenrolled two lines above.
                let gone = rank(*caller) >= rank(Who::Operator);
                assert_eq!(
                    status == 401,
                    gone,
                    "{name} with the device's token: {status}"
                );
                continue;
            }
            assert_eq!(
                call(Some(&device_token)).await,
                401,
                "{name} with a device's token"
            );
            let status = call(Some(token)).await;
            let expected = rank(*caller) >= rank(route.who);
            assert_eq!(status != 403, expected, "{name}: {status}");
            assert!(
                !expected || status != 401 && status != 404 && status < 500,
                "{name}: {status}"
            );
        }
    }
}
