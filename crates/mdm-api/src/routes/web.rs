//! What browsers load: the JavaScript event client, and an example page where the server is tried
//! out. They are files and no part of the interface, so that the OpenAPI document has no line of them.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, EntityTag, Header, IfNoneMatch,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    route, web,
};
use mdm_web::File;

use crate::{app::no_such_route, problem::ApiError, state::AppState};

/// A page runs and loads what this server has, and talks to this server; nobody frames it.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; \
     connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Adds the routes at the root.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(client).service(example);
}

#[route("/client/{name}", method = "GET", method = "HEAD")]
async fn client(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    match mdm_web::find(request.path()) {
        Some(file) => Ok(send(&request, file)),
        None => Err(no_such_route(&request)),
    }
}

#[route("/examples/{name}", method = "GET", method = "HEAD")]
async fn example(
    state: web::Data<AppState>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    match mdm_web::find(request.path()) {
        Some(file) if state.shows_examples() => Ok(send(&request, file)),
        _ => Err(no_such_route(&request)),
    }
}

fn send(request: &HttpRequest, file: &'static File) -> HttpResponse {
    let (status, body): (_, &'static [u8]) = if is_known(request, file) {
        (StatusCode::NOT_MODIFIED, &[])
    } else {
        (StatusCode::OK, file.content)
    };
    HttpResponse::build(status)
        .insert_header((ETAG, file.etag.as_str()))
        // Kept, but asked about each time: after an upgrade nobody runs the old client.
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((CONTENT_SECURITY_POLICY, PAGE_POLICY))
        .content_type(file.content_type)
        .body(body)
}

/// Whether the browser has these very bytes (RFC 9110, section 13.1.2).
fn is_known(request: &HttpRequest, file: &File) -> bool {
    match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(known)) => {
            let present = EntityTag::new_strong(file.etag.trim_matches('"').to_owned());
            known.iter().any(|tag| tag.weak_eq(&present))
        }
        Err(_) => false,
    }
}
