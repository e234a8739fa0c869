//! How requests find their handlers.

use actix_web::{HttpRequest, http::StatusCode, web};

use crate::{channel, live, problem::ApiError, routes};

/// Adds every route.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .configure(routes::system::configure_root)
        .configure(live::configure_root)
        .service(
            web::scope("/api/v1")
                .configure(routes::system::configure)
                .configure(routes::auth::configure)
                .configure(routes::devices::configure)
                .configure(routes::commands::configure)
                .configure(routes::enrollment_secrets::configure)
                .configure(routes::device_side::configure)
                .configure(channel::configure)
                .configure(live::configure),
        )
        .default_service(web::to(no_such_route));
}

async fn no_such_route(request: HttpRequest) -> Result<String, ApiError> {
    let detail = format!("there is no {} {}", request.method(), request.path());
    Err(ApiError::new(
        StatusCode::NOT_FOUND,
        "NO_SUCH_ROUTE",
        "Not found",
        detail,
    ))
}
