//! The routes, one file per resource. To add one: a handler of one sentence in the file of its
//! resource with its line for the OpenAPI document, a line in that file's `configure`, an example
//! in `openapi/examples.json` for a new type, and `cargo run -p mdm-api -- openapi` into
//! `docs/openapi.json`. The test of every route for every caller finds it there by itself.

use actix_web::{HttpResponse, http::header};
use serde::Serialize;

use crate::{extract::Params, problem::ApiError};

pub mod api_keys;
pub mod applications;
pub mod assignments;
pub mod auth;
pub mod commands;
pub mod device_side;
pub mod devices;
pub mod enrollment_secrets;
pub mod groups;
pub mod license;
pub mod packages;
pub mod policies;
pub mod system;
pub mod users;
pub mod web;
pub mod webhooks;

/// The parameter `search`: a part of a name.
fn search(params: &mut Params) -> Result<Option<String>, ApiError> {
    params.take_text("search", 255)
}

/// An object with its version as `ETag`.
fn with_etag(version: i64, body: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::ETAG, format!("\"{version}\"")))
        .json(body)
}
