//! How long the machine runs.

use super::integer;
use crate::{platform, sql::Table};

pub(super) const TABLE: Table = Table {
    name: c"uptime",
    columns: &[
        ("days", "INTEGER"),
        ("hours", "INTEGER"),
        ("minutes", "INTEGER"),
        ("seconds", "INTEGER"),
        ("total_seconds", "BIGINT"),
    ],
    rows: || {
        let total = platform::uptime_seconds();
        vec![vec![
            integer(total / 86_400),
            integer(total / 3_600 % 24),
            integer(total / 60 % 60),
            integer(total % 60),
            integer(total),
        ]]
    },
};
