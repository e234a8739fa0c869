//! Webhooks: `/webhooks`, for administrators.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{lists::list, patch::Patch, time::Timestamp};

/// An endpoint of another program, to which events are posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Webhook {
    /// Its id.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Which types of events it gets; all if empty.
    pub event_types: Vec<String>,
    /// Whether events are posted.
    pub enabled: bool,
    /// Why the server stopped posting, if it did.
    pub disabled_reason: Option<String>,
    /// All events up to this one were delivered, or are not for this endpoint.
    pub cursor: String,
    /// How often the next event was tried in vain.
    pub failures: i32,
    /// Since when.
    pub failing_since: Option<Timestamp>,
    /// When it is tried again.
    pub next_attempt_at: Option<Timestamp>,
    /// What went wrong the last time.
    pub last_error: Option<String>,
    /// The count of its changes.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

list! {
    /// `GET /webhooks`: a page of webhooks.
    WebhookList { webhooks: Webhook }
}

/// `POST /webhooks`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWebhook {
    /// What people call it: 1 to 100 characters.
    pub name: String,
    /// Where events are posted to: `https` or `http`.
    pub url: String,
    /// Which types of events; all if absent or empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub event_types: Vec<String>,
    /// Whether it begins at once, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// The answer to its making: the only time its secret is shown.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct CreatedWebhook {
    /// All but the secret.
    #[serde(flatten)]
    pub webhook: Webhook,
    /// With what the signatures are checked: `whsec_` and Base64.
    pub secret: String,
}

/// `PUT /webhooks/{id}`: the fields to change. The next event is tried at once.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateWebhook {
    /// A new name; it cannot be cleared.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub name: Patch<String>,
    /// A new address; it cannot be cleared.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub url: Patch<String>,
    /// Other types of events; `null` or empty for all.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<Vec<String>>)]
    pub event_types: Patch<Vec<String>>,
    /// Whether events are posted. Where the webhook stands in the log stays.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<bool>)]
    pub enabled: Patch<bool>,
}

/// One attempt to deliver one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookDelivery {
    /// Its id.
    pub id: Uuid,
    /// To which webhook.
    pub webhook_id: Uuid,
    /// Of which event: `webhook-id` of the request.
    pub event_id: String,
    /// The event's type.
    pub event_type: String,
    /// Which attempt, from 1.
    pub attempt: i32,
    /// Whether somebody asked for it, by a replay or a test.
    pub is_replay: bool,
    /// Whether the endpoint took it, with a 2xx status.
    pub delivered: bool,
    /// The status of its answer, if there was one.
    pub status: Option<i16>,
    /// What went wrong.
    pub error: Option<String>,
    /// How long it took.
    pub duration_ms: i32,
    /// When it began.
    pub at: Timestamp,
}

list! {
    /// `GET /webhooks/{id}/deliveries`: a page of attempts, the newest first.
    WebhookDeliveryList { deliveries: WebhookDelivery }
}
