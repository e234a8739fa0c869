//! What can go wrong with the embedded cluster, told so that the reader knows what to do next.

use std::io;
use std::path::{Path, PathBuf};

/// Why the embedded PostgreSQL did not start or stop.
///
/// Each message is complete on its own: it names the path, the cause and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A file or directory could not be made, read or written.
    #[error("cannot {action} {}: {source}{}", path.display(), hint(source))]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },

    /// Another server holds the data directory.
    #[error(
        "the data directory {} is in use by another server{}; stop that server or choose another data directory",
        data_dir.display(), holder(*.pid)
    )]
    InUse { data_dir: PathBuf, pid: Option<u32> },

    /// A server has the data directory, but a command beside it does not reach its database.
    #[error(
        "a server{} has the data directory {}, but its database does not answer; it may be starting or stopping: try again in a moment, or see its log",
        holder(*.pid), data_dir.display()
    )]
    NotServing { data_dir: PathBuf, pid: Option<u32> },

    /// No PostgreSQL on this machine, and none could be fetched.
    #[error(
        "no PostgreSQL server found (searched {searched}), and {fetch}; install one (`apt-get install postgresql`, `dnf install postgresql-server`) or point the server to an existing database with --database-url or MDM_DATABASE_URL"
    )]
    NoPostgres { searched: String, fetch: String },

    /// The database files were made by another major version than the programs at hand.
    #[error(
        "the database in {} was made by PostgreSQL {cluster}, but only PostgreSQL {found} is here{fetch}; install PostgreSQL {cluster} beside it (`apt-get install postgresql-{cluster}`), or move the data with pg_upgrade or with pg_dump and pg_restore",
        data.display()
    )]
    WrongVersion {
        data: PathBuf,
        cluster: u32,
        found: String,
        fetch: String,
    },

    /// Running as root, with no account to hand the database to.
    #[error(
        "the server runs as root, PostgreSQL refuses to, and there is neither a user `postgres` nor a user `nobody`; create one (`useradd --system postgres`) or run the server as an ordinary user"
    )]
    NoAccount,

    /// The database files belong to somebody else.
    #[error(
        "the database in {} belongs to user id {owner}, but the server runs as user id {own}; run it as the owner, or stop it and hand the files over (`chown -R {own} {}`)",
        path.display(), path.parent().unwrap_or(path).display()
    )]
    ForeignOwner { path: PathBuf, owner: u32, own: u32 },

    /// Root's database files belong to root itself, as after a `chown -R root` or a restored backup.
    #[error(
        "the database in {} belongs to root, and PostgreSQL refuses to run as root; hand it to an ordinary user (`chown -R {account} {}`)",
        path.display(), path.display()
    )]
    OwnedByRoot { path: PathBuf, account: String },

    /// An existing database lies below a directory that its own user cannot enter.
    #[error(
        "the database in {} cannot be reached by user `{account}`, who owns it: {} is closed to it; open that directory for passage (`chmod o+x {}`) or move the data directory",
        path.display(), closed.display(), closed.display()
    )]
    Closed {
        path: PathBuf,
        closed: PathBuf,
        account: String,
    },

    /// Nowhere to keep the cluster of a data directory that its user cannot reach.
    #[error(
        "user `{account}`, who runs PostgreSQL for root, cannot enter {}, and no other place could be made for the database ({tried}); choose another data directory, for example below /var/lib",
        closed.display()
    )]
    NoPlace {
        closed: PathBuf,
        account: String,
        tried: String,
    },

    /// The pointer file leads nowhere, or to a place that is not safe to follow.
    #[error(
        "{} says that the database is kept in {}, but {reason}; bring that directory back, or remove {} to begin with an empty database",
        pointer.display(), target.display(), pointer.display()
    )]
    Lost {
        pointer: PathBuf,
        target: PathBuf,
        reason: String,
    },

    /// The place for the database is taken by something that is no database.
    #[error(
        "{} is neither empty nor a PostgreSQL data directory; move it away or choose another data directory",
        _0.display()
    )]
    NotACluster(PathBuf),

    /// No private directory for the socket.
    #[error(
        "no private directory for PostgreSQL's socket: {tried}; set XDG_RUNTIME_DIR to a directory of your own or choose a data directory with a shorter path"
    )]
    NoSocketDirectory { tried: String },

    /// A program of PostgreSQL could not be run at all.
    #[error("cannot run {}: {source}", program.display())]
    Program { program: PathBuf, source: io::Error },

    /// `initdb` failed.
    #[error(
        "PostgreSQL could not make a new database in {}{}: {output}",
        path.display(), full(output)
    )]
    Init { path: PathBuf, output: String },

    /// The server process ended while it was starting.
    #[error(
        "PostgreSQL did not start ({status}){}; the end of {}: {tail}",
        full(tail), log.display()
    )]
    Start {
        status: String,
        log: PathBuf,
        tail: String,
    },

    /// The server process runs but takes no connections.
    #[error(
        "PostgreSQL runs but took no connection for {seconds} s ({last}); see {}",
        log.display()
    )]
    NotReady {
        seconds: u64,
        last: String,
        log: PathBuf,
    },

    /// The cluster runs, but the database `mobius` could not be made.
    #[error("cannot create the database `mobius` in the embedded PostgreSQL: {0}")]
    Database(#[source] sqlx::Error),

    /// The server process survived every signal.
    #[error(
        "PostgreSQL (process {pid}) did not stop; end it by hand (`kill -KILL {pid}`) before the next start"
    )]
    Stop { pid: u32 },
}

impl ClusterError {
    pub(crate) fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}

/// `map_err(file("create", path))`.
pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClusterError {
    move |source| ClusterError::file(action, path, source)
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; the disk is full: free space and start again"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; the file system is read-only: choose a data directory that can be written"
        }
        io::ErrorKind::PermissionDenied => {
            "; give the server's user access or choose another data directory"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "; a part of the path is not a directory: choose another data directory"
        }
        _ => "",
    }
}

/// A full disk hides well among PostgreSQL's other lines.
fn full(output: &str) -> &'static str {
    const SIGNS: [&str; 3] = [
        "No space left on device",
        "Disk quota exceeded",
        "Check free disk space",
    ];
    if SIGNS.iter().any(|sign| output.contains(sign)) {
        " because the disk is full: free space and start again"
    } else {
        ""
    }
}
