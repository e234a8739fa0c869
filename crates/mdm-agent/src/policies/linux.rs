//! The catalogue's settings on Linux. To add one: a function here and a line in [`CHECKS`].
//!
//! Files are read below a root, so that tests can lay out a machine.

mod files;
mod network;
mod ssh;

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

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

/// Something is there and cannot be read, most often for want of rights: nothing follows from that.
#[derive(Debug)]
pub struct Unreadable(String);

impl Unreadable {
    fn new(path: &Path, error: &io::Error) -> Self {
        Self(format!("{} cannot be read: {error}", path.display()))
    }
}

type Check = fn(&Path, &Value) -> Result<Finding, Unreadable>;

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
        |(_, check)| check(root, value).unwrap_or_else(|Unreadable(why)| Finding::Unknown(why)),
    )
}

/// What is allowed needs no look; what is not wanted to be required neither.
fn asks_nothing(value: &Value, when: bool) -> Option<Finding> {
    (value.as_bool() == Some(when)).then_some(Finding::Passed(Value::Null))
}

/// What is there, or `None` if it is not.
fn if_there<T>(path: &Path, read: io::Result<T>) -> Result<Option<T>, Unreadable> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(Unreadable::new(path, &error)),
    }
}

/// The file's text, or `None` if there is no such file.
fn read(root: &Path, path: &str) -> Result<Option<String>, Unreadable> {
    let path = root.join(path);
    let bytes = if_there(&path, fs::read(&path))?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// What is in a directory, in the order of the names; nothing if there is no such directory.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, Unreadable> {
    let mut paths = Vec::new();
    for entry in if_there(directory, fs::read_dir(directory))?
        .into_iter()
        .flatten()
    {
        let entry = entry.map_err(|error| Unreadable::new(directory, &error))?;
        paths.push(entry.path());
    }
    paths.sort();
    Ok(paths)
}

/// The files of a directory whose names end so, in the order of their names.
fn read_all(root: &Path, directory: &str, ending: &str) -> Result<Vec<String>, Unreadable> {
    let mut texts = Vec::new();
    for path in entries(&root.join(directory))? {
        if path.to_string_lossy().ends_with(ending) && !path.is_dir() {
            let bytes = if_there(&path, fs::read(&path))?;
            texts.extend(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests;
