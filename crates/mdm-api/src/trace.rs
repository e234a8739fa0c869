//! What every request leaves: its id in the answer, a line in the log, its place in the metrics.

use std::time::Instant;

use actix_web::{
    Error,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method,
        header::{HeaderName, HeaderValue},
    },
    middleware::Next,
    web,
};

use crate::{request_id, state::AppState};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Gives each request its id, a line in the log, and its place in the metrics. The query string is
/// not logged: it may hold a token.
pub async fn trace_request(
    state: web::Data<AppState>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let id = given(&request).unwrap_or_else(|| state.new_request_id());
    let method = request.method().clone();
    let path = request.path().to_owned();
    let begun = Instant::now();
    let answered = request_id::within(id.clone(), next.call(request)).await;
    let mut response = match answered {
        Ok(response) => response,
        Err(error) => return Err(error),
    };
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    let status = response.status().as_u16();
    let took = begun.elapsed();
    let route = response
        .request()
        .match_pattern()
        .unwrap_or_else(|| "unmatched".to_owned());
    metrics::counter!("mdm_http_requests_total", "method" => method_label(&method), "route" => route.clone(), "status" => status.to_string())
        .increment(1);
    metrics::histogram!("mdm_http_request_seconds", "route" => route).record(took.as_secs_f64());
    tracing::debug!(request_id = %id, %method, %path, status, took_ms = took.as_millis(), "answered");
    Ok(response)
}

/// A given id is taken over if it has 1 to 64 letters, digits, dots, dashes or underscores.
fn given(request: &ServiceRequest) -> Option<String> {
    let text = request.headers().get(HEADER)?.to_str().ok()?;
    let good = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    good.then(|| text.to_owned())
}

/// A client may invent methods; the metrics must not grow with its imagination.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
