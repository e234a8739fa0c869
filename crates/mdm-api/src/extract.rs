//! What handlers are given: who asks, and what was said, both checked.

use std::{collections::BTreeMap, future::Future, pin::Pin, str::FromStr};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    dev::Payload,
    http::{StatusCode, header},
    web,
};
use futures_util::StreamExt;
use mdm_core::{devices::Device, sessions::AccessClaims};
use mdm_service::{Actor, OpContext};
use serde::de::DeserializeOwned;

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

/// A signed-in user.
pub struct SignedIn {
    /// Who asks.
    pub ctx: OpContext,
    /// What the access token says.
    pub claims: AccessClaims,
}

impl FromRequest for SignedIn {
    type Error = ApiError;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let state = state(&request)?;
            let token = bearer(&request).ok_or_else(|| {
                ApiError::unauthorized("TOKEN_MISSING", "send an access token as 'Authorization: Bearer …'; POST /api/v1/auth/login gives one")
            })?;
            let claims = state.services.tokens().verify_fresh(token).await?;
            let actor = Actor::User {
                user_id: claims.user_id,
                session_id: claims.session_id,
                role: claims.role,
            };
            Ok(Self {
                ctx: OpContext {
                    actor,
                    organization_id: claims.organization_id,
                },
                claims,
            })
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
            let token = bearer(&request).ok_or_else(|| {
                ApiError::unauthorized(
                    "TOKEN_MISSING",
                    "send the device token as 'Authorization: Bearer …'",
                )
            })?;
            let device = state.services.authenticate_device(token).await?;
            let unknown =
                "the device token is not valid: the device was unenrolled or enrolled anew";
            device
                .map(Self)
                .ok_or_else(|| ApiError::unauthorized("DEVICE_TOKEN_INVALID", unknown))
        })
    }
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

async fn read_body(payload: &mut Payload, limit: usize) -> Result<web::BytesMut, ApiError> {
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

/// Where a list begins and how long it is.
pub struct Paging<Id> {
    /// 1 to 500, by default 50.
    pub limit: i64,
    /// How many to pass over.
    pub offset: i64,
    /// The id at which the page before ended.
    pub cursor: Option<Id>,
}

impl<Id: FromStr> Paging<Id> {
    /// Takes `limit`, `offset` and `cursor`.
    pub fn take(params: &mut Params) -> Result<Self, ApiError> {
        let limit = params.take_number("limit", 1, 500)?.unwrap_or(50);
        let offset = params.take_number("offset", 0, 1_000_000_000)?;
        let cursor = params.take("cursor").map(|text| {
            text.parse().map_err(|_error| {
                ApiError::invalid_field(
                    "/cursor",
                    "INVALID_CURSOR",
                    "must be the next_cursor of a former page",
                )
            })
        });
        let cursor = cursor.transpose()?;
        if cursor.is_some() && offset.is_some() {
            return Err(ApiError::invalid_field(
                "/offset",
                "CONFLICT",
                "give either offset or cursor",
            ));
        }
        Ok(Self {
            limit,
            offset: offset.unwrap_or(0),
            cursor,
        })
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
