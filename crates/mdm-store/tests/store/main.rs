//! Tests of the store against PostgreSQL, each with a database of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod events;
