//! Devices: what is managed.

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::Duration;
use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    ids::{DeviceId, OrganizationId},
    invalid::{self, Invalid},
    json::RawJson,
};

/// A set of fixed words, with their names in the API and the database.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $error:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value's name in the API and the database.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        #[doc = concat!("The text names no ", $what, ".")]
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[error("unknown {}; known are: {}", $what, [$($text),+].join(", "))]
        pub struct $error;

        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or($error)
            }
        }
    };
}
pub(crate) use words;

words! {
    /// The kind of operating system.
    Platform, UnknownPlatform, "platform" {
        /// Microsoft Windows.
        Windows = "windows",
        /// Apple macOS.
        Macos = "macos",
        /// Linux.
        Linux = "linux",
        /// Apple iOS and iPadOS.
        Ios = "ios",
        /// Android.
        Android = "android",
    }
}

words! {
    /// Where a device stands.
    DeviceStatus, UnknownDeviceStatus, "device status" {
        /// Announced, not yet enrolled.
        Pending = "pending",
        /// Enrolled, and has not been heard from since.
        Enrolled = "enrolled",
        /// Has a live channel, or checked in within twice the interval that it was asked for.
        Online = "online",
        /// Was online and is no longer.
        Offline = "offline",
        /// Was released; its token does not work any more.
        Unenrolled = "unenrolled",
    }
}

/// The hardware's own identifier: any text of 1 to 128 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct HardwareUuid(String);

impl HardwareUuid {
    /// Takes the identifier that a device gives for itself.
    pub fn parse(value: &str) -> Result<Self, Invalid> {
        invalid::text("/uuid", value, 128).map(Self)
    }

    /// The identifier's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A device's name in the network: 1 to 253 characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Hostname(String);

impl Hostname {
    /// Takes a name as devices really have them: people put spaces and apostrophes into them, so
    /// RFC 1123 is no measure here.
    pub fn parse(value: &str) -> Result<Self, Invalid> {
        invalid::text("/hostname", value, 253).map(Self)
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Labels: at most 64 pairs, keys up to 63 characters, values up to 255.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Takes pairs after checking their number and lengths.
    pub fn parse(pairs: BTreeMap<String, String>) -> Result<Self, Invalid> {
        if pairs.len() > 64 {
            return Err(Invalid::new(
                "/labels",
                "TOO_MANY",
                "must have at most 64 labels",
            ));
        }
        for (key, value) in &pairs {
            invalid::text(&format!("/labels/{}", invalid::escape(key)), key, 63)?;
            if value.chars().count() > 255 || value.chars().any(char::is_control) {
                let pointer = format!("/labels/{}", invalid::escape(key));
                return Err(Invalid::new(
                    pointer,
                    "INVALID_LABEL",
                    "must have at most 255 characters, none of them control characters",
                ));
            }
        }
        Ok(Self(pairs))
    }

    /// These labels with `others` laid over them.
    #[must_use]
    pub fn overlaid_with(mut self, others: &Self) -> Self {
        self.0.extend(others.0.clone());
        self
    }

    /// The pairs.
    pub const fn pairs(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// A managed device.
#[derive(Debug, Clone)]
pub struct Device {
    /// The server's id for it.
    pub id: DeviceId,
    /// The organisation that it belongs to.
    pub organization_id: OrganizationId,
    /// The hardware's own identifier, unique within the organisation.
    pub uuid: HardwareUuid,
    /// Its name in the network.
    pub hostname: Hostname,
    /// Its operating system's kind.
    pub platform: Platform,
    /// Its operating system's version, as it reports it.
    pub os_version: Option<String>,
    /// The maker's serial number.
    pub serial_number: Option<String>,
    /// Where it stands.
    pub status: DeviceStatus,
    /// When it was last heard from.
    pub last_seen: Option<Timestamp>,
    /// When it enrolled (the last time).
    pub enrolled_at: Timestamp,
    /// Labels given by people and by its enrolment secret.
    pub labels: Labels,
    /// What it says of its hardware and system; an empty object before it said anything.
    pub hardware_info: RawJson,
    /// When `hardware_info` was observed.
    pub hardware_observed_at: Option<Timestamp>,
    /// Counts the changes of the row: its `ETag`.
    pub version: i64,
}

/// How devices are asked to check in, and when silence means offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckinPace {
    interval: Duration,
}

impl CheckinPace {
    /// Asks for a check-in every `seconds` (5 to 86,400; what is outside is brought inside).
    pub fn every(seconds: i64) -> Self {
        Self {
            interval: Duration::seconds(seconds.clamp(5, 86_400)),
        }
    }

    /// The interval that devices are asked for.
    pub const fn interval(self) -> Duration {
        self.interval
    }

    /// A device without a channel that was last seen before this moment is offline.
    pub fn offline_before(self, now: Timestamp) -> Timestamp {
        now - self.interval * 2
    }

    /// The interval for one answer, in seconds: between nine tenths and the whole of it by
    /// `fraction` (0 to 255), so that devices that start together spread out, and none is late.
    pub fn jittered_seconds(self, fraction: u8) -> i64 {
        let whole = self.interval.num_seconds();
        (whole - whole * i64::from(fraction) / 2560).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_uuid_may_be_any_text_of_up_to_128_characters() {
        assert_eq!(
            HardwareUuid::parse(" c0ffee/1 ").unwrap().as_str(),
            "c0ffee/1"
        );
        assert!(HardwareUuid::parse(&"ü".repeat(128)).is_ok());
        assert_eq!(
            HardwareUuid::parse(&"x".repeat(129)).unwrap_err().code,
            "TOO_LONG"
        );
        assert_eq!(HardwareUuid::parse("  ").unwrap_err().code, "EMPTY");
        assert_eq!(
            HardwareUuid::parse("a\0b").unwrap_err().code,
            "CONTROL_CHARACTER"
        );
    }

    #[test]
    fn an_unknown_platform_is_told_which_there_are() {
        let error = "beos".parse::<Platform>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown platform; known are: windows, macos, linux, ios, android"
        );
    }

    #[test]
    fn a_bad_label_is_pointed_at() {
        let pairs = BTreeMap::from([("a/b".to_owned(), "x".repeat(256))]);
        assert_eq!(Labels::parse(pairs).unwrap_err().pointer, "/labels/a~1b");
    }

    #[test]
    fn check_ins_are_spread_over_a_tenth_of_the_interval() {
        let pace = CheckinPace::every(60);
        assert_eq!(pace.jittered_seconds(0), 60);
        assert_eq!(pace.jittered_seconds(255), 55);
    }
}
