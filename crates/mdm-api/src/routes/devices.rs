//! Devices, for operators.

use actix_web::{HttpRequest, HttpResponse, delete, get, http::header, post, put, web};
use mdm_core::{
    Invalid,
    devices::{Hostname, Labels},
    ids::DeviceId,
    invalid,
};
use mdm_proto::{
    devices::{Device, DeviceList, EnrollRequest, UpdateDevice},
    patch::Patch,
};
use mdm_service::devices::{DeviceChange, Enrolled, Enroller, Enrollment};
use mdm_store::devices::{DeviceFilter, DeviceRef, Page};

use crate::{
    extract::{Paging, Params, SignedIn, StrictJson},
    mapping,
    problem::ApiError,
    state::AppState,
};

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(enroll)
        .service(list)
        .service(get)
        .service(update)
        .service(unenroll);
}

#[post("/devices")]
async fn enroll(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    StrictJson(body): StrictJson<EnrollRequest>,
) -> Result<HttpResponse, ApiError> {
    let enrollment = enrollment(&request, body)?;
    let enrolled = state
        .services
        .enroll_device(&Enroller::User(caller.ctx), enrollment)
        .await?;
    Ok(created(enrolled))
}

#[get("/devices")]
async fn list(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
) -> Result<web::Json<DeviceList>, ApiError> {
    let mut params = Params::of(&request)?;
    let paging = Paging::<DeviceId>::take(&mut params)?;
    let filter = filter(&mut params)?;
    params.finish()?;
    let page = Page {
        after: paging.cursor,
        limit: paging.limit,
        offset: paging.offset,
    };
    let listed = state
        .services
        .list_devices(&caller.ctx, &filter, page)
        .await?;
    Ok(web::Json(mapping::device_list(
        listed,
        paging.limit,
        paging.offset,
    )))
}

#[get("/devices/{device}")]
async fn get(
    state: web::Data<AppState>,
    caller: SignedIn,
    device: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let device = state
        .services
        .get_device(&caller.ctx, &DeviceRef::parse(&device))
        .await?;
    Ok(with_etag(mapping::device(device)))
}

#[put("/devices/{device}")]
async fn update(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    device: web::Path<String>,
    StrictJson(body): StrictJson<UpdateDevice>,
) -> Result<HttpResponse, ApiError> {
    let change = change(&request, body)?;
    let device = state
        .services
        .update_device(&caller.ctx, &DeviceRef::parse(&device), change)
        .await?;
    Ok(with_etag(mapping::device(device)))
}

#[delete("/devices/{device}")]
async fn unenroll(
    state: web::Data<AppState>,
    caller: SignedIn,
    device: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    state
        .services
        .unenroll_device(&caller.ctx, &DeviceRef::parse(&device))
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// The enrolment in the body and, for `re_enroll`, in the query.
pub fn enrollment(request: &HttpRequest, body: EnrollRequest) -> Result<Enrollment, ApiError> {
    let mut params = Params::of(request)?;
    let re_enroll = params.take_parsed::<bool>("re_enroll")?.unwrap_or(false);
    params.finish()?;
    Ok(Enrollment {
        uuid: body.uuid,
        hostname: body.hostname,
        platform: body.platform,
        os_version: body.os_version,
        serial_number: body.serial_number,
        secret: body.enrollment_secret,
        hardware_info: body.hardware_info,
        labels: body.labels,
        re_enroll,
    })
}

/// The answer to an enrolment.
pub fn created(enrolled: Enrolled) -> HttpResponse {
    let location = format!("/api/v1/devices/{}", enrolled.device.id);
    HttpResponse::Created()
        .insert_header((header::LOCATION, location))
        .json(mapping::enrolled(enrolled))
}

fn filter(params: &mut Params) -> Result<DeviceFilter, ApiError> {
    let label = params.take("label").map(|text| {
        let pair = text
            .split_once(':')
            .filter(|_| !text.chars().any(char::is_control));
        let pair = pair.map(|(key, value)| (key.to_owned(), value.to_owned()));
        pair.ok_or_else(|| {
            ApiError::invalid_field("/label", "INVALID", "must have the form key:value")
        })
    });
    let search = params
        .take("search")
        .map(|text| invalid::text("/search", &text, 255))
        .transpose()?;
    Ok(DeviceFilter {
        platform: params.take_parsed("platform")?,
        status: params.take_parsed("status")?,
        search,
        label: label.transpose()?,
    })
}

fn with_etag(device: Device) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::ETAG, format!("\"{}\"", device.version)))
        .json(device)
}

fn change(request: &HttpRequest, body: UpdateDevice) -> Result<DeviceChange, ApiError> {
    let hostname = match body.hostname {
        Patch::Absent => None,
        Patch::Null => {
            return Err(Invalid::new("/hostname", "REQUIRED", "cannot be cleared").into());
        }
        Patch::Value(name) => Some(Hostname::parse(&name)?),
    };
    let os_version = match body.os_version {
        Patch::Absent => None,
        Patch::Null => Some(None),
        Patch::Value(version) => Some(Some(invalid::text("/os_version", &version, 255)?)),
    };
    let labels = match body.labels {
        Patch::Absent => None,
        Patch::Null => Some(Labels::default()),
        Patch::Value(pairs) => Some(Labels::parse(pairs)?),
    };
    Ok(DeviceChange {
        hostname,
        os_version,
        labels,
        if_version: if_match(request),
    })
}

/// The version that `If-Match` names; none if it is absent or `*`.
fn if_match(request: &HttpRequest) -> Option<i64> {
    let text = request
        .headers()
        .get(header::IF_MATCH)?
        .to_str()
        .unwrap_or_default()
        .trim();
    if text == "*" {
        return None;
    }
    // What is no tag of ours matches no version (RFC 9110, section 13.1.1).
    let quoted = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    Some(quoted.and_then(|text| text.parse().ok()).unwrap_or(-1))
}
