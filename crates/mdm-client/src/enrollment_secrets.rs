//! Enrolment secrets, for administrators.

use mdm_proto::enrollment::{
    CreateEnrollmentSecret, CreatedEnrollmentSecret, EnrollmentSecret, EnrollmentSecretList,
    UpdateEnrollmentSecret,
};
use uuid::Uuid;

use crate::{Client, ClientError, ListQuery};

impl Client {
    /// Makes a secret; the answer is the only one that shows it.
    pub async fn create_enrollment_secret(
        &self,
        wish: &CreateEnrollmentSecret,
    ) -> Result<CreatedEnrollmentSecret, ClientError> {
        self.post("/api/v1/enrollment-secrets", wish).await
    }

    /// A page of secrets, without the secrets themselves.
    pub async fn enrollment_secrets(
        &self,
        query: &ListQuery,
    ) -> Result<EnrollmentSecretList, ClientError> {
        self.list("/api/v1/enrollment-secrets", query).await
    }

    /// A secret, without the secret itself.
    pub async fn enrollment_secret(&self, id: Uuid) -> Result<EnrollmentSecret, ClientError> {
        self.get(&format!("/api/v1/enrollment-secrets/{id}")).await
    }

    /// Changes what devices get that join from now on, and until when they may.
    pub async fn update_enrollment_secret(
        &self,
        id: Uuid,
        change: &UpdateEnrollmentSecret,
    ) -> Result<EnrollmentSecret, ClientError> {
        self.put(&format!("/api/v1/enrollment-secrets/{id}"), change, None)
            .await
    }

    /// Withdraws a secret. Devices that joined with it stay.
    pub async fn revoke_enrollment_secret(&self, id: Uuid) -> Result<(), ClientError> {
        self.delete(&format!("/api/v1/enrollment-secrets/{id}"))
            .await
    }
}
