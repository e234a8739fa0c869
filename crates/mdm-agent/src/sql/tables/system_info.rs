//! The machine.

use super::{Value, integer, optional_text, text};
use crate::{clock, platform, sql::Table};

pub(super) const TABLE: Table = Table {
    name: c"system_info",
    columns: &[
        ("hostname", "TEXT"),
        ("uuid", "TEXT"),
        ("cpu_type", "TEXT"),
        ("cpu_brand", "TEXT"),
        ("cpu_physical_cores", "INTEGER"),
        ("cpu_logical_cores", "INTEGER"),
        ("physical_memory", "BIGINT"),
        ("hardware_vendor", "TEXT"),
        ("hardware_model", "TEXT"),
        ("hardware_serial", "TEXT"),
        ("computer_name", "TEXT"),
        ("local_hostname", "TEXT"),
    ],
    rows: || {
        let info = platform::system_info(clock::now());
        vec![vec![
            text(info.hostname.clone()),
            optional_text(platform::hardware_uuid()),
            text(info.architecture),
            text(info.cpu.brand),
            info.cpu.physical_cores.map_or(Value::Null, integer),
            integer(info.cpu.logical_cores),
            integer(info.memory.total_bytes),
            optional_text(info.hardware.vendor),
            optional_text(info.hardware.model),
            optional_text(info.hardware.serial),
            text(info.hostname.clone()),
            text(info.hostname),
        ]]
    },
};
