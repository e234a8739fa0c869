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
//! One file per resource; to add a call, add a method in the file of its resource.
#![warn(missing_docs)]

mod api_keys;
mod applications;
mod assignments;
mod auth;
mod channel;
mod commands;
mod device_side;
mod devices;
mod enrollment_secrets;
mod error;
mod events;
mod groups;
mod http;
mod license;
mod lists;
mod packages;
mod policies;
mod system;
mod users;
mod webhooks;

pub use channel::{Closed, DeviceChannel, Incoming};
pub use error::{ClientError, TransferError};
pub use events::{EventQuery, EventStream};
pub use http::{Client, http_client};
pub use lists::{ListQuery, all, pages};
pub use packages::{NewPackage, PartOfPackage};
