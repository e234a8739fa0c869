//! The license.

use actix_web::{get, put, web};
use mdm_proto::licenses::{LicenseStatus, PutLicense};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::{
    extract::{SignedIn, StrictJson},
    mapping,
    problem::ApiError,
    state::AppState,
};

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config.service(show).service(set);
}

/// Where the license stands. Without a key: community, any number of devices.
#[utoipa::path(tag = "license", responses((status = 200, body = LicenseStatus)))]
#[get("/license/status")]
async fn show(
    state: web::Data<AppState>,
    caller: SignedIn,
) -> Result<web::Json<LicenseStatus>, ApiError> {
    let status = state.services.license_status(&caller.ctx).await?;
    Ok(web::Json(mapping::license_status(status)))
}

/// Sets the license key, or takes it away. One that is wrong, expired or for another organisation is
/// a 422.
#[utoipa::path(tag = "license", request_body = PutLicense, responses((status = 200, body = LicenseStatus)))]
#[put("/license")]
async fn set(
    state: web::Data<AppState>,
    caller: SignedIn,
    StrictJson(body): StrictJson<PutLicense>,
) -> Result<web::Json<LicenseStatus>, ApiError> {
    let status = state
        .services
        .set_license(&caller.ctx, body.key.as_deref())
        .await?;
    Ok(web::Json(mapping::license_status(status)))
}
