//! A typed client of Mobius MDM's public API, of its event stream, and of the device channel.
//!
//! ```no_run
//! # async fn example() -> Result<(), mdm_client::ClientError> {
//! let client = mdm_client::Client::new("http://127.0.0.1:8081".parse().unwrap(), None)?;
//! let signed_in = client.login("admin@mobius.local", "password".to_owned().into()).await?;
//! let client = client.with_token(signed_in.token.into());
//! println!("{} devices", client.list_devices("limit=1").await?.total);
//! # Ok(())
//! # }
//! ```
//!
//! One file per resource; to add a call, add a method in the file of its resource.
#![warn(missing_docs)]

mod auth;
mod channel;
mod commands;
mod device_side;
mod devices;
mod enrollment_secrets;
mod error;
mod events;
mod http;
mod system;

pub use channel::{Closed, DeviceChannel, Incoming};
pub use error::ClientError;
pub use events::EventStream;
pub use http::{Client, http_client};
