//! Policies and applications to devices and groups.

use actix_web::{HttpRequest, HttpResponse, delete, get, http::header, post, web};
use mdm_core::ids::{DeviceId, GroupId};
use mdm_proto::policies::{AssignToDevices, AssignToGroups, Assigned, AssignmentList};
use mdm_store::{
    assignments::{DEVICE_SORTING, GROUP_SORTING, Targets},
    devices::DeviceRef,
};
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

use crate::{
    extract::{Params, SignedIn, StrictJson, list_request},
    mapping,
    openapi::params,
    problem::ApiError,
    routes::{applications, groups, policies},
    state::AppState,
};

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config
        .service(policy_devices)
        .service(policy_to_named_devices)
        .service(policy_to_device)
        .service(policy_from_device)
        .service(policy_groups)
        .service(policy_to_named_groups)
        .service(policy_to_group)
        .service(policy_from_group)
        .service(application_devices)
        .service(application_to_named_devices)
        .service(application_to_device)
        .service(application_from_device)
        .service(application_groups)
        .service(application_to_named_groups)
        .service(application_to_group)
        .service(application_from_group);
}

/// The devices in the body: one, or several.
fn named_devices(body: &AssignToDevices) -> Result<Vec<DeviceRef>, ApiError> {
    match (&body.device_id, &body.device_ids) {
        (Some(one), None) => Ok(vec![DeviceRef::parse(one)]),
        (None, Some(many)) => Ok(many.iter().map(|text| DeviceRef::parse(text)).collect()),
        _ => Err(ApiError::invalid_field(
            "/device_id",
            "REQUIRED",
            "give either device_id or device_ids",
        )),
    }
}

/// The groups in the body: one, or several.
fn named_groups(body: &AssignToGroups) -> Result<Vec<GroupId>, ApiError> {
    match (body.group_id, &body.group_ids) {
        (Some(one), None) => Ok(vec![GroupId::from_uuid(one)]),
        (None, Some(many)) => Ok(many.iter().copied().map(GroupId::from_uuid).collect()),
        _ => Err(ApiError::invalid_field(
            "/group_id",
            "REQUIRED",
            "give either group_id or group_ids",
        )),
    }
}

fn no_intent(intent: Option<&str>) -> Result<(), ApiError> {
    if intent.is_none() {
        return Ok(());
    }
    let detail = "policies have no intent; applications have";
    Err(ApiError::invalid_field("/intent", "UNKNOWN_FIELD", detail))
}

/// What was assigned.
enum What {
    Policy(Uuid),
    Application(Uuid),
}

/// To what kind of thing.
enum To {
    Device,
    Group,
}

fn assigned(what: &What, to: &To, new: Vec<Uuid>, one: bool) -> HttpResponse {
    let (policy_id, application_id, collection, id) = match what {
        What::Policy(id) => (Some(*id), None, "policies", id),
        What::Application(id) => (None, Some(*id), "applications", id),
    };
    let single = new.first().copied().filter(|_| one);
    let (device_id, group_id, targets) = match to {
        To::Device => (single, None, "devices"),
        To::Group => (None, single, "groups"),
    };
    let location = format!("/api/v1/{collection}/{id}/{targets}");
    HttpResponse::Created()
        .insert_header((header::LOCATION, location))
        .json(Assigned {
            policy_id,
            application_id,
            device_id,
            group_id,
            assigned: new,
        })
}

async fn policy_list(
    state: &AppState,
    request: &HttpRequest,
    caller: &SignedIn,
    policy_id: &str,
    targets: Targets,
) -> Result<web::Json<AssignmentList>, ApiError> {
    let id = policies::id(policy_id)?;
    let mut params = Params::of(request)?;
    let page = list_request(&mut params, sorting(targets))?;
    params.finish()?;
    let listed = state
        .services
        .list_policy_assignments(&caller.ctx, id, targets, &page)
        .await?;
    Ok(web::Json(mapping::assignment_list(listed, &page, targets)))
}

async fn application_list(
    state: &AppState,
    request: &HttpRequest,
    caller: &SignedIn,
    application_id: &str,
    targets: Targets,
) -> Result<web::Json<AssignmentList>, ApiError> {
    let id = applications::id(application_id)?;
    let mut params = Params::of(request)?;
    let page = list_request(&mut params, sorting(targets))?;
    params.finish()?;
    let listed = state
        .services
        .list_application_assignments(&caller.ctx, id, targets, &page)
        .await?;
    Ok(web::Json(mapping::assignment_list(listed, &page, targets)))
}

const fn sorting(targets: Targets) -> &'static mdm_store::lists::Sorting {
    match targets {
        Targets::Devices => &DEVICE_SORTING,
        Targets::Groups => &GROUP_SORTING,
    }
}

/// A page of the devices that the policy is assigned to.
#[utoipa::path(tag = "policies", params(params::Page), responses((status = 200, body = AssignmentList)))]
#[get("/policies/{id}/devices")]
async fn policy_devices(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    policy_id: web::Path<String>,
) -> Result<web::Json<AssignmentList>, ApiError> {
    policy_list(&state, &request, &caller, &policy_id, Targets::Devices).await
}

/// Assigns the policy to one device, or to several. A platform that does not fit is a 422.
#[utoipa::path(tag = "policies", request_body = AssignToDevices, responses((status = 201, body = Assigned)))]
#[post("/policies/{id}/devices")]
async fn policy_to_named_devices(
    state: web::Data<AppState>,
    caller: SignedIn,
    policy_id: web::Path<String>,
    StrictJson(body): StrictJson<AssignToDevices>,
) -> Result<HttpResponse, ApiError> {
    no_intent(body.intent.as_deref())?;
    assign_policy_to_devices(&state, &caller, &policy_id, &named_devices(&body)?).await
}

/// Assigns the policy to a device.
#[utoipa::path(tag = "policies", responses((status = 201, body = Assigned)))]
#[post("/policies/{id}/devices/{device}")]
async fn policy_to_device(
    state: web::Data<AppState>,
    caller: SignedIn,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (policy_id, device) = path.into_inner();
    assign_policy_to_devices(&state, &caller, &policy_id, &[DeviceRef::parse(&device)]).await
}

async fn assign_policy_to_devices(
    state: &AppState,
    caller: &SignedIn,
    policy_id: &str,
    named: &[DeviceRef],
) -> Result<HttpResponse, ApiError> {
    let id = policies::id(policy_id)?;
    let new = state
        .services
        .assign_policy_to_devices(&caller.ctx, id, named)
        .await?;
    let new = new.into_iter().map(DeviceId::uuid).collect();
    let what = What::Policy(id.uuid());
    Ok(assigned(&what, &To::Device, new, named.len() == 1))
}

/// Takes the policy away from a device.
#[utoipa::path(tag = "policies", responses((status = 204)))]
#[delete("/policies/{id}/devices/{device}")]
async fn policy_from_device(
    state: web::Data<AppState>,
    caller: SignedIn,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (policy_id, device) = path.into_inner();
    let (id, device) = (policies::id(&policy_id)?, DeviceRef::parse(&device));
    state
        .services
        .unassign_policy_from_device(&caller.ctx, id, &device)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A page of the groups that the policy is assigned to.
#[utoipa::path(tag = "policies", params(params::Page), responses((status = 200, body = AssignmentList)))]
#[get("/policies/{id}/groups")]
async fn policy_groups(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    policy_id: web::Path<String>,
) -> Result<web::Json<AssignmentList>, ApiError> {
    policy_list(&state, &request, &caller, &policy_id, Targets::Groups).await
}

/// Assigns the policy to one group, or to several.
#[utoipa::path(tag = "policies", request_body = AssignToGroups, responses((status = 201, body = Assigned)))]
#[post("/policies/{id}/groups")]
async fn policy_to_named_groups(
    state: web::Data<AppState>,
    caller: SignedIn,
    policy_id: web::Path<String>,
    StrictJson(body): StrictJson<AssignToGroups>,
) -> Result<HttpResponse, ApiError> {
    no_intent(body.intent.as_deref())?;
    assign_policy_to_groups(&state, &caller, &policy_id, &named_groups(&body)?).await
}

/// Assigns the policy to a group.
#[utoipa::path(tag = "policies", responses((status = 201, body = Assigned)))]
#[post("/policies/{id}/groups/{group}")]
async fn policy_to_group(
    state: web::Data<AppState>,
    caller: SignedIn,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (policy_id, group) = path.into_inner();
    assign_policy_to_groups(&state, &caller, &policy_id, &[groups::id(&group)?]).await
}

async fn assign_policy_to_groups(
    state: &AppState,
    caller: &SignedIn,
    policy_id: &str,
    named: &[GroupId],
) -> Result<HttpResponse, ApiError> {
    let id = policies::id(policy_id)?;
    let new = state
        .services
        .assign_policy_to_groups(&caller.ctx, id, named)
        .await?;
    let new = new.into_iter().map(GroupId::uuid).collect();
    let what = What::Policy(id.uuid());
    Ok(assigned(&what, &To::Group, new, named.len() == 1))
}

/// Takes the policy away from a group.
#[utoipa::path(tag = "policies", responses((status = 204)))]
#[delete("/policies/{id}/groups/{group}")]
async fn policy_from_group(
    state: web::Data<AppState>,
    caller: SignedIn,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (policy_id, group) = path.into_inner();
    let (id, group) = (policies::id(&policy_id)?, groups::id(&group)?);
    state
        .services
        .unassign_policy_from_group(&caller.ctx, id, group)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A page of the devices that the application is assigned to.
#[utoipa::path(tag = "applications", params(params::Page), responses((status = 200, body = AssignmentList)))]
#[get("/applications/{id}/devices")]
async fn application_devices(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    application_id: web::Path<String>,
) -> Result<web::Json<AssignmentList>, ApiError> {
    application_list(&state, &request, &caller, &application_id, Targets::Devices).await
}

/// Assigns the application to one device, or to several, or changes what is wanted there.
#[utoipa::path(tag = "applications", request_body = AssignToDevices, responses((status = 201, body = Assigned)))]
#[post("/applications/{id}/devices")]
async fn application_to_named_devices(
    state: web::Data<AppState>,
    caller: SignedIn,
    application_id: web::Path<String>,
    StrictJson(body): StrictJson<AssignToDevices>,
) -> Result<HttpResponse, ApiError> {
    let (named, intent) = (named_devices(&body)?, body.intent.as_deref());
    assign_application_to_devices(&state, &caller, &application_id, &named, intent).await
}

/// Assigns the application to a device, to be installed there.
#[utoipa::path(tag = "applications", responses((status = 201, body = Assigned)))]
#[post("/applications/{id}/devices/{device}")]
async fn application_to_device(
    state: web::Data<AppState>,
    caller: SignedIn,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (application_id, device) = path.into_inner();
    let named = [DeviceRef::parse(&device)];
    assign_application_to_devices(&state, &caller, &application_id, &named, None).await
}

async fn assign_application_to_devices(
    state: &AppState,
    caller: &SignedIn,
    application_id: &str,
    named: &[DeviceRef],
    intent: Option<&str>,
) -> Result<HttpResponse, ApiError> {
    let id = applications::id(application_id)?;
    let new = state
        .services
        .assign_application_to_devices(&caller.ctx, id, named, intent)
        .await?;
    let new = new.into_iter().map(DeviceId::uuid).collect();
    let what = What::Application(id.uuid());
    Ok(assigned(&what, &To::Device, new, named.len() == 1))
}

/// Takes the application away from a device. What is installed stays as it is.
#[utoipa::path(tag = "applications", responses((status = 204)))]
#[delete("/applications/{id}/devices/{device}")]
async fn application_from_device(
    state: web::Data<AppState>,
    caller: SignedIn,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (application_id, device) = path.into_inner();
    let (id, device) = (
        applications::id(&application_id)?,
        DeviceRef::parse(&device),
    );
    state
        .services
        .unassign_application_from_device(&caller.ctx, id, &device)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A page of the groups that the application is assigned to.
#[utoipa::path(tag = "applications", params(params::Page), responses((status = 200, body = AssignmentList)))]
#[get("/applications/{id}/groups")]
async fn application_groups(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    application_id: web::Path<String>,
) -> Result<web::Json<AssignmentList>, ApiError> {
    application_list(&state, &request, &caller, &application_id, Targets::Groups).await
}

/// Assigns the application to one group, or to several, or changes what is wanted there.
#[utoipa::path(tag = "applications", request_body = AssignToGroups, responses((status = 201, body = Assigned)))]
#[post("/applications/{id}/groups")]
async fn application_to_named_groups(
    state: web::Data<AppState>,
    caller: SignedIn,
    application_id: web::Path<String>,
    StrictJson(body): StrictJson<AssignToGroups>,
) -> Result<HttpResponse, ApiError> {
    let (named, intent) = (named_groups(&body)?, body.intent.as_deref());
    assign_application_to_groups(&state, &caller, &application_id, &named, intent).await
}

/// Assigns the application to a group, to be installed there.
#[utoipa::path(tag = "applications", responses((status = 201, body = Assigned)))]
#[post("/applications/{id}/groups/{group}")]
async fn application_to_group(
    state: web::Data<AppState>,
    caller: SignedIn,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (application_id, group) = path.into_inner();
    let named = [groups::id(&group)?];
    assign_application_to_groups(&state, &caller, &application_id, &named, None).await
}

async fn assign_application_to_groups(
    state: &AppState,
    caller: &SignedIn,
    application_id: &str,
    named: &[GroupId],
    intent: Option<&str>,
) -> Result<HttpResponse, ApiError> {
    let id = applications::id(application_id)?;
    let new = state
        .services
        .assign_application_to_groups(&caller.ctx, id, named, intent)
        .await?;
    let new = new.into_iter().map(GroupId::uuid).collect();
    let what = What::Application(id.uuid());
    Ok(assigned(&what, &To::Group, new, named.len() == 1))
}

/// Takes the application away from a group. What is installed stays as it is.
#[utoipa::path(tag = "applications", responses((status = 204)))]
#[delete("/applications/{id}/groups/{group}")]
async fn application_from_group(
    state: web::Data<AppState>,
    caller: SignedIn,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (application_id, group) = path.into_inner();
    let (id, group) = (applications::id(&application_id)?, groups::id(&group)?);
    state
        .services
        .unassign_application_from_group(&caller.ctx, id, group)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}
