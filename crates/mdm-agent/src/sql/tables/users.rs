//! The accounts of passwd(5).

use std::fs;

use super::{Row, Value, integer, text};
use crate::sql::Table;

pub(super) const TABLE: Table = Table {
    name: c"users",
    columns: &[
        ("uid", "BIGINT"),
        ("gid", "BIGINT"),
        ("uid_signed", "BIGINT"),
        ("gid_signed", "BIGINT"),
        ("username", "TEXT"),
        ("description", "TEXT"),
        ("directory", "TEXT"),
        ("shell", "TEXT"),
        ("uuid", "TEXT"),
    ],
    rows: || {
        fs::read_to_string("/etc/passwd")
            .unwrap_or_default()
            .lines()
            .filter_map(account)
            .collect()
    },
};

fn account(line: &str) -> Option<Row> {
    let mut fields = line.split(':');
    let (name, _password) = (fields.next()?, fields.next()?);
    let (uid, gid): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let signed = |id: u32| integer(id.cast_signed());
    Some(vec![
        integer(uid),
        integer(gid),
        signed(uid),
        signed(gid),
        text(name),
        text(fields.next()?),
        text(fields.next()?),
        text(fields.next()?),
        Value::Null,
    ])
}
