//! Mounted file systems.

use procfs::process::{MountInfo, Process};

use super::{Row, Value, integer, text};
use crate::sql::Table;

pub(super) const TABLE: Table = Table {
    name: c"mounts",
    columns: &[
        ("device", "TEXT"),
        ("device_alias", "TEXT"),
        ("path", "TEXT"),
        ("type", "TEXT"),
        ("blocks_size", "BIGINT"),
        ("blocks", "BIGINT"),
        ("blocks_free", "BIGINT"),
        ("blocks_available", "BIGINT"),
        ("inodes", "BIGINT"),
        ("inodes_free", "BIGINT"),
        ("flags", "TEXT"),
    ],
    rows: || {
        let mounts = Process::myself().and_then(|process| process.mountinfo());
        mounts
            .map(|mounts| mounts.into_iter().map(row).collect())
            .unwrap_or_default()
    },
};

fn row(mount: MountInfo) -> Row {
    let device = mount.mount_source.unwrap_or_default();
    let mut row = vec![
        text(device.clone()),
        text(device),
        text(mount.mount_point.display().to_string()),
        text(mount.fs_type),
    ];
    // A remote file system whose server is away would hang here; the query's time does not count
    // that, but the agent's other lanes go on.
    match rustix::fs::statvfs(&mount.mount_point) {
        Ok(stat) => row.extend(
            [
                stat.f_frsize,
                stat.f_blocks,
                stat.f_bfree,
                stat.f_bavail,
                stat.f_files,
                stat.f_ffree,
            ]
            .map(integer),
        ),
        Err(_) => row.extend(std::iter::repeat_n(Value::Null, 6)),
    }
    let mut flags: Vec<String> = mount
        .mount_options
        .into_iter()
        .map(|(key, value)| value.map_or_else(|| key.clone(), |value| format!("{key}={value}")))
        .collect();
    flags.sort();
    row.push(text(flags.join(",")));
    row
}
