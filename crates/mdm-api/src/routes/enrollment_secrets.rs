//! Enrolment secrets.

use actix_web::{HttpRequest, HttpResponse, delete, get, http::header, post, web};
use mdm_core::ids::EnrollmentSecretId;
use mdm_proto::enrollment::{
    CreateEnrollmentSecret, CreatedEnrollmentSecret, EnrollmentSecretList,
};
use mdm_service::enrollment::{EnrollmentError, NewSecret};

use crate::{
    extract::{Paging, Params, SignedIn, StrictJson},
    mapping,
    problem::ApiError,
    state::AppState,
};

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(create).service(list).service(revoke);
}

#[post("/enrollment-secrets")]
async fn create(
    state: web::Data<AppState>,
    caller: SignedIn,
    StrictJson(body): StrictJson<CreateEnrollmentSecret>,
) -> Result<HttpResponse, ApiError> {
    let new = NewSecret {
        name: body.name,
        labels: body.labels.unwrap_or_default(),
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

#[get("/enrollment-secrets")]
async fn list(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
) -> Result<web::Json<EnrollmentSecretList>, ApiError> {
    let mut params = Params::of(&request)?;
    let paging = Paging::<EnrollmentSecretId>::take(&mut params)?;
    params.finish()?;
    let (mut secrets, total) = state
        .services
        .list_enrollment_secrets(&caller.ctx, paging.cursor, paging.limit + 1, paging.offset)
        .await?;
    let limit = usize::try_from(paging.limit).unwrap_or(usize::MAX);
    let has_more = secrets.len() > limit;
    secrets.truncate(limit);
    let next_cursor = secrets
        .last()
        .filter(|_| has_more)
        .map(|secret| secret.id.to_string());
    let enrollment_secrets = secrets
        .into_iter()
        .map(mapping::enrollment_secret)
        .collect();
    Ok(web::Json(EnrollmentSecretList {
        enrollment_secrets,
        total,
        limit: paging.limit,
        offset: paging.offset,
        next_cursor,
    }))
}

#[delete("/enrollment-secrets/{id}")]
async fn revoke(
    state: web::Data<AppState>,
    caller: SignedIn,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let id = id.parse().map_err(|_error| EnrollmentError::NotFound)?;
    state
        .services
        .revoke_enrollment_secret(&caller.ctx, id)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}
