//! The wire types of Mobius MDM: the public REST API, the event stream, and the device channel.
//!
//! Plain data with serde, shared by server, client, agent and CLI; no behaviour beyond reading
//! and writing itself. Requests refuse unknown fields; answers may grow fields, and clients ignore
//! those that they do not know. To add a resource, add a file named for it.
#![warn(missing_docs)]

pub mod applications;
pub mod auth;
pub mod channel;
pub mod commands;
pub mod device_side;
pub mod devices;
pub mod enrollment;
pub mod events;
pub mod groups;
pub mod inventory;
pub mod licenses;
pub mod lists;
pub mod patch;
pub mod policies;
pub mod problem;
pub mod raw;
pub mod system;
pub mod time;
pub mod users;
pub mod webhooks;

pub use time::Timestamp;
