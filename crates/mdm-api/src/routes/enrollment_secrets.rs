//! Enrolment secrets.

use actix_web::{HttpRequest, HttpResponse, delete, get, http::header, post, put, web};
use mdm_core::ids::EnrollmentSecretId;
use mdm_proto::enrollment::{
    CreateEnrollmentSecret, CreatedEnrollmentSecret, EnrollmentSecret, EnrollmentSecretList,
    UpdateEnrollmentSecret,
};
use mdm_service::enrollment::{EnrollmentError, NewSecret, SecretChange};
use mdm_store::enrollment_secrets;
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
        .service(revoke);
}

/// Makes a secret, which is shown this once.
#[utoipa::path(tag = "enrolment secrets", request_body = CreateEnrollmentSecret,
    responses((status = 201, body = CreatedEnrollmentSecret)))]
#[post("/enrollment-secrets")]
async fn create(
    state: web::Data<AppState>,
    caller: SignedIn,
    StrictJson(body): StrictJson<CreateEnrollmentSecret>,
) -> Result<HttpResponse, ApiError> {
    let new = NewSecret {
        name: body.name,
        labels: body.labels.unwrap_or_default(),
        group_ids: body.group_ids.unwrap_or_default(),
        expires_at: body.expires_at.map(|at| at.0),
        max_uses: body.max_uses,
    };
    let (secret, token) = state
        .services
        .create_enrollment_secret(&caller.ctx, new)
        .await?;
    let location = format!("/api/v1/enrollment-secrets/{}", secret.id);
    let body = CreatedEnrollmentSecret {
        enrollment_secret: mapping::enrollment_secret(secret),
        secret: token.expose().to_owned(),
    };
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, location))
        .json(body))
}

/// A page of the secrets, without the secrets themselves.
#[utoipa::path(tag = "enrolment secrets", params(params::Page), responses((status = 200, body = EnrollmentSecretList)))]
#[get("/enrollment-secrets")]
async fn list(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
) -> Result<web::Json<EnrollmentSecretList>, ApiError> {
    let mut params = Params::of(&request)?;
    let page = list_request(&mut params, &enrollment_secrets::SORTING)?;
    params.finish()?;
    let listed = state
        .services
        .list_enrollment_secrets(&caller.ctx, &page)
        .await?;
    Ok(web::Json(mapping::enrollment_secret_list(listed, &page)))
}

fn id(text: &str) -> Result<EnrollmentSecretId, ApiError> {
    text.parse()
        .map_err(|_malformed| EnrollmentError::NotFound.into())
}

/// A secret, without the secret itself.
#[utoipa::path(tag = "enrolment secrets", responses((status = 200, body = EnrollmentSecret)))]
#[get("/enrollment-secrets/{id}")]
async fn get(
    state: web::Data<AppState>,
    caller: SignedIn,
    secret_id: web::Path<String>,
) -> Result<web::Json<EnrollmentSecret>, ApiError> {
    let secret = state
        .services
        .get_enrollment_secret(&caller.ctx, id(&secret_id)?)
        .await?;
    Ok(web::Json(mapping::enrollment_secret(secret)))
}

/// Changes what devices get that join from now on, and until when they may.
#[utoipa::path(tag = "enrolment secrets", request_body = UpdateEnrollmentSecret,
    responses((status = 200, body = EnrollmentSecret)))]
#[put("/enrollment-secrets/{id}")]
async fn update(
    state: web::Data<AppState>,
    caller: SignedIn,
    secret_id: web::Path<String>,
    StrictJson(body): StrictJson<UpdateEnrollmentSecret>,
) -> Result<web::Json<EnrollmentSecret>, ApiError> {
    let change = SecretChange {
        name: not_null("/name", body.name)?,
        labels: nullable(body.labels).map(Option::unwrap_or_default),
        group_ids: nullable(body.group_ids).map(Option::unwrap_or_default),
        expires_at: nullable(body.expires_at).map(|at| at.map(|at| at.0)),
    };
    let secret = state
        .services
        .update_enrollment_secret(&caller.ctx, id(&secret_id)?, change)
        .await?;
    Ok(web::Json(mapping::enrollment_secret(secret)))
}

/// Withdraws a secret. Devices that joined with it stay.
#[utoipa::path(tag = "enrolment secrets", responses((status = 204)))]
#[delete("/enrollment-secrets/{id}")]
async fn revoke(
    state: web::Data<AppState>,
    caller: SignedIn,
    secret_id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    state
        .services
        .revoke_enrollment_secret(&caller.ctx, id(&secret_id)?)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}
