//! `Idempotency-Key` on every `POST`: the same key and request answers with the first outcome.

use std::time::{Duration, Instant};

use actix_web::{
    Error, HttpMessage, HttpRequest, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::{Method, StatusCode, header},
    middleware::Next,
    web,
};
use mdm_service::{
    OpContext, Services,
    applications::{ApplicationError, NewApplication},
    idempotency::{IdempotencyError, Reservation, Reserved},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    extract::{api_key, bearer, read_body, sign_in},
    problem::ApiError,
    state::AppState,
};

const HEADER: &str = "idempotency-key";
const REPLAYED: &str = "idempotency-replayed";
/// The largest body of any route but uploads, which take care of themselves.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// For how long a request waits for the outcome of the same one.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What is kept of an answer.
#[derive(Serialize, Deserialize)]
struct Kept {
    headers: Vec<(String, String)>,
    body: String,
}

/// The headers of an answer that belong to its content.
const KEPT_HEADERS: [header::HeaderName; 3] =
    [header::CONTENT_TYPE, header::LOCATION, header::ETAG];

/// The key of a request that brings one.
fn key(request: &HttpRequest) -> Result<Option<String>, ApiError> {
    let Some(value) = request.headers().get(HEADER) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_binary| {
        let detail = "the Idempotency-Key header must be visible ASCII";
        ApiError::invalid_field("", "INVALID_IDEMPOTENCY_KEY", detail)
    })?;
    Ok(Some(text.to_owned()))
}

/// Who asks, so that two callers may use the same key. `None`: the credentials are no good, and the
/// route itself will say so.
async fn caller(services: &Services, request: &HttpRequest) -> Result<Option<String>, ApiError> {
    if api_key(request).is_none() && bearer(request).is_none() {
        return Ok(Some("anyone".to_owned()));
    }
    if let Ok(ctx) = sign_in(services, request).await {
        return Ok(Some(named(&ctx)));
    }
    let device = match bearer(request) {
        Some(token) => services.authenticate_device(token).await?,
        None => None,
    };
    Ok(device.map(|device| format!("device {} {}", device.organization_id, device.id)))
}

fn named(ctx: &OpContext) -> String {
    // A user stays the same over sessions; a retry may come with a new token.
    let who = ctx.user_id().map(|id| id.to_string()).unwrap_or_default();
    let key = match ctx.actor {
        mdm_service::Actor::ApiKey { key_id, .. } => key_id.to_string(),
        _ => String::new(),
    };
    format!("user {} {who} {key}", ctx.organization_id)
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Carries out a `POST` with a key once. Everything else passes.
pub async fn once(
    state: web::Data<AppState>,
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if *request.method() != Method::POST || takes_care_of_itself(&request) {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    let key = match key(request.request()) {
        Ok(Some(key)) => key,
        Ok(None) => return Ok(next.call(request).await?.map_into_boxed_body()),
        Err(error) => return Ok(refused(request, error)),
    };
    let mut payload = request.take_payload();
    let body = match read_body(&mut payload, BODY_LIMIT).await {
        Ok(body) => body.freeze(),
        Err(error) => return Ok(refused(request, error)),
    };
    let caller = match caller(&state.services, request.request()).await {
        Ok(caller) => caller,
        Err(error) => return Ok(refused(request, error)),
    };
    let digest = digest(&[
        request.path().as_bytes(),
        request.query_string().as_bytes(),
        &body,
    ]);
    request.set_payload(Payload::from(body));
    let Some(caller) = caller else {
        return Ok(next.call(request).await?.map_into_boxed_body());
    };
    let reservation = match reserve(&state.services, &caller, &key, digest).await {
        Ok(Reserved::Now(reservation)) => reservation,
        Ok(Reserved::Answered { status, answer }) => {
            return Ok(request.into_response(replay(status, &answer)));
        }
        Err(error) => return Ok(refused(request, error)),
    };
    let response = Services::within(reservation.clone(), next.call(request)).await;
    match response {
        Ok(response) => Ok(keep(&state.services, &reservation, response).await),
        Err(error) => {
            let given_up = state.services.give_up(&reservation).await;
            given_up.map_err(ApiError::from)?;
            Err(error)
        }
    }
}

/// An upload's request is known only when all of it was read, and the ledger of commands keeps its
/// own keys, for good.
fn takes_care_of_itself(request: &ServiceRequest) -> bool {
    let path = request.path();
    request.content_type().starts_with("multipart/")
        || (path.starts_with("/api/v1/devices/") && path.ends_with("/commands"))
}

/// Reserves the key; while another request carries the same out, waits for its outcome.
async fn reserve(
    services: &Services,
    caller: &str,
    key: &str,
    digest: [u8; 32],
) -> Result<Reserved, ApiError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match services.reserve(caller, key, digest).await {
            Err(IdempotencyError::InProgress) if Instant::now() < deadline => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            reserved => return Ok(reserved?),
        }
    }
}

fn refused(request: ServiceRequest, error: ApiError) -> ServiceResponse<BoxBody> {
    request.error_response(error).map_into_boxed_body()
}

fn replay(status: u16, answer: &[u8]) -> HttpResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let mut response = HttpResponse::build(status);
    response.insert_header((REPLAYED, "true"));
    match serde_json::from_slice::<Kept>(answer) {
        Ok(kept) => {
            for (name, value) in kept.headers {
                response.insert_header((name, value));
            }
            response.body(kept.body)
        }
        Err(_) => response.finish(),
    }
}

/// Whether an answer is an outcome, and not a matter of the moment.
fn is_outcome(status: StatusCode) -> bool {
    !status.is_server_error()
        && !matches!(
            status,
            StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS
        )
}

async fn keep(
    services: &Services,
    reservation: &Reservation,
    response: ServiceResponse<impl MessageBody + 'static>,
) -> ServiceResponse<BoxBody> {
    let status = response.status();
    let (request, response) = response.into_parts();
    let (head, body) = response.map_into_boxed_body().into_parts();
    if !is_outcome(status) {
        if let Err(error) = services.give_up(reservation).await {
            tracing::warn!(%error, "cannot give up an idempotency key; it frees itself in two minutes");
        }
        return ServiceResponse::new(request, head.set_body(body));
    }
    let body = match body.try_into_bytes() {
        Ok(body) => body,
        // A stream is no answer of any route that changes something.
        Err(body) => return ServiceResponse::new(request, head.set_body(body)),
    };
    let headers = KEPT_HEADERS
        .iter()
        .filter_map(|name| {
            let value = head.headers().get(name)?.to_str().ok()?;
            Some((name.to_string(), value.to_owned()))
        })
        .collect();
    keep_answer(services, reservation, status, headers, &body).await;
    ServiceResponse::new(request, head.set_body(BoxBody::new(body)))
}

async fn keep_answer(
    services: &Services,
    reservation: &Reservation,
    status: StatusCode,
    headers: Vec<(String, String)>,
    body: &[u8],
) {
    let kept = Kept {
        headers,
        body: String::from_utf8_lossy(body).into_owned(),
    };
    let answer = serde_json::to_vec(&kept).unwrap_or_default();
    let done = services
        .keep_answer(reservation, status.as_u16(), &answer)
        .await;
    if let Err(error) = done {
        tracing::warn!(%error, "cannot keep an answer for its idempotency key");
    }
}

/// The same for an upload: its request is known only when all of it was read.
pub enum UploadOnce {
    /// Go ahead; there is no key.
    Freely,
    /// Go ahead under this reservation.
    Reserved(Reservation),
    /// It was carried out before.
    Answered(HttpResponse),
}

impl UploadOnce {
    /// Reserves the key of an upload, if it brings one.
    pub async fn begin(
        state: &AppState,
        request: &HttpRequest,
        ctx: &OpContext,
        new: &NewApplication,
        checksum: &str,
    ) -> Result<Self, ApiError> {
        let Some(key) = key(request)? else {
            return Ok(Self::Freely);
        };
        let digest = digest(&[
            request.path().as_bytes(),
            format!("{new:?}").as_bytes(),
            checksum.as_bytes(),
        ]);
        let reserved = reserve(&state.services, &named(ctx), &key, digest).await?;
        Ok(match reserved {
            Reserved::Now(reservation) => Self::Reserved(reservation),
            Reserved::Answered { status, answer } => Self::Answered(replay(status, &answer)),
        })
    }

    /// Carries out the upload and keeps its answer.
    pub async fn answer<T, B: Serialize>(
        self,
        state: &AppState,
        creating: impl Future<Output = Result<T, ApplicationError>>,
        shape: impl FnOnce(T) -> (String, B),
    ) -> Result<HttpResponse, ApiError> {
        let created = |(location, body): (String, B)| {
            let body = serde_json::to_string(&body).unwrap_or_default();
            let response = HttpResponse::Created()
                .insert_header((header::LOCATION, location.clone()))
                .content_type("application/json")
                .body(body.clone());
            (location, body, response)
        };
        match self {
            Self::Answered(response) => Ok(response),
            Self::Freely => Ok(created(shape(creating.await?)).2),
            Self::Reserved(reservation) => {
                match Services::within(reservation.clone(), creating).await {
                    Ok(done) => {
                        let (location, body, response) = created(shape(done));
                        let headers = vec![
                            (
                                header::CONTENT_TYPE.to_string(),
                                "application/json".to_owned(),
                            ),
                            (header::LOCATION.to_string(), location),
                        ];
                        keep_answer(
                            &state.services,
                            &reservation,
                            StatusCode::CREATED,
                            headers,
                            body.as_bytes(),
                        )
                        .await;
                        Ok(response)
                    }
                    Err(error) => {
                        state.services.give_up(&reservation).await?;
                        Err(error.into())
                    }
                }
            }
        }
    }
}
