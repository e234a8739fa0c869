//! Running commands: one task per lane, in order within a lane, each step in the journal first.

use std::{collections::HashMap, sync::Arc};

use mdm_proto::{
    channel::MAX_RESULT_BYTES,
    device_side::{CommandResult, DeliveredCommand},
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use uuid::Uuid;

use crate::{
    AgentError,
    clock::now,
    commands::{self, CommandOutcome, Context},
    journal::{Journal, Receipt},
    policies::Findings,
};

/// More than the server lets wait for one device.
const LANE_LENGTH: usize = 2_000;
const LANES: [&str; 4] = ["control", "query", "software", "script"];

/// What the connection is told.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// A command has begun that may take a while.
    Running(Uuid),
    /// A command has ended: the journal has its outcome.
    Ended(Uuid),
    /// The inventory was collected anew.
    Inventory,
    /// The machine was looked at with the eyes of its policies.
    Policies(Findings),
    /// A look at the policies failed; it is repeated.
    NoPolicies(String),
}

/// The lanes.
pub struct Executor {
    journal: Journal,
    lanes: HashMap<&'static str, mpsc::Sender<DeliveredCommand>>,
    tasks: JoinSet<()>,
    stopping: CancellationToken,
}

/// What became of a delivery.
#[derive(Debug, PartialEq)]
pub enum Taken {
    /// It waits in its lane, or did before.
    Queued,
    /// It ended before: this is to be said again.
    Ended(CommandResult),
    /// Not taken, because the lane is full: it comes again.
    Full,
}

impl Executor {
    /// Starts the lanes with what an earlier agent left to do.
    pub async fn start(
        journal: Journal,
        context: Arc<Context>,
        news: mpsc::Sender<News>,
    ) -> Result<Self, AgentError> {
        let left = journal.with(|ledger| ledger.recover(now())).await?;
        let (mut lanes, mut tasks) = (HashMap::new(), JoinSet::new());
        let stopping = CancellationToken::new();
        for lane in LANES {
            let (sender, receiver) = mpsc::channel(LANE_LENGTH);
            lanes.insert(lane, sender);
            let worker = Worker {
                journal: journal.clone(),
                context: Arc::clone(&context),
                news: news.clone(),
                stopping: stopping.clone(),
            };
            tasks.spawn(worker.run(receiver));
        }
        let executor = Self {
            journal,
            lanes,
            tasks,
            stopping,
        };
        for command in left {
            executor.queue(command);
        }
        Ok(executor)
    }

    fn lane(&self, name: &str) -> Option<&mpsc::Sender<DeliveredCommand>> {
        self.lanes.get(name).or_else(|| self.lanes.get("control"))
    }

    fn queue(&self, command: DeliveredCommand) {
        let place = self
            .lane(&command.lane)
            .and_then(|lane| lane.try_reserve().ok());
        if let Some(place) = place {
            place.send(command);
        } else {
            tracing::warn!("a lane is full: what is left runs after the next start");
        }
    }

    /// Takes a delivery: journals it, then queues it.
    pub async fn take(&self, command: DeliveredCommand) -> Result<Taken, AgentError> {
        let Some(place) = self
            .lane(&command.lane)
            .and_then(|lane| lane.try_reserve().ok())
        else {
            return Ok(Taken::Full);
        };
        let noted = command.clone();
        match self
            .journal
            .with(move |ledger| ledger.receive(&noted, now()))
            .await?
        {
            Receipt::New => {
                place.send(command);
                Ok(Taken::Queued)
            }
            Receipt::InProgress | Receipt::Refused => Ok(Taken::Queued),
            Receipt::Ended(outcome) => Ok(Taken::Ended(outcome)),
        }
    }

    /// Ends the lanes. What runs is left to end by itself within the time that is given.
    pub async fn stop(mut self, patience: std::time::Duration) {
        // What still waits stays in the journal, for the next start.
        self.stopping.cancel();
        self.lanes.clear();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _cut_off = tokio::time::timeout(patience, all).await;
    }
}

struct Worker {
    journal: Journal,
    context: Arc<Context>,
    news: mpsc::Sender<News>,
    stopping: CancellationToken,
}

impl Worker {
    async fn run(self, mut lane: mpsc::Receiver<DeliveredCommand>) {
        while let Some(command) = lane.recv().await {
            if self.stopping.is_cancelled() {
                return;
            }
            let id = command.id;
            match self.carry_out(command).await {
                Ok(true) => {
                    // Nobody listens any more only when the agent is ending.
                    let _ending = self.news.send(News::Ended(id)).await;
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(command = %id, %error, "a command could not be journalled and was not run");
                }
            }
        }
    }

    /// `false` if the command must not be run after all.
    async fn carry_out(&self, command: DeliveredCommand) -> Result<bool, AgentError> {
        let id = command.id;
        if command.expires_at.0 <= now() {
            let late = outcome(
                id,
                CommandOutcome::Failed("expired on the device before it was begun".to_owned()),
            );
            self.journal
                .with(move |ledger| ledger.finish(&late, now()))
                .await?;
            return Ok(true);
        }
        // On the disk before anything is done: after a crash this is what is known.
        if !self
            .journal
            .with(move |ledger| ledger.start(id, now()))
            .await?
        {
            return Ok(false);
        }
        tracing::info!(command = %id, kind = command.command, "begun");
        if command.lane != "query" {
            let _ending = self.news.send(News::Running(id)).await;
        }
        let (context, news) = (Arc::clone(&self.context), self.news.clone());
        let changes_inventory = matches!(
            command.command.as_str(),
            "refresh_inventory" | "install_app" | "uninstall_app"
        );
        // A task of its own: a fault in one command must not end its lane.
        let running = AbortOnDropHandle::new(tokio::spawn(async move {
            commands::execute(&command, &context, &news).await
        }));
        let done = running.await.unwrap_or_else(|fault| {
            CommandOutcome::Failed(format!("the agent's own fault: {fault}"))
        });
        let is_news = changes_inventory && matches!(done, CommandOutcome::Completed(_));
        let ended = bounded(outcome(id, done));
        tracing::info!(command = %id, status = ended.status, "ended");
        self.journal
            .with(move |ledger| ledger.finish(&ended, now()))
            .await?;
        if is_news {
            let _ending = self.news.send(News::Inventory).await;
        }
        Ok(true)
    }
}

fn outcome(command_id: Uuid, outcome: CommandOutcome) -> CommandResult {
    match outcome {
        CommandOutcome::Completed(result) => CommandResult {
            command_id,
            status: "completed".to_owned(),
            result: Some(result),
            error: None,
        },
        CommandOutcome::Failed(error) => {
            // Texts of programs may hold anything; the server stores no U+0000.
            CommandResult {
                command_id,
                status: "failed".to_owned(),
                result: None,
                error: Some(error.replace('\0', "\u{fffd}")),
            }
        }
    }
}

fn bounded(outcome: CommandResult) -> CommandResult {
    let length = outcome
        .result
        .as_ref()
        .map_or(0, |result| result.to_string().len());
    if length <= MAX_RESULT_BYTES {
        return outcome;
    }
    let error = format!(
        "the result is too large: {length} bytes, and at most {MAX_RESULT_BYTES} can be sent"
    );
    CommandResult {
        status: "failed".to_owned(),
        result: None,
        error: Some(error),
        ..outcome
    }
}
