//! Health, probes, metrics, keys.

use actix_web::{HttpRequest, HttpResponse, get, route, web};
use mdm_proto::system::Health;
use secrecy::ExposeSecret;
use utoipa_actix_web::service_config::ServiceConfig;

use crate::{extract::bearer, health, problem::ApiError, state::AppState};

/// Adds the routes that stand at the root.
pub fn configure_root(config: &mut ServiceConfig<'_>) {
    config
        .service(health_at_root)
        .service(livez)
        .service(readyz)
        .service(metrics_at_root)
        .service(jwks);
}

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config.service(health_in_api).service(metrics_in_api);
}

/// How the server is: each component is probed for this answer.
#[utoipa::path(method(get, head), path = "/health", tag = "system", responses(
    (status = 200, body = Health), (status = 503, description = "Unhealthy", body = Health)))]
#[route("/health", method = "GET", method = "HEAD")]
async fn health_at_root(state: web::Data<AppState>) -> HttpResponse {
    health(&state).await
}

/// How the server is: each component is probed for this answer.
#[utoipa::path(method(get, head), path = "/health", tag = "system", responses(
    (status = 200, body = Health), (status = 503, description = "Unhealthy", body = Health)))]
#[route("/health", method = "GET", method = "HEAD")]
async fn health_in_api(state: web::Data<AppState>) -> HttpResponse {
    health(&state).await
}

async fn health(state: &AppState) -> HttpResponse {
    let health = health::probe(state).await;
    if health.status == "unhealthy" {
        HttpResponse::ServiceUnavailable().json(health)
    } else {
        HttpResponse::Ok().json(health)
    }
}

/// The process serves.
#[utoipa::path(method(get, head), path = "/livez", tag = "system",
    responses((status = 200, body = String, content_type = "text/plain")))]
#[route("/livez", method = "GET", method = "HEAD")]
async fn livez() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain").body("ok\n")
}

/// The process can do its work now: the database answers, and the server is not draining.
#[utoipa::path(method(get, head), path = "/readyz", tag = "system", responses(
    (status = 200, body = String, content_type = "text/plain"),
    (status = 503, description = "Not ready", body = String, content_type = "text/plain")))]
#[route("/readyz", method = "GET", method = "HEAD")]
async fn readyz(state: web::Data<AppState>) -> HttpResponse {
    let health = health::probe(&state).await;
    if health.status == "unhealthy" || state.is_stopping() {
        return HttpResponse::ServiceUnavailable()
            .content_type("text/plain")
            .body("not ready\n");
    }
    HttpResponse::Ok().content_type("text/plain").body("ok\n")
}

/// Metrics as Prometheus reads them: for loopback, or with the metrics token.
#[utoipa::path(tag = "system", responses((status = 200, body = String, content_type = "text/plain")))]
#[get("/metrics")]
async fn metrics_at_root(
    state: web::Data<AppState>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    metrics(&state, &request)
}

/// Metrics as Prometheus reads them: for loopback, or with the metrics token.
#[utoipa::path(tag = "system", responses((status = 200, body = String, content_type = "text/plain")))]
#[get("/metrics")]
async fn metrics_in_api(
    state: web::Data<AppState>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    metrics(&state, &request)
}

fn metrics(state: &AppState, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let local = request
        .peer_addr()
        .is_some_and(|address| address.ip().is_loopback());
    let token = state
        .metrics_token
        .as_ref()
        .zip(bearer(request))
        .is_some_and(|(token, given)| same(token.expose_secret(), given));
    if !local && !token {
        return Err(ApiError::unauthorized(
            "METRICS_TOKEN_MISSING",
            "send the metrics token as 'Authorization: Bearer …'",
        ));
    }
    state.observe();
    Ok(HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4")
        .body(state.metrics.render()))
}

/// Compares without telling by the time how much was right.
fn same(expected: &str, given: &str) -> bool {
    use subtle::ConstantTimeEq;
    expected.as_bytes().ct_eq(given.as_bytes()).into()
}

/// The public keys of the access tokens (RFC 7517).
#[utoipa::path(tag = "system", responses((status = 200, body = serde_json::Value)))]
#[get("/.well-known/jwks.json")]
async fn jwks(state: web::Data<AppState>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(("cache-control", "max-age=60"))
        .json(state.services.tokens().jwks())
}
