//! A private PostgreSQL, started and owned by the server.
//!
//! [`Cluster::start`] finds PostgreSQL on the machine (or fetches it), makes a cluster on the first
//! start, and from then on keeps its server process running. It listens on a Unix socket in a
//! private directory and on no port. Whatever an earlier server left behind, by whatever end, is
//! taken over or cleared away.
//!
//! One more setting of PostgreSQL goes into `Postmaster::new`; a new way to fail goes into
//! [`ClusterError`], with a message that tells the remedy.

mod account;
mod attach;
mod binaries;
mod error;
mod fetch;
mod initdb;
mod location;
mod lock;
mod log;
mod postmaster;
mod process;
mod socket;
mod supervise;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use attach::{exists, running};
pub use error::ClusterError;
use location::Location;
use lock::DirectoryLock;
use postmaster::Postmaster;

/// The database that every embedded cluster has.
pub const DATABASE: &str = "mobius";

/// Whether the data must survive a crash of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    Durable,
    /// Nothing is flushed to disk. For tests.
    ThrowAway,
}

/// What a cluster is started with.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Made if it is missing. The cluster lives in or, if PostgreSQL's user cannot enter it,
    /// outside it: see [`Cluster::location`].
    pub data_dir: PathBuf,
    pub durability: Durability,
    /// Look for PostgreSQL's programs here and nowhere else.
    pub bin_dir: Option<PathBuf>,
    /// Connections that PostgreSQL takes, three of them for the superuser only.
    pub max_connections: u16,
}

impl ClusterConfig {
    /// A durable cluster in `data_dir`, with whichever PostgreSQL is found.
    pub fn durable(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            durability: Durability::Durable,
            bin_dir: None,
            max_connections: 100,
        }
    }

    /// A cluster for tests, which forgets what it holds when the machine stops.
    pub fn throw_away(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            durability: Durability::ThrowAway,
            max_connections: 300,
            ..Self::durable(data_dir)
        }
    }
}

/// A running PostgreSQL that belongs to this process.
///
/// Dropping it without [`Cluster::stop`] asks PostgreSQL to shut down and does not wait.
#[derive(Debug)]
pub struct Cluster {
    postmaster: Arc<Postmaster>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
    stopping: CancellationToken,
    /// Held until the server process has ended.
    locks: Mutex<Vec<DirectoryLock>>,
}

impl Cluster {
    /// Starts the cluster of `config.data_dir`, making it if there is none, and watches over its
    /// server process from then on in a task of the current runtime.
    pub async fn start(config: ClusterConfig) -> Result<Self, ClusterError> {
        let data_dir = location::make_data_directory(&config.data_dir)?;
        let mut locks = vec![DirectoryLock::take(&data_dir, &data_dir)?];
        let location = Location::resolve(&data_dir)?;
        if location.elsewhere {
            // A copy or another mount of the data directory leads to the same cluster.
            locks.push(DirectoryLock::take(&location.base, &data_dir)?);
        }
        location.prepare()?;

        let version = initdb::version(&location.data())?;
        let binaries = binaries::find(config.bin_dir.as_deref(), &location, version).await?;
        if version.is_none() {
            tracing::info!(
                database = %location.base.display(),
                version = binaries.major,
                user = location.account.name,
                "making a new PostgreSQL database"
            );
            initdb::initialise(&location, &binaries, config.durability).await?;
        }
        let socket_dir = socket::make(&location)?;
        let postmaster = Arc::new(Postmaster::new(
            &location,
            &binaries,
            socket_dir,
            config.durability,
            config.max_connections,
        ));
        postmaster.launch().await?;
        if let Err(error) = ensure_database(&postmaster).await {
            // The first error is the one to tell.
            let _stopped = postmaster.shut_down().await;
            return Err(error);
        }

        let stopping = CancellationToken::new();
        let supervisor = tokio::spawn(supervise::run(Arc::clone(&postmaster), stopping.clone()));
        Ok(Self {
            postmaster,
            supervisor: Mutex::new(Some(supervisor)),
            stopping,
            locks: Mutex::new(locks),
        })
    }

    /// How to connect to `database`, as superuser, over the socket.
    pub fn connect_options(&self, database: &str) -> PgConnectOptions {
        self.postmaster.connect_options(database)
    }

    /// The same as a URL, for `psql` and other programs. `database` is a plain identifier.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres:///{database}?host={}&port={}&user={}&sslmode=disable",
            self.postmaster.socket_dir.display(),
            socket::PORT,
            initdb::SUPERUSER,
        )
    }

    /// The directory where the cluster really lives.
    pub fn location(&self) -> &Path {
        &self.postmaster.base
    }

    /// PostgreSQL's data directory, which holds its `postmaster.pid`.
    pub fn pgdata(&self) -> &Path {
        &self.postmaster.data
    }

    /// The file that PostgreSQL logs to.
    pub fn log(&self) -> &Path {
        self.postmaster.log.path()
    }

    /// The server process; `None` while it is down.
    pub fn postmaster_pid(&self) -> Option<u32> {
        self.postmaster.running().map(|process| process.id())
    }

    /// Ends the supervision and PostgreSQL, within five seconds. Later calls do nothing.
    pub async fn stop(&self) -> Result<(), ClusterError> {
        self.stopping.cancel();
        let supervisor = take(&self.supervisor);
        if let Some(supervisor) = supervisor
            && let Err(error) = supervisor.await
            && error.is_panic()
        {
            tracing::error!("the supervision of PostgreSQL panicked: {error}");
        }
        self.postmaster.shut_down().await?;
        socket::leave(&self.postmaster.socket_dir, &self.postmaster.base);
        take(&self.locks);
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The task lets go of the process at its next turn, and the last to let go signals it.
        self.stopping.cancel();
    }
}

fn take<T: Default>(place: &Mutex<T>) -> T {
    std::mem::take(&mut *place.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Creates the database if the start that made the cluster did not get that far.
async fn ensure_database(postmaster: &Postmaster) -> Result<(), ClusterError> {
    let options = postmaster
        .connect_options("postgres")
        .disable_statement_logging();
    let create = async {
        let mut connection = PgConnection::connect_with(&options).await?;
        let exists = sqlx::query("SELECT FROM pg_database WHERE datname = $1")
            .bind(DATABASE)
            .fetch_optional(&mut connection)
            .await?
            .is_some();
        if !exists {
            sqlx::query("CREATE DATABASE mobius")
                .execute(&mut connection)
                .await?;
        }
        connection.close().await
    };
    create.await.map_err(ClusterError::Database)
}
