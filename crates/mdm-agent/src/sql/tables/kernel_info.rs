//! The running kernel.

use std::fs;

use super::{Value, text};
use crate::{platform, sql::Table};

pub(super) const TABLE: Table = Table {
    name: c"kernel_info",
    columns: &[
        ("version", "TEXT"),
        ("arguments", "TEXT"),
        ("path", "TEXT"),
        ("device", "TEXT"),
    ],
    rows: || {
        let arguments = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let find = |name: &str| {
            let found = arguments
                .split_whitespace()
                .find_map(|word| word.strip_prefix(name));
            found.map_or(Value::Null, text)
        };
        vec![vec![
            text(platform::kernel_release()),
            text(arguments.trim()),
            find("BOOT_IMAGE="),
            find("root="),
        ]]
    },
};
