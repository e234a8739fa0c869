//! The server of Mobius MDM: REST, the event stream, the device channel, and the `mdm-api` binary.
//!
//! A handler is a sentence: extract who asks and what, call the service, map the answer. To add a
//! route, see [`routes`]; to add a setting, see [`config`].

pub mod app;
pub mod channel;
pub mod cli;
pub mod config;
pub mod database;
pub mod extract;
pub mod frame_guard;
pub mod health;
pub mod idempotency;
pub mod license_command;
pub mod live;
pub mod logging;
pub mod mapping;
pub mod openapi;
pub mod problem;
pub mod request_id;
pub mod routes;
pub mod secret_key;
pub mod server;
pub mod state;
pub mod storage;
pub mod trace;
pub mod trial;
pub mod webhook_sender;
