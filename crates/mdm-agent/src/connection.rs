//! Reaching the server: by the channel, else by check-ins, for as long as the agent runs.

mod channel;
mod polling;
mod watch;

use std::sync::Arc;

use mdm_client::{Backoff, Client};
use mdm_proto::{device_side::Inventory, devices::Software, inventory::SystemInfo};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    AgentError, Config, StateDir, clock,
    commands::Context,
    executor::{Executor, News},
    journal::Journal,
    platform,
    status::{Contact, Link},
};
use watch::PolicyWatch;

/// How long what runs may take to end when the agent is stopped.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
const NEWS_WAITING: usize = 256;
/// A channel that held this long was a good one: the pauses after it begin anew. Two agents with one
/// identity, which take each other's place, never get that far.
const HELD_WELL: Duration = Duration::from_secs(30);

/// Runs the agent until it is told to stop, or the server says that the device was unenrolled.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), AgentError> {
    let state = StateDir::open(&config.state_dir)?;
    let _lock = state.lock()?;
    let identity = state.identity()?.ok_or(AgentError::NotEnrolled)?;
    let client = Client::new(identity.server.clone(), Some(identity.token()))?;
    let journal = Journal::open(&state.file("journal.db"))?;
    let (sender, news) = mpsc::channel(NEWS_WAITING);
    let poll_only = config.poll_only;
    let context = Context {
        config,
        client: client.clone(),
        state: state.clone(),
    };
    let executor = Executor::start(journal.clone(), Arc::new(context), sender.clone()).await?;
    tracing::info!(server = %identity.server, device_id = %identity.device_id, "running");
    let mut link = Connection {
        client,
        journal,
        executor,
        news,
        state,
        stop,
        told: None,
        told_software: None,
        next_checkin: None,
        watch: PolicyWatch::new(sender),
    };
    let ended = if poll_only {
        link.poll().await
    } else {
        Box::pin(link.connect_and_poll()).await
    };
    Contact::note(
        &link.state,
        Link::None,
        ended.as_ref().err().map(ToString::to_string),
    );
    link.executor.stop(STOP_PATIENCE).await;
    ended
}

struct Connection {
    client: Client,
    journal: Journal,
    executor: Executor,
    news: mpsc::Receiver<News>,
    state: StateDir,
    stop: CancellationToken,
    /// What the server was told of this machine last, without what changes by itself.
    told: Option<Value>,
    /// The same of what is installed.
    told_software: Option<Vec<Software>>,
    next_checkin: Option<Instant>,
    watch: PolicyWatch,
}

/// Why a way to the server ended.
enum End {
    /// The agent is to stop.
    Stop,
    /// The device was unenrolled.
    Unenrolled,
    /// It broke; try again.
    Broken(String),
    /// The agent itself cannot go on.
    Failed(AgentError),
}

impl From<AgentError> for End {
    fn from(error: AgentError) -> Self {
        Self::Failed(error)
    }
}

impl Connection {
    async fn connect_and_poll(&mut self) -> Result<(), AgentError> {
        let mut backoff = Backoff::default();
        loop {
            let begun = Instant::now();
            let mut ended = Box::pin(self.hold_channel()).await;
            if begun.elapsed() > HELD_WELL {
                backoff.reset();
            }
            if let End::Broken(reason) = &ended {
                Contact::note(&self.state, Link::None, Some(reason.clone()));
                tracing::warn!(reason, "no channel to the server; trying again");
                ended = self.check_in_if_due().await.err().unwrap_or(ended);
            }
            match ended {
                End::Stop => return Ok(()),
                End::Unenrolled => return Err(AgentError::Unenrolled),
                End::Failed(error) => return Err(error),
                End::Broken(_) => {}
            }
            if self.pause(backoff.pause()).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Waits before the next attempt; `None` if the agent is to stop. What ends in the meantime is
    /// in the journal, and makes the next check-in due.
    async fn pause(&mut self, pause: Duration) -> Option<()> {
        let over = Instant::now() + pause;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep_until(over) => return Some(()),
                Some(news) = self.news.recv() => {
                    self.next_checkin = None;
                    self.hear(news);
                }
            }
        }
    }

    /// Notes news that wait for the next check-in: what ended is in the journal.
    fn hear(&mut self, news: News) {
        match news {
            News::Inventory => self.told = None,
            News::Policies(findings) => self.watch.found(findings),
            News::NoPolicies(reason) => self.watch.failed(&reason),
            News::Running(_) | News::Ended(_) => {}
        }
    }

    /// Says what is installed, if the server was told something else. Too long for a frame.
    async fn tell_software(&mut self) -> Result<(), End> {
        let found = tokio::task::spawn_blocking(platform::software)
            .await
            .map_err(|_cut_off| AgentError::CutOff)?;
        // Nothing is said where nobody can tell: an empty list would say that nothing is installed.
        let Some(software) = found else { return Ok(()) };
        if self.told_software.as_ref() == Some(&software) {
            return Ok(());
        }
        let inventory = Inventory {
            observed_at: clock::now().into(),
            software,
        };
        let telling = self.client.report_inventory(&inventory).await;
        telling.map_err(|error| channel::end_of(&error))?;
        self.told_software = Some(inventory.software);
        Ok(())
    }

    /// What this machine is, if the server was told something else.
    async fn news_of_machine(&self) -> Result<Option<(SystemInfo, Value)>, AgentError> {
        let info = tokio::task::spawn_blocking(|| platform::system_info(clock::now()))
            .await
            .map_err(|_cut_off| AgentError::CutOff)?;
        let lasting = lasting(&info);
        Ok((self.told.as_ref() != Some(&lasting)).then_some((info, lasting)))
    }
}

/// The facts without those that change by themselves.
fn lasting(info: &SystemInfo) -> Value {
    let mut lasting = info.clone();
    lasting.observed_at = chrono::DateTime::UNIX_EPOCH.into();
    lasting.uptime_seconds = 0;
    lasting.memory.available_bytes = 0;
    lasting.memory.swap_free_bytes = 0;
    for disk in &mut lasting.disks {
        disk.available_bytes = 0;
    }
    serde_json::to_value(lasting).unwrap_or_default()
}
