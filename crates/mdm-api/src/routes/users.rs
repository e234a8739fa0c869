//! Users, for administrators.

use actix_web::{HttpRequest, HttpResponse, delete, get, http::header, post, put, web};
use mdm_core::ids::UserId;
use mdm_proto::users::{CreateUser, UpdateUser, UserAccount, UserList};
use mdm_service::users::{NewUser, UserChange, UserError};
use mdm_store::users::{self, UserFilter};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::{
    extract::{Params, SignedIn, StrictJson, if_match, list_request, not_null},
    mapping,
    openapi::params,
    problem::ApiError,
    routes::{search, with_etag},
    state::AppState,
};

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config
        .service(create)
        .service(list)
        .service(get)
        .service(update)
        .service(delete);
}

fn id(text: &str) -> Result<UserId, ApiError> {
    text.parse()
        .map_err(|_malformed| UserError::NotFound.into())
}

/// Makes a user.
#[utoipa::path(tag = "users", request_body = CreateUser, responses((status = 201, body = UserAccount)))]
#[post("/users")]
async fn create(
    state: web::Data<AppState>,
    caller: SignedIn,
    StrictJson(body): StrictJson<CreateUser>,
) -> Result<HttpResponse, ApiError> {
    let new = NewUser {
        email: body.email,
        name: body.name,
        role: body.role,
        password: body.password,
    };
    let user = state.services.create_user(&caller.ctx, new).await?;
    let location = format!("/api/v1/users/{}", user.id);
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, location))
        .json(mapping::user_account(user)))
}

/// A page of the users.
#[utoipa::path(tag = "users", params(params::Page, params::Users), responses((status = 200, body = UserList)))]
#[get("/users")]
async fn list(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
) -> Result<web::Json<UserList>, ApiError> {
    let mut params = Params::of(&request)?;
    let page = list_request(&mut params, &users::SORTING)?;
    let filter = UserFilter {
        role: params.take_parsed("role")?,
        search: search(&mut params)?,
    };
    params.finish()?;
    let listed = state
        .services
        .list_users(&caller.ctx, &filter, &page)
        .await?;
    Ok(web::Json(mapping::user_list(listed, &page)))
}

/// A user.
#[utoipa::path(tag = "users", responses((status = 200, body = UserAccount)))]
#[get("/users/{id}")]
async fn get(
    state: web::Data<AppState>,
    caller: SignedIn,
    user_id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let user = state.services.get_user(&caller.ctx, id(&user_id)?).await?;
    let version = user.version;
    Ok(with_etag(version, &mapping::user_account(user)))
}

/// Changes a user. Another role, a new password, or closing the user out ends the user's sessions.
#[utoipa::path(tag = "users", params(params::IfMatch), request_body = UpdateUser,
    responses((status = 200, body = UserAccount)))]
#[put("/users/{id}")]
async fn update(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    user_id: web::Path<String>,
    StrictJson(body): StrictJson<UpdateUser>,
) -> Result<HttpResponse, ApiError> {
    let change = UserChange {
        email: not_null("/email", body.email)?,
        name: not_null("/name", body.name)?,
        role: not_null("/role", body.role)?,
        disabled: not_null("/disabled", body.disabled)?,
        password: not_null("/password", body.password)?,
        if_version: if_match(&request),
    };
    let user = state
        .services
        .update_user(&caller.ctx, id(&user_id)?, change)
        .await?;
    let version = user.version;
    Ok(with_etag(version, &mapping::user_account(user)))
}

/// Deletes a user, with sessions and API keys. The last administrator stays: 409.
#[utoipa::path(tag = "users", responses((status = 204)))]
#[delete("/users/{id}")]
async fn delete(
    state: web::Data<AppState>,
    caller: SignedIn,
    user_id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    state
        .services
        .delete_user(&caller.ctx, id(&user_id)?)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}
