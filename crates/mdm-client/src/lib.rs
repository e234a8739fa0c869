//! A typed client of Mobius MDM's public API, of its event stream, and of the device channel.
//!
//! ```no_run
//! # async fn example() -> Result<(), mdm_client::ClientError> {
//! use mdm_client::{Client, ListQuery};
//!
//! let client = Client::new("http://127.0.0.1:8081".parse().unwrap(), None)?;
//! let signed_in = client.login("admin@mobius.local", "password".to_owned().into()).await?;
//! let client = client.with_token(signed_in.token.into());
//! let online = ListQuery::new().limit(1).filter("status", "online");
//! println!("{} devices are online", client.devices(&online).await?.total);
//! # Ok(())
//! # }
//! ```
//!
//! What happens, through all breaks:
//!
//! ```no_run
//! # async fn example(client: mdm_client::Client) -> Result<(), mdm_client::ClientError> {
//! use mdm_client::{ClientError, EventQuery, Follower, Step};
//! use mdm_proto::events::Event;
//!
//! let mut follower = Follower::new(EventQuery::default(), async || {
//!     Ok::<_, ClientError>(client.clone())
//! });
//! loop {
//!     if let Step::Event(frame) = follower.next().await?
//!         && let Some(Event::DeviceStatusChange(change)) = frame.event()
//!     {
//!         println!("{} is {}", change.device_id, change.new_status);
//!     }
//! }
//! # }
//! ```
//!
//! One file per resource; to add a call, add a method in the file of its resource.
#![warn(missing_docs)]

mod api_keys;
mod applications;
mod assignments;
mod auth;
mod backoff;
mod channel;
mod commands;
mod device_side;
mod devices;
mod enrollment_secrets;
mod error;
mod events;
mod follower;
mod groups;
mod http;
mod license;
mod lists;
mod packages;
mod policies;
mod system;
mod users;
mod webhooks;

pub use backoff::Backoff;
pub use channel::{Closed, DeviceChannel, Incoming};
pub use error::{ClientError, TransferError};
pub use events::{EventQuery, EventStream};
pub use follower::{Follower, Step};
pub use http::{Client, http_client};
pub use lists::{ListQuery, all, pages};
pub use packages::{NewPackage, PartOfPackage};
