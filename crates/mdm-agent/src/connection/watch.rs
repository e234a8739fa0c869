//! When to look at the machine with the eyes of its policies, and what was found.

use std::time::Duration;

use mdm_client::Client;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    executor::News,
    policies::{self, Findings},
};

/// A machine changes without anybody saying so.
const LOOK_EVERY: Duration = Duration::from_mins(15);
/// After a failure the look is repeated this much later.
const RETRY: Duration = Duration::from_secs(30);

/// One look at a time, each in a task of its own: the way to the server must not wait for it.
pub(super) struct PolicyWatch {
    news: mpsc::Sender<News>,
    looking: bool,
    /// The server's number that was looked at last.
    looked_at: Option<i64>,
    /// The server's present number, as far as it is known.
    present: Option<i64>,
    due: Instant,
    findings: Option<Findings>,
}

impl PolicyWatch {
    pub(super) fn new(news: mpsc::Sender<News>) -> Self {
        Self {
            news,
            looking: false,
            looked_at: None,
            present: None,
            due: Instant::now(),
            findings: None,
        }
    }

    /// The server said which number is the present one.
    pub(super) fn told(&mut self, revision: i64) {
        self.present = Some(revision);
        if self.looked_at != self.present {
            self.due = Instant::now();
        }
    }

    /// Begins a look if it is time for one.
    pub(super) fn look_if_due(&mut self, client: &Client) {
        // Before the server said anything there may be nothing to look at.
        if self.looking || self.present.is_none() || self.due > Instant::now() {
            return;
        }
        self.looking = true;
        let (client, news) = (client.clone(), self.news.clone());
        tokio::spawn(async move {
            let looked = match policies::look(&client).await {
                Ok(findings) => News::Policies(findings),
                Err(error) => News::NoPolicies(error.to_string()),
            };
            // Nobody listens any more only when the agent is ending.
            let _ending = news.send(looked).await;
        });
    }

    /// A look has ended.
    pub(super) fn found(&mut self, findings: Findings) {
        self.looking = false;
        self.looked_at = Some(findings.revision);
        self.due = Instant::now() + LOOK_EVERY;
        self.findings = Some(findings);
        if self
            .present
            .is_some_and(|present| Some(present) > self.looked_at)
        {
            self.due = Instant::now();
        }
    }

    /// A look has failed.
    pub(super) fn failed(&mut self, reason: &str) {
        tracing::warn!(reason, "the policies could not be looked at; trying again");
        self.looking = false;
        self.due = Instant::now() + RETRY;
    }

    /// What was found and is still to be told.
    pub(super) fn take_findings(&mut self) -> Option<Findings> {
        self.findings
            .take()
            .filter(|findings| !findings.results.is_empty())
    }

    /// What was found was not told after all.
    pub(super) fn give_back(&mut self, findings: Findings) {
        self.findings.get_or_insert(findings);
    }
}
