//! The channel: the server pushes, the agent answers.

use std::time::Duration;

use mdm_client::{ClientError, Closed, DeviceChannel, Incoming};
use mdm_proto::{
    channel::{AgentFrame, MAX_AGENT_FRAME_BYTES, ServerFrame, Welcome, close},
    device_side::{CommandAck, CommandResult, CommandStatusReport, DeliveredCommand},
};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use uuid::Uuid;

use super::{Connection, End};
use crate::{
    clock::now,
    executor::{News, Taken},
    status::{Contact, Link},
};

const WELCOME_PATIENCE: Duration = Duration::from_secs(20);
/// More than the server lets wait for one device.
const OUTCOMES_AT_ONCE: i64 = 10_000;
/// Room for the frame around a result.
const FRAME_ROOM: usize = 4 * 1024;

impl From<Closed> for End {
    fn from(closed: Closed) -> Self {
        match closed.code {
            Some(close::SESSION_ENDED) => Self::Unenrolled,
            _ => Self::Broken(closed.to_string()),
        }
    }
}

/// A refusal that means the token is not valid any more, or something to try again.
pub(super) fn end_of(error: &ClientError) -> End {
    if error.status() == Some(401) {
        End::Unenrolled
    } else {
        End::Broken(error.to_string())
    }
}

impl Connection {
    /// Connects and serves until the channel ends.
    pub(super) async fn hold_channel(&mut self) -> End {
        let connecting = Box::pin(DeviceChannel::connect(&self.client));
        let mut channel = match self.stop.run_until_cancelled(connecting).await {
            None => return End::Stop,
            Some(Ok(channel)) => channel,
            Some(Err(error)) => return end_of(&error),
        };
        let stop = self.stop.clone();
        let serving = Box::pin(self.serve(&mut channel));
        let ended = stop
            .run_until_cancelled(serving)
            .await
            .unwrap_or(Err(End::Stop));
        match ended {
            Err(End::Stop) | Ok(()) => {
                channel.close().await;
                End::Stop
            }
            Err(end) => end,
        }
    }

    async fn serve(&mut self, channel: &mut DeviceChannel) -> Result<(), End> {
        let welcome = self.welcome(channel).await?;
        tracing::info!("the channel is open");
        Contact::note(&self.state, Link::Channel, None);
        self.tell_machine(channel).await?;
        self.tell_outcomes(channel).await?;
        self.tell_findings(channel).await?;
        self.tell_software().await?;
        let beat = Duration::from_secs(welcome.heartbeat_seconds.max(2)) / 2;
        let mut heartbeat = interval(beat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Err(End::Stop),
                incoming = channel.next() => {
                    heard = Instant::now();
                    if let Incoming::Frame(frame) = incoming? {
                        self.obey(channel, *frame).await?;
                    }
                }
                Some(news) = self.news.recv() => self.pass_on(channel, news).await?,
                _ = heartbeat.tick() => {
                    if heard.elapsed() > beat * 4 {
                        return Err(End::Broken("the server is silent".to_owned()));
                    }
                    channel.send(&AgentFrame::Heartbeat {}).await?;
                    channel.ping().await?;
                    self.watch.look_if_due(&self.client);
                }
            }
        }
    }

    async fn welcome(&self, channel: &mut DeviceChannel) -> Result<Welcome, End> {
        let first = async {
            loop {
                match channel.next().await? {
                    Incoming::Frame(frame) => match *frame {
                        ServerFrame::Welcome(welcome) => return Ok(welcome),
                        _ => {
                            return Err(End::Broken(
                                "the server did not begin with welcome".to_owned(),
                            ));
                        }
                    },
                    Incoming::Other => {}
                }
            }
        };
        match self
            .stop
            .run_until_cancelled(timeout(WELCOME_PATIENCE, first))
            .await
        {
            None => Err(End::Stop),
            Some(Ok(welcome)) => welcome,
            Some(Err(_)) => Err(End::Broken("the server did not say welcome".to_owned())),
        }
    }

    async fn obey(&mut self, channel: &mut DeviceChannel, frame: ServerFrame) -> Result<(), End> {
        match frame {
            ServerFrame::Command(command) => self.take(channel, command).await,
            ServerFrame::Cancel { command_id } => {
                self.journal
                    .with(move |ledger| ledger.cancel(command_id, now()))
                    .await?;
                Ok(())
            }
            ServerFrame::Reconcile { command_ids } => {
                for outcome in self
                    .journal
                    .with(move |ledger| ledger.reconcile(&command_ids, now()))
                    .await?
                {
                    self.tell(channel, outcome).await?;
                }
                Ok(())
            }
            ServerFrame::CommandAck(ack) => self.acknowledge(ack).await,
            ServerFrame::CheckinNow {} => {
                self.told = None;
                self.tell_machine(channel).await
            }
            ServerFrame::Error { code, detail } => {
                tracing::warn!(code, detail, "the server did not understand a frame");
                Ok(())
            }
            ServerFrame::PoliciesChanged { policy_revision } => {
                self.watch.told(policy_revision);
                self.watch.look_if_due(&self.client);
                Ok(())
            }
            ServerFrame::Welcome(_) => Ok(()),
        }
    }

    async fn take(
        &mut self,
        channel: &mut DeviceChannel,
        command: DeliveredCommand,
    ) -> Result<(), End> {
        match self.executor.take(command).await? {
            Taken::Queued => Ok(()),
            Taken::Ended(outcome) => self.tell(channel, outcome).await,
            // The server hands it over again after the next connect.
            Taken::Full => Err(End::Broken(
                "more commands came than can be kept waiting".to_owned(),
            )),
        }
    }

    pub(super) async fn acknowledge(&mut self, ack: CommandAck) -> Result<(), End> {
        if !ack.accepted {
            tracing::warn!(command = %ack.command_id, code = ack.code, "the server did not take over an outcome");
        }
        self.journal
            .with(move |ledger| ledger.acknowledge(ack.command_id, &ack.status, now()))
            .await?;
        Ok(())
    }

    async fn pass_on(&mut self, channel: &mut DeviceChannel, news: News) -> Result<(), End> {
        match news {
            News::Running(command_id) => {
                let running = CommandResult {
                    command_id,
                    status: "running".to_owned(),
                    result: None,
                    error: None,
                };
                Ok(channel.send(&AgentFrame::CommandStatus(running)).await?)
            }
            News::Ended(id) => match self.journal.with(move |ledger| ledger.outcome(id)).await? {
                Some(outcome) => self.tell(channel, outcome).await,
                None => Ok(()),
            },
            News::Inventory => {
                self.told = None;
                self.tell_machine(channel).await?;
                self.tell_software().await
            }
            News::Policies(_) | News::NoPolicies(_) => {
                self.hear(news);
                self.tell_findings(channel).await
            }
        }
    }

    /// What was found of the policies, one policy a frame.
    async fn tell_findings(&mut self, channel: &mut DeviceChannel) -> Result<(), End> {
        let Some(findings) = self.watch.take_findings() else {
            return Ok(());
        };
        for result in &findings.results {
            let frame = AgentFrame::PolicyResults {
                results: vec![result.clone()],
            };
            if let Err(broken) = channel.send(&frame).await {
                self.watch.give_back(findings);
                return Err(broken.into());
            }
        }
        Ok(())
    }

    /// Everything that the server does not know yet.
    async fn tell_outcomes(&mut self, channel: &mut DeviceChannel) -> Result<(), End> {
        for id in self
            .journal
            .with(|ledger| ledger.unsent_ids(OUTCOMES_AT_ONCE))
            .await?
        {
            if let Some(outcome) = self.journal.with(move |ledger| ledger.outcome(id)).await? {
                self.tell(channel, outcome).await?;
            }
        }
        Ok(())
    }

    async fn tell_machine(&mut self, channel: &mut DeviceChannel) -> Result<(), End> {
        if let Some((info, lasting)) = self.news_of_machine().await? {
            let system_info = serde_json::to_value(info).unwrap_or_default();
            channel.send(&AgentFrame::Inventory { system_info }).await?;
            self.told = Some(lasting);
        }
        Ok(())
    }

    /// Says how a command ended; what is too long for a frame goes by a request of its own.
    async fn tell(
        &mut self,
        channel: &mut DeviceChannel,
        outcome: CommandResult,
    ) -> Result<(), End> {
        let length = outcome
            .result
            .as_ref()
            .map_or(0, |result| result.to_string().len());
        if length + FRAME_ROOM <= MAX_AGENT_FRAME_BYTES {
            return Ok(channel.send(&AgentFrame::CommandStatus(outcome)).await?);
        }
        self.tell_by_request(outcome.command_id, outcome).await
    }

    pub(super) async fn tell_by_request(
        &mut self,
        id: Uuid,
        outcome: CommandResult,
    ) -> Result<(), End> {
        let status = outcome.status.clone();
        let report = CommandStatusReport {
            status: outcome.status,
            result: outcome.result,
            error: outcome.error,
        };
        let ack = match self.client.report_command(id, &report).await {
            Ok(ack) => ack,
            Err(error) if error.is_temporary() || error.status() == Some(401) => {
                return Err(end_of(&error));
            }
            Err(error) => CommandAck {
                command_id: id,
                status,
                accepted: false,
                code: error.code().map(str::to_owned),
            },
        };
        self.acknowledge(ack).await
    }
}
