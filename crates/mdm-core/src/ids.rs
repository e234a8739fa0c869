//! Ids: a newtype over UUIDv7 (RFC 9562, section 5.7) for each kind of object, so that one kind
//! cannot be taken for another. To add one, add a line to the `ids!` list.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{clock::Clock, entropy::Entropy};

/// Makes a UUIDv7 from the given clock and randomness.
pub fn new_uuid(clock: &dyn Clock, entropy: &dyn Entropy) -> Uuid {
    let mut random = [0_u8; 10];
    entropy.fill(&mut random);
    let millis = u64::try_from(clock.now().timestamp_millis()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, ordered by the time of its making.
            pub fn new(clock: &dyn Clock, entropy: &dyn Entropy) -> Self {
                Self(new_uuid(clock, entropy))
            }

            /// Takes over an id that was made before.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The id's value.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
    )+};
}

ids! {
    /// An organisation: the tenant that every row belongs to.
    OrganizationId,
    /// A person who signs in.
    UserId,
    /// A sign-in of a user: what its tokens belong to and what a logout ends.
    SessionId,
    /// A device, as the server names it (its hardware has a `uuid` of its own).
    DeviceId,
    /// A command in the ledger.
    CommandId,
    /// An enrolment secret.
    EnrollmentSecretId,
    /// A key that signs access tokens.
    SigningKeyId,
    /// A running server process.
    NodeId,
    /// A subscriber's or an agent's connection.
    ConnectionId,
    /// A device group.
    GroupId,
    /// A policy.
    PolicyId,
    /// An application.
    ApplicationId,
    /// An API key.
    ApiKeyId,
    /// A batch of commands.
    BatchId,
    /// A webhook.
    WebhookId,
    /// An attempt to deliver an event to a webhook.
    WebhookDeliveryId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::FrozenClock, entropy::SeededEntropy};

    #[test]
    fn ids_made_later_sort_later() {
        let clock = FrozenClock::new(chrono::DateTime::UNIX_EPOCH + chrono::Duration::days(20_000));
        let entropy = SeededEntropy::new(7);
        let first = DeviceId::new(&clock, &entropy);
        clock.advance(chrono::Duration::milliseconds(1));
        let second = DeviceId::new(&clock, &entropy);
        assert!(first < second);
        assert_eq!(first.uuid().get_version_num(), 7);
    }
}
