//! Making devices have the applications that they shall have.
//!
//! Assignments say what is wanted; nothing is sent when they are made. A device whose revision
//! changed since it was last seen to is sent the commands that bring it there, when it checks in or
//! over its channel. So a group of a hundred thousand costs nothing at once, and a device that joins
//! later gets what the group has.

use mdm_core::{
    Timestamp,
    applications::{Install, InstallState, Intent},
    commands::{Command, CommandKind, CommandStatus},
    devices::{Device, DeviceStatus},
    events::{EventData, NewEvent},
    ids::{ApplicationId, CommandId},
};
use mdm_store::{
    PgConnection, StoreError,
    applications::{self, Wanted},
    commands, devices, events,
};
use serde_json::{Value, json};

use crate::services::Services;

/// For how long a device may take to install or remove something.
const TIME: chrono::Duration = chrono::Duration::days(7);

impl Services {
    /// Sends a device the commands that its applications need, if anything changed since this was
    /// last done. Says whether it sent any.
    pub async fn see_to_applications(&self, device: &Device) -> Result<bool, StoreError> {
        let organization = device.organization_id;
        let mut conn = self.pool.acquire().await?;
        // What is asked at every check-in takes no lock.
        if devices::revision_to_apply(&mut conn, organization, device.id)
            .await?
            .is_none()
        {
            return Ok(false);
        }
        drop(conn);
        let mut tx = self.begin().await?;
        let locked = devices::lock(&mut tx, organization, device.id).await?;
        if locked.is_none_or(|device| device.status == DeviceStatus::Unenrolled) {
            return Ok(false);
        }
        let revision = devices::revision_to_apply(&mut tx, organization, device.id).await?;
        let Some(revision) = revision else {
            return Ok(false);
        };
        let wanted = applications::wanted(&mut tx, organization, device.id).await?;
        let open = commands::open_of_device(&mut tx, organization, device.id).await?;
        let now = self.now();
        let mut sent = Vec::new();
        for wanted in &wanted {
            let Some(kind) = needed(wanted) else { continue };
            if open
                .iter()
                .any(|command| concerns(command, wanted.application.id))
            {
                continue;
            }
            let command = self.application_command(device, wanted, kind, now);
            commands::insert(&mut tx, &command, None).await?;
            sent.push(command);
        }
        devices::mark_applied(&mut tx, organization, device.id, revision).await?;
        let cause = "the device shall have its assigned applications";
        self.note(&mut tx, &sent.iter().collect::<Vec<_>>(), now, cause)
            .await?;
        self.commit(tx).await?;
        if !sent.is_empty() {
            self.channels.wake(organization, device.id);
        }
        Ok(!sent.is_empty())
    }

    fn application_command(
        &self,
        device: &Device,
        wanted: &Wanted,
        kind: CommandKind,
        now: Timestamp,
    ) -> Command {
        let application = &wanted.application;
        let parameters = json!({
            "application_id": application.id,
            "name": application.name,
            "version": application.app_version,
            "file_name": application.file_name,
            "size": application.size,
            "checksum": application.checksum,
        });
        Command {
            id: CommandId::new(self.clock.as_ref(), self.entropy.as_ref()),
            organization_id: device.organization_id,
            device_id: device.id,
            kind,
            parameters,
            status: CommandStatus::Pending,
            result: None,
            error: None,
            created_by: None,
            created_at: now,
            sent_at: None,
            completed_at: None,
            expires_at: now + TIME,
            priority: 0,
            lane: kind.lane(),
            attempts: 0,
            batch_id: None,
        }
    }

    /// A command moved: what that says of the application, if it installs or removes one. The caller
    /// holds the device's lock.
    pub(crate) async fn note_install(
        &self,
        tx: &mut PgConnection,
        command: &Command,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(application_id) = application_of(command) else {
            return Ok(());
        };
        let (organization, device_id) = (command.organization_id, command.device_id);
        let state = match (command.kind, command.status) {
            (_, CommandStatus::Pending | CommandStatus::Sent) => return Ok(()),
            (CommandKind::UninstallApp, CommandStatus::Running) => InstallState::Uninstalling,
            (CommandKind::UninstallApp, CommandStatus::Completed) => InstallState::Uninstalled,
            (_, CommandStatus::Running) => InstallState::Installing,
            (_, CommandStatus::Completed) => InstallState::Installed,
            _ => InstallState::Failed,
        };
        let install = Install {
            application_id,
            device_id,
            state,
            error: command.error.clone(),
            command_id: Some(command.id),
            updated_at: Some(now),
        };
        let was_said = matches!(
            command.status,
            CommandStatus::Running | CommandStatus::Completed | CommandStatus::Failed
        );
        let is_new = if was_said {
            applications::record_install(&mut *tx, organization, &install).await?
        } else {
            applications::fail_install(&mut *tx, organization, &install).await?
        };
        if is_new {
            let data = EventData::ApplicationInstall {
                application_id,
                device_id,
                state,
                error: install.error,
            };
            return events::append(tx, now, &NewEvent::new(organization, data)).await;
        }
        if command.status == CommandStatus::Expired {
            // The device never began: it is seen to again when it is back.
            devices::bump_revisions(tx, organization, &[device_id]).await?;
        }
        Ok(())
    }
}

/// What a device must do, if anything. One that failed is not tried again by itself: what is wrong
/// is seldom mended by repetition. Assigning anew does not either; a command does.
fn needed(wanted: &Wanted) -> Option<CommandKind> {
    match (wanted.intent, wanted.state) {
        (Intent::Install, None | Some(InstallState::Uninstalled)) => Some(CommandKind::InstallApp),
        (Intent::Uninstall, Some(InstallState::Installed)) => Some(CommandKind::UninstallApp),
        _ => None,
    }
}

fn concerns(command: &Command, application: ApplicationId) -> bool {
    application_of(command) == Some(application)
}

fn application_of(command: &Command) -> Option<ApplicationId> {
    if !matches!(
        command.kind,
        CommandKind::InstallApp | CommandKind::UninstallApp
    ) {
        return None;
    }
    let id = command
        .parameters
        .get("application_id")
        .and_then(Value::as_str)?;
    id.parse().ok()
}
