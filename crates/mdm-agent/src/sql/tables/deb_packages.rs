//! Installed packages of Debian and its relatives, from dpkg's own file.

use std::{collections::HashMap, fs};

use super::{Row, Value, text};
use crate::sql::Table;

pub(super) const TABLE: Table = Table {
    name: c"deb_packages",
    columns: &[
        ("name", "TEXT"),
        ("version", "TEXT"),
        ("source", "TEXT"),
        ("size", "BIGINT"),
        ("arch", "TEXT"),
        ("revision", "TEXT"),
        ("status", "TEXT"),
        ("maintainer", "TEXT"),
        ("section", "TEXT"),
        ("priority", "TEXT"),
    ],
    rows: || {
        let status = fs::read("/var/lib/dpkg/status").unwrap_or_default();
        String::from_utf8_lossy(&status)
            .split("\n\n")
            .filter_map(package)
            .collect()
    },
};

/// A stanza of deb-control(5), if the package is installed.
fn package(stanza: &str) -> Option<Row> {
    let fields: HashMap<&str, &str> = stanza
        .lines()
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_once(": "))
        .collect();
    let get = |name: &str| fields.get(name).copied().unwrap_or_default();
    if !get("Status").ends_with(" installed") {
        return None;
    }
    let version = get("Version");
    Some(vec![
        text(get("Package")),
        text(version),
        text(get("Source")),
        get("Installed-Size")
            .parse()
            .map_or(Value::Null, Value::Integer),
        text(get("Architecture")),
        text(
            version
                .rsplit_once('-')
                .map_or("", |(_, revision)| revision),
        ),
        text(get("Status")),
        text(get("Maintainer")),
        text(get("Section")),
        text(get("Priority")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_installed_counts() {
        let stanza = |status: &str| {
            format!(
                "Package: x\nStatus: {status}\nVersion: 1.2-3\nInstalled-Size: 10\nDescription: y\n Package: z"
            )
        };
        let row = package(&stanza("install ok installed")).unwrap();
        assert_eq!(
            (&row[0], &row[1], &row[3], &row[5]),
            (&text("x"), &text("1.2-3"), &Value::Integer(10), &text("3"))
        );
        assert!(package(&stanza("deinstall ok config-files")).is_none());
    }
}
