//! What devices themselves call, with their device token.

use actix_web::{HttpRequest, HttpResponse, delete, post, web};
use mdm_core::{devices::Device, ids::CommandId};
use mdm_proto::{
    channel::MAX_RESULT_BYTES,
    device_side::{
        CheckinRequest, CheckinResponse, CommandAck, CommandResult, CommandStatusReport,
    },
    devices::EnrollRequest,
};
use mdm_service::{
    commands::{CommandReport, ReportError},
    devices::{DeviceReport, Enroller},
};

use crate::{
    extract::{AuthenticatedDevice, StrictJson, origin},
    mapping,
    problem::{ApiError, report_code},
    routes::devices::{created, enrollment},
    state::AppState,
};

/// How many results a check-in may bring.
const RESULTS_AT_MOST: usize = 100;
/// A check-in may bring several results of full size.
const CHECKIN_LIMIT: usize = 2 * MAX_RESULT_BYTES;

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(enroll)
        .service(unenroll)
        .service(checkin)
        .service(command_status);
}

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

#[delete("/device/enrollment")]
async fn unenroll(
    state: web::Data<AppState>,
    device: AuthenticatedDevice,
) -> Result<HttpResponse, ApiError> {
    state.services.unenroll_self(&device.ctx()).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[post("/device/checkin")]
async fn checkin(
    state: web::Data<AppState>,
    AuthenticatedDevice(device): AuthenticatedDevice,
    StrictJson(body): StrictJson<CheckinRequest, CHECKIN_LIMIT>,
) -> Result<web::Json<CheckinResponse>, ApiError> {
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
    let command_acks = take_results(&state, &device, body.command_results).await?;
    let delivery = state
        .services
        .deliver_all(device.organization_id, device.id)
        .await?;
    Ok(web::Json(CheckinResponse {
        commands: delivery
            .commands
            .into_iter()
            .map(mapping::delivered)
            .collect(),
        command_acks,
        reconcile: delivery
            .reconcile
            .into_iter()
            .map(CommandId::uuid)
            .collect(),
        policy_revision: 0,
        next_checkin_seconds: if delivery.more {
            1
        } else {
            state.services.next_checkin_seconds()
        },
        server_time: state.services.now().into(),
    }))
}

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
