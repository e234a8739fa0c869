//! Users, for administrators.

use mdm_proto::users::{CreateUser, UpdateUser, UserAccount, UserList};
use uuid::Uuid;

use crate::{Client, ClientError, ListQuery};

impl Client {
    /// Makes a user.
    pub async fn create_user(&self, wish: &CreateUser) -> Result<UserAccount, ClientError> {
        self.post("/api/v1/users", wish).await
    }

    /// A page of users. Filters: `search`, `role`.
    pub async fn users(&self, query: &ListQuery) -> Result<UserList, ClientError> {
        self.list("/api/v1/users", query).await
    }

    /// A user.
    pub async fn user(&self, id: Uuid) -> Result<UserAccount, ClientError> {
        self.get(&format!("/api/v1/users/{id}")).await
    }

    /// Changes a user. With `version`, only if the account still has it. Another role, a new
    /// password, or closing the user out ends the user's sessions.
    pub async fn update_user(
        &self,
        id: Uuid,
        change: &UpdateUser,
        version: Option<i64>,
    ) -> Result<UserAccount, ClientError> {
        self.put(&format!("/api/v1/users/{id}"), change, version)
            .await
    }

    /// Deletes a user, with sessions and API keys. The last administrator stays: 409.
    pub async fn delete_user(&self, id: Uuid) -> Result<(), ClientError> {
        self.delete(&format!("/api/v1/users/{id}")).await
    }
}
