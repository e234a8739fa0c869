//! What files and the kernel's own directories tell.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::{Value, json};
use version_compare::Cmp;

use super::{Finding, Unreadable, asks_nothing, entries, if_there, read, read_all};

pub(super) fn auto_updates(root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    if let Some(nothing) = asks_nothing(value, false) {
        return Ok(nothing);
    }
    if root.join("etc/apt").is_dir() {
        let set = read_all(root, "etc/apt/apt.conf.d", "")?
            .iter()
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .filter_map(|line| {
                let rest = line
                    .trim()
                    .strip_prefix("APT::Periodic::Unattended-Upgrade")?;
                Some(
                    rest.trim()
                        .trim_end_matches(';')
                        .trim_matches('"')
                        .to_owned(),
                )
            })
            .next_back();
        let on = set.as_deref().is_some_and(|days| days != "0");
        return Ok(Finding::of(
            on,
            on,
            "APT::Periodic::Unattended-Upgrade is not set, or 0",
        ));
    }
    let wants = root.join("etc/systemd/system/timers.target.wants");
    let on = [
        "dnf-automatic.timer",
        "dnf-automatic-install.timer",
        "dnf5-automatic.timer",
    ]
    .iter()
    .any(|timer| wants.join(timer).symlink_metadata().is_ok());
    if !on && !root.join("usr/bin/dnf").exists() {
        return Ok(Finding::Unknown("neither apt nor dnf is here".to_owned()));
    }
    Ok(Finding::of(on, on, "no timer of dnf-automatic is enabled"))
}

pub(super) fn bluetooth(root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    if let Some(nothing) = asks_nothing(value, true) {
        return Ok(nothing);
    }
    let found = entries(&root.join("sys/class/bluetooth"))?.len();
    Ok(Finding::of(
        found == 0,
        found != 0,
        "there is a Bluetooth device",
    ))
}

/// Whether the block device, or one that it lies on, is a dm-crypt mapping.
fn is_encrypted(block: &Path, depth: u8) -> Result<bool, Unreadable> {
    let uuid = block.join("dm/uuid");
    let uuid = if_there(&uuid, std::fs::read_to_string(&uuid))?;
    if uuid.is_some_and(|uuid| uuid.starts_with("CRYPT-")) {
        return Ok(true);
    }
    // A partition's own directory has no slaves; those of its disk say nothing of it.
    let slaves = entries(&block.join("slaves"))?;
    if depth == 0 || slaves.is_empty() {
        return Ok(false);
    }
    for slave in slaves {
        if !is_encrypted(&slave, depth - 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn disk_encryption(root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    if let Some(nothing) = asks_nothing(value, false) {
        return Ok(nothing);
    }
    let mounts = read(root, "proc/self/mountinfo")?.unwrap_or_default();
    // Fields of proc(5): the third is the device, the fifth where it is mounted.
    let device = mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ');
        let (device, target) = (fields.nth(2)?, fields.nth(1)?);
        (target == "/").then(|| device.to_owned())
    });
    let Some(device) = device else {
        return Ok(Finding::Unknown(
            "what is mounted at / cannot be found out".to_owned(),
        ));
    };
    let block = root.join("sys/dev/block").join(&device);
    if device.starts_with("0:") || !block.exists() {
        return Ok(Finding::Unknown(format!(
            "/ lies on no block device of its own ({device})"
        )));
    }
    let encrypted = is_encrypted(&block, 4)?;
    Ok(Finding::of(
        encrypted,
        encrypted,
        "the device that holds / is not encrypted",
    ))
}

pub(super) fn disk_free(root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    let disk = rustix::fs::statvfs(root).map_err(|error| Unreadable::new(root, &error.into()))?;
    if disk.f_blocks == 0 {
        return Ok(Finding::Unknown(
            "the file system of / does not tell its size".to_owned(),
        ));
    }
    let percent = disk.f_bavail.saturating_mul(100) / disk.f_blocks;
    let wanted = value.as_u64().unwrap_or_default();
    Ok(Finding::of(
        percent >= wanted,
        percent,
        "less of the disk is free",
    ))
}

/// The names of all installed packages.
fn packages(root: &Path) -> Result<Option<BTreeSet<String>>, Unreadable> {
    if let Some(status) = read(root, "var/lib/dpkg/status")? {
        let names = status.split("\n\n").filter_map(|stanza| {
            let installed = stanza
                .lines()
                .any(|line| line.starts_with("Status: ") && line.ends_with(" installed"));
            let name = stanza
                .lines()
                .find_map(|line| line.strip_prefix("Package: "))?;
            installed.then(|| name.trim().to_owned())
        });
        return Ok(Some(names.collect()));
    }
    let listed = Command::new("rpm")
        .args(["-qa", "--qf", "%{NAME}\\n"])
        .output();
    let Some(listed) = if_there(Path::new("rpm"), listed)?.filter(|done| done.status.success())
    else {
        return Ok(None);
    };
    let names = String::from_utf8_lossy(&listed.stdout);
    Ok(Some(names.lines().map(str::to_owned).collect()))
}

fn named(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

pub(super) fn forbidden_packages(root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    let Some(installed) = packages(root)? else {
        return Ok(Finding::Unknown("neither dpkg nor rpm is here".to_owned()));
    };
    let found: Vec<&str> = named(value)
        .filter(|name| installed.contains(*name))
        .collect();
    Ok(Finding::of(
        found.is_empty(),
        json!(found),
        "these are installed",
    ))
}

pub(super) fn required_packages(root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    let Some(installed) = packages(root)? else {
        return Ok(Finding::Unknown("neither dpkg nor rpm is here".to_owned()));
    };
    let missing: Vec<&str> = named(value)
        .filter(|name| !installed.contains(*name))
        .collect();
    Ok(Finding::of(
        missing.is_empty(),
        json!({ "missing": missing }),
        "these are missing",
    ))
}

pub(super) fn os_version(root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    let release = read(root, "etc/os-release")?.unwrap_or_default();
    let version = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_ID="))
        .map(|text| text.trim_matches('"').to_owned());
    let Some(version) = version else {
        return Ok(Finding::Unknown(
            "/etc/os-release has no VERSION_ID".to_owned(),
        ));
    };
    let wanted = value.as_str().unwrap_or_default();
    let Ok(good) = version_compare::compare_to(&version, wanted, Cmp::Ge) else {
        return Ok(Finding::Unknown(format!(
            "{version} cannot be compared with {wanted}"
        )));
    };
    Ok(Finding::of(good, version, "the operating system is older"))
}

/// A setting of a file with `NAME value` lines.
fn setting<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix(name))
        .filter(|rest| rest.starts_with([' ', '\t', '=']))
        .map(|rest| rest.trim_start_matches([' ', '\t', '=']).trim())
        .next_back()
}

pub(super) fn password_age(root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    let file = read(root, "etc/login.defs")?.unwrap_or_default();
    let days = setting(&file, "PASS_MAX_DAYS").and_then(|text| text.parse::<i64>().ok());
    let Some(days) = days else {
        return Ok(Finding::Failed(
            Value::Null,
            "PASS_MAX_DAYS is not set".to_owned(),
        ));
    };
    let wanted = value.as_i64().unwrap_or_default();
    let good = (1..=wanted).contains(&days);
    Ok(Finding::of(good, days, "passwords may be older"))
}

pub(super) fn password_length(root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    let rules = read_all(root, "etc/pam.d", "")?;
    let lines = rules.iter().flat_map(|text| text.lines());
    let mut used = lines.filter(|line| !line.starts_with('#') && line.contains("pam_pwquality.so"));
    let Some(line) = used.next() else {
        let why = "pam_pwquality is not in use: nothing checks how long a password is";
        return Ok(Finding::Failed(Value::Null, why.to_owned()));
    };
    let argument = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("minlen="));
    let mut files = vec![read(root, "etc/security/pwquality.conf")?.unwrap_or_default()];
    files.extend(read_all(root, "etc/security/pwquality.conf.d", ".conf")?);
    let configured = files
        .iter()
        .filter_map(|text| setting(text, "minlen"))
        .next_back();
    // What pam_pwquality takes if nobody says (pwquality.conf(5)).
    let length = argument
        .or(configured)
        .and_then(|text| text.parse::<i64>().ok())
        .unwrap_or(8);
    let wanted = value.as_i64().unwrap_or_default();
    Ok(Finding::of(
        length >= wanted,
        length,
        "shorter passwords are taken",
    ))
}

pub(super) fn screen_lock(root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    let mut sessions = entries(&root.join("usr/share/xsessions"))?;
    sessions.extend(entries(&root.join("usr/share/wayland-sessions"))?);
    if !sessions
        .iter()
        .any(|path| path.extension().is_some_and(|ending| ending == "desktop"))
    {
        let why = "there is no graphical desktop";
        return Ok(Finding::NotApplicable(why.to_owned()));
    }
    let mut keys = std::collections::BTreeMap::new();
    for database in entries(&root.join("etc/dconf/db"))? {
        let name = database.file_name().unwrap_or_default().to_string_lossy();
        // Beside each directory lies its compiled form.
        if database.is_dir() {
            for text in read_all(root, &format!("etc/dconf/db/{name}"), "")? {
                keys.extend(gsettings(&text));
            }
        }
    }
    let number = |key: &str| -> Option<i64> {
        let text = keys.get(key)?.trim_start_matches("uint32").trim();
        text.parse().ok()
    };
    let off = keys
        .get("org/gnome/desktop/screensaver/lock-enabled")
        .is_some_and(|on| on == "false");
    let Some(idle) =
        number("org/gnome/desktop/session/idle-delay").filter(|idle| *idle > 0 && !off)
    else {
        let why = "no idle-delay is set for the whole system, or the lock is off";
        return Ok(Finding::Failed(Value::Null, why.to_owned()));
    };
    let seconds = idle + number("org/gnome/desktop/screensaver/lock-delay").unwrap_or(0);
    let wanted = value.as_i64().unwrap_or_default();
    Ok(Finding::of(
        seconds <= wanted,
        seconds,
        "the screen is locked later",
    ))
}

/// The keys of a dconf keyfile, with their paths.
fn gsettings(text: &str) -> Vec<(String, String)> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            keys.push((format!("{section}/{}", key.trim()), value.trim().to_owned()));
        }
    }
    keys
}

pub(super) fn secure_boot(root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    if let Some(nothing) = asks_nothing(value, false) {
        return Ok(nothing);
    }
    // The variable of the UEFI specification, section 3.3: four bytes of attributes, then its value.
    let path = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    let path = root.join(path);
    let variable = if_there(&path, std::fs::read(&path))?;
    let on = variable.as_ref().and_then(|bytes| bytes.get(4)) == Some(&1);
    let why = if variable.is_some() {
        "secure boot is off"
    } else {
        "EFI has no such variable, or did not start the machine"
    };
    Ok(Finding::of(on, on, why))
}

pub(super) fn uptime(root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    let text = read(root, "proc/uptime")?.unwrap_or_default();
    let seconds = text
        .split('.')
        .next()
        .and_then(|text| text.parse::<i64>().ok());
    let Some(seconds) = seconds else {
        return Ok(Finding::Unknown("/proc/uptime cannot be read".to_owned()));
    };
    let days = seconds / 86_400;
    let wanted = value.as_i64().unwrap_or_default();
    Ok(Finding::of(
        days < wanted,
        days,
        "the machine has not been restarted for longer",
    ))
}

pub(super) fn usb_storage(root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    if let Some(nothing) = asks_nothing(value, true) {
        return Ok(nothing);
    }
    let loaded = root.join("sys/module/usb_storage").exists();
    let blocked = read_all(root, "etc/modprobe.d", ".conf")?
        .iter()
        .any(|text| {
            text.lines().any(|line| {
                let words: Vec<String> = line
                    .split_whitespace()
                    .map(|word| word.replace('_', "-"))
                    .collect();
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                matches!(
                    words.as_slice(),
                    ["blacklist", "usb-storage"]
                        | ["install", "usb-storage", "/bin/false" | "/bin/true", ..]
                )
            })
        });
    let actual = json!({ "loaded": loaded, "blocked": blocked });
    Ok(Finding::of(
        blocked && !loaded,
        actual,
        "usb-storage can be loaded, or is",
    ))
}
