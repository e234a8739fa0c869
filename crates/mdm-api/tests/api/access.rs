//! Every operation of the OpenAPI document, for everyone who may come: nobody, somebody with
//! garbage or an expired token, viewer, operator, admin, an API key with too small a scope, a
//! device, and an administrator of another organisation. The rows come from the document itself, so
//! that a new route cannot be forgotten; who may do what is written down here a second time, so
//! that a change of the rights has to be meant.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::app::{TestApp, text};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Anyone,
    Viewer,
    Operator,
    Admin,
    Device,
}

/// Routes that need no credentials, or whose credentials are in the body.
const OPEN: &[&str] = &[
    "/health",
    "/livez",
    "/readyz",
    "/metrics",
    "/docs",
    "/.well-known/jwks.json",
    "/api/v1/health",
    "/api/v1/metrics",
    "/api/v1/openapi.json",
    "/api/v1/websocket/status",
    "/api/v1/auth/login",
    "/api/v1/auth/refresh",
    "/api/v1/device/enroll",
];

/// Collections that only administrators see.
const ADMIN: &[&str] = &["users", "api-keys", "enrollment-secrets", "webhooks"];

fn who(method: &str, path: &str) -> Who {
    let Some(rest) = path.strip_prefix("/api/v1/") else {
        return if path == "/ws" {
            Who::Viewer
        } else {
            Who::Anyone
        };
    };
    let first = rest.split('/').next().unwrap();
    if OPEN.contains(&path) {
        Who::Anyone
    } else if first == "device" {
        Who::Device
    } else if ADMIN.contains(&first) || (first, method) == ("license", "put") {
        Who::Admin
    } else if first == "auth" || rest == "device-groups/preview" || method == "get" {
        Who::Viewer
    } else {
        Who::Operator
    }
}

/// Objects of the first organisation, by the parameter that names them in a path.
struct Objects(BTreeMap<&'static str, String>);

impl Objects {
    async fn make(app: &TestApp, admin: &str, number: usize) -> (Self, String) {
        let (device, token) = app.enroll(admin, &format!("hw-{number}")).await;
        let device = text(&device, "id").to_owned();
        let make = async |path: &str, body: Value, status: u16| {
            let made = app.post(path, admin, body).await.expect(status);
            text(&made, "id").to_owned()
        };
        let command = json!({ "command": "system_info" });
        let command = make(&format!("/api/v1/devices/{device}/commands"), command, 202).await;
        let form = reqwest::multipart::Form::new()
            .text("name", "x")
            .text("version", "1")
            .text("platform", "linux")
            .part("package", reqwest::multipart::Part::bytes(vec![1]));
        let upload = app
            .request("POST", "/api/v1/applications")
            .bearer_auth(admin)
            .multipart(form);
        let application = TestApp::read(upload).await.expect(201);
        let user =
            json!({ "email": format!("u{number}@mobius.local"), "password": crate::app::PASSWORD });
        let batch = json!({ "command": "system_info", "targets": { "device_ids": [device] } });
        let objects = [
            ("devices", device.clone()),
            ("commands", command),
            (
                "command-batches",
                make("/api/v1/commands", batch, 202).await,
            ),
            ("applications", text(&application, "id").to_owned()),
            (
                "device-groups",
                make("/api/v1/device-groups", json!({ "name": "g" }), 201).await,
            ),
            (
                "policies",
                make("/api/v1/policies", json!({ "name": "p" }), 201).await,
            ),
            ("users", make("/api/v1/users", user, 201).await),
            (
                "api-keys",
                make("/api/v1/api-keys", json!({ "name": "k" }), 201).await,
            ),
            (
                "webhooks",
                make(
                    "/api/v1/webhooks",
                    json!({ "name": "w", "url": "https://hooks.invalid/" }),
                    201,
                )
                .await,
            ),
            (
                "deliveries",
                "019be5c0-0000-7000-8000-000000000001".to_owned(),
            ),
            (
                "enrollment-secrets",
                make("/api/v1/enrollment-secrets", json!({ "name": "s" }), 201).await,
            ),
            (
                "sessions",
                "019be5c0-0000-7000-8000-000000000001".to_owned(),
            ),
        ];
        (Self(objects.into_iter().collect()), token)
    }

    /// The path with real objects in the place of its parameters: each belongs to the collection
    /// before it.
    fn fill(&self, path: &str) -> String {
        let mut filled: Vec<&str> = Vec::new();
        for segment in path.split('/') {
            if segment.starts_with('{') {
                let collection = match *filled.last().unwrap() {
                    "groups" => "device-groups",
                    other => other,
                };
                filled.push(&self.0[collection]);
            } else {
                filled.push(segment);
            }
        }
        filled.join("/")
    }
}

struct Operation {
    method: String,
    path: String,
    body: Option<Value>,
    multipart: bool,
    documented: BTreeSet<u16>,
}

async fn operations(app: &TestApp) -> Vec<Operation> {
    let document = app
        .call("GET", "/api/v1/openapi.json", None, None)
        .await
        .expect(200);
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let content = &operation["requestBody"]["content"];
            operations.push(Operation {
                method: method.clone(),
                path: path.clone(),
                body: content["application/json"]["example"]
                    .as_object()
                    .cloned()
                    .map(Value::Object),
                multipart: content["multipart/form-data"].is_object(),
                documented: operation["responses"]
                    .as_object()
                    .unwrap()
                    .keys()
                    .map(|status| status.parse().unwrap())
                    .collect(),
            });
        }
    }
    // What takes objects away comes last, and before it what brings a device online: somebody would
    // have to wait for its answer.
    operations.sort_by_key(|operation| {
        let by_device = operation.path.starts_with("/api/v1/device/");
        (operation.method == "delete", by_device)
    });
    operations
}

enum Credential<'a> {
    None,
    Bearer(&'a str),
    Key(&'a str),
}

async fn call(app: &TestApp, operation: &Operation, path: &str, credential: Credential<'_>) -> u16 {
    let mut request = app.request(&operation.method.to_uppercase(), path);
    request = match credential {
        Credential::None => request,
        Credential::Bearer(token) => request.bearer_auth(token),
        Credential::Key(key) => request.header("x-api-key", key),
    };
    if let Some(body) = &operation.body {
        request = request.json(body);
    } else if operation.multipart {
        let form = reqwest::multipart::Form::new().text("name", "x");
        request = request.multipart(form);
    }
    let status = if operation.path.ends_with("/stream") {
        // It has no end.
        request.send().await.unwrap().status().as_u16()
    } else {
        TestApp::read(request).await.status
    };
    let name = format!("{} {}", operation.method, operation.path);
    assert!(
        operation.documented.contains(&status),
        "{name}: {status} is not documented"
    );
    assert!(status < 500, "{name}: {status}");
    status
}

#[actix_web::test]
async fn every_route_lets_in_whom_it_names_and_nobody_else() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let tokens = [
        (Who::Viewer, app.user("v@mobius.local", "viewer").await),
        (Who::Operator, app.user("o@mobius.local", "operator").await),
        (Who::Admin, app.user("a@mobius.local", "admin").await),
    ];
    let expired = app.expired_token(&admin).await;
    let status_only = json!({ "name": "k", "role": "admin", "scopes": ["status:read"] });
    let narrow = app
        .post("/api/v1/api-keys", &admin, status_only)
        .await
        .expect(201);
    let narrow = text(&narrow, "key");
    let operations = operations(&app).await;
    assert!(operations.len() >= 100, "{}", operations.len());
    for (number, (caller, token)) in tokens.iter().enumerate() {
        let (objects, device_token) = Objects::make(&app, &admin, number).await;
        for operation in &operations {
            let Operation { method, path, .. } = operation;
            let name = format!("{method} {path} as {caller:?}");
            let least = who(method, path);
            let filled = objects.fill(path);
            let by = |credential| call(&app, operation, &filled, credential);
            if least == Who::Anyone {
                let status = by(Credential::None).await;
                let needs_more = path.ends_with("/auth/login")
                    || path.ends_with("/auth/refresh")
                    || path.ends_with("/device/enroll");
                assert_eq!(status < 300, !needs_more, "{name}: {status}");
                continue;
            }
            assert_eq!(by(Credential::None).await, 401, "{name} without a token");
            assert_eq!(
                by(Credential::Bearer("garbage")).await,
                401,
                "{name} with garbage"
            );
            assert_eq!(
                by(Credential::Key("garbage")).await,
                401,
                "{name} with a garbage key"
            );
            assert_eq!(
                by(Credential::Bearer(&expired)).await,
                401,
                "{name} with an expired token"
            );
            if least == Who::Device {
                assert_eq!(
                    by(Credential::Bearer(token)).await,
                    401,
                    "{name} with a user's token"
                );
                let status = by(Credential::Bearer(&device_token)).await;
                let gone = method == "delete"
                    || app
                        .get("/api/v1/device/policies", &device_token)
                        .await
                        .status
                        == 401;
                assert!(gone || status != 401 && status != 403, "{name}: {status}");
                continue;
            }
            assert_eq!(
                by(Credential::Bearer(&device_token)).await,
                401,
                "{name} with a device's token"
            );
            // Whose key it is everybody may ask.
            let expected = if path.ends_with("/auth/me") { 200 } else { 403 };
            let status = by(Credential::Key(narrow)).await;
            assert_eq!(status, expected, "{name} with too small a scope");
            if path.ends_with("/auth/password")
                || path.ends_with("/auth/logout")
                || path.ends_with("/ws")
            {
                continue;
            }
            let status = by(Credential::Bearer(token)).await;
            assert_eq!(status != 403, *caller >= least, "{name}: {status}");
            assert_ne!(status, 401, "{name}");
        }
    }
}

#[actix_web::test]
async fn an_object_of_another_organisation_is_not_there() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let stranger = app.stranger().await;
    let (objects, _) = Objects::make(&app, &admin, 0).await;
    for operation in operations(&app).await {
        let named = operation.path.contains('{') && !operation.path.contains("/auth/");
        if !named || operation.path.starts_with("/api/v1/device/") {
            continue;
        }
        let filled = objects.fill(&operation.path);
        let status = call(&app, &operation, &filled, Credential::Bearer(&stranger)).await;
        assert_eq!(status, 404, "{} {}", operation.method, operation.path);
    }
    // All of it is still there.
    for (collection, id) in &objects.0 {
        if !["sessions", "deliveries"].contains(collection) {
            app.get(&format!("/api/v1/{collection}/{id}"), &admin)
                .await
                .expect(200);
        }
    }
}
