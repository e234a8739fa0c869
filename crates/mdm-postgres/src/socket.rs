//! The private directory of PostgreSQL's Unix socket.
//!
//! Everyone who can reach the socket is superuser of the database, so the directory is closed to
//! all but PostgreSQL's user.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::error::ClusterError;
use crate::location::{Location, fingerprint};

/// PostgreSQL names its socket after this, though it listens on no port.
pub(crate) const PORT: u16 = 5432;
/// The longest path of a Unix socket, in bytes (`sun_path` less its end mark).
const LONGEST: usize = 107;

/// Makes the directory: in the cluster if its path is fit for that, else a short one elsewhere.
pub(crate) fn make(location: &Location) -> Result<PathBuf, ClusterError> {
    let mut tried = Vec::new();
    for candidate in candidates(location) {
        match claim(&candidate, &location.account) {
            Ok(()) => return Ok(candidate),
            Err(reason) => tried.push(format!("{}: {reason}", candidate.display())),
        }
    }
    Err(ClusterError::NoSocketDirectory {
        tried: tried.join("; "),
    })
}

/// Removes a directory that was made outside the cluster. The next start makes it anew if it is gone
/// and takes it if it is not, so a failure does not matter.
pub(crate) fn leave(dir: &Path, base: &Path) {
    if !dir.starts_with(base) {
        let _removed = fs::remove_dir(dir);
    }
}

fn candidates(location: &Location) -> Vec<PathBuf> {
    let inside = location.base.join("run");
    if is_fit(&inside) {
        return vec![inside];
    }
    let name = format!("mobius-{}", fingerprint(&location.base));
    let uid = location.account.uid;
    let mut parents = Vec::new();
    if location.account.switch {
        parents.push(PathBuf::from("/run"));
    } else {
        parents.extend(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
        parents.push(PathBuf::from(format!("/run/user/{uid}")));
    }
    parents.push(PathBuf::from("/tmp"));
    parents
        .into_iter()
        .filter(|parent| parent.is_absolute() && parent.is_dir())
        .map(|parent| parent.join(&name))
        .filter(|candidate| is_fit(candidate))
        .collect()
}

/// Short enough for a socket, and plain enough for PostgreSQL's comma-separated list of directories
/// and for a URL.
fn is_fit(dir: &Path) -> bool {
    let socket = dir.join(format!(".s.PGSQL.{PORT}"));
    socket.to_str().is_some_and(|path| {
        path.len() <= LONGEST
            && path
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte))
    })
}

/// Makes the directory, or accepts one that is already exactly right: in `/tmp` anybody could have
/// put something else there.
fn claim(dir: &Path, account: &Account) -> Result<(), String> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => account.take(dir).map_err(|error| error.to_string())?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.to_string()),
    }
    let metadata = fs::symlink_metadata(dir).map_err(|error| error.to_string())?;
    if metadata.is_dir()
        && metadata.uid() == account.uid
        && metadata.permissions().mode() & 0o777 == 0o700
    {
        Ok(())
    } else {
        Err(format!(
            "exists and is not a private directory of user `{}`; remove it",
            account.name
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn myself() -> Account {
        let own = rustix::process::geteuid().as_raw();
        Account {
            name: "me".to_owned(),
            uid: own,
            gid: rustix::process::getegid().as_raw(),
            switch: false,
        }
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("run");
        claim(&dir, &myself()).unwrap();
        claim(&dir, &myself()).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(
            claim(&dir, &myself())
                .unwrap_err()
                .contains("not a private")
        );
    }

    #[test]
    fn a_symbolic_link_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let link = parent.path().join("run");
        std::os::unix::fs::symlink("/root", &link).unwrap();
        claim(&link, &myself()).unwrap_err();
    }

    #[test]
    fn the_longest_socket_path_has_107_bytes() {
        let name = format!("/.s.PGSQL.{PORT}").len();
        let fits = format!("/{}", "a".repeat(LONGEST - name - 1));
        assert!(is_fit(Path::new(&fits)));
        assert!(!is_fit(Path::new(&format!("{fits}a"))));
        assert!(!is_fit(Path::new("/with space")));
    }
}
