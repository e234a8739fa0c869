//! What devices themselves call, with their device token.

use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use mdm_core::{
    devices::Device,
    ids::{CommandId, PolicyId},
    invalid,
    policies::RuleResult,
};
use mdm_proto::{
    channel::MAX_RESULT_BYTES,
    device_side::{
        CheckinRequest, CheckinResponse, CommandAck, CommandResult, CommandStatusReport,
        DevicePolicies, Inventory, PolicyResult,
    },
    devices::{EnrollRequest, EnrolledDevice},
    policies as wire,
};
use mdm_service::{
    Services,
    commands::{CommandReport, Delivery, ReportError},
    devices::{DeviceReport, Enroller, SoftwareReport},
    policies::PolicyReport,
};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::{
    extract::{AuthenticatedDevice, GlimpsedDevice, StrictJson, origin},
    mapping,
    openapi::params,
    problem::{ApiError, report_code},
    routes::devices::{created, enrollment},
    state::AppState,
};

/// How many results a check-in may bring.
const RESULTS_AT_MOST: usize = 100;
/// A check-in may bring several results of full size.
const CHECKIN_LIMIT: usize = 2 * MAX_RESULT_BYTES;

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config
        .service(enroll)
        .service(unenroll)
        .service(checkin)
        .service(command_status)
        .service(policies)
        .service(inventory);
}

/// A device joins by itself, with an enrolment secret. Its token is shown this once.
#[utoipa::path(tag = "device side", params(params::ReEnroll), request_body = EnrollRequest,
    responses((status = 201, body = EnrolledDevice)))]
#[post("/device/enroll")]
async fn enroll(
    state: web::Data<AppState>,
    request: HttpRequest,
    StrictJson(body): StrictJson<EnrollRequest>,
) -> Result<HttpResponse, ApiError> {
    let enrollment = enrollment(&request, body)?;
    let enroller = Enroller::Device {
        origin: origin(&request),
    };
    let enrolled = state.services.enroll_device(&enroller, enrollment).await?;
    Ok(created(enrolled))
}

/// The device unenrols itself.
#[utoipa::path(tag = "device side", responses((status = 204)))]
#[delete("/device/enrollment")]
async fn unenroll(
    state: web::Data<AppState>,
    device: AuthenticatedDevice,
) -> Result<HttpResponse, ApiError> {
    state.services.unenroll_self(&device.ctx()).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// The device says how it is and what came of commands and policies, and gets what waits for it.
#[utoipa::path(tag = "device side", request_body = CheckinRequest, responses((status = 200, body = CheckinResponse)))]
#[post("/device/checkin")]
async fn checkin(
    state: web::Data<AppState>,
    device: GlimpsedDevice,
    StrictJson(body): StrictJson<CheckinRequest, CHECKIN_LIMIT>,
) -> Result<web::Json<CheckinResponse>, ApiError> {
    let glance = device.glance;
    if glance.is_idle() && !body.has_news() {
        let services = &state.services;
        services.device_seen(glance.organization_id, glance.device_id);
        let nothing = Delivery::default();
        return Ok(web::Json(checked_in(
            services,
            nothing,
            glance.revision.current,
        )));
    }
    let device = device.device(&state.services).await?;
    if body.command_results.len() > RESULTS_AT_MOST {
        return Err(ApiError::invalid_field(
            "/command_results",
            "TOO_MANY",
            format!("must have at most {RESULTS_AT_MOST} results"),
        ));
    }
    state.services.device_checked_in(&device).await?;
    let report = DeviceReport {
        os_version: body.os_version,
        system_info: body.system_info,
    };
    state.services.report_device(&device, report).await?;
    if let Some(installed) = body.inventory {
        let report = software_report(installed)?;
        state.services.report_software(&device, report).await?;
    }
    let reports = policy_reports(body.policy_results)?;
    state.services.report_policies(&device, reports).await?;
    let command_acks = take_results(&state, &device, body.command_results).await?;
    state.services.see_to_applications(&device).await?;
    let delivery = state
        .services
        .deliver_all(device.organization_id, device.id)
        .await?;
    let policy_revision = state.services.policy_revision(&device).await?;
    let mut response = checked_in(&state.services, delivery, policy_revision);
    response.command_acks = command_acks;
    Ok(web::Json(response))
}

fn checked_in(services: &Services, delivery: Delivery, policy_revision: i64) -> CheckinResponse {
    let commands = delivery.commands.into_iter().map(mapping::delivered);
    let reconcile = delivery.reconcile.into_iter().map(CommandId::uuid);
    CheckinResponse {
        commands: commands.collect(),
        command_acks: Vec::new(),
        reconcile: reconcile.collect(),
        policy_revision,
        next_checkin_seconds: if delivery.more {
            1
        } else {
            services.next_checkin_seconds()
        },
        server_time: services.now().into(),
    }
}

/// What came of one command. The same again is harmless; going back is a 409.
#[utoipa::path(tag = "device side", request_body = CommandStatusReport, responses((status = 200, body = CommandAck)))]
#[post("/device/commands/{id}/status")]
async fn command_status(
    state: web::Data<AppState>,
    AuthenticatedDevice(device): AuthenticatedDevice,
    id: web::Path<String>,
    StrictJson(body): StrictJson<CommandStatusReport, { MAX_RESULT_BYTES + 4096 }>,
) -> Result<web::Json<CommandAck>, ApiError> {
    let command_id = id.parse().map_err(|_error| ReportError::NotFound)?;
    let status = body.status.clone();
    let report = CommandReport {
        command_id,
        status: body.status,
        result: body.result,
        error: body.error,
    };
    state
        .services
        .device_seen(device.organization_id, device.id);
    state
        .services
        .report_command(device.organization_id, device.id, report)
        .await?;
    Ok(web::Json(CommandAck {
        command_id: command_id.uuid(),
        status,
        accepted: true,
        code: None,
    }))
}

/// What counts on the device.
#[utoipa::path(tag = "device side", responses((status = 200, body = DevicePolicies)))]
#[get("/device/policies")]
async fn policies(
    state: web::Data<AppState>,
    AuthenticatedDevice(device): AuthenticatedDevice,
) -> Result<web::Json<DevicePolicies>, ApiError> {
    let found = state.services.effective_policies(&device).await?;
    Ok(web::Json(mapping::device_policies(found, device.platform)))
}

/// How many policies a report may be about.
const POLICIES_AT_MOST: usize = 500;
/// How much a device may say of one rule, in bytes of JSON.
const FOUND_AT_MOST: usize = 16 * 1024;

/// Reads what a device says of its policies.
pub fn policy_reports(results: Vec<PolicyResult>) -> Result<Vec<PolicyReport>, ApiError> {
    if results.len() > POLICIES_AT_MOST {
        let detail = format!("must have at most {POLICIES_AT_MOST} policies");
        return Err(ApiError::invalid_field(
            "/policy_results",
            "TOO_MANY",
            detail,
        ));
    }
    let mut reports = Vec::with_capacity(results.len());
    for (index, result) in results.into_iter().enumerate() {
        let mut rules = Vec::with_capacity(result.rules.len());
        for (place, rule) in result.rules.into_iter().enumerate() {
            let pointer = format!("/policy_results/{index}/rules/{place}");
            rules.push(rule_result(&pointer, rule)?);
        }
        reports.push(PolicyReport {
            policy_id: PolicyId::from_uuid(result.policy_id),
            policy_version: result.policy_version,
            observed_at: result.observed_at.0,
            rules,
        });
    }
    Ok(reports)
}

fn rule_result(pointer: &str, rule: wire::RuleResult) -> Result<RuleResult, ApiError> {
    let state = rule
        .state
        .parse()
        .map_err(|unknown: mdm_core::policies::UnknownRuleState| {
            ApiError::invalid_field(
                format!("{pointer}/state"),
                "UNKNOWN_STATE",
                unknown.to_string(),
            )
        })?;
    let long = rule
        .actual
        .as_ref()
        .map_or(0, |actual| actual.to_string().len())
        + rule.detail.as_ref().map_or(0, String::len);
    if long > FOUND_AT_MOST {
        let detail = "must have at most 16 KiB of actual and detail";
        return Err(ApiError::invalid_field(pointer, "TOO_LONG", detail));
    }
    if let Some(actual) = &rule.actual {
        invalid::no_nul(&format!("{pointer}/actual"), actual)?;
    }
    let clean = |text: String| text.replace('\0', "\u{fffd}");
    Ok(RuleResult {
        rule: clean(rule.rule),
        state,
        actual: rule.actual,
        detail: rule.detail.map(clean),
    })
}

fn software_report(installed: Inventory) -> Result<SoftwareReport, ApiError> {
    let mut software = installed.software;
    software.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    let software: Result<Vec<_>, _> = software.iter().map(serde_json::to_value).collect();
    Ok(SoftwareReport {
        observed_at: installed.observed_at.0,
        software: software.map_err(mdm_store::StoreError::from)?,
    })
}

/// What is installed on the device: too long for the channel.
#[utoipa::path(tag = "device side", request_body = Inventory, responses((status = 204)))]
#[post("/device/inventory")]
async fn inventory(
    state: web::Data<AppState>,
    AuthenticatedDevice(device): AuthenticatedDevice,
    StrictJson(body): StrictJson<Inventory, CHECKIN_LIMIT>,
) -> Result<HttpResponse, ApiError> {
    let report = software_report(body)?;
    state.services.report_software(&device, report).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn take_results(
    state: &AppState,
    device: &Device,
    results: Vec<CommandResult>,
) -> Result<Vec<CommandAck>, ApiError> {
    let mut acks = Vec::with_capacity(results.len());
    for result in results {
        acks.push(take_result(state, device, result).await?);
    }
    Ok(acks)
}

/// Takes over one result and says what became of it. Fails only if the database does.
pub async fn take_result(
    state: &AppState,
    device: &Device,
    result: CommandResult,
) -> Result<CommandAck, ApiError> {
    let (command_id, status) = (result.command_id, result.status.clone());
    let report = CommandReport {
        command_id: CommandId::from_uuid(command_id),
        status: result.status,
        result: result.result,
        error: result.error,
    };
    match state
        .services
        .report_command(device.organization_id, device.id, report)
        .await
    {
        Ok(_) => Ok(CommandAck {
            command_id,
            status,
            accepted: true,
            code: None,
        }),
        Err(ReportError::Store(error)) => Err(error.into()),
        Err(refused) => Ok(CommandAck {
            command_id,
            status,
            accepted: false,
            code: Some(report_code(&refused).to_owned()),
        }),
    }
}
