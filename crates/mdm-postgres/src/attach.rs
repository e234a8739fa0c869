//! The way in for commands that run beside a server, on the server's own data directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::time::Instant;

use crate::error::ClusterError;
use crate::location::{Location, holds_cluster};
use crate::lock;
use crate::postmaster::connect_options;

/// How long a server that has the directory may take to have its database answer: it may be
/// starting, or starting a killed PostgreSQL again.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// How to reach the database of `data_dir` if a server runs it now; `None` if nobody does. Changes
/// nothing and keeps nothing: the server may stop at any time afterwards.
///
/// # Errors
///
/// [`ClusterError::NotServing`] if a server has the directory but its database did not answer for
/// five seconds.
pub async fn running(
    data_dir: &Path,
    database: &str,
) -> Result<Option<PgConnectOptions>, ClusterError> {
    let Ok(data_dir) = data_dir.canonicalize() else {
        return Ok(None);
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Some(holder) = lock::holder(&data_dir)? else {
            return Ok(None);
        };
        if let Some(socket_dir) = Location::find(&data_dir)?.and_then(|place| socket_dir(&place)) {
            let options = connect_options(&socket_dir, database);
            let answered = tokio::time::timeout_at(deadline, answers(&options)).await;
            if answered == Ok(true) {
                return Ok(Some(options));
            }
        }
        if Instant::now() >= deadline {
            return Err(ClusterError::NotServing {
                data_dir,
                pid: holder.pid,
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether `data_dir` has a database, running or not. Changes nothing.
pub fn exists(data_dir: &Path) -> Result<bool, ClusterError> {
    let Ok(data_dir) = data_dir.canonicalize() else {
        return Ok(false);
    };
    Ok(Location::find(&data_dir)?.is_some_and(|location| holds_cluster(&location.base)))
}

async fn answers(options: &PgConnectOptions) -> bool {
    let options = options.clone().disable_statement_logging();
    match PgConnection::connect_with(&options).await {
        Ok(connection) => {
            // It answered, which is all that was asked.
            let _closed = connection.close().await;
            true
        }
        Err(_) => false,
    }
}

/// PostgreSQL notes it in the fifth line of its own file.
fn socket_dir(location: &Location) -> Option<PathBuf> {
    let text = fs::read_to_string(location.data().join("postmaster.pid")).ok()?;
    let line = text.lines().nth(4)?.trim();
    (!line.is_empty()).then(|| PathBuf::from(line))
}
