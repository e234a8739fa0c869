//! The device agent of Mobius MDM: enrols the machine it runs on, keeps a channel to the server,
//! and does what it is told, once.
//!
//! What depends on the operating system is behind [`platform`]. To add a command, add a file in
//! `commands/` and a line in `commands.rs`; to add an SQL table, a file in `sql/tables/` and a line
//! in `sql/tables.rs`.

pub mod clock;
pub mod commands;
pub mod connection;
pub mod enrollment;
pub mod executor;
pub mod journal;
pub mod platform;
pub mod policies;
pub mod sql;
pub mod state;
pub mod status;

use std::{collections::BTreeSet, path::PathBuf};

pub use connection::run;
pub use enrollment::{EnrollOptions, enroll, unenroll};
pub use state::{Identity, StateDir};

/// What an agent is told by whoever runs it.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where it keeps its identity and its journal.
    pub state_dir: PathBuf,
    /// Which of the dangerous commands it obeys.
    pub allow: BTreeSet<String>,
    /// Run instead of the system's own programs for restart, shutdown and lock: for drills. It
    /// gets the command's name and id as arguments.
    pub destructive_exec: Option<PathBuf>,
    /// Only check in, without a channel.
    pub poll_only: bool,
}

/// Why the agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The machine is not enrolled.
    #[error("this machine is not enrolled: run `mdm-agent enroll` first")]
    NotEnrolled,
    /// The machine is enrolled already.
    #[error("this machine is enrolled with {0}; run `mdm-agent unenroll` first")]
    Enrolled(String),
    /// The server knows the device under this uuid.
    #[error(
        "the server has a device with the uuid {0} already. If it is this machine (a former enrolment whose answer was \
         lost, or a state directory that was deleted), repeat with --re-enroll"
    )]
    UuidTaken(String),
    /// The device was unenrolled.
    #[error(
        "the device was unenrolled, or enrolled anew elsewhere: its token is not valid any more. Enrol it again to go on"
    )]
    Unenrolled,
    /// Another agent runs on this state directory.
    #[error("another agent runs on {}", .0.display())]
    Running(PathBuf),
    /// The state directory cannot be used.
    #[error("{}: {error}", path.display())]
    State {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The journal cannot be used.
    #[error("the journal: {0}")]
    Journal(#[from] rusqlite::Error),
    /// The server refused or cannot be reached.
    #[error(transparent)]
    Server(#[from] mdm_client::ClientError),
    /// The work was cut off.
    #[error("the agent was cut off in the middle of its work")]
    CutOff,
}
