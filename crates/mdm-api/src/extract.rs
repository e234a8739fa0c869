//! What handlers are given: who asks, and what was said, both checked.

use std::{collections::BTreeMap, future::Future, pin::Pin, str::FromStr};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    dev::Payload,
    http::{StatusCode, header},
    web,
};
use futures_util::StreamExt;
use mdm_core::{
    Invalid,
    devices::Device,
    invalid,
    tokens::{Token, TokenHash, TokenKind},
};
use mdm_proto::patch::Patch;
use mdm_service::{Actor, OpContext, Services};
use mdm_store::{
    devices::Glance,
    lists::{ListError, ListRequest, Sorting},
};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::{problem::ApiError, state::AppState};

type Extracting<T> = Pin<Box<dyn Future<Output = Result<T, ApiError>>>>;

fn state(request: &HttpRequest) -> Result<web::Data<AppState>, ApiError> {
    let state = request.app_data::<web::Data<AppState>>().cloned();
    state.ok_or_else(|| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL",
            "Internal error",
            "the server is not set up",
        )
    })
}

/// The bearer token of the request (RFC 6750, section 2.1).
pub fn bearer(request: &HttpRequest) -> Option<&str> {
    let value = request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The caller's address as this server sees it.
pub fn origin(request: &HttpRequest) -> String {
    request
        .peer_addr()
        .map_or_else(|| "unknown".to_owned(), |address| address.ip().to_string())
}

/// A signed-in user, or a program with an API key.
pub struct SignedIn {
    /// Who asks.
    pub ctx: OpContext,
}

/// The API key of the request.
pub fn api_key(request: &HttpRequest) -> Option<&str> {
    request.headers().get("x-api-key")?.to_str().ok()
}

/// Who asks, by an access token or by an API key.
pub async fn sign_in(services: &Services, request: &HttpRequest) -> Result<OpContext, ApiError> {
    if let Some(key) = api_key(request) {
        let found = services.authenticate_api_key(key).await?;
        let unknown = "the API key is not valid: it was deleted, has expired, or never was";
        let key = found.ok_or_else(|| ApiError::unauthorized("API_KEY_INVALID", unknown))?;
        return Ok(OpContext {
            actor: Actor::ApiKey {
                key_id: key.id,
                user_id: key.created_by,
                role: key.role,
                permissions: key.permissions(),
            },
            organization_id: key.organization_id,
        });
    }
    let token = bearer(request).ok_or_else(|| {
        ApiError::unauthorized("TOKEN_MISSING", "send an access token as 'Authorization: Bearer …' (POST /api/v1/auth/login gives one) or an API key as 'X-API-Key'")
    })?;
    let claims = services.tokens().verify_fresh(token).await?;
    Ok(OpContext {
        actor: Actor::User {
            user_id: claims.user_id,
            session_id: claims.session_id,
            role: claims.role,
        },
        organization_id: claims.organization_id,
    })
}

impl FromRequest for SignedIn {
    type Error = ApiError;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let state = state(&request)?;
            let ctx = sign_in(&state.services, &request).await?;
            Ok(Self { ctx })
        })
    }
}

/// A device, by its token.
pub struct AuthenticatedDevice(pub Device);

impl AuthenticatedDevice {
    /// The device's own operation.
    pub const fn ctx(&self) -> OpContext {
        OpContext {
            actor: Actor::Device(self.0.id),
            organization_id: self.0.organization_id,
        }
    }
}

impl FromRequest for AuthenticatedDevice {
    type Error = ApiError;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let state = state(&request)?;
            let token = device_token(&request)?;
            let device = state.services.authenticate_device(token).await?;
            device.map(Self).ok_or_else(unknown_device)
        })
    }
}

/// A device that checks in, by its token, as far as it takes to see whether anything waits for it.
pub struct GlimpsedDevice {
    /// What is seen of it.
    pub glance: Glance,
    token: String,
}

impl GlimpsedDevice {
    /// The whole device.
    pub async fn device(&self, services: &Services) -> Result<Device, ApiError> {
        let device = services.authenticate_device(&self.token).await?;
        device.ok_or_else(unknown_device)
    }
}

impl FromRequest for GlimpsedDevice {
    type Error = ApiError;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let state = state(&request)?;
            let token = device_token(&request)?;
            let glance = state.services.glance(token).await?;
            Ok(Self {
                glance: glance.ok_or_else(unknown_device)?,
                token: token.to_owned(),
            })
        })
    }
}

fn device_token(request: &HttpRequest) -> Result<&str, ApiError> {
    bearer(request).ok_or_else(|| {
        let detail = "send the device token as 'Authorization: Bearer …'";
        ApiError::unauthorized("TOKEN_MISSING", detail)
    })
}

/// The token or API key of a request's headers.
pub fn credential(request: &HttpRequest) -> Option<&str> {
    api_key(request).or_else(|| bearer(request))
}

/// What the token that a device sent is known by.
pub fn device_token_hash(request: &HttpRequest) -> Result<TokenHash, ApiError> {
    let token = Token::parse(TokenKind::Device, device_token(request)?);
    token.map(|token| token.hash()).ok_or_else(unknown_device)
}

fn unknown_device() -> ApiError {
    let detail = "the device token is not valid: the device was unenrolled or enrolled anew";
    ApiError::unauthorized("DEVICE_TOKEN_INVALID", detail)
}

/// The largest body that a route takes unless it says otherwise.
pub const BODY_LIMIT: usize = 256 * 1024;
/// How much of a body that is too large is read and thrown away, so that the client gets to read
/// the answer instead of a reset connection.
const DISCARD_AT_MOST: usize = 32 * 1024 * 1024;

/// A JSON body, of at most `LIMIT` bytes, without unknown fields.
pub struct StrictJson<T, const LIMIT: usize = BODY_LIMIT>(pub T);

impl<T: DeserializeOwned + 'static, const LIMIT: usize> FromRequest for StrictJson<T, LIMIT> {
    type Error = ApiError;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let content_type = request.content_type().to_owned();
        let mut payload = payload.take();
        Box::pin(async move {
            let body = read_body(&mut payload, LIMIT).await?;
            if !(content_type == "application/json"
                || content_type.is_empty() && body.is_empty()
                || content_type.ends_with("+json"))
            {
                let detail = "send the body as 'Content-Type: application/json'";
                return Err(ApiError::new(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "UNSUPPORTED_MEDIA_TYPE",
                    "Unsupported media type",
                    detail,
                ));
            }
            parse_json(&body).map(Self)
        })
    }
}

/// Reads a body of at most `limit` bytes.
pub async fn read_body(payload: &mut Payload, limit: usize) -> Result<web::BytesMut, ApiError> {
    let mut body = web::BytesMut::new();
    let mut length = 0_usize;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::new(
                StatusCode::BAD_REQUEST,
                "BODY_CUT_OFF",
                "Bad request",
                format!("the body could not be read: {error}"),
            )
        })?;
        length = length.saturating_add(chunk.len());
        if length <= limit {
            body.extend_from_slice(&chunk);
        } else if length > DISCARD_AT_MOST {
            break;
        }
    }
    if length > limit {
        let detail = format!("the body must have at most {limit} bytes");
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "BODY_TOO_LARGE",
            "Too large",
            detail,
        ));
    }
    Ok(body)
}

fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // serde would read an array as an object's fields in their order.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err(ApiError::invalid_field(
            "",
            "WRONG_TYPE",
            "the body must be an object",
        ));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer(error.path());
        let inner = error.into_inner();
        if inner.is_data() {
            data_error(&pointer, &inner)
        } else {
            syntax_error(&inner)
        }
    })?;
    reader.end().map_err(|error| syntax_error(&error))?;
    Ok(value)
}

fn syntax_error(error: &serde_json::Error) -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        "MALFORMED_JSON",
        "Bad request",
        format!("the body is not JSON: {error}"),
    )
}

/// Names the field: serde names an unknown or missing one in its message only.
fn data_error(pointer: &str, error: &serde_json::Error) -> ApiError {
    let message = error.to_string();
    let message = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(text, _)| text);
    let named = message.split('`').nth(1).unwrap_or_default();
    let (code, pointer) = if message.starts_with("unknown field") {
        let known_already = pointer.ends_with(&format!("/{named}"));
        (
            "UNKNOWN_FIELD",
            if known_already {
                pointer.to_owned()
            } else {
                format!("{pointer}/{named}")
            },
        )
    } else if message.starts_with("missing field") {
        ("REQUIRED", format!("{pointer}/{named}"))
    } else {
        ("WRONG_TYPE", pointer.to_owned())
    };
    ApiError::invalid_field(pointer, code, message)
}

/// Writes a path as a JSON pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => format!("/{variant}"),
            Segment::Unknown => String::new(),
        })
        .collect()
}

/// The query string, taken parameter by parameter; what is left over at the end is refused.
pub struct Params(BTreeMap<String, String>);

impl Params {
    /// The request's parameters.
    pub fn of(request: &HttpRequest) -> Result<Self, ApiError> {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string())
            .map_err(|error| {
                ApiError::new(
                    StatusCode::BAD_REQUEST,
                    "MALFORMED_QUERY",
                    "Bad request",
                    error.to_string(),
                )
            })?;
        let mut params = BTreeMap::new();
        for (name, value) in pairs.into_inner() {
            if params.insert(name.clone(), value).is_some() {
                return Err(ApiError::invalid_field(
                    format!("/{name}"),
                    "REPEATED",
                    "must be given at most once",
                ));
            }
        }
        Ok(Self(params))
    }

    /// A parameter's text.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// A parameter's text of 1 to `max` characters.
    pub fn take_text(&mut self, name: &str, max: usize) -> Result<Option<String>, ApiError> {
        let text = self
            .take(name)
            .map(|text| invalid::text(&format!("/{name}"), &text, max));
        Ok(text.transpose()?)
    }

    /// A parameter of a type that texts can be read as.
    pub fn take_parsed<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, ApiError>
    where
        T::Err: std::fmt::Display,
    {
        self.take(name)
            .map(|text| {
                text.parse().map_err(|error: T::Err| {
                    ApiError::invalid_field(format!("/{name}"), "INVALID", error.to_string())
                })
            })
            .transpose()
    }

    /// A whole number within bounds.
    pub fn take_number(
        &mut self,
        name: &str,
        least: i64,
        most: i64,
    ) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        let number = text
            .parse::<i64>()
            .ok()
            .filter(|number| (least..=most).contains(number));
        let wrong = || {
            ApiError::invalid_field(
                format!("/{name}"),
                "OUT_OF_RANGE",
                format!("must be a whole number from {least} to {most}"),
            )
        };
        number.map(Some).ok_or_else(wrong)
    }

    /// Refuses parameters that nobody took.
    pub fn finish(self) -> Result<(), ApiError> {
        match self.0.into_keys().next() {
            Some(name) => Err(ApiError::invalid_field(
                format!("/{name}"),
                "UNKNOWN_PARAMETER",
                "there is no such query parameter here",
            )),
            None => Ok(()),
        }
    }
}

/// Takes `limit` (1 to 500, by default 50), `offset` or `cursor`, and `sort`.
pub fn list_request(params: &mut Params, sorting: &Sorting) -> Result<ListRequest, ApiError> {
    let limit = params.take_number("limit", 1, 500)?.unwrap_or(50);
    let offset = params.take_number("offset", 0, 1_000_000_000)?;
    let (cursor, sort) = (params.take("cursor"), params.take("sort"));
    if cursor.is_some() && offset.is_some() {
        return Err(ApiError::invalid_field(
            "/offset",
            "CONFLICT",
            "give either offset or cursor",
        ));
    }
    let request = ListRequest::parse(
        sorting,
        limit,
        offset.unwrap_or(0),
        sort.as_deref(),
        cursor.as_deref(),
    );
    request.map_err(|error| {
        let (pointer, code) = match error {
            ListError::Sort(_) => ("/sort", "INVALID_SORT"),
            ListError::Cursor => ("/cursor", "INVALID_CURSOR"),
        };
        ApiError::invalid_field(pointer, code, error.to_string())
    })
}

/// Takes `limit`, `offset` and `cursor` of a list that has one order only, that of the ids.
pub fn id_page(params: &mut Params) -> Result<(Uuid, i64, i64), ApiError> {
    let limit = params.take_number("limit", 1, 500)?.unwrap_or(50);
    let offset = params.take_number("offset", 0, 1_000_000_000)?;
    let cursor = params.take("cursor").map(|text| {
        text.parse::<Uuid>().map_err(|_malformed| {
            let detail = "must be the next_cursor of a former page";
            ApiError::invalid_field("/cursor", "INVALID_CURSOR", detail)
        })
    });
    let cursor = cursor.transpose()?;
    if cursor.is_some() && offset.is_some() {
        let detail = "give either offset or cursor";
        return Err(ApiError::invalid_field("/offset", "CONFLICT", detail));
    }
    Ok((cursor.unwrap_or_default(), limit, offset.unwrap_or(0)))
}

/// The version that `If-Match` names; none if it is absent or `*`.
pub fn if_match(request: &HttpRequest) -> Option<i64> {
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

/// A field of an update that cannot be cleared.
pub fn not_null<T>(pointer: &str, patch: Patch<T>) -> Result<Option<T>, Invalid> {
    match patch {
        Patch::Absent => Ok(None),
        Patch::Null => Err(Invalid::new(pointer, "REQUIRED", "cannot be cleared")),
        Patch::Value(value) => Ok(Some(value)),
    }
}

/// A field of an update that can be cleared.
pub fn nullable<T>(patch: Patch<T>) -> Option<Option<T>> {
    match patch {
        Patch::Absent => None,
        Patch::Null => Some(None),
        Patch::Value(value) => Some(Some(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mdm_proto::devices::EnrollRequest;

    fn refused(body: &str) -> mdm_proto::problem::Problem {
        parse_json::<EnrollRequest>(body.as_bytes())
            .err()
            .unwrap()
            .to_problem()
    }

    #[test]
    fn an_unknown_field_is_named() {
        let problem = refused(r#"{"uuid":"u","hostname":"h","platform":"linux","colour":"red"}"#);
        assert_eq!(
            (problem.status, problem.errors[0].pointer.as_str()),
            (422, "/colour")
        );
        assert_eq!(problem.errors[0].code, "UNKNOWN_FIELD");
    }

    #[test]
    fn a_missing_field_is_named() {
        let problem = refused(r#"{"uuid":"u","platform":"linux"}"#);
        assert_eq!(problem.errors[0].pointer, "/hostname");
        assert_eq!(problem.errors[0].code, "REQUIRED");
    }

    #[test]
    fn a_wrong_type_is_pointed_at() {
        let problem =
            refused(r#"{"uuid":"u","hostname":"h","platform":"linux","labels":{"a/b":7}}"#);
        assert_eq!(
            (problem.status, problem.errors[0].pointer.as_str()),
            (422, "/labels/a~1b")
        );
    }

    #[test]
    fn what_is_no_json_is_a_bad_request() {
        for body in [
            "",
            "{",
            "nonsense",
            "{\"uuid\":\"u\"} trailing",
            "\u{feff}{}",
        ] {
            let status = refused(body).status;
            assert!(
                status == 400 || (body.contains("trailing") && status == 422),
                "{body}: {status}"
            );
        }
    }
}
