//! Making a new cluster.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::Instant;

use crate::Durability;
use crate::binaries::Binaries;
use crate::error::{ClusterError, file};
use crate::location::Location;
use crate::process;

/// The superuser of every embedded cluster.
pub(crate) const SUPERUSER: &str = "mobius";
/// Clusters in the making; one that was interrupted never gets the name `data`.
const UNFINISHED: &str = "data.new.";
/// How long the processes of an interrupted attempt may take to end.
const PATIENCE: Duration = Duration::from_secs(2);
/// Sorts by code point, the same on every machine; `C` is for systems without it.
const LOCALES: [&str; 2] = ["C.UTF-8", "C"];

/// The major version of the cluster in `data`, `None` if there is none.
pub(crate) fn version(data: &Path) -> Result<Option<u32>, ClusterError> {
    let path = data.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let major = text.trim().split('.').next().and_then(|n| n.parse().ok());
            major
                .map(Some)
                .ok_or_else(|| ClusterError::NotACluster(data.to_path_buf()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let is_taken = fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_some());
            if is_taken {
                return Err(ClusterError::NotACluster(data.to_path_buf()));
            }
            Ok(None)
        }
        Err(error) => Err(ClusterError::file("read", &path, error)),
    }
}

/// Makes a cluster beside its final place and moves it there when it is complete.
pub(crate) async fn initialise(
    location: &Location,
    binaries: &Binaries,
    durability: Durability,
) -> Result<(), ClusterError> {
    remove_unfinished(location).await;
    let unfinished = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempdir_in(&location.base)
        .map_err(file("create a directory in", &location.base))?;
    location.account.take(unfinished.path())?;

    let mut output = String::new();
    for locale in LOCALES {
        let done = run(location, binaries, durability, unfinished.path(), locale).await?;
        if done.status.success() {
            let data = location.data();
            fs::rename(unfinished.keep(), &data).map_err(file("create the directory", &data))?;
            return fs::File::open(&location.base)
                .and_then(|base| base.sync_all())
                .map_err(file("write", &location.base));
        }
        output = describe(&done);
        if !output.contains("locale") {
            break;
        }
    }
    Err(ClusterError::Init {
        path: location.data(),
        output,
    })
}

/// Removes what is left of earlier attempts, and first ends those that are still at work: `initdb`
/// goes on when its server was killed.
async fn remove_unfinished(location: &Location) {
    for path in unfinished(&location.base) {
        let is_at_work =
            |line: &[Vec<u8>]| line.iter().any(|part| part == path.as_os_str().as_bytes());
        for initdb in process::find(location.account.uid, is_at_work).unwrap_or_default() {
            initdb.signal(Signal::KILL);
            initdb.exited_within(PATIENCE).await;
        }
        // Its own helper ends by itself, now that nobody feeds it.
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = fs::remove_dir_all(&path) {
            if Instant::now() > deadline {
                tracing::warn!(path = %path.display(), %error, "cannot remove an unfinished database");
                break;
            }
            tokio::time::sleep(PATIENCE / 20).await;
        }
    }
}

fn unfinished(base: &Path) -> Vec<PathBuf> {
    fs::read_dir(base)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            name.as_bytes().starts_with(UNFINISHED.as_bytes())
        })
        .map(|entry| entry.path())
        .collect()
}

async fn run(
    location: &Location,
    binaries: &Binaries,
    durability: Durability,
    data: &Path,
    locale: &str,
) -> Result<Output, ClusterError> {
    let program = binaries.initdb();
    let mut command = std::process::Command::new(&program);
    command
        .args(["--username", SUPERUSER, "--encoding", "UTF8"])
        .args(["--locale", locale, "--no-instructions"])
        // Whoever gets into the socket's private directory is trusted; there is no other way in.
        .args(["--auth-local", "trust", "--auth-host", "reject"])
        .arg("--pgdata")
        .arg(data)
        .stdin(Stdio::null())
        .current_dir(&location.base);
    match durability {
        Durability::Durable => command.arg("--data-checksums"),
        Durability::ThrowAway => command.arg("--no-sync"),
    };
    location.account.confine(&mut command);
    Command::from(command)
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| ClusterError::Program { program, source })
}

/// The lines in which `initdb` says what went wrong, without its progress report.
fn describe(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.contains("removing contents of"))
        .collect();
    let tail = lines.len().saturating_sub(12);
    let said = lines.get(tail..).unwrap_or_default().join("\n");
    if said.is_empty() {
        output.status.to_string()
    } else {
        said
    }
}
