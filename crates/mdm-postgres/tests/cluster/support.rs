//! Data directories, and servers that can be killed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mdm_postgres::{Cluster, ClusterConfig, DATABASE};
use rustix::process::{Pid, Signal};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

/// Long enough for anything that should happen at once on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// A place for a data directory which PostgreSQL's user can reach.
pub fn place() -> TempDir {
    mdm_testkit::postgres::temp_directory().unwrap()
}

pub fn closed_directory(path: &Path) {
    fs::DirBuilder::new().mode(0o700).create(path).unwrap();
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Durable, as servers have it, so that crashes are recovered from.
pub async fn start(data_dir: &Path) -> Cluster {
    Cluster::start(ClusterConfig::durable(data_dir))
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

pub async fn connect(cluster: &Cluster) -> PgConnection {
    PgConnection::connect_with(&cluster.connect_options(DATABASE))
        .await
        .unwrap()
}

/// Writes a row that later starts must find.
pub async fn write_row(connection: &mut PgConnection) {
    sqlx::raw_sql("CREATE TABLE kept (value int); INSERT INTO kept VALUES (42)")
        .execute(connection)
        .await
        .unwrap();
}

pub async fn read_row(cluster: &Cluster) -> i32 {
    sqlx::query_scalar("SELECT value FROM kept")
        .fetch_one(&mut connect(cluster).await)
        .await
        .unwrap()
}

pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// True while the process runs; a dead one that nobody has collected does not.
pub fn is_running(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// A server process with an embedded cluster, to be killed.
pub struct Server {
    process: Child,
    pub url: String,
}

impl Server {
    pub fn start(data_dir: &Path) -> Self {
        let mut process = Self::spawn(data_dir);
        let mut url = String::new();
        BufReader::new(process.stdout.as_mut().unwrap())
            .read_line(&mut url)
            .unwrap();
        assert!(url.starts_with("postgres:"), "the server did not start");
        Self {
            process,
            url: url.trim().to_owned(),
        }
    }

    /// Started, but perhaps not yet up.
    pub fn spawn(data_dir: &Path) -> Child {
        Command::new(env!("CARGO_BIN_EXE_embedded-postgres"))
            .arg(data_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Ends it as a crash does: without a word to PostgreSQL.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// The process that holds the cluster in `data_dir`, as PostgreSQL recorded it.
pub fn recorded_pid(data_dir: &Path) -> u32 {
    let text = fs::read_to_string(pid_file(data_dir)).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

pub fn pid_file(data_dir: &Path) -> PathBuf {
    data_dir.join("postgres/data/postmaster.pid")
}
