//! The use cases of Mobius MDM: authorise, open a transaction, change, append events, commit.
//!
//! Each use case begins by asking its [`OpContext`] for one permission. Rules live here and in
//! `mdm-core`; SQL lives in `mdm-store`; HTTP lives in `mdm-api`. To add a use case: a function on
//! [`Services`] in the file of its aggregate, an error in that file's enum, and a row in the API's
//! test of every route for every role.

pub mod api_keys;
pub mod applications;
pub mod auth;
pub mod batches;
mod changes;
pub mod channels;
pub mod commands;
pub mod context;
pub mod devices;
pub mod enrollment;
mod gathering;
mod glances;
pub mod groups;
pub mod idempotency;
pub mod installation;
pub mod licenses;
pub mod lists;
pub mod nodes;
pub mod observer;
pub mod passwords;
pub mod policies;
pub mod presence;
pub mod sealing;
pub mod second_factor;
pub mod services;
pub mod socket_tickets;
pub mod stream;
pub mod throttle;
pub mod tokens;
pub mod upkeep;
pub mod users;
pub mod webhooks;

pub use context::{Actor, Forbidden, OpContext};
pub use services::Services;
