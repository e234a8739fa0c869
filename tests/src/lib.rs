//! The end-to-end suite lives in `tests/`: the real server, the real agent, real sockets, a real
//! PostgreSQL, and what must survive their sudden ends.
//!
//! `cargo test -p mdm-e2e` runs the quick part; `cargo test -p mdm-e2e --features slow` all of it.
