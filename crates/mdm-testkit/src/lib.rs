//! Support for Mobius MDM's tests: a PostgreSQL of their own, the real binaries, and waiting for
//! conditions.
//!
//! Support for one more kind of thing is one more module here. What the `throwaway` binary needs
//! must not depend on checked queries, which may be what it is run to renew.

pub mod binaries;
pub mod postgres;
mod wait;
mod watchdog;

pub use binaries::binary;
pub use postgres::TestDatabase;
pub use wait::wait_until;
