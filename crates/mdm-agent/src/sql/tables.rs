//! The tables. To add one: a file with its columns and its rows, and a line in [`ALL`].

mod deb_packages;
mod interface_addresses;
mod kernel_info;
mod listening_ports;
mod mounts;
mod os_version;
mod osquery_info;
mod processes;
mod system_info;
mod uptime;
mod users;

use rusqlite::types::Value;

use super::live_table::Row;
use super::live_table::Table;

/// Every table.
pub static ALL: &[Table] = &[
    deb_packages::TABLE,
    interface_addresses::TABLE,
    kernel_info::TABLE,
    listening_ports::TABLE,
    mounts::TABLE,
    os_version::TABLE,
    osquery_info::TABLE,
    processes::TABLE,
    system_info::TABLE,
    uptime::TABLE,
    users::TABLE,
];

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

fn integer<T: TryInto<i64>>(value: T) -> Value {
    value.try_into().map_or(Value::Null, Value::Integer)
}

/// Nothing rather than an empty text.
fn optional_text(value: Option<String>) -> Value {
    value
        .filter(|text| !text.is_empty())
        .map_or(Value::Null, Value::Text)
}
