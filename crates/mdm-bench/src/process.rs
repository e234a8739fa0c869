//! A server process of the bench's own.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};

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
    /// Starts `binary` on `data_dir` and a free port, without limits to connections of one user or
    /// address, and waits until it listens.
    pub fn start(binary: &Path, data_dir: &Path) -> anyhow::Result<Self> {
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
            .env("MDM_EVENT_CONNECTIONS_PER_USER", "20000")
            .env("MDM_EVENT_CONNECTIONS_PER_ADDRESS", "20000")
            .stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {}", binary.display()))?;
        let url = listening(&mut child)?;
        Ok(Self {
            child,
            url,
            started_in: begun.elapsed(),
        })
    }

    /// Resident memory of the process without PostgreSQL, in KiB.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        resident_kib(self.child.id())
    }

    /// Which process it is.
    pub fn pid(&self) -> u32 {
        self.child.id()
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

/// Where a process that was just started says that it listens.
pub fn listening(child: &mut Child) -> anyhow::Result<String> {
    let out = child.stdout.take().context("no standard output")?;
    BufReader::new(out)
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("listening on ").map(str::to_owned))
        .context("the server ended without listening")
}

/// Processor time that a process has used, with all its threads.
pub fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything; utime and stime are the 12th and 13th after it.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let fields: Vec<_> = fields.split_ascii_whitespace().collect();
    let ticks = |place: usize| -> anyhow::Result<u64> {
        Ok(fields.get(place).context("stat is short")?.parse()?)
    };
    let ticks = ticks(11)? + ticks(12)?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_millis(ticks * 1_000 / per_second.max(1)))
}

/// How many segments with data this machine has sent by TCP: on loopback, one for each `send`, as
/// long as the reader keeps up.
pub fn segments_sent() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/net/netstat")?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next(), lines.next());
    let (names, values) = (names.context("no names")?, values.context("no values")?);
    let mut counted = names.split(' ').zip(values.split(' '));
    let (_, value) = counted
        .find(|(name, _)| *name == "TCPOrigDataSent")
        .context("this kernel does not count TCPOrigDataSent")?;
    Ok(value.parse()?)
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
