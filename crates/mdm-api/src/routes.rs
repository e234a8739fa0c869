//! The routes, one file per resource. To add one: a handler of one sentence in the file of its
//! resource, a line in that file's `configure`, and a row in `tests/access.rs`.

pub mod auth;
pub mod commands;
pub mod device_side;
pub mod devices;
pub mod enrollment_secrets;
pub mod system;
