//! Signing in and out.

use actix_web::{HttpRequest, HttpResponse, get, post, web};
use mdm_proto::auth::{LoginRequest, RefreshRequest, TokenResponse, User};
use mdm_service::auth::LoginName;

use crate::{
    extract::{SignedIn, StrictJson, origin},
    mapping,
    problem::ApiError,
    state::AppState,
};

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(login)
        .service(refresh)
        .service(logout)
        .service(me);
}

#[post("/auth/login")]
async fn login(
    state: web::Data<AppState>,
    request: HttpRequest,
    StrictJson(body): StrictJson<LoginRequest>,
) -> Result<web::Json<TokenResponse>, ApiError> {
    let name = match (body.email, body.username) {
        (Some(email), None) => LoginName::Email(email),
        (None, Some(username)) => LoginName::Username(username),
        _ => {
            return Err(ApiError::invalid_field(
                "/email",
                "REQUIRED",
                "give either email or username",
            ));
        }
    };
    let signed_in = state
        .services
        .login(name, body.password.into(), &origin(&request))
        .await?;
    Ok(web::Json(mapping::tokens(signed_in)))
}

#[post("/auth/refresh")]
async fn refresh(
    state: web::Data<AppState>,
    request: HttpRequest,
    StrictJson(body): StrictJson<RefreshRequest>,
) -> Result<web::Json<TokenResponse>, ApiError> {
    let signed_in = state
        .services
        .refresh(&body.refresh_token, &origin(&request))
        .await?;
    Ok(web::Json(mapping::tokens(signed_in)))
}

#[post("/auth/logout")]
async fn logout(state: web::Data<AppState>, caller: SignedIn) -> Result<HttpResponse, ApiError> {
    state.services.logout(&caller.ctx).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[get("/auth/me")]
async fn me(state: web::Data<AppState>, caller: SignedIn) -> Result<web::Json<User>, ApiError> {
    let user = state.services.me(&caller.ctx).await?;
    Ok(web::Json(mapping::user(user)))
}
