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
    /// Starts `binary` on `data_dir` and a free port, and waits until it listens.
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
