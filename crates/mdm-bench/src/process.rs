//! A server process of the bench's own.

use std::{
    fs::Permissions,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::{
    param::clock_ticks_per_second,
    process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit},
};
use tempfile::TempDir;

/// The password of the bench's servers.
pub const PASSWORD: &str = "measure twice, cut once";

/// A running server.
pub struct Server {
    child: Child,
    /// Where it answers.
    pub url: String,
    /// How long it took from the start of the process until it said that it listens.
    pub started_in: Duration,
}

impl Server {
    /// Starts `binary` on `data_dir` and a free port, with these settings in its environment, and
    /// waits until it listens.
    pub fn start(
        binary: &Path,
        data_dir: &Path,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let mut command = Command::new(binary);
        command.arg("--data-dir").arg(data_dir).args([
            "--listen",
            "127.0.0.1:0",
            "--log-level",
            "warn",
        ]);
        command
            .env("MDM_ADMIN_PASSWORD", PASSWORD)
            .envs(settings.iter().copied())
            .stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {}", binary.display()))?;
        let out = child.stdout.take().context("no standard output")?;
        let url = BufReader::new(out)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("listening on ").map(str::to_owned))
            .context("the server ended without listening")?;
        Ok(Self {
            child,
            url,
            started_in: begun.elapsed(),
        })
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory of the process without PostgreSQL, in KiB.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        resident_kib(self.child.id())
    }

    /// Stops it and says how long that took.
    pub fn stop(mut self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(begun.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _gone = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _gone = self.child.wait();
        }
    }
}

/// A directory for a server's data that is gone afterwards.
pub fn scratch() -> anyhow::Result<TempDir> {
    let directory = tempfile::tempdir()?;
    // PostgreSQL's user must be able to pass through.
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o711))?;
    Ok(directory)
}

/// Lets this process, and those that it starts, have as many descriptors as it may.
pub fn raise_descriptors() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    Ok(setrlimit(Resource::Nofile, most)?)
}

/// What all threads of a process have had of the processors, in and out of the kernel.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = ticks(&stat).context("/proc/PID/stat has no times")?;
    Ok(Duration::from_millis(
        ticks * 1_000 / clock_ticks_per_second(),
    ))
}

/// `utime` and `stime` together (proc(5)). The name before them may have spaces and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let (_name, rest) = stat.rsplit_once(')')?;
    let mut times = rest.split_ascii_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    user.checked_add(system)
}

/// Segments with data that were sent for the first time, by all processes of this network
/// namespace. The kernel counts no system calls of a process, but with `TCP_NODELAY` and without
/// congestion each `send` of less than 64 KiB makes one segment over loopback.
pub fn data_segments() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/net/netstat")?;
    counter(&text, "TcpExt:", "TCPOrigDataSent").context("no TCPOrigDataSent in /proc/net/netstat")
}

/// A counter of a table whose lines come in pairs, names and values.
fn counter(text: &str, table: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(table));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut both = names.split(' ').zip(values.split(' '));
    both.find(|(one, _)| *one == name)?.1.parse().ok()
}

/// Resident memory of a process, in KiB.
pub fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    line.trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .context("VmRSS is no number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_process_are_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 120 34 0 0 20";
        assert_eq!(ticks(stat), Some(154));
        assert_eq!(ticks("42 (a) S 1 2"), None);
    }

    #[test]
    fn a_counter_is_found_by_its_name() {
        let text = "TcpExt: A TCPOrigDataSent B\nTcpExt: 1 22 3\nIpExt: A\nIpExt: 9\n";
        assert_eq!(counter(text, "TcpExt:", "TCPOrigDataSent"), Some(22));
        assert_eq!(counter(text, "TcpExt:", "C"), None);
    }
}
