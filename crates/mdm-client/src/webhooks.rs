//! Webhooks, for administrators.

use mdm_proto::webhooks::{
    CreateWebhook, CreatedWebhook, UpdateWebhook, Webhook, WebhookDelivery, WebhookDeliveryList,
    WebhookList,
};
use reqwest::Method;
use uuid::Uuid;

use crate::{Client, ClientError, ListQuery};

impl Client {
    /// Makes a webhook; the answer is the only one that shows its secret.
    pub async fn create_webhook(
        &self,
        wish: &CreateWebhook,
    ) -> Result<CreatedWebhook, ClientError> {
        self.post("/api/v1/webhooks", wish).await
    }

    /// A page of webhooks.
    pub async fn webhooks(&self, query: &ListQuery) -> Result<WebhookList, ClientError> {
        self.list("/api/v1/webhooks", query).await
    }

    /// A webhook.
    pub async fn webhook(&self, id: Uuid) -> Result<Webhook, ClientError> {
        self.get(&format!("/api/v1/webhooks/{id}")).await
    }

    /// Changes a webhook, if it still has the version that `if_version` names.
    pub async fn update_webhook(
        &self,
        id: Uuid,
        change: &UpdateWebhook,
        if_version: Option<i64>,
    ) -> Result<Webhook, ClientError> {
        self.put(&format!("/api/v1/webhooks/{id}"), change, if_version)
            .await
    }

    /// Deletes a webhook.
    pub async fn delete_webhook(&self, id: Uuid) -> Result<(), ClientError> {
        self.delete(&format!("/api/v1/webhooks/{id}")).await
    }

    /// A page of a webhook's deliveries, the newest first.
    pub async fn webhook_deliveries(
        &self,
        id: Uuid,
        query: &ListQuery,
    ) -> Result<WebhookDeliveryList, ClientError> {
        self.list(&format!("/api/v1/webhooks/{id}/deliveries"), query)
            .await
    }

    /// Posts the event of a delivery once more.
    pub async fn replay_webhook_delivery(
        &self,
        id: Uuid,
        delivery: Uuid,
    ) -> Result<WebhookDelivery, ClientError> {
        let path = format!("/api/v1/webhooks/{id}/deliveries/{delivery}/replay");
        self.call(Method::POST, &path)?.answer().await
    }

    /// Posts a message that says nothing, to see whether the endpoint takes it.
    pub async fn test_webhook(&self, id: Uuid) -> Result<WebhookDelivery, ClientError> {
        let path = format!("/api/v1/webhooks/{id}/test");
        self.call(Method::POST, &path)?.answer().await
    }
}
