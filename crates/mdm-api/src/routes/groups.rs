//! Device groups.

use actix_web::{HttpRequest, HttpResponse, delete, get, http::header, post, put, web};
use mdm_core::{
    devices::Labels,
    ids::{DeviceId, GroupId},
};
use mdm_proto::{
    devices::DeviceList,
    groups::{
        AddMember, CreateGroup, DeviceGroup, GroupList, GroupPreview, MembersAdded, PreviewGroup,
        UpdateGroup,
    },
    patch::Patch,
    policies::PolicyList,
};
use mdm_service::groups::{GroupChange, GroupError, NewGroup};
use mdm_store::{
    devices::{self, DeviceFilter, DeviceRef},
    groups,
    policies::{self, PolicyFilter},
};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::{
    extract::{Params, SignedIn, StrictJson, if_match, list_request, not_null, nullable},
    mapping,
    openapi::params,
    problem::ApiError,
    routes::{search, with_etag},
    state::AppState,
};

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config
        .service(preview)
        .service(create)
        .service(list)
        .service(get)
        .service(update)
        .service(delete)
        .service(list_members)
        .service(add_named)
        .service(add)
        .service(remove)
        .service(policies_of_group);
}

pub(super) fn id(text: &str) -> Result<GroupId, ApiError> {
    text.parse()
        .map_err(|_malformed| GroupError::NotFound.into())
}

/// Makes a group. With filters, all devices are looked at before the answer, unless there are more
/// than 20,000: then `up_to_date` is false until the rest has been.
#[utoipa::path(tag = "device groups", request_body = CreateGroup, responses((status = 201, body = DeviceGroup)))]
#[post("/device-groups")]
async fn create(
    state: web::Data<AppState>,
    caller: SignedIn,
    StrictJson(body): StrictJson<CreateGroup>,
) -> Result<HttpResponse, ApiError> {
    let new = NewGroup {
        name: body.name,
        description: body.description,
        filters: body.filters,
        labels: Labels::parse(body.labels.unwrap_or_default())?,
    };
    let group = state.services.create_group(&caller.ctx, new).await?;
    let location = format!("/api/v1/device-groups/{}", group.id);
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, location))
        .json(mapping::group(group)))
}

/// A page of the groups.
#[utoipa::path(tag = "device groups", params(params::Page, params::Search),
    responses((status = 200, body = GroupList)))]
#[get("/device-groups")]
async fn list(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
) -> Result<web::Json<GroupList>, ApiError> {
    page(&state, &request, &caller, None).await
}

pub(super) async fn page(
    state: &AppState,
    request: &HttpRequest,
    caller: &SignedIn,
    device: Option<&DeviceRef>,
) -> Result<web::Json<GroupList>, ApiError> {
    let mut params = Params::of(request)?;
    let page = list_request(&mut params, &groups::SORTING)?;
    let search = search(&mut params)?;
    params.finish()?;
    let listed = state
        .services
        .list_groups(&caller.ctx, search, device, &page)
        .await?;
    Ok(web::Json(mapping::group_list(listed, &page)))
}

/// A group.
#[utoipa::path(tag = "device groups", responses((status = 200, body = DeviceGroup)))]
#[get("/device-groups/{id}")]
async fn get(
    state: web::Data<AppState>,
    caller: SignedIn,
    group_id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let group = state
        .services
        .get_group(&caller.ctx, id(&group_id)?)
        .await?;
    let version = group.version;
    Ok(with_etag(version, &mapping::group(group)))
}

/// Changes a group. New filters take effect as when a group is made.
#[utoipa::path(tag = "device groups", params(params::IfMatch), request_body = UpdateGroup,
    responses((status = 200, body = DeviceGroup)))]
#[put("/device-groups/{id}")]
async fn update(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    group_id: web::Path<String>,
    StrictJson(body): StrictJson<UpdateGroup>,
) -> Result<HttpResponse, ApiError> {
    let change = GroupChange {
        name: not_null("/name", body.name)?,
        description: nullable(body.description),
        filters: nullable(body.filters),
        labels: match body.labels {
            Patch::Absent => None,
            Patch::Null => Some(Labels::default()),
            Patch::Value(pairs) => Some(Labels::parse(pairs)?),
        },
        if_version: if_match(&request),
    };
    let group = state
        .services
        .update_group(&caller.ctx, id(&group_id)?, change)
        .await?;
    let version = group.version;
    Ok(with_etag(version, &mapping::group(group)))
}

/// Deletes a group: its members leave it, and its policies and applications are taken away.
#[utoipa::path(tag = "device groups", responses((status = 204)))]
#[delete("/device-groups/{id}")]
async fn delete(
    state: web::Data<AppState>,
    caller: SignedIn,
    group_id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    state
        .services
        .delete_group(&caller.ctx, id(&group_id)?)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A page of the group's members.
#[utoipa::path(tag = "device groups", params(params::Page), responses((status = 200, body = DeviceList)))]
#[get("/device-groups/{id}/devices")]
async fn list_members(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    group_id: web::Path<String>,
) -> Result<web::Json<DeviceList>, ApiError> {
    let group = id(&group_id)?;
    let mut params = Params::of(&request)?;
    let page = list_request(&mut params, &devices::SORTING)?;
    params.finish()?;
    state.services.get_group(&caller.ctx, group).await?;
    let filter = DeviceFilter {
        group: Some(group),
        ..DeviceFilter::default()
    };
    let listed = state
        .services
        .list_devices(&caller.ctx, &filter, &page)
        .await?;
    Ok(web::Json(mapping::device_list(listed, &page)))
}

/// Puts one device into the group, or several. One that is in already is a 409 if it is the only
/// one.
#[utoipa::path(tag = "device groups", request_body = AddMember, responses((status = 201, body = MembersAdded)))]
#[post("/device-groups/{id}/devices")]
async fn add_named(
    state: web::Data<AppState>,
    caller: SignedIn,
    group_id: web::Path<String>,
    StrictJson(body): StrictJson<AddMember>,
) -> Result<HttpResponse, ApiError> {
    let members = match (body.device_id, body.device_ids) {
        (Some(one), None) => vec![one],
        (None, Some(many)) => many,
        _ => {
            let detail = "give either device_id or device_ids";
            return Err(ApiError::invalid_field("/device_id", "REQUIRED", detail));
        }
    };
    added(&state, &caller, id(&group_id)?, &members).await
}

/// Puts a device into the group.
#[utoipa::path(tag = "device groups", responses((status = 201, body = MembersAdded)))]
#[post("/device-groups/{id}/devices/{device}")]
async fn add(
    state: web::Data<AppState>,
    caller: SignedIn,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (group, device) = path.into_inner();
    added(&state, &caller, id(&group)?, &[device]).await
}

async fn added(
    state: &AppState,
    caller: &SignedIn,
    group: GroupId,
    members: &[String],
) -> Result<HttpResponse, ApiError> {
    let named: Vec<DeviceRef> = members.iter().map(|text| DeviceRef::parse(text)).collect();
    let added = state
        .services
        .add_members(&caller.ctx, group, &named)
        .await?;
    let added: Vec<_> = added.into_iter().map(DeviceId::uuid).collect();
    let location = format!("/api/v1/device-groups/{group}/devices");
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, location))
        .json(MembersAdded {
            group_id: group.uuid(),
            device_id: added.first().copied().filter(|_| members.len() == 1),
            added,
        }))
}

/// Takes a device out of the group. One that the group's filters admit stays: 409.
#[utoipa::path(tag = "device groups", responses((status = 204)))]
#[delete("/device-groups/{id}/devices/{device}")]
async fn remove(
    state: web::Data<AppState>,
    caller: SignedIn,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (group, device) = path.into_inner();
    state
        .services
        .remove_member(&caller.ctx, id(&group)?, &DeviceRef::parse(&device))
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A page of the policies that are assigned to the group.
#[utoipa::path(tag = "device groups", params(params::Page), responses((status = 200, body = PolicyList)))]
#[get("/device-groups/{id}/policies")]
async fn policies_of_group(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    group_id: web::Path<String>,
) -> Result<web::Json<PolicyList>, ApiError> {
    let group = id(&group_id)?;
    let mut params = Params::of(&request)?;
    let page = list_request(&mut params, &policies::SORTING)?;
    params.finish()?;
    state.services.get_group(&caller.ctx, group).await?;
    let filter = PolicyFilter {
        group: Some(group),
        ..PolicyFilter::default()
    };
    let listed = state
        .services
        .list_policies(&caller.ctx, &filter, &page)
        .await?;
    Ok(web::Json(mapping::policy_list(listed, &page)))
}

/// Who would be in a group with these filters: how many devices, and the first 50.
#[utoipa::path(tag = "device groups", request_body = PreviewGroup, responses((status = 200, body = GroupPreview)))]
#[post("/device-groups/preview")]
async fn preview(
    state: web::Data<AppState>,
    caller: SignedIn,
    StrictJson(body): StrictJson<PreviewGroup>,
) -> Result<web::Json<GroupPreview>, ApiError> {
    let (device_count, devices) = state
        .services
        .preview_group(&caller.ctx, &body.filters)
        .await?;
    let devices = devices.into_iter().map(mapping::device).collect();
    Ok(web::Json(GroupPreview {
        device_count,
        devices,
    }))
}
