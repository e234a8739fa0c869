//! Running processes.

use procfs::process::{Process, Stat, all_processes};

use super::{Row, Value, integer, text};
use crate::sql::Table;

pub(super) const TABLE: Table = Table {
    name: c"processes",
    columns: &[
        ("pid", "BIGINT"),
        ("name", "TEXT"),
        ("path", "TEXT"),
        ("cmdline", "TEXT"),
        ("state", "TEXT"),
        ("cwd", "TEXT"),
        ("root", "TEXT"),
        ("uid", "BIGINT"),
        ("gid", "BIGINT"),
        ("euid", "BIGINT"),
        ("egid", "BIGINT"),
        ("suid", "BIGINT"),
        ("sgid", "BIGINT"),
        ("on_disk", "INTEGER"),
        ("wired_size", "BIGINT"),
        ("resident_size", "BIGINT"),
        ("total_size", "BIGINT"),
        ("user_time", "BIGINT"),
        ("system_time", "BIGINT"),
        ("start_time", "BIGINT"),
        ("parent", "BIGINT"),
        ("pgroup", "BIGINT"),
        ("threads", "INTEGER"),
        ("nice", "INTEGER"),
    ],
    // A process that ends while it is read is not there any more.
    rows: || {
        all_processes()
            .map(|all| all.flatten().filter_map(|process| row(&process)).collect())
            .unwrap_or_default()
    },
};

fn row(process: &Process) -> Option<Row> {
    let (stat, status) = (process.stat().ok()?, process.status().ok()?);
    let path = |path: procfs::ProcResult<std::path::PathBuf>| {
        path.map_or(Value::Null, |path| text(path.display().to_string()))
    };
    let exe = process.exe();
    let on_disk = exe.as_ref().map_or(-1, |path| i64::from(path.exists()));
    let ticks = procfs::ticks_per_second().max(1);
    let millis = |time: u64| integer(time.saturating_mul(1_000) / ticks);
    Some(vec![
        integer(stat.pid),
        text(stat.comm.clone()),
        path(exe),
        text(process.cmdline().unwrap_or_default().join(" ")),
        text(stat.state.to_string()),
        path(process.cwd()),
        path(process.root()),
        integer(status.ruid),
        integer(status.rgid),
        integer(status.euid),
        integer(status.egid),
        integer(status.suid),
        integer(status.sgid),
        integer(on_disk),
        integer(0),
        integer(stat.rss.saturating_mul(procfs::page_size())),
        integer(stat.vsize),
        millis(stat.utime),
        millis(stat.stime),
        start_time(&stat).map_or(Value::Null, Value::Integer),
        integer(stat.ppid),
        integer(stat.pgrp),
        integer(stat.num_threads),
        integer(stat.nice),
    ])
}

/// When the process began, in seconds since 1970.
pub(super) fn start_time(stat: &Stat) -> Option<i64> {
    let boot = procfs::boot_time_secs().ok()?;
    i64::try_from(boot + stat.starttime / procfs::ticks_per_second().max(1)).ok()
}
