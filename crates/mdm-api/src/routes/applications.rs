//! Applications.

use actix_multipart::{Field, Multipart};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, delete, get, post, put, web};
use futures_util::StreamExt;
use mdm_core::{applications::InstallState, ids::ApplicationId};
use mdm_proto::applications::{
    Application, ApplicationList, InstallList, UpdateApplication, UploadApplication,
};
use mdm_service::applications::{ApplicationChange, ApplicationError, NewApplication, Upload};
use mdm_store::applications::{self, ApplicationFilter};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::{
    extract::{Params, SignedIn, StrictJson, id_page, if_match, list_request, not_null, nullable},
    idempotency::UploadOnce,
    mapping,
    openapi::params,
    problem::ApiError,
    routes::{search, with_etag},
    state::AppState,
};

/// The most bytes that a text in an upload may have.
const TEXT_LIMIT: usize = 8 * 1024;

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config
        .service(create)
        .service(list)
        .service(get)
        .service(update)
        .service(delete)
        .service(installs);
}

pub(super) fn id(text: &str) -> Result<ApplicationId, ApiError> {
    text.parse()
        .map_err(|_malformed| ApplicationError::NotFound.into())
}

/// Uploads a package. It is stored as it comes, never held in memory; one that is cut off, too
/// large, or without the announced checksum leaves nothing behind.
#[utoipa::path(tag = "applications",
    request_body(content = UploadApplication, content_type = "multipart/form-data"),
    responses((status = 201, body = Application)))]
#[post("/applications")]
async fn create(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    parts: Multipart,
) -> Result<HttpResponse, ApiError> {
    state.services.may_upload(&caller.ctx)?;
    if !request.content_type().starts_with("multipart/form-data") {
        let detail = "send the package as multipart/form-data";
        return Err(ApiError::unsupported_media_type(detail));
    }
    let (new, upload) = receive(&state, &caller, parts).await?;
    let Some(upload) = upload else {
        return Err(ApiError::invalid_field(
            "/package",
            "REQUIRED",
            "is missing",
        ));
    };
    let checked = match new.clone().check() {
        Ok(checked) => checked,
        Err(invalid) => {
            upload.abort().await;
            return Err(invalid.into());
        }
    };
    let once = UploadOnce::begin(&state, &request, &caller.ctx, &new, &upload.checksum()).await;
    let once = match once {
        Ok(once) => once,
        Err(error) => {
            upload.abort().await;
            return Err(error);
        }
    };
    if let UploadOnce::Answered(response) = once {
        upload.abort().await;
        return Ok(response);
    }
    let creating = Box::pin(
        state
            .services
            .create_application(&caller.ctx, checked, upload),
    );
    once.answer(&state, creating, |application| {
        let location = format!("/api/v1/applications/{}", application.id);
        (location, mapping::application(application))
    })
    .await
}

/// Reads the parts; the package goes to the storage as it comes. Whatever goes wrong, nothing is
/// left of it.
async fn receive(
    state: &AppState,
    caller: &SignedIn,
    mut parts: Multipart,
) -> Result<(NewApplication, Option<Upload>), ApiError> {
    let (mut new, mut upload) = (NewApplication::default(), None);
    while let Some(field) = parts.next().await {
        let received = match field {
            Ok(field) => receive_part(state, caller, field, &mut new, &mut upload).await,
            Err(error) => Err(cut_off(&error)),
        };
        if let Err(error) = received {
            if let Some(upload) = upload {
                upload.abort().await;
            }
            return Err(error);
        }
    }
    Ok((new, upload))
}

async fn receive_part(
    state: &AppState,
    caller: &SignedIn,
    mut field: Field,
    new: &mut NewApplication,
    upload: &mut Option<Upload>,
) -> Result<(), ApiError> {
    let name = field.name().unwrap_or_default().to_owned();
    let target = match name.as_str() {
        "name" => &mut new.name,
        "version" => &mut new.version,
        "platform" => &mut new.platform,
        "description" => &mut new.description,
        "checksum" => &mut new.checksum,
        "package" if upload.is_none() => {
            // What is wrong already need not be waited for.
            if new.name.is_some() && new.version.is_some() && new.platform.is_some() {
                new.clone().check()?;
            }
            let disposition = field.content_disposition();
            let file_name = disposition.and_then(|found| found.get_filename());
            let file_name = file_name.unwrap_or_default().to_owned();
            let begun = state.services.begin_upload(&caller.ctx, &file_name).await?;
            return store(field, upload.insert(begun)).await;
        }
        "package" => {
            let detail = "must be given once";
            return Err(ApiError::invalid_field("/package", "REPEATED", detail));
        }
        _ => {
            let pointer = format!("/{name}");
            let detail = "there is no such part";
            return Err(ApiError::invalid_field(pointer, "UNKNOWN_FIELD", detail));
        }
    };
    if target.is_some() {
        let pointer = format!("/{name}");
        return Err(ApiError::invalid_field(
            pointer,
            "REPEATED",
            "must be given once",
        ));
    }
    *target = Some(text(&name, &mut field).await?);
    Ok(())
}

async fn text(name: &str, field: &mut Field) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.next().await {
        bytes.extend_from_slice(&chunk.map_err(|error| cut_off(&error))?);
        if bytes.len() > TEXT_LIMIT {
            let detail = "must have at most 8 KiB";
            return Err(ApiError::invalid_field(
                format!("/{name}"),
                "TOO_LONG",
                detail,
            ));
        }
    }
    String::from_utf8(bytes).map_err(|_malformed| {
        ApiError::invalid_field(format!("/{name}"), "WRONG_TYPE", "must be UTF-8")
    })
}

async fn store(mut field: Field, upload: &mut Upload) -> Result<(), ApiError> {
    while let Some(chunk) = field.next().await {
        let chunk = chunk.map_err(|error| cut_off(&error))?;
        upload.write(chunk).await.map_err(ApplicationError::from)?;
    }
    Ok(())
}

fn cut_off(error: &actix_multipart::MultipartError) -> ApiError {
    ApiError::bad_request(
        "BODY_CUT_OFF",
        format!("the body could not be read: {error}"),
    )
}

/// A page of the applications.
#[utoipa::path(tag = "applications", params(params::Page, params::Applications),
    responses((status = 200, body = ApplicationList)))]
#[get("/applications")]
async fn list(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
) -> Result<web::Json<ApplicationList>, ApiError> {
    let mut params = Params::of(&request)?;
    let page = list_request(&mut params, &applications::SORTING)?;
    let filter = ApplicationFilter {
        platform: params.take_parsed("platform")?,
        search: search(&mut params)?,
    };
    params.finish()?;
    let listed = state
        .services
        .list_applications(&caller.ctx, &filter, &page)
        .await?;
    Ok(web::Json(mapping::application_list(listed, &page)))
}

/// An application.
#[utoipa::path(tag = "applications", responses((status = 200, body = Application)))]
#[get("/applications/{id}")]
async fn get(
    state: web::Data<AppState>,
    caller: SignedIn,
    application_id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let application = state
        .services
        .get_application(&caller.ctx, id(&application_id)?)
        .await?;
    let version = application.version;
    Ok(with_etag(version, &mapping::application(application)))
}

/// Changes what is said of an application. The package itself never changes.
#[utoipa::path(tag = "applications", params(params::IfMatch), request_body = UpdateApplication,
    responses((status = 200, body = Application)))]
#[put("/applications/{id}")]
async fn update(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    application_id: web::Path<String>,
    StrictJson(body): StrictJson<UpdateApplication>,
) -> Result<HttpResponse, ApiError> {
    let change = ApplicationChange {
        name: not_null("/name", body.name)?,
        version: not_null("/version", body.version)?,
        description: nullable(body.description),
        if_version: if_match(&request),
    };
    let application = state
        .services
        .update_application(&caller.ctx, id(&application_id)?, change)
        .await?;
    let version = application.version;
    Ok(with_etag(version, &mapping::application(application)))
}

/// Deletes an application and its package. One that is assigned stays: 409.
#[utoipa::path(tag = "applications", responses((status = 204)))]
#[delete("/applications/{id}")]
async fn delete(
    state: web::Data<AppState>,
    caller: SignedIn,
    application_id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    state
        .services
        .delete_application(&caller.ctx, id(&application_id)?)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Where the application stands on the devices that it reaches or is on.
#[utoipa::path(tag = "applications", params(params::PlainPage, params::State),
    responses((status = 200, body = InstallList)))]
#[get("/applications/{id}/installs")]
async fn installs(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    application_id: web::Path<String>,
) -> Result<web::Json<InstallList>, ApiError> {
    let id = id(&application_id)?;
    let mut params = Params::of(&request)?;
    let page = id_page(&mut params)?;
    let wanted = params.take_parsed::<InstallState>("state")?;
    params.finish()?;
    let (installs, total) = state
        .services
        .list_installs(&caller.ctx, id, wanted, page)
        .await?;
    Ok(web::Json(mapping::install_list(installs, total, page)))
}
