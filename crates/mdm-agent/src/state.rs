//! The state directory (0700): identity, journal, lock, status. Files are written whole or not at
//! all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use crate::AgentError;

/// What makes this machine the device that the server knows.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    /// The server's address.
    pub server: Url,
    /// The server's id for the device.
    pub device_id: Uuid,
    /// The hardware's identifier that it enrolled with.
    pub uuid: String,
    /// The device token.
    device_token: String,
}

impl Identity {
    /// Puts an identity together.
    pub const fn new(server: Url, device_id: Uuid, uuid: String, device_token: String) -> Self {
        Self {
            server,
            device_id,
            uuid,
            device_token,
        }
    }

    /// The device token.
    pub fn token(&self) -> SecretString {
        self.device_token.clone().into()
    }
}

/// The state directory.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

/// Held while an agent runs on the directory.
#[derive(Debug)]
pub struct RunLock(#[expect(dead_code, reason = "the lock is the open file")] File);

impl StateDir {
    /// Opens the directory, making it if it is missing, for its owner alone.
    pub fn open(path: &Path) -> Result<Self, AgentError> {
        let failed = |error| AgentError::State {
            path: path.to_owned(),
            error,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        Ok(Self(path.to_owned()))
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Takes the directory for this process, as long as the lock is held.
    pub fn lock(&self) -> Result<RunLock, AgentError> {
        let path = self.file("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let file = file.map_err(|error| AgentError::State { path, error })?;
        // `status` holds the lock for a moment, too: to be refused once is not to be refused.
        for _ in 0..5 {
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Ok(RunLock(file));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(AgentError::Running(self.0.clone()))
    }

    /// The identity, if the machine is enrolled.
    pub fn identity(&self) -> Result<Option<Identity>, AgentError> {
        let path = self.file("identity.json");
        let failed = |error| AgentError::State {
            path: path.clone(),
            error,
        };
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| failed(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Writes the identity.
    pub fn save_identity(&self, identity: &Identity) -> Result<(), AgentError> {
        let path = self.file("identity.json");
        let failed = |error| AgentError::State {
            path: path.clone(),
            error,
        };
        let bytes = serde_json::to_vec_pretty(identity).map_err(|error| failed(error.into()))?;
        write_whole(&path, &bytes).map_err(failed)
    }

    /// Forgets who this machine was: journal, and then identity.
    pub fn forget(&self) -> Result<(), AgentError> {
        self.forget_journal()?;
        self.remove("identity.json")
    }

    /// Forgets what was run: another identity begins with an empty journal.
    pub fn forget_journal(&self) -> Result<(), AgentError> {
        let names = [
            "journal.db",
            "journal.db-wal",
            "journal.db-shm",
            "status.json",
        ];
        names.into_iter().try_for_each(|name| self.remove(name))
    }

    fn remove(&self, name: &str) -> Result<(), AgentError> {
        let path = self.file(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(AgentError::State { path, error })
            }
            _ => Ok(()),
        }
    }
}

/// Writes a file beside, flushes it, and moves it into place: readers see the old or the new one.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_survives_and_nobody_else_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("a/b")).unwrap();
        assert!(state.identity().unwrap().is_none());
        let identity = Identity::new(
            "http://localhost".parse().unwrap(),
            Uuid::nil(),
            "u".to_owned(),
            "mdmd_x".to_owned(),
        );
        state.save_identity(&identity).unwrap();
        assert_eq!(state.identity().unwrap().unwrap().uuid, "u");
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(state.file("identity.json")), 0o600);
        assert_eq!(mode(state.0.clone()), 0o700);
        state.forget().unwrap();
        assert!(state.identity().unwrap().is_none());
    }

    #[test]
    fn a_second_agent_on_the_same_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let held = state.lock().unwrap();
        assert!(matches!(state.lock(), Err(AgentError::Running(_))));
        drop(held);
        assert!(state.lock().is_ok());
    }
}
