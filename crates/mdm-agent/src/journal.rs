//! The command journal: what was received, begun, and came of it, on disk before anything is done
//! or said. It makes a command take effect once, whatever is delivered twice or breaks off.
//!
//! ```text
//! received → started → finished → acknowledged
//! refused: never run, whatever comes
//! ```

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, Duration, Utc};
use mdm_proto::device_side::{CommandResult, DeliveredCommand};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;
use uuid::Uuid;

use crate::AgentError;

/// How long acknowledged commands are remembered. Longer than any time to live: nothing that could
/// be delivered again is forgotten.
const REMEMBER: Duration = Duration::days(60);

/// What the journal says to a delivery.
#[derive(Debug, Clone, PartialEq)]
pub enum Receipt {
    /// Not seen before: run it.
    New,
    /// Seen, and on its way.
    InProgress,
    /// Done before: say again what came of it.
    Ended(CommandResult),
    /// Never to be run.
    Refused,
}

/// The journal, in a file.
#[derive(Clone)]
pub struct Journal(Arc<Mutex<Connection>>);

impl Journal {
    /// Opens the journal, making it if it is missing.
    pub fn open(path: &Path) -> Result<Self, AgentError> {
        // For the owner alone, like everything in the state directory; SQLite's other files follow.
        let made = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path);
        made.map_err(|error| AgentError::State {
            path: path.to_owned(),
            error,
        })?;
        let connection = Connection::open(path)?;
        // FULL: what was written is on the disk before the next step.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             CREATE TABLE IF NOT EXISTS commands (
                 id           TEXT PRIMARY KEY,
                 position     INTEGER NOT NULL,
                 delivery     TEXT NOT NULL,
                 kind         TEXT NOT NULL,
                 lane         TEXT NOT NULL,
                 state        TEXT NOT NULL CHECK (state IN ('received', 'started', 'finished', 'refused')),
                 status       TEXT,
                 result       TEXT,
                 error        TEXT,
                 acknowledged INTEGER NOT NULL DEFAULT 0,
                 changed_at   INTEGER NOT NULL
             );
             CREATE INDEX IF NOT EXISTS commands_unsent ON commands (position) WHERE acknowledged = 0;",
        )?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    /// Works with the file on a thread that may wait for the disk.
    pub async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Ledger<'_>) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, AgentError> {
        let journal = self.clone();
        let done = tokio::task::spawn_blocking(move || journal.now(work));
        Ok(done.await.map_err(|_cut_off| AgentError::CutOff)??)
    }

    /// Works with the file on this thread.
    pub fn now<T>(
        &self,
        work: impl FnOnce(&Ledger<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<T, rusqlite::Error> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let done = work(&Ledger(&transaction))?;
        transaction.commit()?;
        Ok(done)
    }
}

/// The journal within one transaction.
pub struct Ledger<'a>(&'a Connection);

impl Ledger<'_> {
    /// Notes a delivery before anything is done about it.
    pub fn receive(
        &self,
        command: &DeliveredCommand,
        at: DateTime<Utc>,
    ) -> Result<Receipt, rusqlite::Error> {
        let found = self.state_of(command.id)?;
        match found.as_deref() {
            Some("finished") => Ok(self
                .outcome(command.id)?
                .map_or(Receipt::InProgress, Receipt::Ended)),
            Some("refused") => Ok(Receipt::Refused),
            Some(_) => Ok(Receipt::InProgress),
            None => {
                let delivery = serde_json::to_string(command).unwrap_or_default();
                self.insert(
                    command.id,
                    &delivery,
                    &command.command,
                    &command.lane,
                    "received",
                    at,
                )?;
                Ok(Receipt::New)
            }
        }
    }

    /// Notes that a command is about to be begun; `false` if it must not be.
    pub fn start(&self, id: Uuid, at: DateTime<Utc>) -> Result<bool, rusqlite::Error> {
        let changed = self.0.execute(
            "UPDATE commands SET state = 'started', changed_at = ?2 WHERE id = ?1 AND state = 'received'",
            params![id.to_string(), at.timestamp()],
        )?;
        Ok(changed == 1)
    }

    /// Notes what came of a command.
    pub fn finish(
        &self,
        outcome: &CommandResult,
        at: DateTime<Utc>,
    ) -> Result<(), rusqlite::Error> {
        self.0.execute(
            "UPDATE commands
                SET state = 'finished', status = ?2, result = ?3, error = ?4, changed_at = ?5
              WHERE id = ?1 AND state IN ('received', 'started')",
            params![
                outcome.command_id.to_string(),
                outcome.status,
                outcome.result.as_ref().map(Value::to_string),
                outcome.error,
                at.timestamp()
            ],
        )?;
        Ok(())
    }

    /// Notes that a command which was not begun must not be: nothing is to be reported of it.
    pub fn cancel(&self, id: Uuid, at: DateTime<Utc>) -> Result<(), rusqlite::Error> {
        self.0.execute(
            "UPDATE commands SET state = 'refused', acknowledged = 1, changed_at = ?2 WHERE id = ?1 AND state = 'received'",
            params![id.to_string(), at.timestamp()],
        )?;
        Ok(())
    }

    /// The server asks what became of destructive commands. One that never came is noted as never
    /// to be run, and reported so.
    pub fn reconcile(
        &self,
        ids: &[Uuid],
        at: DateTime<Utc>,
    ) -> Result<Vec<CommandResult>, rusqlite::Error> {
        let mut outcomes = Vec::new();
        for &id in ids {
            if self.state_of(id)?.is_none() {
                self.insert(id, "{}", "", "control", "refused", at)?;
                self.0.execute(
                    "UPDATE commands SET status = 'failed', error = 'the command never reached this device' WHERE id = ?1",
                    params![id.to_string()],
                )?;
            }
            outcomes.extend(self.outcome(id)?);
        }
        Ok(outcomes)
    }

    /// The server has taken note of how a command ended, or never will.
    pub fn acknowledge(
        &self,
        id: Uuid,
        status: &str,
        at: DateTime<Utc>,
    ) -> Result<(), rusqlite::Error> {
        self.0.execute(
            "UPDATE commands SET acknowledged = 1, changed_at = ?3 WHERE id = ?1 AND status = ?2",
            params![id.to_string(), status, at.timestamp()],
        )?;
        Ok(())
    }

    /// Whose outcomes the server does not know yet, oldest first.
    pub fn unsent_ids(&self, limit: i64) -> Result<Vec<Uuid>, rusqlite::Error> {
        let mut statement = self.0.prepare(
            "SELECT id FROM commands WHERE acknowledged = 0 AND status IS NOT NULL ORDER BY position LIMIT ?1",
        )?;
        let rows = statement.query_map(params![limit], |row| row.get::<_, String>(0))?;
        rows.map(|id| id.map(|id| id.parse().unwrap_or_default()))
            .collect()
    }

    /// What came of a command.
    pub fn outcome(&self, id: Uuid) -> Result<Option<CommandResult>, rusqlite::Error> {
        self.0
            .query_row(
                "SELECT id, status, result, error FROM commands WHERE id = ?1 AND status IS NOT NULL",
                params![id.to_string()],
                outcome_of,
            )
            .optional()
    }

    /// Tidies up after the agent that ran before, however it ended, and gives what is to be run, in
    /// the order of its arrival. What was begun and only asks is run again; what was begun and
    /// changes things is not.
    pub fn recover(&self, at: DateTime<Utc>) -> Result<Vec<DeliveredCommand>, rusqlite::Error> {
        self.0.execute(
            "UPDATE commands SET state = 'received' WHERE state = 'started' AND lane = 'query'",
            [],
        )?;
        self.0.execute(
            "UPDATE commands SET state = 'finished', status = 'unknown', changed_at = ?1,
                    error = 'the agent ended while it carried this out; whether it took effect cannot be known'
              WHERE state = 'started' AND kind IN ('wipe', 'restart', 'shutdown', 'lock')",
            params![at.timestamp()],
        )?;
        self.0.execute(
            "UPDATE commands SET state = 'finished', status = 'failed', changed_at = ?1,
                    error = 'interrupted by a restart of the agent; it was not run again'
              WHERE state = 'started'",
            params![at.timestamp()],
        )?;
        self.0.execute(
            "DELETE FROM commands WHERE acknowledged = 1 AND changed_at < ?1",
            params![(at - REMEMBER).timestamp()],
        )?;
        let mut statement = self
            .0
            .prepare("SELECT delivery FROM commands WHERE state = 'received' ORDER BY position")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        let deliveries: Result<Vec<String>, _> = rows.collect();
        Ok(deliveries?
            .iter()
            .filter_map(|text| serde_json::from_str(text).ok())
            .collect())
    }

    fn state_of(&self, id: Uuid) -> Result<Option<String>, rusqlite::Error> {
        self.0
            .query_row(
                "SELECT state FROM commands WHERE id = ?1",
                params![id.to_string()],
                |row| row.get(0),
            )
            .optional()
    }

    fn insert(
        &self,
        id: Uuid,
        delivery: &str,
        kind: &str,
        lane: &str,
        state: &str,
        at: DateTime<Utc>,
    ) -> Result<(), rusqlite::Error> {
        self.0.execute(
            "INSERT INTO commands (id, position, delivery, kind, lane, state, changed_at)
             VALUES (?1, (SELECT coalesce(max(position), 0) + 1 FROM commands), ?2, ?3, ?4, ?5, ?6)",
            params![id.to_string(), delivery, kind, lane, state, at.timestamp()],
        )?;
        Ok(())
    }
}

fn outcome_of(row: &Row<'_>) -> Result<CommandResult, rusqlite::Error> {
    let id: String = row.get(0)?;
    let result: Option<String> = row.get(2)?;
    Ok(CommandResult {
        command_id: id.parse().unwrap_or_default(),
        status: row.get(1)?,
        result: result.and_then(|text| serde_json::from_str(&text).ok()),
        error: row.get(3)?,
    })
}

#[cfg(test)]
mod tests;
