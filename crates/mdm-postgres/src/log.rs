//! PostgreSQL's log file: one file, bounded, whose end is shown when a start fails.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::{ClusterError, file};

/// Above this size the log is moved to `postgresql.log.1`, so that the two stay below twice this.
const LIMIT: u64 = 8 << 20;
/// How much of the end of the log an error shows, in bytes.
const TAIL: u64 = 2048;

#[derive(Debug, Clone)]
pub(crate) struct LogFile {
    path: PathBuf,
}

impl LogFile {
    pub fn in_directory(dir: &Path) -> Self {
        Self {
            path: dir.join("postgresql.log"),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the log for the standard error of a process. Appending is what makes
    /// [`LogFile::rotate`] safe beneath a process that keeps writing.
    pub fn open(&self) -> Result<File, ClusterError> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)
            .map_err(file("write", &self.path))
    }

    pub fn length(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// Copies a log that has grown too long aside and empties it in place, because PostgreSQL,
    /// perhaps started by an earlier server, has it open.
    pub fn rotate(&self) -> io::Result<()> {
        if self.length() > LIMIT {
            fs::copy(&self.path, self.path.with_extension("log.1"))?;
            OpenOptions::new()
                .write(true)
                .open(&self.path)?
                .set_len(0)?;
        }
        Ok(())
    }

    /// The last lines written after the first `from` bytes.
    pub fn tail(&self, from: u64) -> String {
        self.read_tail(from)
            .unwrap_or_else(|error| format!("(unreadable: {error})"))
    }

    fn read_tail(&self, from: u64) -> io::Result<String> {
        let mut log = File::open(&self.path)?;
        let start = from.max(self.length().saturating_sub(TAIL));
        log.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        log.take(TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_long_log_is_moved_aside_beneath_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogFile::in_directory(dir.path());
        let mut writer = log.open().unwrap();
        writer
            .write_all(&vec![b'x'; usize::try_from(LIMIT).unwrap() + 1])
            .unwrap();
        log.rotate().unwrap();
        writer.write_all(b"after").unwrap();
        assert_eq!(fs::read(log.path()).unwrap(), b"after");
        let old = fs::metadata(dir.path().join("postgresql.log.1")).unwrap();
        assert_eq!(old.len(), LIMIT + 1);
    }

    #[test]
    fn the_tail_begins_where_asked() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogFile::in_directory(dir.path());
        log.open().unwrap().write_all(b"old\nnew\n").unwrap();
        assert_eq!(log.tail(4), "new");
    }
}
