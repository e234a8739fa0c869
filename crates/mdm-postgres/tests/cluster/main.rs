//! The embedded PostgreSQL, for real: each test has a data directory and a server process of its
//! own.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, in what it shares with others as well"
)]

mod attach;
mod crash;
mod place;
mod refusal;
mod start;
mod support;
