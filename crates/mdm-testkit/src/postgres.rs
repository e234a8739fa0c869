//! A throw-away PostgreSQL for each test process, and a database of its own for each test.
//!
//! The first [`TestDatabase::create`] starts the cluster and migrates a template; each one then
//! clones the template. The cluster lives on a runtime of its own, because every test has another
//! runtime that ends with it, and it is cleared away when the process ends, even by SIGKILL.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use mdm_postgres::{Cluster, ClusterConfig};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, PgPool};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::watchdog::Watchdog;

const TEMPLATE: &str = "mobius_template";
const MIGRATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
/// Connections of one test. All tests that run at once share the cluster's 300.
const TEST_CONNECTIONS: u32 = 8;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("throwaway-postgres")
        .enable_all()
        .build()
        .unwrap_or_else(|error| panic!("cannot start the runtime of the test database: {error}"))
});
static SHARED: OnceCell<Throwaway> = OnceCell::const_new();

/// A throw-away cluster with a migrated template database.
#[derive(Debug)]
pub struct Throwaway {
    cluster: Cluster,
    /// Of the maintenance database: makes and drops the others.
    maintenance: PgPool,
    watchdog: Watchdog,
    next: AtomicU64,
}

impl Throwaway {
    /// Starts one in the temp directory.
    pub async fn start() -> anyhow::Result<Self> {
        let directory = directory_in(&roomy_memory().unwrap_or_else(std::env::temp_dir))?;
        let watchdog = Watchdog::over(directory.path())
            .context("cannot start the watchdog of the test database")?;
        // From here on the watchdog removes it.
        let directory = directory.keep();
        let cluster = Cluster::start(ClusterConfig::throw_away(directory)).await?;
        let maintenance = PgPoolOptions::new()
            .max_connections(4)
            .connect_lazy_with(quiet(cluster.connect_options("postgres")));
        let throwaway = Self {
            cluster,
            maintenance,
            watchdog,
            next: AtomicU64::new(1),
        };
        throwaway.make_template().await?;
        Ok(throwaway)
    }

    async fn make_template(&self) -> anyhow::Result<()> {
        sqlx::query("CREATE DATABASE mobius_template")
            .execute(&self.maintenance)
            .await?;
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect_with(quiet(self.cluster.connect_options(TEMPLATE)))
            .await?;
        Migrator::new(Path::new(MIGRATIONS))
            .await
            .context("cannot read the migrations")?
            .run(&pool)
            .await
            .context("the migrations failed")?;
        // A template can be cloned only while nobody is connected to it.
        pool.close().await;
        Ok(())
    }

    /// Clones the template, and returns the new database's name.
    pub async fn create_database(&self) -> anyhow::Result<String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        // Takes half the time of `WAL_LOG`, also when several are made at once: with fsync off the
        // checkpoints that it asks for cost little.
        let create = format!("CREATE DATABASE {name} TEMPLATE mobius_template STRATEGY FILE_COPY");
        sqlx::query(AssertSqlSafe(create))
            .execute(&self.maintenance)
            .await
            .context("cannot clone the test database")?;
        Ok(name)
    }

    async fn shut_out(&self, name: &str) -> anyhow::Result<()> {
        let forbid = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
        sqlx::query(AssertSqlSafe(forbid))
            .execute(&self.maintenance)
            .await?;
        sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1")
            .bind(name)
            .execute(&self.maintenance)
            .await?;
        Ok(())
    }

    async fn drop_database(&self, name: &str) {
        let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        // A failure costs disk space until the process ends, and no test.
        let _dropped = sqlx::query(AssertSqlSafe(drop))
            .execute(&self.maintenance)
            .await;
    }

    /// How to connect to `database`.
    pub fn connect_options(&self, database: &str) -> PgConnectOptions {
        self.cluster.connect_options(database)
    }

    /// The same as a URL.
    pub fn url(&self, database: &str) -> String {
        self.cluster.url(database)
    }

    /// The cluster, for tests that look at its processes.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Stops it and removes its files, now.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.maintenance.close().await;
        self.cluster.stop().await?;
        self.watchdog
            .finish()
            .context("cannot remove the test database")
    }
}

/// A database with all migrations and no rows, which is dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    url: String,
    options: PgConnectOptions,
    pool: PgPool,
}

impl TestDatabase {
    /// Clones one. Call it in the runtime of the test, which its pool then belongs to.
    ///
    /// # Panics
    ///
    /// If PostgreSQL cannot be started or the migrations fail: no test could go on.
    pub async fn create() -> Self {
        let made = RUNTIME.spawn(async {
            let shared = SHARED.get_or_try_init(Throwaway::start).await?;
            let name = shared.create_database().await?;
            anyhow::Ok((shared.connect_options(&name), shared.url(&name), name))
        });
        let (options, url, name) = made
            .await
            .map_err(anyhow::Error::from)
            .flatten()
            .unwrap_or_else(|error| panic!("no test database: {error:#}"));
        let pool = PgPoolOptions::new()
            .max_connections(TEST_CONNECTIONS)
            .connect_lazy_with(options.clone());
        Self {
            name,
            url,
            options,
            pool,
        }
    }

    /// For programs, and for a pool with other settings.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn connect_options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Ends all connections to it, and lets nobody in any more.
    ///
    /// # Panics
    ///
    /// If PostgreSQL does not.
    pub async fn shut_out(&self) {
        let name = self.name.clone();
        let shut = RUNTIME.spawn(async move {
            let shared = SHARED.get().context("no cluster")?;
            shared.shut_out(&name).await
        });
        let shut = shut.await.map_err(anyhow::Error::from).flatten();
        shut.unwrap_or_else(|error| panic!("the database is still open: {error:#}"));
    }

    /// The pool of this test.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        RUNTIME.spawn(async move {
            if let Some(shared) = SHARED.get() {
                shared.drop_database(&name).await;
            }
        });
    }
}

/// A temporary directory whose mode lets the user through who runs PostgreSQL for root.
pub fn temp_directory() -> anyhow::Result<TempDir> {
    directory_in(&std::env::temp_dir())
}

fn directory_in(parent: &Path) -> anyhow::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("mdm-test-")
        .permissions(fs::Permissions::from_mode(0o711))
        .tempdir_in(parent)
        .context("cannot make a directory for the test database")
}

/// The file system in memory, if there is one with room, and unless `TMPDIR` names another place.
/// A clone takes 15 ms there; on a disk that other builds keep busy it took 30 to 300 ms.
fn roomy_memory() -> Option<PathBuf> {
    const ROOM: u64 = 2 << 30;
    let memory = Path::new("/dev/shm");
    let free = rustix::fs::statvfs(memory).ok()?;
    let is_roomy = free.f_bavail.saturating_mul(free.f_frsize) >= ROOM;
    (is_roomy && std::env::var_os("TMPDIR").is_none()).then(|| memory.to_path_buf())
}

fn quiet(options: PgConnectOptions) -> PgConnectOptions {
    options.disable_statement_logging()
}
