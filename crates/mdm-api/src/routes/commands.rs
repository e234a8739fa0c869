//! Commands, for operators.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, get, http::header, post, web};
use mdm_core::{
    commands::{Command, CommandStatus},
    ids::CommandId,
};
use mdm_proto::commands::{
    self as wire, CommandBatch, CommandList, OsqueryRequest, OsqueryResult, SendCommand, SendToMany,
};
use mdm_service::{
    batches::WantedTargets,
    commands::{CommandError, NewCommand},
};
use mdm_store::{
    commands::{self, CommandFilter},
    devices::DeviceRef,
};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::{
    extract::{Params, SignedIn, StrictJson, list_request},
    mapping,
    openapi::params,
    problem::ApiError,
    state::AppState,
};

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config
        .service(send)
        .service(osquery)
        .service(list_of_device)
        .service(list)
        .service(get)
        .service(cancel)
        .service(send_to_many)
        .service(batch);
}

/// Sends a command to a device. With an `Idempotency-Key`, the same request again gives the command
/// that it became the first time, however it stands by now, and however long ago that was.
#[utoipa::path(tag = "commands", params(params::Wait), request_body = SendCommand, responses(
    (status = 200, description = "It has ended", body = wire::Command),
    (status = 202, description = "It was accepted", body = wire::Command)))]
#[post("/devices/{device}/commands")]
async fn send(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    device: web::Path<String>,
    StrictJson(body): StrictJson<SendCommand>,
) -> Result<HttpResponse, ApiError> {
    let mut params = Params::of(&request)?;
    let wait = params.take_number("wait", 0, 60)?;
    params.finish()?;
    let new = new_command(&request, body)?;
    let command = state
        .services
        .send_command(&caller.ctx, &DeviceRef::parse(&device), new)
        .await?;
    let Some(seconds) = wait else {
        return Ok(accepted(command));
    };
    let patience = Duration::from_secs(seconds.unsigned_abs());
    let command = state
        .services
        .wait_for_command(&caller.ctx, command.id, patience)
        .await?;
    Ok(if command.status.is_open() {
        accepted(command)
    } else {
        HttpResponse::Ok().json(mapping::command(command, None))
    })
}

/// Asks a device that is online a query, and waits for its answer.
#[utoipa::path(tag = "commands", request_body = OsqueryRequest, responses(
    (status = 200, body = OsqueryResult),
    (status = 504, description = "The device did not answer in time")))]
#[post("/devices/{device}/osquery")]
async fn osquery(
    state: web::Data<AppState>,
    caller: SignedIn,
    device: web::Path<String>,
    StrictJson(body): StrictJson<OsqueryRequest>,
) -> Result<HttpResponse, ApiError> {
    let seconds = body.timeout_seconds.unwrap_or(30);
    if !(1..=60).contains(&seconds) {
        return Err(ApiError::invalid_field(
            "/timeout_seconds",
            "OUT_OF_RANGE",
            "must be between 1 and 60 seconds",
        ));
    }
    let command = state
        .services
        .query_device(
            &caller.ctx,
            &DeviceRef::parse(&device),
            &body.query,
            seconds,
        )
        .await?;
    answer(command)
}

/// A page of the device's commands, the newest first if nobody says otherwise.
#[utoipa::path(tag = "commands", params(params::Page, params::Commands), responses((status = 200, body = CommandList)))]
#[get("/devices/{device}/commands")]
async fn list_of_device(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    device: web::Path<String>,
) -> Result<web::Json<CommandList>, ApiError> {
    page(&state, &request, &caller, Some(&DeviceRef::parse(&device))).await
}

/// A page of the commands, the newest first if nobody says otherwise.
#[utoipa::path(tag = "commands", params(params::Page, params::Commands), responses((status = 200, body = CommandList)))]
#[get("/commands")]
async fn list(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
) -> Result<web::Json<CommandList>, ApiError> {
    page(&state, &request, &caller, None).await
}

/// A command with every step of its life. Its result is for those who may run commands.
#[utoipa::path(tag = "commands", responses((status = 200, body = wire::Command)))]
#[get("/commands/{command}")]
async fn get(
    state: web::Data<AppState>,
    caller: SignedIn,
    command: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let (command, steps) = state
        .services
        .get_command(&caller.ctx, id(&command)?)
        .await?;
    Ok(HttpResponse::Ok().json(mapping::command(command, Some(steps))))
}

/// Withdraws a command. A destructive one that is with its device stays: 409.
#[utoipa::path(tag = "commands", responses((status = 200, body = wire::Command)))]
#[post("/commands/{command}/cancel")]
async fn cancel(
    state: web::Data<AppState>,
    caller: SignedIn,
    command: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let command = state
        .services
        .cancel_command(&caller.ctx, id(&command)?)
        .await?;
    Ok(HttpResponse::Ok().json(mapping::command(command, None)))
}

async fn page(
    state: &AppState,
    request: &HttpRequest,
    caller: &SignedIn,
    device: Option<&DeviceRef>,
) -> Result<web::Json<CommandList>, ApiError> {
    let mut params = Params::of(request)?;
    let page = list_request(&mut params, &commands::SORTING)?;
    let filter = CommandFilter {
        device: None,
        status: params.take_parsed("status")?,
        kind: params.take_parsed("command")?,
        batch: params.take_parsed("batch_id")?,
    };
    params.finish()?;
    let listed = state
        .services
        .list_commands(&caller.ctx, device, filter, &page)
        .await?;
    Ok(web::Json(mapping::command_list(listed, &page)))
}

/// Sends one command to many devices: to those that are named, to the members of a group, or to
/// those that meet a filter.
#[utoipa::path(tag = "commands", request_body = SendToMany, responses((status = 202, body = CommandBatch)))]
#[post("/commands")]
async fn send_to_many(
    state: web::Data<AppState>,
    caller: SignedIn,
    StrictJson(body): StrictJson<SendToMany, TARGETS_LIMIT>,
) -> Result<HttpResponse, ApiError> {
    let new = NewCommand {
        command: body.command,
        parameters: body.parameters,
        expires_in_seconds: body.expires_in_seconds,
        priority: body.priority,
        idempotency_key: None,
    };
    let targets = WantedTargets {
        device_ids: body.targets.device_ids,
        group_id: body.targets.group_id,
        filter: body.targets.filter,
    };
    let progress = state
        .services
        .send_to_many(&caller.ctx, &new, targets)
        .await?;
    let location = format!("/api/v1/command-batches/{}", progress.batch.id);
    Ok(HttpResponse::Accepted()
        .insert_header((header::LOCATION, location))
        .json(mapping::batch(progress)))
}

/// A batch, and how many of its commands stand where.
#[utoipa::path(tag = "commands", responses((status = 200, body = CommandBatch)))]
#[get("/command-batches/{id}")]
async fn batch(
    state: web::Data<AppState>,
    caller: SignedIn,
    batch_id: web::Path<String>,
) -> Result<web::Json<CommandBatch>, ApiError> {
    let id = batch_id
        .parse()
        .map_err(|_malformed| CommandError::BatchNotFound)?;
    let progress = state.services.get_batch(&caller.ctx, id).await?;
    Ok(web::Json(mapping::batch(progress)))
}

/// Ten thousand ids take 400 KB.
const TARGETS_LIMIT: usize = 1024 * 1024;

fn id(text: &str) -> Result<CommandId, ApiError> {
    text.parse().map_err(|_error| CommandError::NotFound.into())
}

fn new_command(request: &HttpRequest, body: SendCommand) -> Result<NewCommand, ApiError> {
    let header = request
        .headers()
        .get("idempotency-key")
        .map(header::HeaderValue::to_str)
        .transpose();
    let key = header.map_err(|_error| {
        ApiError::invalid_field(
            "",
            "INVALID_IDEMPOTENCY_KEY",
            "the Idempotency-Key header must be visible ASCII",
        )
    })?;
    Ok(NewCommand {
        command: body.command,
        parameters: body.parameters,
        expires_in_seconds: body.expires_in_seconds,
        priority: body.priority,
        idempotency_key: key.map(str::to_owned),
    })
}

fn accepted(command: Command) -> HttpResponse {
    let location = format!("/api/v1/commands/{}", command.id);
    HttpResponse::Accepted()
        .insert_header((header::LOCATION, location))
        .json(mapping::command(command, None))
}

/// What a query came to: rows, the device's refusal, or no answer in time.
fn answer(command: Command) -> Result<HttpResponse, ApiError> {
    use actix_web::http::StatusCode;
    let error = command.error.unwrap_or_default();
    match (command.status, command.result) {
        (CommandStatus::Completed, Some(result)) => Ok(HttpResponse::Ok().json(result)),
        (CommandStatus::Completed | CommandStatus::Failed, _) => {
            Err(ApiError::invalid_field("/query", "QUERY_FAILED", error))
        }
        (status, _) => {
            let detail = format!("the device did not answer in time (the query is {status})");
            Err(ApiError::new(
                StatusCode::GATEWAY_TIMEOUT,
                "DEVICE_TIMEOUT",
                "No answer in time",
                detail,
            ))
        }
    }
}
