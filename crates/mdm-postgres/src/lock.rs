//! One server per data directory.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::{ClusterError, file};

const LOCK_FILE: &str = "mobius.lock";
/// How often, and how far apart, a server asks for a lock that is taken: who only looks at it, in
/// [`holder`], has it for a moment as well.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

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
        match lock_exclusively(&lock) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(ClusterError::InUse {
                    data_dir: data_dir.to_path_buf(),
                    pid: recorded(&mut lock),
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

/// The server that holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its process, if it noted it.
    pub pid: Option<u32>,
}

/// Who holds the lock in `dir` now, if anybody does. Leaves everything as it is.
pub(crate) fn holder(dir: &Path) -> Result<Option<Holder>, ClusterError> {
    let path = dir.join(LOCK_FILE);
    let mut lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ClusterError::file("read", &path, error)),
    };
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK) => Ok(Some(Holder {
            pid: recorded(&mut lock),
        })),
        Err(source) => Err(ClusterError::file("lock", &path, source.into())),
    }
}

fn lock_exclusively(lock: &File) -> Result<(), Errno> {
    let mut attempt = 1;
    loop {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if attempt < ATTEMPTS => std::thread::sleep(PAUSE),
            outcome => return outcome,
        }
        attempt += 1;
    }
}

fn recorded(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_only_looks_at_the_lock_is_waited_out() {
        let dir = tempfile::tempdir().unwrap();
        let look = File::create(dir.path().join(LOCK_FILE)).unwrap();
        rustix::fs::flock(&look, FlockOperation::NonBlockingLockShared).unwrap();
        let looking = std::thread::spawn(move || {
            std::thread::sleep(PAUSE);
            drop(look);
        });
        DirectoryLock::take(dir.path(), dir.path()).unwrap();
        looking.join().unwrap();
    }

    #[test]
    fn the_holder_is_told_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path()).unwrap(), None);
        assert!(!dir.path().join(LOCK_FILE).exists());
        let lock = DirectoryLock::take(dir.path(), dir.path()).unwrap();
        let pid = Some(std::process::id());
        assert_eq!(holder(dir.path()).unwrap(), Some(Holder { pid }));
        drop(lock);
        assert_eq!(holder(dir.path()).unwrap(), None);
    }
}
