//! The event stream over real sockets: a server on a port of its own, with a log of its own.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod abuse;
mod connecting;
mod following;
mod harness;
mod resuming;
mod streaming;
