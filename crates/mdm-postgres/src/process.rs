//! A process that is watched and signalled: a child of ours, or one that an earlier server left.

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How often a process is looked at where the kernel has no pidfd.
const POLL: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    /// Names this very process even after its number was given to another. `None` where the kernel
    /// cannot do that.
    handle: Option<OwnedFd>,
    child: Mutex<Option<Child>>,
}

impl Process {
    pub fn of_child(child: Child) -> Option<Self> {
        let process = Self::open(child.id())?;
        *process.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        Some(process)
    }

    /// `None` if there is no such process.
    pub fn open(pid: u32) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let handle = match pidfd(pid) {
            Ok(handle) => Some(handle),
            Err(rustix::io::Errno::SRCH) => return None,
            Err(_) => None,
        };
        Some(Self {
            pid,
            handle,
            child: Mutex::new(None),
        })
    }

    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How a child of ours ended, `None` while it runs or if it was not our child.
    pub fn status(&self) -> Option<String> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child
            .as_mut()?
            .try_wait()
            .ok()?
            .map(|status| status.to_string())
    }

    pub fn is_alive(&self) -> bool {
        if self.status().is_some() {
            return false;
        }
        match &self.handle {
            Some(handle) => {
                let mut fds = [PollFd::new(handle, PollFlags::IN)];
                !matches!(
                    rustix::event::poll(&mut fds, Some(&Timespec::default())),
                    Ok(1..)
                )
            }
            None => rustix::process::test_kill_process(self.pid) != Err(rustix::io::Errno::SRCH),
        }
    }

    pub fn signal(&self, signal: Signal) {
        // The one way to fail is that the process is gone, which is what the signals are for.
        let _gone = match &self.handle {
            Some(handle) => rustix::process::pidfd_send_signal(handle, signal),
            None => rustix::process::kill_process(self.pid, signal),
        };
    }

    /// Waits until the process has ended.
    pub async fn exited(&self) {
        if let Some(handle) = &self.handle
            && let Ok(handle) = handle.try_clone()
            && let Ok(handle) = watch(handle)
            && handle.readable().await.is_ok()
        {
            return;
        }
        while self.is_alive() {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the process has ended, at most for `limit`. True if it has.
    pub async fn exited_within(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.exited()).await.is_ok()
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for types that lie about their descriptor; this one does not"
)]
fn watch(handle: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(handle, Interest::READABLE)
}

#[cfg(target_os = "linux")]
fn pidfd(pid: Pid) -> rustix::io::Result<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
}

#[cfg(not(target_os = "linux"))]
fn pidfd(_: Pid) -> rustix::io::Result<OwnedFd> {
    Err(rustix::io::Errno::NOSYS)
}

/// The command line of a process of user `uid`. `None` if there is no such process, if it is
/// another user's, or if it is dead and only not yet collected by its parent.
///
/// The command line is read, not `/proc/PID/cwd` or `exe`: a root without the capability to trace
/// (as in most containers) may not read those of another user's process.
pub(crate) fn command_line(pid: u32, uid: u32) -> Option<Vec<Vec<u8>>> {
    let proc = Path::new("/proc").join(pid.to_string());
    if fs::metadata(&proc).ok()?.uid() != uid {
        return None;
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(proc.join("cmdline")).ok()?;
    file.take(64 << 10).read_to_end(&mut bytes).ok()?;
    let line = bytes.strip_suffix(b"\0")?;
    Some(line.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect())
}

/// The processes of user `uid` whose command line meets `condition`.
pub(crate) fn find(uid: u32, condition: impl Fn(&[Vec<u8>]) -> bool) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = std::str::from_utf8(name.as_bytes())
            .ok()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // The handle first: what is then read of the process is read of the one it names.
        let Some(process) = Process::open(pid) else {
            continue;
        };
        if command_line(pid, uid).is_some_and(|line| condition(&line)) {
            found.push(process);
        }
    }
    Ok(found)
}
