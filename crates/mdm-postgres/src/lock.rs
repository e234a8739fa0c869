//! One server per data directory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::{ClusterError, file};

pub(crate) const LOCK_FILE: &str = "mobius.lock";

/// A held lock; the kernel gives it back when the server ends, however it ends.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock in `dir`. `data_dir` is the directory that a refusal names.
    pub fn take(dir: &Path, data_dir: &Path) -> Result<Self, ClusterError> {
        let path = dir.join(LOCK_FILE);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(file("write", &path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(ClusterError::InUse {
                    data_dir: data_dir.to_path_buf(),
                    pid: holder(&mut lock),
                });
            }
            Err(source) => return Err(ClusterError::file("lock", &path, source.into())),
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(file("write", &path))?;
        Ok(Self { _file: lock })
    }
}

fn holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
