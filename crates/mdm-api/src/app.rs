//! How requests find their handlers.

use actix_web::{HttpRequest, http::StatusCode, web};
use utoipa_actix_web::{scope, service_config::ServiceConfig};

use crate::{channel, live, openapi, problem::ApiError, routes};

/// Adds every route, and the files that browsers load.
pub fn configure(config: &mut web::ServiceConfig) {
    every_route(&mut ServiceConfig::new(config));
    config
        .configure(routes::web::configure)
        .default_service(web::to(nowhere));
}

/// Every route, with its line for the OpenAPI document.
pub fn every_route(config: &mut ServiceConfig<'_>) {
    config
        .configure(routes::system::configure_root)
        .configure(openapi::configure_root)
        .configure(live::configure_root)
        .service(
            scope("/api/v1")
                .configure(routes::system::configure)
                .configure(openapi::configure)
                .configure(routes::auth::configure)
                .configure(routes::users::configure)
                .configure(routes::api_keys::configure)
                .configure(routes::devices::configure)
                .configure(routes::commands::configure)
                .configure(routes::groups::configure)
                .configure(routes::policies::configure)
                .configure(routes::applications::configure)
                .configure(routes::packages::configure)
                .configure(routes::assignments::configure)
                .configure(routes::license::configure)
                .configure(routes::enrollment_secrets::configure)
                .configure(routes::webhooks::configure)
                .configure(routes::device_side::configure)
                .configure(channel::configure)
                .configure(live::configure),
        );
}

async fn nowhere(request: HttpRequest) -> Result<String, ApiError> {
    let allowed = openapi::allowed_methods(request.path());
    if !allowed.is_empty() {
        return Err(ApiError::method_not_allowed(request.method(), &allowed));
    }
    Err(no_such_route(&request))
}

/// What a request gets for which there is nothing.
pub fn no_such_route(request: &HttpRequest) -> ApiError {
    let detail = format!("there is no {} {}", request.method(), request.path());
    ApiError::new(StatusCode::NOT_FOUND, "NO_SUCH_ROUTE", "Not found", detail)
}
