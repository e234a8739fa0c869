//! Policies and compliance.

use actix_web::{HttpRequest, HttpResponse, delete, get, http::header, post, put, web};
use mdm_core::{
    ids::PolicyId,
    policies::{ComplianceState, catalogue},
};
use mdm_proto::{
    patch::Patch,
    policies::{
        ComplianceSummary, CreatePolicy, Policy, PolicyCompliance, PolicyList, PolicySettings,
        UpdatePolicy,
    },
};
use mdm_service::policies::{NewPolicy, PolicyChange, PolicyError};
use mdm_store::policies::{self, PolicyFilter};
use serde_json::Value;
use utoipa_actix_web::service_config::ServiceConfig;

use crate::{
    extract::{Params, SignedIn, StrictJson, id_page, if_match, list_request, not_null, nullable},
    mapping,
    openapi::params,
    problem::ApiError,
    routes::{search, with_etag},
    state::AppState,
};

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config
        .service(settings)
        .service(create)
        .service(list)
        .service(get)
        .service(update)
        .service(delete)
        .service(compliance)
        .service(show_summary);
}

pub(super) fn id(text: &str) -> Result<PolicyId, ApiError> {
    text.parse()
        .map_err(|_malformed| PolicyError::NotFound.into())
}

/// The field that holds what a policy asks for: the older API calls it `rules`.
fn configuration(
    configuration: Option<Value>,
    rules: Option<Value>,
) -> Result<Option<(&'static str, Value)>, ApiError> {
    match (configuration, rules) {
        (Some(_), Some(_)) => Err(ApiError::invalid_field(
            "/rules",
            "CONFLICT",
            "give either configuration or rules, which is its older name",
        )),
        (Some(value), None) => Ok(Some(("/configuration", value))),
        (None, Some(value)) => Ok(Some(("/rules", value))),
        (None, None) => Ok(None),
    }
}

/// The catalogue of settings that a policy can ask for.
#[utoipa::path(tag = "policies", responses((status = 200, body = PolicySettings)))]
#[get("/policy-settings")]
async fn settings(
    state: web::Data<AppState>,
    caller: SignedIn,
) -> Result<web::Json<PolicySettings>, ApiError> {
    state.services.may_read_policies(&caller.ctx)?;
    let settings = catalogue::SETTINGS.iter().map(mapping::policy_setting);
    Ok(web::Json(PolicySettings {
        settings: settings.collect(),
    }))
}

/// Makes a policy.
#[utoipa::path(tag = "policies", request_body = CreatePolicy, responses((status = 201, body = Policy)))]
#[post("/policies")]
async fn create(
    state: web::Data<AppState>,
    caller: SignedIn,
    StrictJson(body): StrictJson<CreatePolicy>,
) -> Result<HttpResponse, ApiError> {
    let new = NewPolicy {
        name: body.name,
        description: body.description,
        platform: body.platform,
        enabled: body.enabled,
        configuration: configuration(body.configuration, body.rules)?,
        kind: body.kind,
    };
    let policy = state.services.create_policy(&caller.ctx, new).await?;
    let location = format!("/api/v1/policies/{}", policy.id);
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, location))
        .json(mapping::policy(policy)))
}

/// A page of the policies.
#[utoipa::path(tag = "policies", params(params::Page, params::Policies),
    responses((status = 200, body = PolicyList)))]
#[get("/policies")]
async fn list(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
) -> Result<web::Json<PolicyList>, ApiError> {
    let mut params = Params::of(&request)?;
    let page = list_request(&mut params, &policies::SORTING)?;
    let filter = PolicyFilter {
        platform: params.take_parsed("platform")?,
        enabled: params.take_parsed("enabled")?,
        kind: params.take_text("type", 100)?,
        search: search(&mut params)?,
        group: None,
    };
    params.finish()?;
    let listed = state
        .services
        .list_policies(&caller.ctx, &filter, &page)
        .await?;
    Ok(web::Json(mapping::policy_list(listed, &page)))
}

/// A policy.
#[utoipa::path(tag = "policies", responses((status = 200, body = Policy)))]
#[get("/policies/{id}")]
async fn get(
    state: web::Data<AppState>,
    caller: SignedIn,
    policy_id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let policy = state
        .services
        .get_policy(&caller.ctx, id(&policy_id)?)
        .await?;
    let version = policy.version;
    Ok(with_etag(version, &mapping::policy(policy)))
}

/// Changes a policy and counts its version. What devices said of the former one is pending again.
#[utoipa::path(tag = "policies", params(params::IfMatch), request_body = UpdatePolicy,
    responses((status = 200, body = Policy)))]
#[put("/policies/{id}")]
async fn update(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    policy_id: web::Path<String>,
    StrictJson(body): StrictJson<UpdatePolicy>,
) -> Result<HttpResponse, ApiError> {
    let empty = || Value::Object(serde_json::Map::new());
    let value = |patch| match patch {
        Patch::Absent => None,
        Patch::Null => Some(empty()),
        Patch::Value(value) => Some(value),
    };
    let change = PolicyChange {
        name: not_null("/name", body.name)?,
        description: nullable(body.description),
        platform: not_null("/platform", body.platform)?,
        enabled: not_null("/enabled", body.enabled)?,
        configuration: configuration(value(body.configuration), value(body.rules))?,
        kind: nullable(body.kind),
        if_version: if_match(&request),
    };
    let policy = state
        .services
        .update_policy(&caller.ctx, id(&policy_id)?, change)
        .await?;
    let version = policy.version;
    Ok(with_etag(version, &mapping::policy(policy)))
}

/// Deletes a policy, which is taken away from everybody first.
#[utoipa::path(tag = "policies", responses((status = 204)))]
#[delete("/policies/{id}")]
async fn delete(
    state: web::Data<AppState>,
    caller: SignedIn,
    policy_id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    state
        .services
        .delete_policy(&caller.ctx, id(&policy_id)?)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Where the devices that a policy reaches stand.
#[utoipa::path(tag = "policies", params(params::PlainPage, params::State),
    responses((status = 200, body = PolicyCompliance)))]
#[get("/policies/{id}/compliance")]
async fn compliance(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    policy_id: web::Path<String>,
) -> Result<web::Json<PolicyCompliance>, ApiError> {
    let id = id(&policy_id)?;
    let mut params = Params::of(&request)?;
    let page = id_page(&mut params)?;
    let wanted = params.take_parsed::<ComplianceState>("state")?;
    params.finish()?;
    let found = state
        .services
        .policy_compliance(&caller.ctx, id, wanted, page)
        .await?;
    Ok(web::Json(mapping::policy_compliance(
        id, found, wanted, page,
    )))
}

/// Where all devices stand.
#[utoipa::path(tag = "policies", responses((status = 200, body = ComplianceSummary)))]
#[get("/compliance/summary")]
async fn show_summary(
    state: web::Data<AppState>,
    caller: SignedIn,
) -> Result<web::Json<ComplianceSummary>, ApiError> {
    let summary = state.services.compliance_summary(&caller.ctx).await?;
    Ok(web::Json(mapping::compliance_summary(summary)))
}
