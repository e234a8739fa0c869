//! The domain of Mobius MDM: ids, entities, state machines, event kinds, and the ports through
//! which time and randomness come in.
//!
//! Nothing here does I/O or needs a runtime. To add an aggregate, give it a file named for it, an
//! id in [`ids`], and, where its life has stages, an enum whose transitions are a function that
//! returns [`InvalidTransition`](commands::InvalidTransition) for what must not happen.
#![warn(missing_docs)]

pub mod api_keys;
pub mod applications;
pub mod clock;
pub mod commands;
pub mod devices;
pub mod enrollment;
pub mod entropy;
pub mod events;
pub mod groups;
pub mod ids;
pub mod invalid;
pub mod json;
pub mod licenses;
pub mod policies;
pub mod roles;
pub mod sessions;
pub mod tokens;
pub mod users;
pub mod webhooks;

pub use clock::{Clock, SystemClock, Timestamp};
pub use entropy::{Entropy, OsEntropy};
pub use invalid::Invalid;
