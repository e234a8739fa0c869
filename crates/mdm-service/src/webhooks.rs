//! Webhooks: events posted to other programs, in the log's order, none left out. An endpoint goes on
//! from its own cursor, however long it was away; what it has seen it may see again, and knows by
//! its id.

mod dispatch;
mod signature;
mod transport;

use std::time::Instant;

use mdm_core::{
    Invalid,
    events::{EventData, NewEvent, ObjectAction},
    ids::{WebhookDeliveryId, WebhookId},
    invalid,
    roles::{Permission, Role},
    webhooks::{Webhook, WebhookDelivery, WebhookUrl, parse_event_types},
};
use mdm_events::{Cursor, Filters, Subscription};
use mdm_store::{
    StoreError, events,
    lists::ListRequest,
    webhooks::{
        self,
        deliveries::{self, DeliveryFilter},
    },
};
use secrecy::SecretString;
use serde_json::json;

use crate::{
    context::{Forbidden, OpContext},
    lists::Listed,
    sealing::CannotOpen,
    services::Services,
};

pub use dispatch::Endpoints;
use signature::WebhookSecret;
use transport::Outcome;
pub use transport::{Posting, SignedMessage, WebhookTransport};

/// Why something about a webhook was not done.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The caller may not.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// A field is not acceptable.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The organisation has no such webhook.
    #[error("there is no such webhook")]
    NotFound,
    /// The webhook has no such delivery.
    #[error("there is no such delivery: they are kept as long as events")]
    DeliveryNotFound,
    /// The event is not kept any more.
    #[error("the event of this delivery is not kept any more")]
    EventGone,
    /// `If-Match` names another version than the present one.
    #[error("the webhook was changed in the meantime: read it again and repeat the change")]
    Stale,
    /// The secret was sealed with another key.
    #[error(transparent)]
    Sealing(#[from] CannotOpen),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A wish for a new webhook.
#[derive(Debug, Default)]
pub struct NewWebhook {
    /// What people call it.
    pub name: String,
    /// Where events are posted to.
    pub url: String,
    /// Which events; all if empty.
    pub event_types: Vec<String>,
    /// Whether it begins at once.
    pub enabled: bool,
}

/// The fields to change; `None` leaves a field as it is.
#[derive(Debug, Default)]
pub struct WebhookChange {
    /// Another name.
    pub name: Option<String>,
    /// Another address.
    pub url: Option<String>,
    /// Other events.
    pub event_types: Option<Vec<String>>,
    /// Whether events are posted.
    pub enabled: Option<bool>,
    /// The version that the caller saw, from `If-Match`.
    pub if_version: Option<i64>,
}

impl Services {
    /// Makes a webhook, which gets the events from now on. Its secret is given this once.
    pub async fn create_webhook(
        &self,
        ctx: &OpContext,
        new: NewWebhook,
    ) -> Result<(Webhook, SecretString), WebhookError> {
        ctx.require(Permission::ManageWebhooks)?;
        let now = self.now();
        let (name, url) = (
            invalid::text("/name", &new.name, 100)?,
            self.webhook_url(&new.url)?,
        );
        let event_types = parse_event_types("/event_types", &new.event_types)?;
        let secret = WebhookSecret::generate(self.entropy.as_ref());
        let sealed = self
            .secret_key
            .seal(self.entropy.as_ref(), secret.bytes())?;
        let mut tx = self.begin().await?;
        let webhook = Webhook {
            id: WebhookId::new(self.clock.as_ref(), self.entropy.as_ref()),
            organization_id: ctx.organization_id,
            name,
            url,
            event_types,
            enabled: new.enabled,
            disabled_reason: None,
            cursor: events::head(&mut *tx).await?.to_string(),
            failures: 0,
            failing_since: None,
            next_attempt_at: None,
            last_error: None,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        webhooks::insert(&mut tx, &webhook, &sealed).await?;
        events::append(&mut tx, now, &changed(&webhook, ObjectAction::Created)).await?;
        self.commit(tx).await?;
        Ok((webhook, secret.text()))
    }

    /// A webhook of the organisation.
    pub async fn get_webhook(
        &self,
        ctx: &OpContext,
        id: WebhookId,
    ) -> Result<Webhook, WebhookError> {
        Ok(self.webhook_with_secret(ctx, id).await?.0)
    }

    /// A page of the organisation's webhooks.
    pub async fn list_webhooks(
        &self,
        ctx: &OpContext,
        request: &ListRequest,
    ) -> Result<Listed<Webhook>, WebhookError> {
        ctx.require(Permission::ManageWebhooks)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let page = webhooks::list(&mut conn, ctx.organization_id, request).await?;
        let total = webhooks::total(&mut conn, ctx.organization_id).await?;
        Ok(Listed::new(page, total))
    }

    /// Changes a webhook. Whatever is changed, the next event is tried at once; where the webhook
    /// stands in the log stays.
    pub async fn update_webhook(
        &self,
        ctx: &OpContext,
        id: WebhookId,
        change: WebhookChange,
    ) -> Result<Webhook, WebhookError> {
        ctx.require(Permission::ManageWebhooks)?;
        let mut tx = self.begin().await?;
        let mut webhook = webhooks::lock(&mut tx, ctx.organization_id, id)
            .await?
            .ok_or(WebhookError::NotFound)?;
        if change
            .if_version
            .is_some_and(|seen| seen != webhook.version)
        {
            return Err(WebhookError::Stale);
        }
        if let Some(name) = &change.name {
            webhook.name = invalid::text("/name", name, 100)?;
        }
        if let Some(url) = &change.url {
            webhook.url = self.webhook_url(url)?;
        }
        if let Some(names) = &change.event_types {
            webhook.event_types = parse_event_types("/event_types", names)?;
        }
        if let Some(enabled) = change.enabled {
            webhook.enabled = enabled;
            webhook.disabled_reason = None;
        }
        let now = self.now();
        (
            webhook.failures,
            webhook.failing_since,
            webhook.next_attempt_at,
        ) = (0, None, None);
        webhook.version = webhook.version.saturating_add(1);
        webhook.updated_at = now;
        webhooks::update(&mut tx, &webhook).await?;
        events::append(&mut tx, now, &changed(&webhook, ObjectAction::Updated)).await?;
        self.commit(tx).await?;
        Ok(webhook)
    }

    /// Deletes a webhook: nothing more is posted.
    pub async fn delete_webhook(&self, ctx: &OpContext, id: WebhookId) -> Result<(), WebhookError> {
        ctx.require(Permission::ManageWebhooks)?;
        let mut tx = self.begin().await?;
        let webhook = webhooks::lock(&mut tx, ctx.organization_id, id)
            .await?
            .ok_or(WebhookError::NotFound)?;
        webhooks::delete(&mut tx, ctx.organization_id, id).await?;
        let event = changed(&webhook, ObjectAction::Deleted);
        events::append(&mut tx, self.now(), &event).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// A page of a webhook's deliveries, the newest first.
    pub async fn list_webhook_deliveries(
        &self,
        ctx: &OpContext,
        filter: &DeliveryFilter,
        request: &ListRequest,
    ) -> Result<Listed<WebhookDelivery>, WebhookError> {
        self.get_webhook(ctx, filter.webhook_id).await?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let page = deliveries::list(&mut conn, ctx.organization_id, filter, request).await?;
        let total = deliveries::total(&mut conn, ctx.organization_id, filter).await?;
        Ok(Listed::new(page, total))
    }

    /// Posts the event of a delivery once more, now and out of order. Says what became of it.
    pub async fn replay_webhook_delivery(
        &self,
        ctx: &OpContext,
        id: WebhookId,
        delivery: WebhookDeliveryId,
    ) -> Result<WebhookDelivery, WebhookError> {
        let (webhook, secret) = self.webhook_with_secret(ctx, id).await?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let former = deliveries::find(&mut conn, ctx.organization_id, id, delivery)
            .await?
            .ok_or(WebhookError::DeliveryNotFound)?;
        let cursor: Cursor = former
            .event_id
            .parse()
            .map_err(|_not_of_the_log| WebhookError::EventGone)?;
        let event = events::read_one(&mut *conn, &subscription(&webhook), cursor)
            .await?
            .ok_or(WebhookError::EventGone)?;
        drop(conn);
        let body = event.json(subscription(&webhook).view());
        let attempt = Attempt {
            event_id: former.event_id,
            event_type: former.event_type,
            number: 1,
            is_replay: true,
        };
        self.post_once(&webhook, &secret, attempt, body).await
    }

    /// Posts a message that says nothing, to see whether the endpoint takes it.
    pub async fn test_webhook(
        &self,
        ctx: &OpContext,
        id: WebhookId,
    ) -> Result<WebhookDelivery, WebhookError> {
        let (webhook, secret) = self.webhook_with_secret(ctx, id).await?;
        let test = WebhookDeliveryId::new(self.clock.as_ref(), self.entropy.as_ref());
        let attempt = Attempt {
            event_id: format!("test-{test}"),
            event_type: "webhook_test".to_owned(),
            number: 1,
            is_replay: true,
        };
        let body = message(
            "webhook_test",
            self.now(),
            &json!({ "webhook_id": webhook.id }),
        );
        self.post_once(&webhook, &secret, attempt, body).await
    }

    async fn post_once(
        &self,
        webhook: &Webhook,
        secret: &WebhookSecret,
        attempt: Attempt,
        body: String,
    ) -> Result<WebhookDelivery, WebhookError> {
        let (delivery, _outcome) = self.attempt(webhook, secret, attempt, body).await;
        let mut tx = self.begin().await?;
        // It may have been deleted meanwhile.
        webhooks::lock(&mut tx, webhook.organization_id, webhook.id)
            .await?
            .ok_or(WebhookError::NotFound)?;
        deliveries::insert(&mut tx, webhook.organization_id, &delivery).await?;
        self.commit(tx).await?;
        Ok(delivery)
    }

    /// Posts a message, and says how it went.
    async fn attempt(
        &self,
        webhook: &Webhook,
        secret: &WebhookSecret,
        attempt: Attempt,
        body: String,
    ) -> (WebhookDelivery, Outcome) {
        let at = self.now();
        let begun = Instant::now();
        let timestamp = at.timestamp();
        let answered = match secret.sign(&attempt.event_id, timestamp, &body) {
            Some(signature) => {
                let message = SignedMessage {
                    url: &webhook.url,
                    id: &attempt.event_id,
                    timestamp,
                    signature,
                    body,
                };
                self.webhooks.post(message).await
            }
            None => Err("the message cannot be signed".to_owned()),
        };
        let outcome = Outcome::of(answered, begun.elapsed());
        let delivered = outcome.error.is_none();
        metrics::counter!("mdm_webhook_deliveries_total", "delivered" => delivered.to_string())
            .increment(1);
        let delivery = WebhookDelivery {
            id: WebhookDeliveryId::new(self.clock.as_ref(), self.entropy.as_ref()),
            webhook_id: webhook.id,
            event_id: attempt.event_id,
            event_type: attempt.event_type,
            attempt: attempt.number,
            is_replay: attempt.is_replay,
            delivered,
            status: outcome.status.and_then(|status| i16::try_from(status).ok()),
            error: outcome.error.clone(),
            duration_ms: i32::try_from(outcome.took.as_millis()).unwrap_or(i32::MAX),
            at,
        };
        (delivery, outcome)
    }

    async fn webhook_with_secret(
        &self,
        ctx: &OpContext,
        id: WebhookId,
    ) -> Result<(Webhook, WebhookSecret), WebhookError> {
        ctx.require(Permission::ManageWebhooks)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let found = webhooks::find(&mut conn, ctx.organization_id, id).await?;
        let (webhook, sealed) = found.ok_or(WebhookError::NotFound)?;
        let secret = WebhookSecret::from_bytes(self.secret_key.open(&sealed)?);
        Ok((webhook, secret))
    }

    fn webhook_url(&self, text: &str) -> Result<WebhookUrl, Invalid> {
        let url = WebhookUrl::parse("/url", text)?;
        if self.webhooks.may_call(&url) {
            return Ok(url);
        }
        let detail = "is in a private network or on the server itself; the server's setting webhook_allow_private lets it through";
        Err(Invalid::new("/url", "PRIVATE_ADDRESS", detail))
    }

    /// Forgets deliveries that are older than events may be.
    pub(crate) async fn forget_webhook_deliveries(&self) -> Result<(), StoreError> {
        const AT_ONCE: u64 = 5_000;
        let before = self.now() - KEPT;
        let mut conn = self.pool.acquire().await?;
        while deliveries::forget(&mut conn, before, AT_ONCE.cast_signed()).await? == AT_ONCE {}
        Ok(())
    }
}

/// For how long deliveries are kept.
const KEPT: chrono::Duration = chrono::Duration::days(7);

/// Which message is posted, for the how-manieth time.
struct Attempt {
    event_id: String,
    event_type: String,
    number: i32,
    is_replay: bool,
}

/// What an endpoint gets: all that an administrator may see, of the types that it wants.
fn subscription(webhook: &Webhook) -> Subscription {
    let kinds = webhook.event_types.clone();
    Subscription {
        organization_id: webhook.organization_id,
        role: Role::Admin,
        filters: Filters::new(kinds, Vec::new(), Vec::new()),
    }
}

/// A message that is no event of the log, in the shape of one.
fn message(kind: &str, at: mdm_core::Timestamp, data: &serde_json::Value) -> String {
    let at = mdm_core::clock::format_rfc3339(at);
    json!({ "type": kind, "timestamp": at, "data": data }).to_string()
}

fn changed(webhook: &Webhook, action: ObjectAction) -> NewEvent {
    let data = EventData::WebhookChanged {
        webhook_id: webhook.id,
        action,
        name: webhook.name.clone(),
        enabled: webhook.enabled,
        reason: webhook.disabled_reason.clone(),
    };
    NewEvent::new(webhook.organization_id, data)
}
