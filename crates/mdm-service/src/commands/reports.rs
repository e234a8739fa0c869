//! What devices say came of their commands.

use mdm_core::{
    commands::{Command, CommandStatus, Transition},
    ids::{CommandId, DeviceId, OrganizationId},
    invalid::no_nul,
};
use mdm_store::{PgConnection, StoreError, commands};
use serde_json::Value;

use crate::services::Services;

/// What a device says of one command.
#[derive(Debug, Clone)]
pub struct CommandReport {
    /// Which command.
    pub command_id: CommandId,
    /// `running`, `completed`, `failed` or `unknown`.
    pub status: String,
    /// What it answers.
    pub result: Option<Value>,
    /// Why it failed.
    pub error: Option<String>,
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reported {
    /// It is in the ledger.
    Taken,
    /// It was there before.
    Repeated,
}

/// Why a report was not taken over. Sending it again would not help, the database's failure aside.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The device has no such command.
    #[error("the device has no such command")]
    NotFound,
    /// The command had ended before.
    #[error("the command has ended: it is {0}")]
    Ended(CommandStatus),
    /// The command is further on.
    #[error("the command is {0}, which comes after what was reported")]
    Backwards(CommandStatus),
    /// The status is none that a device may report.
    #[error("a device reports running, completed, failed or unknown")]
    UnknownStatus,
    /// The result cannot be stored.
    #[error("the result or the error contains the character U+0000, which cannot be stored")]
    Unstorable,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// Takes over what a device says of a command. The same again is harmless; what comes after
    /// the command's end is noted in the ledger's steps and otherwise refused.
    pub async fn report_command(
        &self,
        organization: OrganizationId,
        device: DeviceId,
        report: CommandReport,
    ) -> Result<Reported, ReportError> {
        let status = parse_status(&report)?;
        let now = self.now();
        let mut tx = self.begin().await?;
        mdm_store::devices::lock(&mut tx, organization, device).await?;
        let found = commands::find(&mut tx, organization, report.command_id).await?;
        let mut command = found
            .filter(|command| command.device_id == device)
            .ok_or(ReportError::NotFound)?;
        match command.status.to(status) {
            Ok(Transition::AlreadyThere) => return Ok(Reported::Repeated),
            Ok(Transition::Moves) => {}
            Err(refused) if refused.from.is_open() => {
                return Err(ReportError::Backwards(refused.from));
            }
            Err(refused) => {
                if self.note_late(&mut tx, &command, status).await? {
                    // The command stays ended; what the device says of the application is news.
                    command.status = status;
                    command.error = report.error;
                    self.note_install(&mut tx, &command, now).await?;
                }
                self.commit(tx).await?;
                return Err(ReportError::Ended(refused.from));
            }
        }
        command.status = status;
        if status != CommandStatus::Running {
            command.result = report.result;
            command.error = report.error;
            command.completed_at = Some(now);
        }
        commands::update(&mut tx, &command).await?;
        self.note(
            &mut tx,
            &[&command],
            now,
            &format!("reported by device {device}"),
        )
        .await?;
        self.note_install(&mut tx, &command, now).await?;
        self.commit(tx).await?;
        self.watch.moved(command.id);
        Ok(Reported::Taken)
    }

    /// A command that was called off did run: the ledger says so, though its status stays. Once:
    /// says whether this was the first time.
    async fn note_late(
        &self,
        tx: &mut PgConnection,
        command: &Command,
        reported: CommandStatus,
    ) -> Result<bool, StoreError> {
        let cause = format!("after its end the device reported {reported}");
        let steps = commands::transitions(&mut *tx, command.organization_id, command.id).await?;
        if !matches!(
            command.status,
            CommandStatus::Cancelled | CommandStatus::Expired | CommandStatus::Unknown
        ) || steps.iter().any(|step| step.cause == cause)
        {
            return Ok(false);
        }
        let node = self.this_node.id.to_string();
        commands::insert_transitions(tx, &[command], self.now(), &node, &cause).await?;
        Ok(true)
    }
}

fn parse_status(report: &CommandReport) -> Result<CommandStatus, ReportError> {
    let clean = report
        .result
        .as_ref()
        .is_none_or(|result| no_nul("", result).is_ok())
        && report
            .error
            .as_ref()
            .is_none_or(|error| !error.contains('\0'));
    if !clean {
        return Err(ReportError::Unstorable);
    }
    let status: CommandStatus = report
        .status
        .parse()
        .map_err(|_unknown| ReportError::UnknownStatus)?;
    match status {
        CommandStatus::Running
        | CommandStatus::Completed
        | CommandStatus::Failed
        | CommandStatus::Unknown => Ok(status),
        _ => Err(ReportError::UnknownStatus),
    }
}
