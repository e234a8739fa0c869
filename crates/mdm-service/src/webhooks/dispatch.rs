//! The leader's work on webhooks: a task for each endpoint, which posts one event after the other.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use mdm_core::{
    Timestamp,
    events::{EventKind, ObjectAction},
    ids::{OrganizationId, WebhookId},
    webhooks::Webhook,
};
use mdm_events::{Cursor, LogEvent};
use mdm_store::{
    StoreError,
    events::{self, PageQuery},
    webhooks::{self, deliveries},
};
use serde_json::json;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Attempt, Outcome, WebhookError, WebhookSecret, changed, message, subscription};
use crate::services::Services;

/// How often the list of endpoints is looked at without being told of a change.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often an endpoint that has nothing to get notes how far it has come.
const NOTE_EVERY: Duration = Duration::from_mins(1);
/// How many events are read at a time.
const PAGE: i64 = 50;
/// How long after a failure of the database a task tries again.
const RETRY: Duration = Duration::from_secs(1);
/// The first pause after a failed attempt; each is twice the one before, up to the longest, and up
/// to as much again at random.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// After how long without any success an endpoint is disabled.
const PATIENCE: chrono::Duration = chrono::Duration::days(3);

/// The endpoints that this node posts to while it leads.
#[derive(Default)]
pub struct Endpoints {
    table: Mutex<HashMap<OrganizationId, Vec<Endpoint>>>,
    changed: Notify,
}

#[derive(Clone)]
struct Endpoint {
    id: WebhookId,
    wakes: Arc<Wakes>,
}

#[derive(Default)]
struct Wakes {
    /// There is an event.
    event: Notify,
    /// A person changed the webhook.
    changed: Notify,
}

impl Endpoints {
    fn table(&self) -> MutexGuard<'_, HashMap<OrganizationId, Vec<Endpoint>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes those that events may be for.
    pub(crate) fn observe(&self, events: &[Arc<LogEvent>]) {
        let table = self.table();
        for record in events.iter().map(|event| event.record()) {
            let is_change = record.kind == Some(EventKind::WebhookChanged);
            if is_change {
                self.changed.notify_one();
            }
            for endpoint in table.get(&record.organization_id).into_iter().flatten() {
                endpoint.wakes.event.notify_one();
                if is_change {
                    endpoint.wakes.changed.notify_one();
                }
            }
        }
    }
}

/// What an endpoint's task does next.
enum Next {
    /// There may be more.
    GoOn,
    /// Nothing until there is an event.
    Wait,
    /// Nothing until then.
    At(Timestamp),
    /// Nothing any more.
    End,
}

impl Services {
    /// Posts events to endpoints while this node leads, until told to stop.
    pub async fn run_webhooks(self, stop: CancellationToken) {
        let work = async {
            loop {
                self.lead.held().await;
                tokio::select! {
                    () = self.serve_endpoints() => {}
                    () = self.lead.lost() => {}
                }
                self.endpoints.table().clear();
            }
        };
        stop.run_until_cancelled(work).await;
    }

    async fn serve_endpoints(&self) {
        let mut tasks = JoinSet::new();
        loop {
            match self.enabled_webhooks().await {
                Ok(enabled) => self.start_endpoints(&mut tasks, enabled),
                Err(error) => {
                    tracing::warn!(%error, "cannot read the webhooks; trying again");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
            let changed = self.endpoints.changed.notified();
            let _rescued = tokio::time::timeout(LOOK_EVERY, changed).await;
            while tasks.try_join_next().is_some() {}
        }
    }

    async fn enabled_webhooks(&self) -> Result<Vec<(OrganizationId, WebhookId)>, StoreError> {
        let mut conn = self.pool.acquire().await?;
        webhooks::enabled(&mut conn).await
    }

    /// Starts a task for each endpoint that has none. Tasks end by themselves.
    fn start_endpoints(&self, tasks: &mut JoinSet<()>, enabled: Vec<(OrganizationId, WebhookId)>) {
        let mut table = self.endpoints.table();
        for (organization, id) in enabled {
            let endpoints = table.entry(organization).or_default();
            if endpoints.iter().any(|endpoint| endpoint.id == id) {
                continue;
            }
            let wakes = Arc::new(Wakes::default());
            endpoints.push(Endpoint {
                id,
                wakes: Arc::clone(&wakes),
            });
            let services = self.clone();
            tasks.spawn(async move { services.serve_endpoint(organization, id, &wakes).await });
        }
    }

    async fn serve_endpoint(&self, organization: OrganizationId, id: WebhookId, wakes: &Wakes) {
        let mut reached = None;
        loop {
            let next = self.deliver_some(organization, id, &mut reached).await;
            match next {
                Ok(Next::GoOn) => {}
                Ok(Next::Wait) => {
                    let event = wakes.event.notified();
                    let _idle = tokio::time::timeout(NOTE_EVERY, event).await;
                }
                Ok(Next::At(at)) => {
                    let pause = (at - self.now()).to_std().unwrap_or_default();
                    let _due = tokio::time::timeout(pause, wakes.changed.notified()).await;
                }
                Ok(Next::End) => break,
                Err(error) => {
                    tracing::warn!(webhook = %id, %error, "a webhook waits");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        let mut table = self.endpoints.table();
        if let Some(endpoints) = table.get_mut(&organization) {
            endpoints.retain(|endpoint| endpoint.id != id);
        }
        // It may have been enabled again while its task was ending.
        self.endpoints.changed.notify_one();
    }

    /// Posts the next events. `reached` is how far the log was looked through in vain.
    async fn deliver_some(
        &self,
        organization: OrganizationId,
        id: WebhookId,
        reached: &mut Option<Cursor>,
    ) -> Result<Next, WebhookError> {
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let Some((mut webhook, sealed)) = webhooks::find(&mut conn, organization, id).await? else {
            return Ok(Next::End);
        };
        if !webhook.enabled {
            return Ok(Next::End);
        }
        if let Some(at) = webhook.next_attempt_at.filter(|at| *at > self.now()) {
            return Ok(Next::At(at));
        }
        let secret = WebhookSecret::from_bytes(self.secret_key.open(&sealed)?);
        let head = events::head(&mut *conn).await?;
        let oldest = events::oldest(&mut *conn).await?;
        let Some(cursor) = kept(&webhook.cursor, head, oldest) else {
            drop(conn);
            return self.deliver_resync(&webhook, &secret, head).await;
        };
        let after = reached.filter(|at| at.epoch == cursor.epoch && at.offset > cursor.offset);
        let after = after.unwrap_or(cursor);
        let subscription = subscription(&webhook);
        let query = PageQuery {
            subscription: &subscription,
            after,
            until: head.offset,
            limit: PAGE,
        };
        let page = events::read_page(&mut *conn, query).await?;
        drop(conn);
        for event in &page.events {
            let kind = event.record().kind.map_or("", EventKind::as_str);
            let attempt = Attempt {
                event_id: event.cursor().to_string(),
                event_type: kind.to_owned(),
                number: webhook.failures.saturating_add(1),
                is_replay: false,
            };
            let body = event.json(subscription.view());
            let to = event.cursor().to_string();
            let next = self.deliver(&webhook, &secret, attempt, body, &to).await?;
            if !matches!(next, Next::GoOn) {
                return Ok(next);
            }
            webhook.cursor = to;
            webhook.failures = 0;
        }
        *reached = Some(page.next);
        if page.next.offset < head.offset {
            return Ok(Next::GoOn);
        }
        if page.events.is_empty() && page.next.offset > cursor.offset {
            self.note_reached(&webhook, page.next).await?;
        }
        Ok(Next::Wait)
    }

    /// The log does not go on from the endpoint's cursor: it is told so before it goes on from the
    /// present.
    async fn deliver_resync(
        &self,
        webhook: &Webhook,
        secret: &WebhookSecret,
        head: Cursor,
    ) -> Result<Next, WebhookError> {
        let attempt = Attempt {
            event_id: format!("resync-{head}"),
            event_type: "resync".to_owned(),
            number: webhook.failures.saturating_add(1),
            is_replay: false,
        };
        let data = json!({ "reason": "too_old", "cursor": head });
        let body = message("resync", self.now(), &data);
        let to = head.to_string();
        self.deliver(webhook, secret, attempt, body, &to).await
    }

    /// Posts one message, and moves the endpoint to `to` if it was taken.
    async fn deliver(
        &self,
        webhook: &Webhook,
        secret: &WebhookSecret,
        attempt: Attempt,
        body: String,
        to: &str,
    ) -> Result<Next, WebhookError> {
        let (delivery, outcome) = self.attempt(webhook, secret, attempt, body).await;
        let mut tx = self.begin().await?;
        let next = match &delivery.error {
            None => {
                if !webhooks::advance(&mut tx, webhook, to).await? {
                    return Ok(Next::GoOn);
                }
                Next::GoOn
            }
            Some(error) => {
                let now = self.now();
                let at = now + pause_after(webhook.failures);
                if !webhooks::fail(&mut tx, webhook, error, now, at).await? {
                    return Ok(Next::GoOn);
                }
                if let Some(reason) = give_up(webhook, &outcome, now) {
                    self.disable(&mut tx, webhook, reason, now).await?;
                }
                Next::At(at)
            }
        };
        deliveries::insert(&mut tx, webhook.organization_id, &delivery).await?;
        self.commit(tx).await?;
        Ok(next)
    }

    async fn disable(
        &self,
        tx: &mut mdm_store::PgConnection,
        webhook: &Webhook,
        reason: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let locked = webhooks::lock(&mut *tx, webhook.organization_id, webhook.id).await?;
        let Some(mut webhook) = locked else {
            return Ok(());
        };
        tracing::warn!(webhook = %webhook.id, reason, "a webhook was disabled");
        webhook.enabled = false;
        webhook.disabled_reason = Some(reason);
        webhook.version = webhook.version.saturating_add(1);
        webhook.updated_at = now;
        webhooks::update(&mut *tx, &webhook).await?;
        events::append(tx, now, &changed(&webhook, ObjectAction::Disabled)).await
    }

    /// Nothing of what came was for the endpoint: its cursor must not become too old for that.
    async fn note_reached(&self, webhook: &Webhook, at: Cursor) -> Result<(), StoreError> {
        let mut conn = self.pool.acquire().await?;
        webhooks::advance(&mut conn, webhook, &at.to_string()).await?;
        Ok(())
    }
}

/// The cursor, if the log goes on from it.
fn kept(text: &str, head: Cursor, oldest: u64) -> Option<Cursor> {
    let cursor: Cursor = text.parse().ok()?;
    let known = cursor.epoch == head.epoch && (oldest..=head.offset).contains(&cursor.offset);
    known.then_some(cursor)
}

/// How long to wait after an attempt that failed, when so many had failed before it.
fn pause_after(failures: i32) -> chrono::Duration {
    let pauses = ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times();
    let failures = usize::try_from(failures.clamp(0, 20)).unwrap_or_default();
    let pause = pauses.build().nth(failures).unwrap_or(LONGEST_PAUSE);
    chrono::Duration::from_std(pause).unwrap_or(chrono::Duration::hours(1))
}

/// Why an endpoint is not tried any more.
fn give_up(webhook: &Webhook, outcome: &Outcome, now: Timestamp) -> Option<String> {
    if outcome.is_gone() {
        return Some("the endpoint answered 410 Gone".to_owned());
    }
    let since = webhook.failing_since?;
    let error = outcome.error.as_deref().unwrap_or_default();
    (now - since > PATIENCE).then(|| format!("no attempt succeeded for three days: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_an_hour_or_two_and_no_further() {
        for failures in 0..40 {
            let doubled = 5_i64 << failures.min(20);
            let least = chrono::Duration::seconds(doubled.min(3_600));
            let pause = pause_after(failures);
            assert!(pause >= least && pause <= least * 2, "{failures}: {pause}");
        }
    }
}
