//! The server process: its command line, its start, taking over one that runs, its end.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection};
use tokio::time::Instant;

use crate::Durability;
use crate::account::Account;
use crate::binaries::Binaries;
use crate::error::ClusterError;
use crate::initdb::SUPERUSER;
use crate::location::{Location, fingerprint};
use crate::log::LogFile;
use crate::process::{self, Process};
use crate::socket::PORT;

/// How often a starting server is asked whether it is ready.
const POLL: Duration = Duration::from_millis(10);
/// How long a server may say nothing at all. One that recovers from a crash says so, and has as
/// long as that takes.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a server that refuses because of its predecessor's remains is started again.
const REMAINS: Duration = Duration::from_secs(10);
/// How long a session that outlived its server may take to notice.
const ORPHANS: Duration = Duration::from_secs(3);
const FAST_SHUTDOWN: Duration = Duration::from_secs(3);
const IMMEDIATE_SHUTDOWN: Duration = Duration::from_millis(1200);
const KILL: Duration = Duration::from_millis(500);

/// The first words of PostgreSQL's complaint about what its predecessor left, in its log.
const REMAINS_SIGNS: [&str; 3] = ["is still in use", "already exists", "already in use"];

/// All that is needed to start the server again.
#[derive(Debug)]
pub(crate) struct Postmaster {
    pub data: PathBuf,
    pub base: PathBuf,
    pub account: Account,
    pub socket_dir: PathBuf,
    pub log: LogFile,
    program: PathBuf,
    /// Carried by all its processes in their titles.
    cluster_name: String,
    arguments: Vec<OsString>,
    running: Mutex<Option<Arc<Process>>>,
}

/// How much memory PostgreSQL keeps pages in: an eighth of the machine's, from 64 to 1,024 MiB. It
/// takes it as it needs it, so that a small database stays small.
fn shared_buffers_mib(durability: Durability) -> u64 {
    match durability {
        Durability::Durable => {
            let machine = rustix::system::sysinfo();
            let bytes = machine.totalram.saturating_mul(u64::from(machine.mem_unit));
            (bytes / 8 / 1024 / 1024).clamp(64, 1_024)
        }
        Durability::ThrowAway => 64,
    }
}

impl Postmaster {
    pub fn new(
        location: &Location,
        binaries: &Binaries,
        socket_dir: PathBuf,
        durability: Durability,
        max_connections: u16,
    ) -> Self {
        let data = location.data();
        let cluster_name = format!("mobius-{}", fingerprint(&location.base));
        let mut settings = vec![
            "listen_addresses=".to_owned(),
            format!("port={PORT}"),
            format!("unix_socket_directories={}", socket_dir.display()),
            format!("cluster_name={cluster_name}"),
            format!("max_connections={max_connections}"),
            format!("shared_buffers={}MB", shared_buffers_mib(durability)),
            "autovacuum=on".to_owned(),
            "timezone=UTC".to_owned(),
            "log_timezone=UTC".to_owned(),
            "log_destination=stderr".to_owned(),
            "logging_collector=off".to_owned(),
        ];
        let durable = match durability {
            Durability::Durable => ["fsync=on", "full_page_writes=on"].as_slice(),
            Durability::ThrowAway => &[
                "fsync=off",
                "synchronous_commit=off",
                "full_page_writes=off",
                "wal_level=minimal",
                "max_wal_senders=0",
                "checkpoint_timeout=1h",
                "max_wal_size=256MB",
            ],
        };
        settings.extend(durable.iter().map(|&setting| setting.to_owned()));

        let mut arguments = vec![OsString::from("-D"), data.clone().into_os_string()];
        for setting in settings {
            arguments.extend([OsString::from("-c"), OsString::from(setting)]);
        }
        Self {
            data,
            base: location.base.clone(),
            account: location.account.clone(),
            socket_dir,
            log: LogFile::in_directory(&location.log()),
            program: binaries.postgres(),
            cluster_name,
            arguments,
            running: Mutex::new(None),
        }
    }

    pub fn connect_options(&self, database: &str) -> PgConnectOptions {
        connect_options(&self.socket_dir, database)
    }

    pub fn running(&self) -> Option<Arc<Process>> {
        self.slot().clone()
    }

    /// Has the server running and ready: takes over the one that runs, or starts it.
    pub async fn launch(&self) -> Result<(), ClusterError> {
        if let Some((process, is_as_wanted)) = self.left_running() {
            let process = Arc::new(process);
            self.put(Some(Arc::clone(&process)));
            tracing::info!(
                pid = process.id(),
                "PostgreSQL still runs from an earlier start"
            );
            let taken = is_as_wanted && self.ready(&process, 0).await.is_ok();
            if taken {
                return Ok(());
            }
            self.shut_down().await?;
        }
        self.start().await
    }

    async fn start(&self) -> Result<(), ClusterError> {
        let deadline = Instant::now() + REMAINS;
        loop {
            self.clear_remains().await;
            if let Err(error) = self.log.rotate() {
                tracing::warn!(path = %self.log.path().display(), %error, "cannot rotate PostgreSQL's log");
            }
            let log_start = self.log.length();
            let process = Arc::new(self.spawn()?);
            self.put(Some(Arc::clone(&process)));
            match self.ready(&process, log_start).await {
                Ok(()) => return Ok(()),
                Err(ClusterError::Start { tail, .. })
                    if Instant::now() < deadline
                        && REMAINS_SIGNS.iter().any(|sign| tail.contains(sign)) =>
                {
                    tokio::time::sleep(POLL * 10).await;
                }
                Err(error) => {
                    // The first error is the one to tell.
                    let _stopped = self.shut_down().await;
                    return Err(error);
                }
            }
        }
    }

    fn spawn(&self) -> Result<Process, ClusterError> {
        let failed = |source| ClusterError::Program {
            program: self.program.clone(),
            source,
        };
        let log = self.log.open()?;
        let mut command = std::process::Command::new(&self.program);
        command
            .args(&self.arguments)
            .current_dir(&self.base)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log);
        self.account.confine(&mut command);
        let child = command.spawn().map_err(failed)?;
        Process::of_child(child).ok_or_else(|| failed(rustix::io::Errno::SRCH.into()))
    }

    /// Asks until the server takes connections or ends.
    async fn ready(&self, process: &Process, log_start: u64) -> Result<(), ClusterError> {
        let options = self.connect_options("postgres").disable_statement_logging();
        let mut deadline = Instant::now() + SILENCE;
        let mut told = Instant::now();
        loop {
            let last = match PgConnection::connect_with(&options).await {
                Ok(connection) => {
                    // A close that fails leaves nothing behind: the socket is gone either way.
                    let _closed = connection.close().await;
                    return Ok(());
                }
                Err(error) => error,
            };
            if !process.is_alive() {
                return Err(ClusterError::Start {
                    status: process.status().unwrap_or_else(|| "it ended".to_owned()),
                    log: self.log.path().to_path_buf(),
                    tail: self.log.tail(log_start),
                });
            }
            if is_starting(&last) {
                deadline = Instant::now() + SILENCE;
                if told.elapsed() > Duration::from_secs(10) {
                    told = Instant::now();
                    tracing::info!("PostgreSQL is still starting: {last}");
                }
            } else if Instant::now() > deadline {
                return Err(ClusterError::NotReady {
                    seconds: SILENCE.as_secs(),
                    last: last.to_string(),
                    log: self.log.path().to_path_buf(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The server that an earlier start left, and whether it was started exactly as it would be
    /// now.
    fn left_running(&self) -> Option<(Process, bool)> {
        let process = Process::open(self.recorded_pid()?)?;
        let line = process::command_line(process.id(), self.account.uid)?;
        let (_, arguments) = line.split_first()?;
        let data = self.data.as_os_str().as_bytes();
        let is_ours = arguments
            .windows(2)
            .any(|pair| matches!(pair, [flag, dir] if flag == b"-D" && dir == data));
        let is_as_wanted =
            line.iter()
                .map(Vec::as_slice)
                .eq(std::iter::once(self.program.as_os_str())
                    .chain(self.arguments.iter().map(OsString::as_os_str))
                    .map(OsStr::as_bytes));
        is_ours.then_some((process, is_as_wanted))
    }

    fn recorded_pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok()
    }

    /// Removes what would keep a new server from starting after its predecessor was killed.
    ///
    /// Most of it PostgreSQL sees to. But it takes any living process with a recorded number for
    /// its predecessor, and its predecessor's sessions hold the shared memory until they notice.
    async fn clear_remains(&self) {
        let Some(pid) = self.recorded_pid() else {
            return;
        };
        self.end_orphans().await;
        // Only a file whose number was given to another process is removed: through the others
        // PostgreSQL itself looks for sessions that still run.
        if Process::open(pid).is_some() && self.left_running().is_none() {
            let socket_lock = self.socket_dir.join(format!(".s.PGSQL.{PORT}.lock"));
            for path in [self.data.join("postmaster.pid"), socket_lock] {
                if let Err(error) = fs::remove_file(&path)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %path.display(), %error, "cannot remove a stale lock of PostgreSQL");
                }
            }
        }
    }

    /// Waits for the sessions of a dead server to end, and then ends them. It is safe to kill them:
    /// no server is left whose memory they could damage.
    async fn end_orphans(&self) {
        let title = format!("postgres: {}: ", self.cluster_name);
        let is_titled = |line: &[Vec<u8>]| {
            line.first()
                .is_some_and(|first| first.starts_with(title.as_bytes()))
        };
        let orphans = process::find(self.account.uid, is_titled).unwrap_or_default();
        let deadline = Instant::now() + ORPHANS;
        for orphan in orphans {
            let left = deadline.saturating_duration_since(Instant::now());
            if !orphan.exited_within(left).await {
                orphan.signal(Signal::KILL);
                orphan.exited_within(KILL).await;
            }
        }
    }

    /// Stops the server: in good order if that is quick, otherwise so that its next start recovers.
    pub async fn shut_down(&self) -> Result<(), ClusterError> {
        let Some(process) = self.running() else {
            return Ok(());
        };
        for (signal, limit) in [
            (Signal::INT, FAST_SHUTDOWN),
            (Signal::QUIT, IMMEDIATE_SHUTDOWN),
            (Signal::KILL, KILL),
        ] {
            process.signal(signal);
            if process.exited_within(limit).await {
                // Collects a child of ours, which would stay as a zombie.
                let _status = process.status();
                self.put(None);
                return Ok(());
            }
            tracing::warn!(
                pid = process.id(),
                "PostgreSQL did not stop within {limit:?} of signal {}",
                signal.as_raw()
            );
        }
        Err(ClusterError::Stop { pid: process.id() })
    }

    /// Notes that the server is gone, and tells how it ended where that can be known.
    pub fn collect(&self) -> Option<String> {
        let status = self.running().and_then(|process| process.status());
        self.put(None);
        status
    }

    fn put(&self, process: Option<Arc<Process>>) {
        *self.slot() = process;
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Process>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without [`Postmaster::shut_down`], at least asks for it: a server left behind would be taken over
/// by the next start, but if there is none it would run for ever.
impl Drop for Postmaster {
    fn drop(&mut self) {
        if let Some(process) = self.running() {
            process.signal(Signal::INT);
        }
    }
}

/// Through the socket in `socket_dir`, as the superuser.
pub(crate) fn connect_options(socket_dir: &Path, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(PORT)
        .username(SUPERUSER)
        .database(database)
        .ssl_mode(PgSslMode::Disable)
}

/// PostgreSQL's `cannot_connect_now`: it starts, recovers or shuts down.
fn is_starting(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == "57P03")
}
