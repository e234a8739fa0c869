//! The configuration of sshd (`sshd_config(5)`): the first value of a keyword counts, and what stands below
//! `Match` is not for everybody.

use std::path::Path;

use serde_json::Value;

use super::{Finding, Unreadable, asks_nothing, read, read_all};

/// The first value of a keyword.
fn keyword(root: &Path, text: &str, wanted: &str, depth: u8) -> Result<Option<String>, Unreadable> {
    for line in text.lines().map(str::trim) {
        let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty());
        let Some(name) = words.next() else { continue };
        if name.eq_ignore_ascii_case("match") {
            return Ok(None);
        }
        if name.eq_ignore_ascii_case("include") && depth > 0 {
            for pattern in words {
                for text in included(root, pattern)? {
                    let found = keyword(root, &text, wanted, depth - 1)?;
                    if found.is_some() {
                        return Ok(found);
                    }
                }
            }
        } else if name.eq_ignore_ascii_case(wanted) {
            let value = words.next();
            return Ok(value.map(|value| value.trim_matches('"').to_lowercase()));
        }
    }
    Ok(None)
}

/// The files that an `Include` names: a directory with `*.conf`, as everybody writes it, or a file.
fn included(root: &Path, pattern: &str) -> Result<Vec<String>, Unreadable> {
    let absolute = pattern.strip_prefix('/');
    let path = absolute.map_or_else(|| format!("etc/ssh/{pattern}"), str::to_owned);
    match path.rsplit_once('/') {
        Some((directory, name)) if name.starts_with('*') => {
            read_all(root, directory, name.trim_start_matches('*'))
        }
        _ => Ok(read(root, &path)?.into_iter().collect()),
    }
}

fn must_be_no(
    root: &Path,
    value: &Value,
    wanted: &str,
    default: &str,
    why: &str,
) -> Result<Finding, Unreadable> {
    if let Some(nothing) = asks_nothing(value, true) {
        return Ok(nothing);
    }
    let Some(text) = read(root, "etc/ssh/sshd_config")? else {
        return Ok(Finding::NotApplicable("there is no sshd".to_owned()));
    };
    let found = keyword(root, &text, wanted, 4)?.unwrap_or_else(|| default.to_owned());
    Ok(Finding::of(found == "no", found, why))
}

pub(super) fn root_login(root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    must_be_no(
        root,
        value,
        "PermitRootLogin",
        "prohibit-password",
        "root may sign in",
    )
}

pub(super) fn password_login(root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    must_be_no(
        root,
        value,
        "PasswordAuthentication",
        "yes",
        "people may sign in with passwords",
    )
}
