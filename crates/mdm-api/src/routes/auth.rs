//! Signing in and out.

use actix_web::{HttpRequest, HttpResponse, delete, get, post, put, web};
use mdm_proto::{
    auth::{
        LoginRequest, RecoveryCodes, RefreshRequest, SocketTicket, TokenResponse, TotpCode,
        TotpSecret, User,
    },
    users::{ChangePassword, SessionList, UserSession},
};
use mdm_service::auth::{AuthError, LoginName};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::{
    extract::{SignedIn, StrictJson, credential, origin},
    mapping,
    problem::ApiError,
    state::AppState,
};

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config
        .service(login)
        .service(refresh)
        .service(logout)
        .service(me)
        .service(change_password)
        .service(sessions)
        .service(end_session)
        .service(begin_totp)
        .service(confirm_totp)
        .service(remove_totp)
        .service(ws_ticket);
}

/// Signs a user in.
#[utoipa::path(tag = "authentication", request_body = LoginRequest, responses((status = 200, body = TokenResponse)))]
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
        .login(
            name,
            body.password.into(),
            body.totp.as_deref(),
            &origin(&request),
        )
        .await?;
    Ok(web::Json(mapping::tokens(signed_in)))
}

/// Exchanges a refresh token, which works once, for a new pair of tokens. One that comes a second
/// time ends the whole session.
#[utoipa::path(tag = "authentication", request_body = RefreshRequest, responses((status = 200, body = TokenResponse)))]
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

/// Ends the session: its tokens stop working at once, on every node, and its sockets close.
#[utoipa::path(tag = "authentication", responses((status = 204)))]
#[post("/auth/logout")]
async fn logout(state: web::Data<AppState>, caller: SignedIn) -> Result<HttpResponse, ApiError> {
    state.services.logout(&caller.ctx).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A ticket for one connection to the event stream, good for 30 s. It goes into the address, where a
/// token would stay in the logs of proxies.
#[utoipa::path(tag = "authentication", responses((status = 201, body = SocketTicket)))]
#[post("/auth/ws-ticket")]
async fn ws_ticket(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
) -> Result<HttpResponse, ApiError> {
    let credential = credential(&request).unwrap_or_default();
    let issued = state.services.issue_ticket(&caller.ctx, credential).await?;
    Ok(HttpResponse::Created().json(mapping::ticket(issued)))
}

/// Who is signed in.
#[utoipa::path(tag = "authentication", responses((status = 200, body = User)))]
#[get("/auth/me")]
async fn me(state: web::Data<AppState>, caller: SignedIn) -> Result<web::Json<User>, ApiError> {
    let user = state.services.me(&caller.ctx).await?;
    Ok(web::Json(mapping::user(user)))
}

/// Changes one's own password. Ends all other sessions.
#[utoipa::path(tag = "authentication", request_body = ChangePassword, responses((status = 204)))]
#[put("/auth/password")]
async fn change_password(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    StrictJson(body): StrictJson<ChangePassword>,
) -> Result<HttpResponse, ApiError> {
    let (current, new) = (body.current_password.into(), body.new_password);
    state
        .services
        .change_own_password(&caller.ctx, current, &new, &origin(&request))
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// One's own sessions that have not ended, the newest first.
#[utoipa::path(tag = "authentication", responses((status = 200, body = SessionList)))]
#[get("/auth/sessions")]
async fn sessions(
    state: web::Data<AppState>,
    caller: SignedIn,
) -> Result<web::Json<SessionList>, ApiError> {
    let (sessions, current) = state.services.list_sessions(&caller.ctx).await?;
    let sessions = sessions.into_iter().map(|session| UserSession {
        id: session.id.uuid(),
        current: session.id == current,
        created_at: session.created_at.into(),
        last_used_at: session.last_used_at.into(),
    });
    Ok(web::Json(SessionList {
        sessions: sessions.collect(),
    }))
}

/// Ends one of one's own sessions: its tokens stop working at once.
#[utoipa::path(tag = "authentication", responses((status = 204)))]
#[delete("/auth/sessions/{id}")]
async fn end_session(
    state: web::Data<AppState>,
    caller: SignedIn,
    session: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let session = session
        .parse()
        .map_err(|_malformed| AuthError::NoSuchSession)?;
    state.services.end_session(&caller.ctx, session).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Makes a secret for one's authenticator. It counts when a code of it is confirmed; until then it
/// can be made anew.
#[utoipa::path(tag = "authentication", responses((status = 201, body = TotpSecret)))]
#[post("/auth/totp")]
async fn begin_totp(
    state: web::Data<AppState>,
    caller: SignedIn,
) -> Result<HttpResponse, ApiError> {
    let begun = state.services.begin_totp(&caller.ctx).await?;
    Ok(HttpResponse::Created().json(TotpSecret {
        secret: begun.secret,
        uri: begun.uri,
    }))
}

/// Confirms the authenticator by a code: from now on signing in needs one.
#[utoipa::path(tag = "authentication", request_body = TotpCode, responses((status = 200, body = RecoveryCodes)))]
#[post("/auth/totp/confirm")]
async fn confirm_totp(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    StrictJson(body): StrictJson<TotpCode>,
) -> Result<web::Json<RecoveryCodes>, ApiError> {
    let services = &state.services;
    let recovery_codes = services
        .confirm_totp(&caller.ctx, &body.code, &origin(&request))
        .await?;
    Ok(web::Json(RecoveryCodes { recovery_codes }))
}

/// Removes one's authenticator, with a code of it or a recovery code.
#[utoipa::path(tag = "authentication", request_body = TotpCode, responses((status = 204)))]
#[delete("/auth/totp")]
async fn remove_totp(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    StrictJson(body): StrictJson<TotpCode>,
) -> Result<HttpResponse, ApiError> {
    let services = &state.services;
    services
        .remove_totp(&caller.ctx, &body.code, &origin(&request))
        .await?;
    Ok(HttpResponse::NoContent().finish())
}
