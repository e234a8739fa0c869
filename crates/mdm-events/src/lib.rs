//! The event bus: positions in the log, events as clients get them, the bus between nodes, and the
//! hub that fans events out.
//!
//! The log itself is a table (`mdm-store`), followed by a task (`mdm-service`), and sockets belong
//! to `mdm-api`. Only [`bus`] does I/O. An event passes through this crate as a [`LogEvent`], is
//! encoded at most once per [`View`], and is queued by a [`Shard`](hub::Shard) for those
//! connections whose [`Subscription`] admits it.
//!
//! To hide a further field from a role, see `EventKind::operator_fields` in `mdm-core`; to add a
//! filter, add a list to [`Filters`] and a line to [`Subscription::admits`].
#![warn(missing_docs)]

pub mod bus;
pub mod cursor;
pub mod envelope;
pub mod hub;
pub mod sse;
pub mod subscription;
pub mod websocket;

pub use cursor::{Cursor, Epoch, InvalidCursor};
pub use envelope::{LogEvent, Record, View};
pub use subscription::{Filters, Subscription};
