//! Commands: accepted, delivered, reported, ended.

use std::time::Duration;

use mdm_core::{
    Invalid, Timestamp,
    commands::{
        Command, CommandKind, CommandStatus, CommandTransition, IdempotencyKey, InvalidTransition,
        Priority, TimeToLive, check_parameters,
    },
    devices::DeviceStatus,
    events::{EventData, NewEvent},
    ids::{CommandId, DeviceId, OrganizationId},
    invalid,
    roles::Permission,
};
use mdm_store::{
    PgConnection, StoreError,
    commands::{self, CommandFilter, Idempotency},
    devices::DeviceRef,
    events,
    lists::ListRequest,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    context::{Forbidden, OpContext},
    devices::DeviceError,
    lists::Listed,
    services::Services,
};

mod delivery;
mod ending;
mod reports;

pub use delivery::Delivery;
pub use reports::{CommandReport, ReportError, Reported};

/// A result longer than this, in bytes of JSON, is not repeated in the event: the ledger has it.
const MAX_RESULT_IN_EVENT: usize = 32 * 1024;

/// The largest `parameters`, in bytes of JSON.
const MAX_PARAMETERS: usize = 64 * 1024;

/// How many commands may wait for one device.
pub(crate) const MAX_OPEN: usize = 1_000;

/// A wish for a command, as it came in.
#[derive(Debug, Clone, Default)]
pub struct NewCommand {
    /// The command's name.
    pub command: String,
    /// With what; an empty object if absent.
    pub parameters: Option<Value>,
    /// How long it waits.
    pub expires_in_seconds: Option<i64>,
    /// What goes first.
    pub priority: Option<i64>,
    /// The caller's name for this intention.
    pub idempotency_key: Option<String>,
}

/// Why a command was not accepted, found or ended.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The caller may not.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// A field is not acceptable.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The device is not there, or cannot take it.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The organisation has no such command.
    #[error("there is no such command")]
    NotFound,
    /// The organisation has no such batch.
    #[error("there is no such command batch")]
    BatchNotFound,
    /// The idempotency key was used for something else.
    #[error("the Idempotency-Key was used before, for another request")]
    IdempotencyMismatch,
    /// Too many commands wait for the device.
    #[error(
        "{MAX_OPEN} commands wait for this device already: cancel some, or wait until they end"
    )]
    TooManyOpen,
    /// The command cannot make this step.
    #[error(transparent)]
    Transition(#[from] InvalidTransition),
    /// A destructive command is with the device already.
    #[error(
        "the device has this command already: whether it can still be stopped cannot be known, so it is not called cancelled"
    )]
    HandedOver,
    /// The device is not connected.
    #[error("the device is {0}, not online: a query needs its answer now")]
    NotOnline(DeviceStatus),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// Accepts a command for a device. With an idempotency key, the same request again gives the
    /// command that it became the first time.
    pub async fn send_command(
        &self,
        ctx: &OpContext,
        device: &DeviceRef,
        new: NewCommand,
    ) -> Result<Command, CommandError> {
        ctx.require(Permission::RunCommands)?;
        let wish = Wish::parse(&new)?;
        let now = self.now();
        let mut tx = self.begin().await?;
        let device = self.lock_device(&mut tx, ctx, device).await?;
        let idempotency = wish.idempotency(device.id);
        if let Some(idempotency) = &idempotency
            && let Some(first) = self.first_outcome(&mut tx, ctx, idempotency).await?
        {
            return Ok(first);
        }
        if device.status == DeviceStatus::Unenrolled {
            return Err(DeviceError::Unenrolled.into());
        }
        if commands::count_open(&mut tx, ctx.organization_id, device.id).await? >= MAX_OPEN {
            return Err(CommandError::TooManyOpen);
        }
        let command = wish.into_command(
            CommandId::new(self.clock.as_ref(), self.entropy.as_ref()),
            ctx,
            device.id,
            now,
        );
        if !commands::insert(&mut tx, &command, idempotency.as_ref()).await? {
            // Another device's command took the key between our look and our insert.
            return Err(CommandError::IdempotencyMismatch);
        }
        self.note(&mut tx, &[&command], now, &ctx.cause()).await?;
        self.commit(tx).await?;
        self.wake_device(command.organization_id, command.device_id);
        Ok(command)
    }

    async fn first_outcome(
        &self,
        tx: &mut PgConnection,
        ctx: &OpContext,
        idempotency: &Idempotency,
    ) -> Result<Option<Command>, CommandError> {
        let Some((id, digest)) =
            commands::find_by_idempotency_key(&mut *tx, ctx.organization_id, &idempotency.key)
                .await?
        else {
            return Ok(None);
        };
        if digest != idempotency.digest {
            return Err(CommandError::IdempotencyMismatch);
        }
        Ok(commands::find(tx, ctx.organization_id, id).await?)
    }

    /// Asks a device that is online a query and waits for its answer, at most `seconds`. A query
    /// that is not answered in time is withdrawn, so that it does not run when nobody waits.
    pub async fn query_device(
        &self,
        ctx: &OpContext,
        device: &DeviceRef,
        query: &str,
        seconds: i64,
    ) -> Result<Command, CommandError> {
        ctx.require(Permission::RunCommands)?;
        let query = parse_query(query)?;
        let device = self.get_device(ctx, device).await?;
        if device.status != DeviceStatus::Online {
            return Err(CommandError::NotOnline(device.status));
        }
        let new = NewCommand {
            command: CommandKind::RunOsquery.to_string(),
            parameters: Some(serde_json::json!({ "query": query, "timeout_seconds": seconds })),
            expires_in_seconds: Some(seconds),
            // Somebody waits for it.
            priority: Some(100),
            idempotency_key: None,
        };
        let command = self
            .send_command(ctx, &DeviceRef::Id(device.id), new)
            .await?;
        let command = self
            .wait_for_command(ctx, command.id, Duration::from_secs(seconds.unsigned_abs()))
            .await?;
        if !command.status.is_open() {
            return Ok(command);
        }
        match self.cancel_command(ctx, command.id).await {
            // It ended while we gave up: its answer came after all.
            Err(CommandError::Transition(_)) => Ok(self.get_command(ctx, command.id).await?.0),
            other => other,
        }
    }

    /// A command and its steps. Its result is for those who may run commands.
    pub async fn get_command(
        &self,
        ctx: &OpContext,
        id: CommandId,
    ) -> Result<(Command, Vec<CommandTransition>), CommandError> {
        ctx.require(Permission::ReadCommands)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let command = commands::find(&mut conn, ctx.organization_id, id)
            .await?
            .ok_or(CommandError::NotFound)?;
        let steps = commands::transitions(&mut conn, ctx.organization_id, id).await?;
        Ok((visible(ctx, command), steps))
    }

    /// A page of commands, the newest first if nobody says otherwise.
    pub async fn list_commands(
        &self,
        ctx: &OpContext,
        device: Option<&DeviceRef>,
        filter: CommandFilter,
        request: &ListRequest,
    ) -> Result<Listed<Command>, CommandError> {
        ctx.require(Permission::ReadCommands)?;
        let organization = ctx.organization_id;
        let device = match device {
            Some(device) => Some(self.get_device(ctx, device).await?.id),
            None => None,
        };
        let filter = CommandFilter { device, ..filter };
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let page = commands::list(&mut conn, organization, &filter, request).await?;
        let list = format!("commands {filter:?}");
        let count = commands::total(&mut conn, organization, &filter);
        let total = self
            .totals
            .get(&self.changes, (organization, &list), &page, count)
            .await?;
        Ok(Listed::new(
            page.map(|command| visible(ctx, command)),
            total,
        ))
    }

    /// Withdraws a command. One that is with the device already is told to it, and may run all the
    /// same if it has begun; a destructive one that is with the device is not called cancelled.
    pub async fn cancel_command(
        &self,
        ctx: &OpContext,
        id: CommandId,
    ) -> Result<Command, CommandError> {
        ctx.require(Permission::RunCommands)?;
        let mut tx = self.begin().await?;
        let mut command = self.lock_command(&mut tx, ctx.organization_id, id).await?;
        if command.kind.is_destructive()
            && matches!(command.status, CommandStatus::Sent | CommandStatus::Running)
        {
            return Err(CommandError::HandedOver);
        }
        if command.status.to(CommandStatus::Cancelled)?
            == mdm_core::commands::Transition::AlreadyThere
        {
            return Ok(command);
        }
        let now = self.now();
        command.status = CommandStatus::Cancelled;
        command.completed_at = Some(now);
        commands::update(&mut tx, &command).await?;
        self.note(&mut tx, &[&command], now, &ctx.cause()).await?;
        self.note_install(&mut tx, &command, now).await?;
        self.commit(tx).await?;
        self.watch.moved(command.id);
        Ok(command)
    }

    /// Waits until the command has ended, at most `patience`; gives it as it stands then.
    pub async fn wait_for_command(
        &self,
        ctx: &OpContext,
        id: CommandId,
        patience: Duration,
    ) -> Result<Command, CommandError> {
        let deadline = tokio::time::Instant::now() + patience;
        let watching = self.watch.watch(id);
        loop {
            let mut next_move = std::pin::pin!(watching.next_move());
            next_move.as_mut().enable();
            let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
            let command = commands::find(&mut conn, ctx.organization_id, id)
                .await?
                .ok_or(CommandError::NotFound)?;
            drop(conn);
            if !command.status.is_open()
                || tokio::time::timeout_at(deadline, next_move).await.is_err()
            {
                return Ok(visible(ctx, command));
            }
        }
    }

    /// Finds a command and locks its device's row, then reads the command again: what is read then
    /// stays true until the transaction ends.
    async fn lock_command(
        &self,
        tx: &mut PgConnection,
        organization: OrganizationId,
        id: CommandId,
    ) -> Result<Command, CommandError> {
        let found = commands::find(&mut *tx, organization, id)
            .await?
            .ok_or(CommandError::NotFound)?;
        mdm_store::devices::lock(&mut *tx, organization, found.device_id).await?;
        commands::find(tx, organization, id)
            .await?
            .ok_or(CommandError::NotFound)
    }

    /// Writes a step of each command into the ledger, and its event into the log.
    pub(crate) async fn note(
        &self,
        tx: &mut PgConnection,
        moved: &[&Command],
        at: Timestamp,
        cause: &str,
    ) -> Result<(), StoreError> {
        if moved.is_empty() {
            return Ok(());
        }
        commands::insert_transitions(&mut *tx, moved, at, &self.this_node.id.to_string(), cause)
            .await?;
        let told: Vec<NewEvent> = moved
            .iter()
            .map(|command| execution_event(command))
            .collect();
        events::append_all(tx, at, &told).await
    }
}

/// The event of a command that moved.
fn execution_event(command: &Command) -> NewEvent {
    let result = command
        .result
        .clone()
        .filter(|result| result.to_string().len() <= MAX_RESULT_IN_EVENT);
    let data = EventData::CommandExecution {
        command_id: command.id,
        device_id: command.device_id,
        command: command.kind,
        status: command.status,
        result,
    };
    NewEvent::new(command.organization_id, data)
}

/// The command without what the caller may not see.
fn visible(ctx: &OpContext, mut command: Command) -> Command {
    if !ctx.may(Permission::RunCommands) {
        command.result = None;
    }
    command
}

/// Takes a query of 1 to 16,384 bytes.
fn parse_query(query: &str) -> Result<&str, Invalid> {
    if query.trim().is_empty() {
        return Err(Invalid::new("/query", "EMPTY", "must not be empty"));
    }
    if query.len() > 16 * 1024 || query.contains('\0') {
        return Err(Invalid::new(
            "/query",
            "TOO_LONG",
            "must have at most 16 KiB, without the character U+0000",
        ));
    }
    Ok(query)
}

/// A wish for a command, checked.
pub(crate) struct Wish {
    pub(crate) kind: CommandKind,
    pub(crate) parameters: Value,
    pub(crate) priority: Priority,
    pub(crate) time_to_live: TimeToLive,
    idempotency_key: Option<IdempotencyKey>,
    digest_of: String,
}

impl Wish {
    pub(crate) fn parse(new: &NewCommand) -> Result<Self, Invalid> {
        let kind: CommandKind =
            new.command
                .parse()
                .map_err(|unknown: mdm_core::commands::UnknownCommand| {
                    Invalid::new("/command", "UNKNOWN_COMMAND", unknown.to_string())
                })?;
        let parameters = new
            .parameters
            .clone()
            .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        check_parameters(kind, &parameters)?;
        if parameters.to_string().len() > MAX_PARAMETERS {
            return Err(Invalid::new(
                "/parameters",
                "TOO_LONG",
                "must have at most 64 KiB as JSON",
            ));
        }
        invalid::no_nul("/parameters", &parameters)?;
        let digest_of = format!(
            "{kind}\n{parameters}\n{:?}\n{:?}",
            new.expires_in_seconds, new.priority
        );
        Ok(Self {
            kind,
            parameters,
            priority: Priority::parse(new.priority)?,
            time_to_live: TimeToLive::parse(new.expires_in_seconds)?,
            idempotency_key: new
                .idempotency_key
                .as_deref()
                .map(IdempotencyKey::parse)
                .transpose()?,
            digest_of,
        })
    }

    fn idempotency(&self, device: DeviceId) -> Option<Idempotency> {
        let digest = Sha256::digest(format!("{device}\n{}", self.digest_of)).into();
        self.idempotency_key
            .clone()
            .map(|key| Idempotency { key, digest })
    }

    fn into_command(
        self,
        id: CommandId,
        ctx: &OpContext,
        device_id: DeviceId,
        now: Timestamp,
    ) -> Command {
        Command {
            id,
            organization_id: ctx.organization_id,
            device_id,
            kind: self.kind,
            parameters: self.parameters,
            status: CommandStatus::Pending,
            result: None,
            error: None,
            created_by: ctx.user_id(),
            created_at: now,
            sent_at: None,
            completed_at: None,
            expires_at: self.time_to_live.ends(now),
            priority: self.priority.value(),
            lane: self.kind.lane(),
            attempts: 0,
            batch_id: None,
        }
    }
}
