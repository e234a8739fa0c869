//! The way in for commands that run beside a server, on the server's own data directory.

use std::fs;
use std::path::{Path, PathBuf};

use sqlx::postgres::PgConnectOptions;

use crate::error::ClusterError;
use crate::location::Location;
use crate::lock::DirectoryLock;
use crate::postmaster::connect_options;

/// How to reach the database of `data_dir` if a server runs it now; `None` if nobody does.
///
/// # Errors
///
/// [`ClusterError::InUse`] if a server has the directory but its database does not run yet, or not
/// any more: try again.
pub fn running(data_dir: &Path, database: &str) -> Result<Option<PgConnectOptions>, ClusterError> {
    let Ok(data_dir) = data_dir.canonicalize() else {
        return Ok(None);
    };
    match DirectoryLock::take(&data_dir, &data_dir) {
        Ok(_nobody_runs_it) => Ok(None),
        Err(in_use @ ClusterError::InUse { .. }) => {
            let socket_dir = socket_dir(&Location::resolve(&data_dir)?);
            socket_dir.map_or(Err(in_use), |dir| Ok(Some(connect_options(&dir, database))))
        }
        Err(other) => Err(other),
    }
}

/// PostgreSQL notes it in the fifth line of its own file.
fn socket_dir(location: &Location) -> Option<PathBuf> {
    let text = fs::read_to_string(location.data().join("postmaster.pid")).ok()?;
    let line = text.lines().nth(4)?.trim();
    (!line.is_empty()).then(|| PathBuf::from(line))
}
