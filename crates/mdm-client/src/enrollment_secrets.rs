//! Enrolment secrets, for administrators.

use mdm_proto::enrollment::{
    CreateEnrollmentSecret, CreatedEnrollmentSecret, EnrollmentSecretList,
};
use uuid::Uuid;

use crate::{Client, ClientError};

impl Client {
    /// Makes a secret; the answer is the only one that shows it.
    pub async fn create_enrollment_secret(
        &self,
        wish: &CreateEnrollmentSecret,
    ) -> Result<CreatedEnrollmentSecret, ClientError> {
        self.post("/api/v1/enrollment-secrets", wish).await
    }

    /// A page of secrets; `query` is the query string.
    pub async fn list_enrollment_secrets(
        &self,
        query: &str,
    ) -> Result<EnrollmentSecretList, ClientError> {
        self.get(&format!("/api/v1/enrollment-secrets?{query}"))
            .await
    }

    /// Withdraws a secret.
    pub async fn revoke_enrollment_secret(&self, id: Uuid) -> Result<(), ClientError> {
        self.delete(&format!("/api/v1/enrollment-secrets/{id}"))
            .await
    }
}
