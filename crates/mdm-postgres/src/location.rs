//! Where the cluster lives, and as whom.
//!
//! Normally that is `postgres/` in the data directory. A server that runs as root hands the cluster
//! to another user, who may be unable to enter the data directory (root's home is closed); the
//! cluster is then kept elsewhere, and the file `postgres.location` in the data directory leads
//! there. Once chosen, the place stays.
//!
//! ```text
//! postgres/           owned by the server's user, so that PostgreSQL's user cannot replace:
//!   data/             PostgreSQL's data directory, owned by PostgreSQL's user
//!   run/              the socket, owned by PostgreSQL's user
//!   log/              owned by the server's user, who opens the log
//!   postgresql/       programs, if they had to be fetched
//! ```

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::account::Account;
use crate::error::{ClusterError, file};

/// Where the cluster is unless its user cannot enter the data directory.
const INSIDE: &str = "postgres";
const POINTER: &str = "postgres.location";
/// In a cluster kept elsewhere: the data directory that it belongs to.
const ORIGIN: &str = "data-directory";
/// Where root keeps clusters whose data directory is closed. All survive a reboot.
const ELSEWHERE: [&str; 3] = ["/var/lib/mobius-mdm", "/srv/mobius-mdm", "/opt/mobius-mdm"];

#[derive(Debug, Clone)]
pub(crate) struct Location {
    pub base: PathBuf,
    pub account: Account,
    /// True when the cluster is not inside the data directory.
    pub elsewhere: bool,
}

impl Location {
    /// Finds the place of `data_dir`'s cluster, or chooses and makes it.
    pub fn resolve(data_dir: &Path) -> Result<Self, ClusterError> {
        Self::find(data_dir)?.map_or_else(|| choose(data_dir, &data_dir.join(POINTER)), Ok)
    }

    /// The place of `data_dir`'s cluster, if it was chosen before.
    pub fn find(data_dir: &Path) -> Result<Option<Self>, ClusterError> {
        let pointer = data_dir.join(POINTER);
        match fs::read_to_string(&pointer) {
            Ok(target) => {
                let target = Path::new(target.trim_end_matches('\n'));
                follow(data_dir, &pointer, target).map(Some)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let base = data_dir.join(INSIDE);
                if holds_cluster(&base) {
                    existing(base, false).map(Some)
                } else {
                    Ok(None)
                }
            }
            Err(error) => Err(ClusterError::file("read", &pointer, error)),
        }
    }

    pub fn data(&self) -> PathBuf {
        data(&self.base)
    }

    pub fn log(&self) -> PathBuf {
        self.base.join("log")
    }

    /// Makes the directory for the log if it is missing.
    pub fn prepare(&self) -> Result<(), ClusterError> {
        make_directory(&self.log(), 0o700)
    }
}

/// A short name for a directory, the same at every start.
pub(crate) fn fingerprint(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    hex::encode(digest.get(..8).unwrap_or_default())
}

/// Makes the data directory. What exists keeps its mode.
pub(crate) fn make_data_directory(data_dir: &Path) -> Result<PathBuf, ClusterError> {
    if let Some(parent) = data_dir.parent().filter(|_| !data_dir.exists()) {
        fs::create_dir_all(parent).map_err(file("create the directory", parent))?;
    }
    // PostgreSQL's own user passes through root's directory.
    let mode = if rustix::process::geteuid().is_root() {
        0o711
    } else {
        0o700
    };
    make_directory(data_dir, mode)?;
    data_dir
        .canonicalize()
        .map_err(file("find the directory", data_dir))
}

/// Makes one directory; it is no error if it exists.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<(), ClusterError> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            // The umask may have taken away a passage that is needed.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
                .map_err(file("set the mode of", path))
        }
        Err(_) if path.is_dir() => Ok(()),
        Err(source) => Err(ClusterError::file("create the directory", path, source)),
    }
}

fn data(base: &Path) -> PathBuf {
    base.join("data")
}

/// True if there is a cluster, complete, in `base`.
pub(crate) fn holds_cluster(base: &Path) -> bool {
    match fs::metadata(data(base).join("PG_VERSION")) {
        Ok(_) => true,
        // Another user's cluster is one as well; its owner is looked at next.
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

fn choose(data_dir: &Path, pointer: &Path) -> Result<Location, ClusterError> {
    let account = Account::for_new_cluster()?;
    let Some(closed) = first_closed(data_dir, &account) else {
        let base = data_dir.join(INSIDE);
        make_directory(&base, 0o711)?;
        return Ok(Location {
            base,
            account,
            elsewhere: false,
        });
    };
    let base = make_elsewhere(data_dir, &closed, &account)?;
    // The pointer comes before the database, which would otherwise be lost if the server ended in
    // between.
    write_durably(&base.join(ORIGIN), data_dir)?;
    write_durably(pointer, &base)?;
    tracing::info!(
        data_dir = %data_dir.display(),
        database = %base.display(),
        user = account.name,
        "the data directory is closed to the user who runs PostgreSQL ({} is), so the database is kept elsewhere",
        closed.display(),
    );
    Ok(Location {
        base,
        account,
        elsewhere: true,
    })
}

fn existing(base: PathBuf, elsewhere: bool) -> Result<Location, ClusterError> {
    let data = data(&base);
    let metadata = fs::metadata(&data).map_err(file("read", &data))?;
    let account = Account::for_existing_cluster(&data, metadata.uid(), metadata.gid())?;
    if let Some(closed) = first_closed(&base, &account) {
        return Err(ClusterError::Closed {
            path: data,
            closed,
            account: account.name,
        });
    }
    Ok(Location {
        base,
        account,
        elsewhere,
    })
}

/// Follows the pointer, unless somebody else could have prepared what it leads to.
fn follow(data_dir: &Path, pointer: &Path, target: &Path) -> Result<Location, ClusterError> {
    let lost = |reason: String| ClusterError::Lost {
        pointer: pointer.to_path_buf(),
        target: target.to_path_buf(),
        reason,
    };
    let metadata = fs::symlink_metadata(target)
        .map_err(|error| lost(format!("it cannot be read: {error}")))?;
    if !target.is_absolute() || !metadata.is_dir() {
        return Err(lost("that is no directory".to_owned()));
    }
    if !is_own(&metadata) {
        return Err(lost(
            "others than the server's user can write there".to_owned(),
        ));
    }
    check_origin(data_dir, target).map_err(lost)?;
    if holds_cluster(target) {
        return existing(target.to_path_buf(), true);
    }
    Ok(Location {
        base: target.to_path_buf(),
        account: Account::for_new_cluster()?,
        elsewhere: true,
    })
}

/// A copied data directory must not share its original's database; a moved one keeps it.
fn check_origin(data_dir: &Path, target: &Path) -> Result<(), String> {
    let origin = fs::read_to_string(target.join(ORIGIN))
        .map_err(|error| format!("the file {ORIGIN} in it cannot be read: {error}"))?;
    let origin = Path::new(origin.trim_end_matches('\n'));
    if origin == data_dir {
        return Ok(());
    }
    let claim = fs::read_to_string(origin.join(POINTER)).unwrap_or_default();
    if Path::new(claim.trim_end_matches('\n')) == target {
        return Err(format!(
            "that is the database of {}, of which this is a copy",
            origin.display()
        ));
    }
    write_durably(&target.join(ORIGIN), data_dir).map_err(|error| error.to_string())
}

fn make_elsewhere(
    data_dir: &Path,
    closed: &Path,
    account: &Account,
) -> Result<PathBuf, ClusterError> {
    let mut tried = Vec::new();
    for parent in ELSEWHERE.map(Path::new) {
        match make_below(parent, data_dir, account) {
            Ok(base) => return Ok(base),
            Err(reason) => tried.push(format!("{}: {reason}", parent.display())),
        }
    }
    Err(ClusterError::NoPlace {
        closed: closed.to_path_buf(),
        account: account.name.clone(),
        tried: tried.join("; "),
    })
}

fn make_below(parent: &Path, data_dir: &Path, account: &Account) -> Result<PathBuf, String> {
    make_directory(parent, 0o755).map_err(|error| error.to_string())?;
    let metadata = fs::symlink_metadata(parent).map_err(|error| error.to_string())?;
    if !metadata.is_dir() || !is_own(&metadata) {
        return Err("others can write there".to_owned());
    }
    if let Some(closed) = first_closed(parent, account) {
        return Err(format!(
            "{} is closed to {}",
            closed.display(),
            account.name
        ));
    }
    let name = fingerprint(data_dir);
    // A data directory that was removed and made anew gets a new database; the old one is left
    // for whoever wants it back.
    for number in 1..1000 {
        let base = parent.join(if number == 1 {
            name.clone()
        } else {
            format!("{name}-{number}")
        });
        if !holds_cluster(&base) {
            make_directory(&base, 0o711).map_err(|error| error.to_string())?;
            return Ok(base);
        }
        tracing::info!(
            database = %base.display(),
            "a database of an earlier data directory at {} is left untouched",
            data_dir.display(),
        );
    }
    Err("too many old databases of this data directory".to_owned())
}

fn is_own(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}

/// The first directory on the way to and including `path` that `account` cannot enter.
fn first_closed(path: &Path, account: &Account) -> Option<PathBuf> {
    if !account.switch {
        return None;
    }
    let mut ancestors: Vec<_> = path.ancestors().collect();
    ancestors.reverse();
    ancestors
        .into_iter()
        .find(|dir| fs::metadata(dir).map_or(true, |metadata| !is_open(&metadata, account)))
        .map(Path::to_path_buf)
}

fn is_open(metadata: &Metadata, account: &Account) -> bool {
    let passage = if metadata.uid() == account.uid {
        0o100
    } else if metadata.gid() == account.gid {
        0o010
    } else {
        0o001
    };
    metadata.mode() & passage != 0
}

/// Writes a one-line file that holds a path, whole or not at all.
fn write_durably(path: &Path, content: &Path) -> Result<(), ClusterError> {
    let write = || -> io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let mut temporary = tempfile::NamedTempFile::new_in(parent)?;
        let mut line = content.as_os_str().as_bytes().to_vec();
        line.push(b'\n');
        io::Write::write_all(&mut temporary, &line)?;
        temporary.as_file().sync_all()?;
        temporary.persist(path).map_err(|error| error.error)?;
        fs::File::open(parent)?.sync_all()
    };
    write().map_err(file("write", path))
}
