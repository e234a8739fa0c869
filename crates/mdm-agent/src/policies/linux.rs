//! The catalogue's settings on Linux. To add one: a function here and a line in [`CHECKS`].
//!
//! Files are read below a root, so that tests can lay out a machine.

mod files;
mod network;
mod ssh;

use std::path::Path;

use mdm_proto::policies::RuleResult;
use serde_json::Value;

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// It is as the policy wants it; this is how it is.
    Passed(Value),
    /// It is not; this is how it is.
    Failed(Value, String),
    /// It makes no sense here.
    NotApplicable(String),
    /// It could not be found out.
    Unknown(String),
}

impl Finding {
    /// Passed if `good`, else failed for this reason.
    fn of(good: bool, actual: impl Into<Value>, otherwise: &str) -> Self {
        if good {
            Self::Passed(actual.into())
        } else {
            Self::Failed(actual.into(), otherwise.to_owned())
        }
    }

    /// As the server takes it.
    pub fn into_result(self, rule: &str) -> RuleResult {
        let (state, actual, detail) = match self {
            Self::Passed(actual) => ("passed", Some(actual), None),
            Self::Failed(actual, why) => ("failed", Some(actual), Some(why)),
            Self::NotApplicable(why) => ("not_applicable", None, Some(why)),
            Self::Unknown(why) => ("error", None, Some(why)),
        };
        RuleResult {
            rule: rule.to_owned(),
            state: state.to_owned(),
            actual,
            detail,
        }
    }
}

type Check = fn(&Path, &Value) -> Finding;

/// The settings that are checked on Linux.
pub const CHECKS: &[(&str, Check)] = &[
    ("auto_updates", files::auto_updates),
    ("bluetooth_allowed", files::bluetooth),
    ("disk_encryption_required", files::disk_encryption),
    ("disk_free_percent_min", files::disk_free),
    ("firewall_enabled", network::firewall),
    ("forbidden_packages", files::forbidden_packages),
    ("ip_forwarding_allowed", network::ip_forwarding),
    ("os_version_min", files::os_version),
    ("password_max_age_days", files::password_age),
    ("password_min_length", files::password_length),
    ("required_packages", files::required_packages),
    ("screen_lock_seconds", files::screen_lock),
    ("secure_boot_required", files::secure_boot),
    ("ssh_password_login_allowed", ssh::password_login),
    ("ssh_root_login_allowed", ssh::root_login),
    ("time_sync_required", network::time_sync),
    ("uptime_days_max", files::uptime),
    ("usb_storage_allowed", files::usb_storage),
];

/// Checks one setting.
pub fn check(root: &Path, name: &str, value: &Value) -> Finding {
    CHECKS.iter().find(|(known, _)| *known == name).map_or_else(
        || Finding::NotApplicable(format!("{name} is not checked on Linux")),
        |(_, check)| check(root, value),
    )
}

/// What is allowed needs no look; what is not wanted to be required neither.
fn asks_nothing(value: &Value, when: bool) -> Option<Finding> {
    (value.as_bool() == Some(when)).then_some(Finding::Passed(Value::Null))
}

fn read(root: &Path, path: &str) -> Option<String> {
    let bytes = std::fs::read(root.join(path)).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The files of a directory whose names end so, in the order of their names.
fn read_all(root: &Path, directory: &str, ending: &str) -> Vec<String> {
    let mut paths: Vec<_> = std::fs::read_dir(root.join(directory))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    paths.sort();
    paths
        .iter()
        .filter_map(|path| std::fs::read(path).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect()
}

#[cfg(test)]
mod tests;
