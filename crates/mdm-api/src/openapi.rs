//! The contract: an OpenAPI 3.1 document made from the handlers, and a page to browse it.
//!
//! Handlers say what they take and what they answer when all goes well. What holds for every route
//! of a kind (who may call it, which errors there are, the idempotency key) is added here by rule,
//! so that no handler can forget it; examples come from `openapi/examples.json`, by type.
#![expect(
    clippy::indexing_slicing,
    reason = "the document is made of our own routes only, and a test makes it"
)]

use std::sync::LazyLock;

use actix_web::{App, HttpResponse, get};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use utoipa_actix_web::{AppExt, service_config::ServiceConfig};

use crate::app;

pub mod params;
mod routes;

pub use routes::allowed_methods;

#[derive(OpenApi)]
#[openapi(info(
    title = "Mobius MDM",
    description = "Enrols devices, says by policies what they must be like, sends them commands, installs \
                   software, and tells of every change as it happens. Errors are problem details (RFC 9457).",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Base;

const EXAMPLES: &str = include_str!("openapi/examples.json");
const PAGE: &str = include_str!("openapi/docs.html");

static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// Adds the route at the root.
pub fn configure_root(config: &mut ServiceConfig<'_>) {
    config.service(show_page);
}

/// Adds the route below `/api/v1`.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config.service(show_document);
}

/// This document.
#[utoipa::path(tag = "system", responses((status = 200, body = serde_json::Value)))]
#[get("/openapi.json")]
async fn show_document() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .insert_header(("cache-control", "max-age=60"))
        .body(DOCUMENT.as_str())
}

/// A page to browse this document with. It loads nothing from elsewhere.
#[utoipa::path(tag = "system", responses((status = 200, body = String, content_type = "text/html")))]
#[get("/docs")]
async fn show_page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((
            "content-security-policy",
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'",
        ))
        .insert_header(("x-content-type-options", "nosniff"))
        .body(PAGE)
}

/// The whole document.
pub fn document() -> Value {
    let (_app, api) = App::new()
        .into_utoipa_app()
        .openapi(Base::openapi())
        .configure(app::every_route)
        .split_for_parts();
    let mut document = serde_json::to_value(api).unwrap_or_default();
    if let Some(info) = document.get_mut("info") {
        set(info, "version", json!(env!("CARGO_PKG_VERSION")));
    }
    let examples: Map<String, Value> = serde_json::from_str(EXAMPLES).unwrap_or_default();
    if let Some(Value::Object(paths)) = document.get_mut("paths") {
        for (path, item) in paths.iter_mut() {
            let Value::Object(item) = item else { continue };
            for (method, operation) in item.iter_mut() {
                complete(path, method, operation, &examples);
            }
        }
    }
    document["components"]["securitySchemes"] = json!({
        "access_token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "What POST /api/v1/auth/login gives: good for 15 minutes."},
        "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key",
            "description": "A program's key: POST /api/v1/api-keys makes one."},
        "device_token": {"type": "http", "scheme": "bearer",
            "description": "What a device was given when it was enrolled."},
    });
    document["components"]["responses"] = ERRORS
        .iter()
        .map(|status| {
            let response =
                json!({"description": meaning(*status), "content": problem_content(*status)});
            (status.to_string(), response)
        })
        .collect();
    let problem = utoipa_schema::<mdm_proto::problem::Problem>();
    let field = utoipa_schema::<mdm_proto::problem::FieldProblem>();
    document["components"]["schemas"]["Problem"] = problem;
    document["components"]["schemas"]["FieldProblem"] = field;
    document
}

fn utoipa_schema<T: utoipa::PartialSchema>() -> Value {
    serde_json::to_value(T::schema()).unwrap_or_default()
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(key.to_owned(), value);
    }
}

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Anyone,
    Device,
    SignedIn,
}

/// Routes below `/api/v1` that need no credentials.
const OPEN: &[&str] = &[
    "/api/v1/health",
    "/api/v1/metrics",
    "/api/v1/openapi.json",
    "/api/v1/auth/login",
    "/api/v1/auth/refresh",
    "/api/v1/device/enroll",
    "/api/v1/websocket/status",
];

fn caller(path: &str) -> Caller {
    if path == "/ws" {
        Caller::SignedIn
    } else if !path.starts_with("/api/v1/") || OPEN.contains(&path) {
        Caller::Anyone
    } else if path.starts_with("/api/v1/device/") {
        Caller::Device
    } else {
        Caller::SignedIn
    }
}

/// Adds to an operation what its kind brings with it.
fn complete(path: &str, method: &str, operation: &mut Value, examples: &Map<String, Value>) {
    set(operation, "operationId", json!(operation_id(path, method)));
    let caller = caller(path);
    let security = match caller {
        Caller::Anyone => json!([]),
        Caller::Device => json!([{"device_token": []}]),
        Caller::SignedIn => json!([{"access_token": []}, {"api_key": []}]),
    };
    set(operation, "security", security);
    let mut parameters = operation
        .get("parameters")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if method == "post" {
        parameters.push(idempotency_key());
    }
    let has = |place: &str| parameters.iter().any(|parameter| parameter["in"] == place);
    let facts = Facts {
        caller,
        method,
        path,
        has_path: has("path"),
        has_query: has("query"),
        has_body: operation.get("requestBody").is_some(),
        if_match: parameters
            .iter()
            .any(|parameter| parameter["name"] == "If-Match"),
    };
    let statuses = facts.errors();
    if !parameters.is_empty() {
        set(operation, "parameters", Value::Array(parameters));
    }
    if let Some(body) = operation.get_mut("requestBody") {
        add_examples(body, examples);
    }
    let Some(Value::Object(responses)) = operation.get_mut("responses") else {
        return;
    };
    for (status, response) in responses.iter_mut() {
        let number: u16 = status.parse().unwrap_or(0);
        if response["description"].as_str().is_none_or(str::is_empty) {
            set(response, "description", json!(meaning(number)));
        }
        if number >= 400 && response.get("content").is_none() && number != 416 {
            set(response, "content", problem_content(number));
        }
        add_examples(response, examples);
    }
    for status in statuses {
        let shared = format!("#/components/responses/{status}");
        responses
            .entry(status.to_string())
            .or_insert_with(|| json!({"$ref": shared}));
    }
}

/// What decides which errors a route has.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each of which stands for an error"
)]
struct Facts<'a> {
    caller: Caller,
    method: &'a str,
    path: &'a str,
    has_path: bool,
    has_query: bool,
    has_body: bool,
    if_match: bool,
}

/// The errors that routes share.
const ERRORS: [u16; 11] = [400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 503];

impl Facts<'_> {
    fn errors(&self) -> Vec<u16> {
        let writes = self.method != "get" && self.method != "head";
        let anyone = self.caller == Caller::Anyone;
        let checks_secret = ["/login", "/refresh", "/device/enroll", "/password"]
            .iter()
            .any(|end| self.path.ends_with(end));
        let metrics = self.path.ends_with("/metrics");
        let status = self.path.ends_with("/websocket/status");
        let socket = self.path.ends_with("/ws") || self.path.ends_with("/device/channel");
        let in_api = self.path.starts_with("/api/v1/") || self.path == "/ws";
        [
            (400, self.has_body || self.has_query || writes || socket),
            (401, !anyone || checks_secret || metrics || status),
            (403, self.caller == Caller::SignedIn || checks_secret),
            (404, self.has_path),
            (409, writes),
            (412, self.if_match),
            (413, writes),
            (415, self.has_body),
            (422, self.has_body || self.has_query || writes),
            (429, checks_secret),
            (
                503,
                in_api && !self.path.ends_with("/openapi.json") && !metrics,
            ),
        ]
        .into_iter()
        .filter(|(_, has)| *has)
        .map(|(status, _)| status)
        .collect()
    }
}

fn meaning(status: u16) -> &'static str {
    match status {
        200 => "Done",
        201 => "Made; `Location` tells where it is",
        202 => "Accepted; `Location` tells where to follow it",
        204 => "Done; there is nothing to say",
        400 => "It cannot be understood",
        401 => "No good credentials",
        403 => "The credentials do not permit it",
        404 => "There is no such thing, or it is of another organisation",
        409 => "The state of things does not allow it",
        412 => "It was changed since the version that `If-Match` names",
        413 => "The body is too large",
        415 => "The body is of a kind that is not taken",
        422 => "Invalid: `errors` names each field",
        429 => "Too many failed attempts; `Retry-After` tells when to try again",
        503 => "Not at the moment; `Retry-After` tells when to try again",
        504 => "No answer in time",
        _ => "See the title",
    }
}

fn problem_content(status: u16) -> Value {
    let (title, code, detail) = match status {
        400 => (
            "Bad request",
            "MALFORMED_JSON",
            "the body is not JSON: EOF while parsing a value",
        ),
        401 => (
            "Not authenticated",
            "TOKEN_EXPIRED",
            "the access token has expired",
        ),
        403 => (
            "Not permitted",
            "FORBIDDEN",
            "this needs a permission that the caller does not have",
        ),
        404 => ("Not found", "DEVICE_NOT_FOUND", "there is no such device"),
        409 => (
            "Conflict",
            "ALREADY_ASSIGNED",
            "the policy is assigned to it already",
        ),
        412 => (
            "Changed in the meantime",
            "STALE",
            "the device was changed in the meantime",
        ),
        413 => (
            "Too large",
            "BODY_TOO_LARGE",
            "the body must have at most 262144 bytes",
        ),
        415 => (
            "Unsupported media type",
            "UNSUPPORTED_MEDIA_TYPE",
            "send the body as 'Content-Type: application/json'",
        ),
        422 => ("Invalid input", "INVALID", "/hostname: must not be empty"),
        429 => (
            "Too many attempts",
            "TOO_MANY_ATTEMPTS",
            "too many failed attempts; try again in 6 s",
        ),
        504 => (
            "No answer in time",
            "DEVICE_TIMEOUT",
            "the device did not answer in time",
        ),
        _ => (
            "Temporarily unavailable",
            "UNAVAILABLE",
            "the database cannot be reached at the moment; try again",
        ),
    };
    let kind = format!(
        "urn:mobius-mdm:problem:{}",
        code.to_lowercase().replace('_', "-")
    );
    let mut example = json!({
        "type": kind, "title": title, "status": status, "detail": detail, "code": code,
        "request_id": "01a2b3c4d5e6f708090a0b0c0d0e0f10", "error": title,
    });
    if status == 422 {
        example["errors"] =
            json!([{"pointer": "/hostname", "code": "EMPTY", "detail": "must not be empty"}]);
    }
    json!({"application/problem+json":
        {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}})
}

/// Gives each content whose type has an example that example.
fn add_examples(holder: &mut Value, examples: &Map<String, Value>) {
    let Some(Value::Object(content)) = holder.get_mut("content") else {
        return;
    };
    for media in content.values_mut() {
        let name = media["schema"]["$ref"]
            .as_str()
            .and_then(|path| path.rsplit('/').next());
        if let Some(example) = name.and_then(|name| examples.get(name)).cloned() {
            set(media, "example", example);
        }
    }
}

fn idempotency_key() -> Value {
    json!({
        "name": "Idempotency-Key", "in": "header", "required": false,
        "description": "The same key with the same request gives the first outcome again, for 24 hours; \
                        with another request it is a 422.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
    })
}

/// Unique by its making: the method and the path.
fn operation_id(path: &str, method: &str) -> String {
    let below = path.strip_prefix("/api/v1");
    let words = below
        .unwrap_or(path)
        .split(['/', '-', '.'])
        .filter(|word| !word.is_empty())
        .map(
            |word| match word.strip_prefix('{').and_then(|w| w.strip_suffix('}')) {
                Some(parameter) => format!("by_{parameter}"),
                None => word.to_owned(),
            },
        );
    // Some routes stand at the root and below /api/v1.
    let suffix = if below.is_none() { "_at_root" } else { "" };
    let joined = std::iter::once(method.to_owned())
        .chain(words)
        .collect::<Vec<_>>()
        .join("_");
    format!("{joined}{suffix}")
}

#[cfg(test)]
mod tests;
