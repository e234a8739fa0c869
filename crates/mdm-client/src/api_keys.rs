//! API keys, for administrators.

use mdm_proto::users::{ApiKey, ApiKeyList, CreateApiKey, CreatedApiKey, UpdateApiKey};
use uuid::Uuid;

use crate::{Client, ClientError, ListQuery};

impl Client {
    /// Makes a key; the answer is the only one that shows it.
    pub async fn create_api_key(&self, wish: &CreateApiKey) -> Result<CreatedApiKey, ClientError> {
        self.post("/api/v1/api-keys", wish).await
    }

    /// A page of keys, without the keys themselves.
    pub async fn api_keys(&self, query: &ListQuery) -> Result<ApiKeyList, ClientError> {
        self.list("/api/v1/api-keys", query).await
    }

    /// A key, without the key itself.
    pub async fn api_key(&self, id: Uuid) -> Result<ApiKey, ClientError> {
        self.get(&format!("/api/v1/api-keys/{id}")).await
    }

    /// Changes a key's name, or how long it is good for.
    pub async fn update_api_key(
        &self,
        id: Uuid,
        change: &UpdateApiKey,
    ) -> Result<ApiKey, ClientError> {
        self.put(&format!("/api/v1/api-keys/{id}"), change, None)
            .await
    }

    /// Deletes a key: it stops working at once.
    pub async fn delete_api_key(&self, id: Uuid) -> Result<(), ClientError> {
        self.delete(&format!("/api/v1/api-keys/{id}")).await
    }
}
