//! Check-ins: where there is no channel.

use mdm_client::Backoff;
use mdm_proto::device_side::{CheckinRequest, CommandResult};
use tokio::time::{Duration, Instant};

use super::{Connection, End, channel::end_of};
use crate::{
    AgentError,
    clock::now,
    executor::Taken,
    status::{Contact, Link},
};

/// A check-in carries at most this many outcomes.
const OUTCOMES_AT_ONCE: i64 = 50;
/// And this many bytes of results.
const BYTES_AT_ONCE: usize = 2 * 1024 * 1024;
/// A result of this length gets a request of its own.
const LONG: usize = 256 * 1024;
/// Outcomes that came in the meantime are told this soon.
const SOON: Duration = Duration::from_secs(1);

impl Connection {
    /// Checks in again and again, and holds no channel.
    pub(super) async fn poll(&mut self) -> Result<(), AgentError> {
        let mut backoff = Backoff::default();
        let stop = self.stop.clone();
        loop {
            let pause = match self.check_in().await {
                Ok(pause) => {
                    backoff.reset();
                    pause
                }
                Err(End::Stop) => return Ok(()),
                Err(End::Unenrolled) => return Err(AgentError::Unenrolled),
                Err(End::Failed(error)) => return Err(error),
                Err(End::Broken(reason)) => {
                    tracing::warn!(reason, "the check-in failed; trying again");
                    Contact::note(&self.state, Link::None, Some(reason));
                    backoff.pause()
                }
            };
            let mut due = Instant::now() + pause;
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep_until(due) => break,
                    // Something is to be told: not at once, so that what ends together goes together.
                    Some(news) = self.news.recv() => {
                        self.hear(news);
                        due = due.min(Instant::now() + SOON);
                    }
                }
            }
        }
    }

    /// Checks in if the time has come that the server asked for.
    pub(super) async fn check_in_if_due(&mut self) -> Result<(), End> {
        if self.next_checkin.is_some_and(|due| due > Instant::now()) {
            return Ok(());
        }
        let pause = self.check_in().await?;
        self.next_checkin = Some(Instant::now() + pause);
        Ok(())
    }

    /// Says what there is to say and takes what there is to do; gives the pause until the next.
    async fn check_in(&mut self) -> Result<Duration, End> {
        let machine = self.news_of_machine().await?;
        let command_results = self.outcomes_for_checkin().await?;
        self.tell_software().await?;
        let findings = self.watch.take_findings();
        let policy_results = findings.as_ref().map(|found| found.results.clone());
        let request = CheckinRequest {
            policy_results: policy_results.unwrap_or_default(),
            inventory: None,
            os_version: None,
            system_info: machine
                .as_ref()
                .and_then(|(info, _)| serde_json::to_value(info).ok()),
            command_results,
        };
        let stop = self.stop.clone();
        let answer = match stop
            .run_until_cancelled(self.client.check_in(&request))
            .await
        {
            None => return Err(End::Stop),
            Some(Ok(answer)) => answer,
            Some(Err(error)) => {
                if let Some(findings) = findings {
                    self.watch.give_back(findings);
                }
                return Err(end_of(&error));
            }
        };
        self.watch.told(answer.policy_revision);
        self.watch.look_if_due(&self.client);
        Contact::note(&self.state, Link::Polling, None);
        if let Some((_, lasting)) = machine {
            self.told = Some(lasting);
        }
        for ack in answer.command_acks {
            self.acknowledge(ack).await?;
        }
        let reconcile = answer.reconcile;
        let mut more_to_tell = !self
            .journal
            .with(move |ledger| ledger.reconcile(&reconcile, now()))
            .await?
            .is_empty();
        for command in answer.commands {
            more_to_tell |= matches!(self.executor.take(command).await?, Taken::Ended(_));
        }
        let asked =
            Duration::from_secs(answer.next_checkin_seconds.clamp(1, 86_400).unsigned_abs());
        Ok(if more_to_tell { SOON } else { asked })
    }

    /// What the server does not know yet, as much as a check-in can carry. What is too long for that
    /// goes by a request of its own.
    async fn outcomes_for_checkin(&mut self) -> Result<Vec<CommandResult>, End> {
        let (mut outcomes, mut bytes) = (Vec::new(), 0);
        for id in self
            .journal
            .with(|ledger| ledger.unsent_ids(OUTCOMES_AT_ONCE))
            .await?
        {
            let Some(outcome) = self.journal.with(move |ledger| ledger.outcome(id)).await? else {
                continue;
            };
            let length = outcome
                .result
                .as_ref()
                .map_or(0, |result| result.to_string().len());
            if length > LONG {
                self.tell_by_request(id, outcome).await?;
            } else if bytes + length <= BYTES_AT_ONCE {
                bytes += length;
                outcomes.push(outcome);
            }
        }
        Ok(outcomes)
    }
}
