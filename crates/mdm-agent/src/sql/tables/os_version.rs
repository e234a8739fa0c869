//! The operating system.

use super::{Value, integer, text};
use crate::{platform, sql::Table};

pub(super) const TABLE: Table = Table {
    name: c"os_version",
    columns: &[
        ("name", "TEXT"),
        ("version", "TEXT"),
        ("major", "INTEGER"),
        ("minor", "INTEGER"),
        ("patch", "INTEGER"),
        ("build", "TEXT"),
        ("platform", "TEXT"),
        ("platform_like", "TEXT"),
        ("codename", "TEXT"),
        ("arch", "TEXT"),
    ],
    rows: || {
        let release = platform::os_release();
        let mut parts = release
            .get("VERSION_ID")
            .split('.')
            .map(|part| part.parse::<i64>().ok());
        let mut part = || parts.next().flatten().map_or(Value::Null, integer);
        vec![vec![
            text(release.get("NAME")),
            text(release.get("VERSION")),
            part(),
            part(),
            part(),
            text(release.get("BUILD_ID")),
            text(release.get("ID")),
            text(release.get("ID_LIKE")),
            text(release.get("VERSION_CODENAME")),
            text(std::env::consts::ARCH),
        ]]
    },
};
