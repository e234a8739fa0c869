//! Commands, for operators.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, get, http::header, post, web};
use mdm_core::{
    commands::{Command, CommandStatus},
    ids::CommandId,
};
use mdm_proto::commands::{CommandList, OsqueryRequest, SendCommand};
use mdm_service::commands::{CommandError, NewCommand};
use mdm_store::devices::DeviceRef;

use crate::{
    extract::{Paging, Params, SignedIn, StrictJson},
    mapping,
    problem::ApiError,
    state::AppState,
};

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(send)
        .service(osquery)
        .service(list_of_device)
        .service(list)
        .service(get)
        .service(cancel);
}

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

#[get("/devices/{device}/commands")]
async fn list_of_device(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    device: web::Path<String>,
) -> Result<web::Json<CommandList>, ApiError> {
    page(&state, &request, &caller, Some(&DeviceRef::parse(&device))).await
}

#[get("/commands")]
async fn list(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
) -> Result<web::Json<CommandList>, ApiError> {
    page(&state, &request, &caller, None).await
}

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
    let paging = Paging::<CommandId>::take(&mut params)?;
    let status = params.take_parsed::<CommandStatus>("status")?;
    params.finish()?;
    let listed = state
        .services
        .list_commands(
            &caller.ctx,
            device,
            status,
            paging.cursor,
            paging.limit,
            paging.offset,
        )
        .await?;
    Ok(web::Json(mapping::command_list(
        listed,
        paging.limit,
        paging.offset,
    )))
}

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
