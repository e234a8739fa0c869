//! Errors: problem details for HTTP APIs (RFC 9457).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The media type of an error's body (RFC 9457, section 3).
pub const MEDIA_TYPE: &str = "application/problem+json";

/// An error's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind of problem: a URN with the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words; the same for every occurrence.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// What happened this time and what to do about it.
    pub detail: String,
    /// Stable code for programs, such as `DEVICE_NOT_FOUND`.
    pub code: String,
    /// The request's id, as in `X-Request-Id` and in the server's log.
    pub request_id: String,
    /// The invalid fields, if fields were invalid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
    /// The title again, for clients of the older API.
    pub error: String,
}

/// One invalid field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldProblem {
    /// JSON pointer (RFC 6901) to the field in the body.
    pub pointer: String,
    /// Stable code, such as `TOO_LONG`.
    pub code: String,
    /// What is wrong with it.
    pub detail: String,
}
