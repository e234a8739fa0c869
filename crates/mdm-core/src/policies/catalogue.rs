//! The catalogue of settings: what a policy can ask for, on which platforms, what strict means,
//! and how it is checked and enforced.
//!
//! To add a setting: an entry in [`SETTINGS`]; for platforms that have an agent, its check in
//! `mdm-agent` under the same name. A test there fails where the two differ.

use serde_json::{Value, json};
use version_compare::Cmp;

use super::PolicyPlatform;
use crate::{
    devices::Platform::{self, Android, Ios, Linux, Macos, Windows},
    invalid::Invalid,
};

/// What a setting's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer {
        /// The least that makes sense.
        least: i64,
        /// The most that makes sense.
        most: i64,
        /// What is counted, such as `seconds`.
        unit: &'static str,
    },
    /// A version, such as `14.2.1`.
    Version,
    /// A list of 1 to 200 different names, each of 1 to 100 characters.
    Names,
}

/// Which of two values asks for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// `true`.
    True,
    /// `false`.
    False,
    /// The higher number.
    Highest,
    /// The lower number.
    Lowest,
    /// The newer version.
    Newest,
    /// All names of all lists.
    Union,
}

/// Something that a policy can ask for.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name in configurations.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// What it asks for.
    pub description: &'static str,
    /// What its value is.
    pub kind: ValueKind,
    /// Which of two values asks for more.
    pub strictness: Strictness,
    /// What a form may offer first, as JSON.
    pub default: &'static str,
    /// The platforms that it makes sense on, each with how a device checks it; `None`: no agent
    /// checks it there yet, and the rule's state says so.
    pub platforms: &'static [(Platform, Option<&'static str>)],
    /// How it is put into effect; `None`: it is checked only.
    pub enforced: Option<&'static str>,
}

const BOOLEAN: ValueKind = ValueKind::Boolean;

const fn integer(least: i64, most: i64, unit: &'static str) -> ValueKind {
    ValueKind::Integer { least, most, unit }
}

macro_rules! setting {
    ($name:literal, $title:literal, $kind:expr, $strict:ident, $default:literal,
     [$(($platform:expr, $how:expr)),+ $(,)?], $description:literal) => {
        Setting {
            name: $name,
            title: $title,
            description: $description,
            kind: $kind,
            strictness: Strictness::$strict,
            default: $default,
            platforms: &[$(($platform, $how)),+],
            enforced: None,
        }
    };
}

/// Every setting, by name.
pub const SETTINGS: &[Setting] = &[
    setting!(
        "app_store_allowed",
        "Application store",
        BOOLEAN,
        False,
        "false",
        [(Ios, None), (Android, None), (Macos, None), (Windows, None)],
        "Whether people may install applications from the platform's store."
    ),
    setting!(
        "auto_updates",
        "Automatic updates",
        BOOLEAN,
        True,
        "true",
        [
            (
                Linux,
                Some(
                    "Debian and Ubuntu: APT::Periodic::Unattended-Upgrade in /etc/apt/apt.conf.d is not 0. Others: dnf-automatic.timer is enabled."
                )
            ),
            (Macos, None),
            (Windows, None),
            (Ios, None),
            (Android, None)
        ],
        "Security updates are installed without anybody having to ask."
    ),
    setting!(
        "bluetooth_allowed",
        "Bluetooth",
        BOOLEAN,
        False,
        "false",
        [
            (Linux, Some("No device under /sys/class/bluetooth.")),
            (Macos, None),
            (Windows, None),
            (Ios, None),
            (Android, None)
        ],
        "Whether Bluetooth may be used."
    ),
    setting!(
        "camera_allowed",
        "Camera",
        BOOLEAN,
        False,
        "false",
        [(Ios, None), (Android, None), (Macos, None), (Windows, None)],
        "Whether the camera may be used."
    ),
    setting!(
        "defender_enabled",
        "Microsoft Defender",
        BOOLEAN,
        True,
        "true",
        [(Windows, None)],
        "Real-time protection by Microsoft Defender is on."
    ),
    setting!(
        "developer_mode_allowed",
        "Developer mode",
        BOOLEAN,
        False,
        "false",
        [(Android, None), (Ios, None), (Windows, None)],
        "Whether developer options may be turned on."
    ),
    setting!(
        "disk_encryption_required",
        "Disk encryption",
        BOOLEAN,
        True,
        "true",
        [
            (
                Linux,
                Some(
                    "The block device that holds / is a dm-crypt mapping, or lies on one (/sys/dev/block)."
                )
            ),
            (Macos, None),
            (Windows, None),
            (Ios, None),
            (Android, None)
        ],
        "The system disk is encrypted."
    ),
    setting!(
        "disk_free_percent_min",
        "Free disk space",
        integer(1, 90, "percent"),
        Highest,
        "10",
        [
            (
                Linux,
                Some("Free space of the file system that holds /, for ordinary users.")
            ),
            (Macos, None),
            (Windows, None)
        ],
        "The least part of the system disk that must be free."
    ),
    setting!(
        "firewall_enabled",
        "Firewall",
        BOOLEAN,
        True,
        "true",
        [
            (
                Linux,
                Some(
                    "nft or iptables holds a rule or a policy that drops or rejects what comes in."
                )
            ),
            (Macos, None),
            (Windows, None)
        ],
        "The machine's own firewall filters what comes in."
    ),
    setting!(
        "forbidden_packages",
        "Forbidden packages",
        ValueKind::Names,
        Union,
        "[\"telnetd\"]",
        [
            (
                Linux,
                Some("None of them is installed, as dpkg's or rpm's database tells.")
            ),
            (Macos, None),
            (Windows, None),
            (Android, None)
        ],
        "Packages that must not be installed."
    ),
    setting!(
        "gatekeeper_enabled",
        "Gatekeeper",
        BOOLEAN,
        True,
        "true",
        [(Macos, None)],
        "Only signed applications run."
    ),
    setting!(
        "ip_forwarding_allowed",
        "IP forwarding",
        BOOLEAN,
        False,
        "false",
        [(
            Linux,
            Some("net.ipv4.ip_forward and net.ipv6.conf.all.forwarding are 0 (/proc/sys/net).")
        )],
        "Whether the machine may pass packets on between networks."
    ),
    setting!(
        "os_version_min",
        "Least version of the operating system",
        ValueKind::Version,
        Newest,
        "\"12\"",
        [
            (Linux, Some("VERSION_ID of /etc/os-release.")),
            (Macos, None),
            (Windows, None),
            (Ios, None),
            (Android, None)
        ],
        "The oldest version of the operating system that is acceptable."
    ),
    setting!(
        "password_max_age_days",
        "Age of passwords",
        integer(1, 3650, "days"),
        Lowest,
        "365",
        [
            (Linux, Some("PASS_MAX_DAYS in /etc/login.defs.")),
            (Macos, None),
            (Windows, None),
            (Ios, None),
            (Android, None)
        ],
        "After how many days a password must be changed."
    ),
    setting!(
        "password_min_length",
        "Length of passwords",
        integer(4, 64, "characters"),
        Highest,
        "12",
        [
            (
                Linux,
                Some(
                    "minlen of pam_pwquality (/etc/security/pwquality.conf and its directory, or its arguments in /etc/pam.d)."
                )
            ),
            (Macos, None),
            (Windows, None),
            (Ios, None),
            (Android, None)
        ],
        "How many characters a password must have at least."
    ),
    setting!(
        "required_packages",
        "Required packages",
        ValueKind::Names,
        Union,
        "[\"auditd\"]",
        [
            (
                Linux,
                Some("All of them are installed, as dpkg's or rpm's database tells.")
            ),
            (Macos, None),
            (Windows, None),
            (Android, None)
        ],
        "Packages that must be installed."
    ),
    setting!(
        "screen_lock_seconds",
        "Screen lock",
        integer(30, 86_400, "seconds"),
        Lowest,
        "600",
        [
            (
                Linux,
                Some(
                    "GNOME's system-wide idle-delay and lock-delay (/etc/dconf/db). A machine without a graphical desktop is not concerned."
                )
            ),
            (Macos, None),
            (Windows, None),
            (Ios, None),
            (Android, None)
        ],
        "After how much idle time the screen is locked."
    ),
    setting!(
        "secure_boot_required",
        "Secure boot",
        BOOLEAN,
        True,
        "true",
        [
            (Linux, Some("The EFI variable SecureBoot is 1.")),
            (Windows, None),
            (Macos, None),
            (Android, None)
        ],
        "The firmware starts signed systems only."
    ),
    setting!(
        "ssh_password_login_allowed",
        "SSH with passwords",
        BOOLEAN,
        False,
        "false",
        [
            (
                Linux,
                Some(
                    "PasswordAuthentication in sshd's configuration. A machine without sshd is not concerned."
                )
            ),
            (Macos, None)
        ],
        "Whether people may sign in over SSH with a password."
    ),
    setting!(
        "ssh_root_login_allowed",
        "SSH as root",
        BOOLEAN,
        False,
        "false",
        [
            (
                Linux,
                Some(
                    "PermitRootLogin in sshd's configuration. A machine without sshd is not concerned."
                )
            ),
            (Macos, None)
        ],
        "Whether root may sign in over SSH."
    ),
    setting!(
        "time_sync_required",
        "Clock",
        BOOLEAN,
        True,
        "true",
        [
            (
                Linux,
                Some("timedatectl says NTPSynchronized=yes, which is the kernel's own flag.")
            ),
            (Macos, None),
            (Windows, None)
        ],
        "The clock follows a time server."
    ),
    setting!(
        "unknown_sources_allowed",
        "Unknown sources",
        BOOLEAN,
        False,
        "false",
        [(Android, None)],
        "Whether applications from outside the store may be installed."
    ),
    setting!(
        "uptime_days_max",
        "Time since the last restart",
        integer(1, 3650, "days"),
        Lowest,
        "60",
        [
            (Linux, Some("/proc/uptime.")),
            (Macos, None),
            (Windows, None)
        ],
        "After how many days the machine must have been restarted."
    ),
    setting!(
        "usb_storage_allowed",
        "USB storage",
        BOOLEAN,
        False,
        "false",
        [
            (
                Linux,
                Some(
                    "The module usb-storage is blacklisted or installed as /bin/false in /etc/modprobe.d, and is not loaded."
                )
            ),
            (Macos, None),
            (Windows, None),
            (Android, None)
        ],
        "Whether USB storage may be used."
    ),
];

/// The setting of this name.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Checks one setting of a configuration for devices of the platform.
pub(super) fn check(
    pointer: &str,
    name: &str,
    platform: PolicyPlatform,
    value: &Value,
) -> Result<(), Invalid> {
    let Some(setting) = find(name) else {
        let detail = "there is no such setting; GET /api/v1/policy-settings lists them";
        return Err(Invalid::new(pointer, "UNKNOWN_SETTING", detail));
    };
    if !setting
        .platforms
        .iter()
        .any(|(fitting, _)| platform.includes(*fitting))
    {
        let known: Vec<_> = setting.platforms.iter().map(|(p, _)| p.as_str()).collect();
        let detail = format!("is for {} only", known.join(", "));
        return Err(Invalid::new(pointer, "WRONG_PLATFORM", detail));
    }
    setting.kind.check(pointer, value)
}

impl Setting {
    /// The value's JSON Schema (draft 2020-12).
    pub fn schema(&self) -> Value {
        match self.kind {
            ValueKind::Boolean => json!({"type": "boolean"}),
            ValueKind::Integer { least, most, .. } => {
                json!({"type": "integer", "minimum": least, "maximum": most})
            }
            ValueKind::Version => {
                json!({"type": "string", "pattern": "^[0-9][0-9A-Za-z.+~-]*$", "maxLength": 50})
            }
            ValueKind::Names => json!({
                "type": "array", "minItems": 1, "maxItems": 200, "uniqueItems": true,
                "items": {"type": "string", "minLength": 1, "maxLength": 100},
            }),
        }
    }

    /// What a form may offer first.
    pub fn default_value(&self) -> Value {
        serde_json::from_str(self.default).unwrap_or(Value::Null)
    }
}

impl ValueKind {
    fn check(self, pointer: &str, value: &Value) -> Result<(), Invalid> {
        let wrong = |detail: String| Err(Invalid::new(pointer, "WRONG_VALUE", detail));
        match self {
            Self::Boolean if value.is_boolean() => Ok(()),
            Self::Boolean => wrong("must be true or false".to_owned()),
            Self::Integer { least, most, unit } => match value.as_i64() {
                Some(number) if (least..=most).contains(&number) => Ok(()),
                _ => wrong(format!(
                    "must be a whole number from {least} to {most} ({unit})"
                )),
            },
            Self::Version => match value.as_str() {
                Some(text) if is_version(text) => Ok(()),
                _ => wrong("must be a version such as \"14.2.1\"".to_owned()),
            },
            Self::Names => {
                if is_names(value) {
                    Ok(())
                } else {
                    wrong(
                        "must be a list of 1 to 200 different names of 1 to 100 characters"
                            .to_owned(),
                    )
                }
            }
        }
    }
}

fn is_version(text: &str) -> bool {
    text.len() <= 50
        && text.starts_with(|first: char| first.is_ascii_digit())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".+~-".contains(c))
}

fn is_names(value: &Value) -> bool {
    let Some(items) = value.as_array() else {
        return false;
    };
    let names: Option<std::collections::BTreeSet<&str>> = items.iter().map(Value::as_str).collect();
    names.is_some_and(|names| {
        (1..=200).contains(&items.len())
            && names.len() == items.len()
            && names.iter().all(|name| {
                (1..=100).contains(&name.chars().count()) && !name.chars().any(char::is_control)
            })
    })
}

impl Strictness {
    /// The strictest of the values, or, for lists, all that they ask for together.
    pub fn strictest<'a>(self, values: impl Iterator<Item = &'a Value>) -> Option<Value> {
        match self {
            Self::Union => {
                let names: std::collections::BTreeSet<&str> = values
                    .filter_map(Value::as_array)
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                (!names.is_empty()).then(|| json!(names))
            }
            Self::Newest => values
                .reduce(|best, value| if newer(value, best) { value } else { best })
                .cloned(),
            Self::True => values.max_by_key(|value| value.as_bool()).cloned(),
            Self::False => values.min_by_key(|value| value.as_bool()).cloned(),
            Self::Highest => values.max_by_key(|value| value.as_i64()).cloned(),
            Self::Lowest => values.min_by_key(|value| value.as_i64()).cloned(),
        }
    }

    /// What strict means, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "true",
            Self::False => "false",
            Self::Highest => "highest",
            Self::Lowest => "lowest",
            Self::Newest => "newest",
            Self::Union => "union",
        }
    }
}

fn newer(value: &Value, than: &Value) -> bool {
    let texts = value.as_str().zip(than.as_str());
    texts.is_some_and(|(value, than)| {
        version_compare::compare_to(value, than, Cmp::Gt).unwrap_or(false)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_sorted_has_no_doubles_and_covers_every_platform() {
        let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
        assert!(names.is_sorted());
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(names.len() >= 20);
        for platform in Platform::ALL {
            let covered = SETTINGS
                .iter()
                .filter(|setting| setting.platforms.iter().any(|(p, _)| p == platform));
            assert!(covered.count() >= 5, "{platform}");
        }
    }

    #[test]
    fn every_default_is_a_value_that_the_setting_takes() {
        for setting in SETTINGS {
            let value = setting.default_value();
            assert!(setting.kind.check("", &value).is_ok(), "{}", setting.name);
        }
    }

    #[test]
    fn the_newest_version_is_the_strictest() {
        let values = [json!("9.10"), json!("10.2"), json!("10.10"), json!("10.9")];
        assert_eq!(
            Strictness::Newest.strictest(values.iter()),
            Some(json!("10.10"))
        );
    }
}
