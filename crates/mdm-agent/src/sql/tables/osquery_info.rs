//! This agent itself, in osquery's table about itself.

use super::{Value, integer, text};
use crate::{platform, sql::Table};

pub(super) const TABLE: Table = Table {
    name: c"osquery_info",
    columns: &[
        ("pid", "INTEGER"),
        ("uuid", "TEXT"),
        ("instance_id", "TEXT"),
        ("version", "TEXT"),
        ("config_hash", "TEXT"),
        ("config_valid", "INTEGER"),
        ("extensions", "TEXT"),
        ("build_platform", "TEXT"),
        ("build_distro", "TEXT"),
        ("start_time", "INTEGER"),
        ("watcher", "INTEGER"),
        ("platform_mask", "INTEGER"),
        ("name", "TEXT"),
        ("platform", "TEXT"),
    ],
    rows: || {
        let start = procfs::process::Process::myself()
            .ok()
            .and_then(|process| super::processes::start_time(&process.stat().ok()?));
        vec![vec![
            integer(std::process::id()),
            super::optional_text(platform::hardware_uuid()),
            Value::Null,
            text(env!("CARGO_PKG_VERSION")),
            Value::Null,
            integer(1),
            text("inactive"),
            text(std::env::consts::OS),
            text(std::env::consts::ARCH),
            start.map_or(Value::Null, Value::Integer),
            integer(-1),
            // osquery's mask for Linux.
            integer(9),
            text("mobius-agent"),
            text(std::env::consts::OS),
        ]]
    },
};
