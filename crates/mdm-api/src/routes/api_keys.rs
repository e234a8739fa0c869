//! API keys, for administrators.

use actix_web::{HttpRequest, HttpResponse, delete, get, http::header, post, put, web};
use mdm_core::ids::ApiKeyId;
use mdm_proto::users::{ApiKey, ApiKeyList, CreateApiKey, CreatedApiKey, UpdateApiKey};
use mdm_service::api_keys::{ApiKeyError, NewApiKey};
use mdm_store::api_keys;
use utoipa_actix_web::service_config::ServiceConfig;

use crate::{
    extract::{Params, SignedIn, StrictJson, list_request, not_null, nullable},
    mapping,
    openapi::params,
    problem::ApiError,
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

fn id(text: &str) -> Result<ApiKeyId, ApiError> {
    text.parse()
        .map_err(|_malformed| ApiKeyError::NotFound.into())
}

/// Makes a key. The key itself is shown this once.
#[utoipa::path(tag = "API keys", request_body = CreateApiKey, responses((status = 201, body = CreatedApiKey)))]
#[post("/api-keys")]
async fn create(
    state: web::Data<AppState>,
    caller: SignedIn,
    StrictJson(body): StrictJson<CreateApiKey>,
) -> Result<HttpResponse, ApiError> {
    let new = NewApiKey {
        name: body.name,
        role: body.role,
        scopes: body.scopes,
        expires_at: body.expires_at.map(|at| at.0),
    };
    let (key, token) = state.services.create_api_key(&caller.ctx, new).await?;
    let location = format!("/api/v1/api-keys/{}", key.id);
    let body = CreatedApiKey {
        api_key: mapping::api_key(key),
        key: token.expose().to_owned(),
    };
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, location))
        .json(body))
}

/// A page of the keys, without the keys themselves.
#[utoipa::path(tag = "API keys", params(params::Page), responses((status = 200, body = ApiKeyList)))]
#[get("/api-keys")]
async fn list(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
) -> Result<web::Json<ApiKeyList>, ApiError> {
    let mut params = Params::of(&request)?;
    let page = list_request(&mut params, &api_keys::SORTING)?;
    params.finish()?;
    let listed = state.services.list_api_keys(&caller.ctx, &page).await?;
    Ok(web::Json(mapping::api_key_list(listed, &page)))
}

/// A key, without the key itself.
#[utoipa::path(tag = "API keys", responses((status = 200, body = ApiKey)))]
#[get("/api-keys/{id}")]
async fn get(
    state: web::Data<AppState>,
    caller: SignedIn,
    key_id: web::Path<String>,
) -> Result<web::Json<ApiKey>, ApiError> {
    let key = state
        .services
        .get_api_key(&caller.ctx, id(&key_id)?)
        .await?;
    Ok(web::Json(mapping::api_key(key)))
}

/// Changes a key's name, or how long it is good for. What it may do never changes.
#[utoipa::path(tag = "API keys", request_body = UpdateApiKey, responses((status = 200, body = ApiKey)))]
#[put("/api-keys/{id}")]
async fn update(
    state: web::Data<AppState>,
    caller: SignedIn,
    key_id: web::Path<String>,
    StrictJson(body): StrictJson<UpdateApiKey>,
) -> Result<web::Json<ApiKey>, ApiError> {
    let name = not_null("/name", body.name)?;
    let expires_at = nullable(body.expires_at).map(|at| at.map(|at| at.0));
    let key = state
        .services
        .update_api_key(&caller.ctx, id(&key_id)?, name, expires_at)
        .await?;
    Ok(web::Json(mapping::api_key(key)))
}

/// Deletes a key: it stops working at once.
#[utoipa::path(tag = "API keys", responses((status = 204)))]
#[delete("/api-keys/{id}")]
async fn delete(
    state: web::Data<AppState>,
    caller: SignedIn,
    key_id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    state
        .services
        .delete_api_key(&caller.ctx, id(&key_id)?)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}
