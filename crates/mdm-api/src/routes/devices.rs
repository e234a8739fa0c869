//! Devices, for operators.

use actix_web::{HttpRequest, HttpResponse, delete, get, http::header, post, put, web};
use mdm_core::{
    Invalid,
    devices::{Hostname, Labels},
    invalid,
};
use mdm_proto::{
    devices::{
        BulkEnroll, BulkEnrolled, Device, DeviceInventory, DeviceList, EnrollRequest,
        EnrolledDevice, SoftwareList, UpdateDevice,
    },
    events::EventPage,
    groups::GroupList,
    patch::Patch,
    policies::EffectivePolicies,
};
use mdm_service::devices::{DeviceChange, Enrolled, Enroller, Enrollment, SOFTWARE};
use mdm_store::devices::{self, DeviceFilter, DeviceRef};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::{
    extract::{Params, SignedIn, StrictJson, if_match, list_request},
    live, mapping,
    openapi::params,
    problem::ApiError,
    routes::{groups, search, with_etag},
    state::AppState,
};

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config
        .service(enroll)
        .service(list)
        .service(get)
        .service(update)
        .service(unenroll)
        .service(enroll_many)
        .service(groups_of_device)
        .service(policies_of_device)
        .service(inventory)
        .service(software)
        .service(events_of_device);
}

/// Enrols a device by an operator's hand. The token is shown this once.
#[utoipa::path(tag = "devices", params(params::ReEnroll), request_body = EnrollRequest,
    responses((status = 201, body = EnrolledDevice)))]
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

/// A page of the devices. Unenrolled ones are listed only with `status=unenrolled`.
#[utoipa::path(tag = "devices", params(params::Page, params::Devices), responses((status = 200, body = DeviceList)))]
#[get("/devices")]
async fn list(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
) -> Result<web::Json<DeviceList>, ApiError> {
    let mut params = Params::of(&request)?;
    let page = list_request(&mut params, &devices::SORTING)?;
    let filter = filter(&mut params)?;
    params.finish()?;
    let listed = state
        .services
        .list_devices(&caller.ctx, &filter, &page)
        .await?;
    Ok(web::Json(mapping::device_list(listed, &page)))
}

/// A device, by the server's id or the hardware's.
#[utoipa::path(tag = "devices", responses((status = 200, body = Device)))]
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
    let version = device.version;
    Ok(with_etag(version, &mapping::device(device)))
}

/// Changes what people may change of a device.
#[utoipa::path(tag = "devices", params(params::IfMatch), request_body = UpdateDevice,
    responses((status = 200, body = Device)))]
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
    let version = device.version;
    Ok(with_etag(version, &mapping::device(device)))
}

/// Unenrols a device: its token stops working at once, its open commands end, it leaves its groups.
#[utoipa::path(tag = "devices", responses((status = 204)))]
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

/// Enrols up to 1,000 devices, each with its own outcome.
#[utoipa::path(tag = "devices", request_body = BulkEnroll, responses((status = 200, body = BulkEnrolled)))]
#[post("/devices/bulk")]
async fn enroll_many(
    state: web::Data<AppState>,
    caller: SignedIn,
    StrictJson(body): StrictJson<BulkEnroll, BULK_LIMIT>,
) -> Result<web::Json<BulkEnrolled>, ApiError> {
    let enrollments = body.devices.into_iter().map(|body| wanted(body, false));
    let outcomes = state
        .services
        .enroll_many(&caller.ctx, enrollments.collect())
        .await?;
    Ok(web::Json(mapping::bulk(outcomes)))
}

/// A page of the groups that the device is in.
#[utoipa::path(tag = "devices", params(params::Page, params::Search), responses((status = 200, body = GroupList)))]
#[get("/devices/{device}/groups")]
async fn groups_of_device(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    device: web::Path<String>,
) -> Result<web::Json<GroupList>, ApiError> {
    groups::page(&state, &request, &caller, Some(&DeviceRef::parse(&device))).await
}

/// The policies that count on the device, how they came there, and where it stands.
#[utoipa::path(tag = "devices", responses((status = 200, body = EffectivePolicies)))]
#[get("/devices/{device}/policies")]
async fn policies_of_device(
    state: web::Data<AppState>,
    caller: SignedIn,
    device: web::Path<String>,
) -> Result<web::Json<EffectivePolicies>, ApiError> {
    let found = state
        .services
        .device_policies(&caller.ctx, &DeviceRef::parse(&device))
        .await?;
    Ok(web::Json(mapping::effective_policies(found)))
}

/// What the device last said of its hardware and system.
#[utoipa::path(tag = "devices", responses((status = 200, body = DeviceInventory)))]
#[get("/devices/{device}/inventory")]
async fn inventory(
    state: web::Data<AppState>,
    caller: SignedIn,
    device: web::Path<String>,
) -> Result<web::Json<DeviceInventory>, ApiError> {
    let device = state
        .services
        .get_device(&caller.ctx, &DeviceRef::parse(&device))
        .await?;
    Ok(web::Json(DeviceInventory {
        device_id: device.id.uuid(),
        system_info: mdm_proto::raw::RawJson(device.hardware_info.into_raw()),
        observed_at: device.hardware_observed_at.map(Into::into),
    }))
}

/// A page of what the device last said is installed on it, by name.
#[utoipa::path(tag = "devices", params(params::PlainPage, params::Search),
    responses((status = 200, body = SoftwareList)))]
#[get("/devices/{device}/software")]
async fn software(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    device: web::Path<String>,
) -> Result<web::Json<SoftwareList>, ApiError> {
    let mut params = Params::of(&request)?;
    let limit = params.take_number("limit", 1, 500)?.unwrap_or(50);
    let offset = params.take_number("offset", 0, 1_000_000_000)?;
    let cursor = params.take_number("cursor", 0, 1_000_000_000)?;
    let search = search(&mut params)?;
    params.finish()?;
    let (_device, found) = state
        .services
        .device_inventory(&caller.ctx, &DeviceRef::parse(&device), SOFTWARE)
        .await?;
    let begin = cursor.or(offset).unwrap_or(0);
    Ok(web::Json(mapping::software_list(
        found,
        search.as_deref(),
        limit,
        begin,
    )))
}

/// A piece of the event log, of this device only.
#[utoipa::path(tag = "devices", params(params::DeviceEvents, params::EventLimit),
    responses((status = 200, body = EventPage), (status = 410, description = "The log does not go on from this cursor")))]
#[get("/devices/{device}/events")]
async fn events_of_device(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    device: web::Path<String>,
) -> Result<web::Json<EventPage>, ApiError> {
    let device = state
        .services
        .get_device(&caller.ctx, &DeviceRef::parse(&device))
        .await?;
    live::events_of_device(&request, &caller, device.id).await
}

/// A bulk of a thousand devices with all that they say of themselves.
const BULK_LIMIT: usize = 16 * 1024 * 1024;

/// The enrolment in the body and, for `re_enroll`, in the query.
pub fn enrollment(request: &HttpRequest, body: EnrollRequest) -> Result<Enrollment, ApiError> {
    let mut params = Params::of(request)?;
    let re_enroll = params.take_parsed::<bool>("re_enroll")?.unwrap_or(false);
    params.finish()?;
    Ok(wanted(body, re_enroll))
}

fn wanted(body: EnrollRequest, re_enroll: bool) -> Enrollment {
    Enrollment {
        uuid: body.uuid,
        hostname: body.hostname,
        platform: body.platform,
        os_version: body.os_version,
        serial_number: body.serial_number,
        secret: body.enrollment_secret,
        hardware_info: body.hardware_info,
        labels: body.labels,
        re_enroll,
    }
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
        group: params.take_parsed("group_id")?,
        policy: params.take_parsed("policy_id")?,
        compliance: params.take_parsed("compliance")?,
    })
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
