//! Packages of applications, for operators and for the devices that they reach.

use actix_web::{
    HttpRequest, HttpResponse, get,
    http::{StatusCode, header},
    web,
};
use mdm_core::applications::Application;
use mdm_proto::applications::DeviceApplications;
use mdm_service::applications::{ApplicationError, Packages};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::{
    extract::{AuthenticatedDevice, SignedIn},
    mapping,
    problem::ApiError,
    routes::applications::id,
    state::AppState,
};

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config
        .service(package)
        .service(device_applications)
        .service(package_for_device);
}

/// The package, or the part of it that `Range` asks for. The `ETag` is its SHA-256.
#[utoipa::path(tag = "applications", responses(
    (status = 200, description = "The package", body = String, content_type = "application/octet-stream"),
    (status = 206, description = "A part of it", body = String, content_type = "application/octet-stream"),
    (status = 304, description = "It is the one of `If-None-Match`"),
    (status = 416, description = "It has no such part")))]
#[get("/applications/{id}/package")]
async fn package(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    application_id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let id = id(&application_id)?;
    let (application, packages) = state.services.package(&caller.ctx, id).await?;
    send(&request, application, &packages).await
}

/// The applications that reach the device.
#[utoipa::path(tag = "device side", responses((status = 200, body = DeviceApplications)))]
#[get("/device/applications")]
async fn device_applications(
    state: web::Data<AppState>,
    AuthenticatedDevice(device): AuthenticatedDevice,
) -> Result<web::Json<DeviceApplications>, ApiError> {
    let wanted = state.services.device_applications(&device).await?;
    let applications = wanted.into_iter().map(mapping::device_application);
    Ok(web::Json(DeviceApplications {
        applications: applications.collect(),
    }))
}

/// As for operators, for an application that reaches the device.
#[utoipa::path(tag = "device side", responses(
    (status = 200, description = "The package", body = String, content_type = "application/octet-stream"),
    (status = 206, description = "A part of it", body = String, content_type = "application/octet-stream"),
    (status = 304, description = "It is the one of `If-None-Match`"),
    (status = 416, description = "It has no such part")))]
#[get("/device/applications/{id}/package")]
async fn package_for_device(
    state: web::Data<AppState>,
    request: HttpRequest,
    AuthenticatedDevice(device): AuthenticatedDevice,
    application_id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let id = id(&application_id)?;
    let (application, packages) = state.services.package_for_device(&device, id).await?;
    send(&request, application, &packages).await
}

async fn send(
    request: &HttpRequest,
    application: Application,
    packages: &Packages,
) -> Result<HttpResponse, ApiError> {
    let tag = format!("\"{}\"", application.checksum);
    let named = |name: header::HeaderName| {
        let value = request.headers().get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    if named(header::IF_NONE_MATCH).is_some_and(|wanted| wanted == "*" || wanted.contains(&tag)) {
        return Ok(HttpResponse::NotModified()
            .insert_header((header::ETAG, tag))
            .finish());
    }
    let size = u64::try_from(application.size).unwrap_or(0);
    // A range of another version than the present one is of no use (RFC 9110, section 13.1.5).
    let same = named(header::IF_RANGE).is_none_or(|wanted| wanted == tag);
    let range = named(header::RANGE).filter(|_| same);
    let part = range.as_deref().and_then(|range| part(range, size));
    let (from, to) = match part {
        None => (0, size),
        Some(Part::Of(from, to)) => (from, to),
        Some(Part::Nowhere) => {
            return Ok(HttpResponse::RangeNotSatisfiable()
                .insert_header((header::CONTENT_RANGE, format!("bytes */{size}")))
                .finish());
        }
    };
    let bytes = packages
        .read(application.organization_id, application.id, (from, to))
        .await
        .map_err(ApplicationError::from)?;
    let mut response = HttpResponse::build(if part.is_some() {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    });
    if part.is_some() {
        let range = format!("bytes {from}-{}/{size}", to.saturating_sub(1));
        response.insert_header((header::CONTENT_RANGE, range));
    }
    response
        .insert_header((header::ETAG, tag))
        .insert_header((header::ACCEPT_RANGES, "bytes"))
        .insert_header((header::CONTENT_TYPE, "application/octet-stream"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header(header::ContentDisposition::attachment(
            application.file_name,
        ));
    Ok(response.body(actix_web::body::SizedStream::new(to - from, bytes)))
}

/// A part of a package: its first byte and the one after its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Of(u64, u64),
    Nowhere,
}

/// The one range that is asked for (RFC 9110, section 14.1.2). Several, or what is none, are passed
/// over: then everything is sent.
fn part(range: &str, size: u64) -> Option<Part> {
    let spec = range.trim().strip_prefix("bytes=")?.trim();
    let (first, last) = spec.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    let (from, to) = match (first.is_empty(), last.is_empty()) {
        (true, true) => return None,
        (true, false) => {
            let suffix: u64 = last.parse().ok()?;
            (size.saturating_sub(suffix), size)
        }
        (false, true) => (first.parse().ok()?, size),
        (false, false) => {
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            if first > last {
                return None;
            }
            (first, last.saturating_add(1).min(size))
        }
    };
    Some(if from < to {
        Part::Of(from, to)
    } else {
        Part::Nowhere
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_means_them() {
        assert_eq!(part("bytes=0-3", 10), Some(Part::Of(0, 4)));
        assert_eq!(part("bytes=4-", 10), Some(Part::Of(4, 10)));
        assert_eq!(part("bytes=-3", 10), Some(Part::Of(7, 10)));
        assert_eq!(part("bytes=-30", 10), Some(Part::Of(0, 10)));
        assert_eq!(part("bytes=8-99", 10), Some(Part::Of(8, 10)));
        assert_eq!(part("bytes=10-", 10), Some(Part::Nowhere));
        assert_eq!(part("bytes=-0", 10), Some(Part::Nowhere));
        for passed_over in [
            "bytes=3-1",
            "bytes=0-1,4-5",
            "items=0-1",
            "bytes=-",
            "bytes=a-b",
        ] {
            assert_eq!(part(passed_over, 10), None, "{passed_over}");
        }
    }
}
