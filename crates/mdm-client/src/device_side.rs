//! What devices call, with their device token.

use mdm_proto::{
    device_side::{
        CheckinRequest, CheckinResponse, CommandAck, CommandStatusReport, DevicePolicies, Inventory,
    },
    devices::{EnrollRequest, EnrolledDevice},
};
use reqwest::Method;
use uuid::Uuid;

use crate::{
    Client, ClientError,
    http::{done, opened},
};

impl Client {
    /// Joins the organisation of the enrolment secret in the request.
    pub async fn enroll_self(
        &self,
        request: &EnrollRequest,
        re_enroll: bool,
    ) -> Result<EnrolledDevice, ClientError> {
        self.post(
            &format!("/api/v1/device/enroll?re_enroll={re_enroll}"),
            request,
        )
        .await
    }

    /// Leaves the organisation.
    pub async fn unenroll_self(&self) -> Result<(), ClientError> {
        self.delete("/api/v1/device/enrollment").await
    }

    /// Says what there is to say, and gets what there is to do.
    pub async fn check_in(&self, request: &CheckinRequest) -> Result<CheckinResponse, ClientError> {
        self.post("/api/v1/device/checkin", request).await
    }

    /// What counts on this device.
    pub async fn device_policies(&self) -> Result<DevicePolicies, ClientError> {
        self.get("/api/v1/device/policies").await
    }

    /// Says what is installed on this device.
    pub async fn report_inventory(&self, inventory: &Inventory) -> Result<(), ClientError> {
        done(
            self.request(Method::POST, "/api/v1/device/inventory")
                .json(inventory),
        )
        .await
    }

    /// Fetches the package of an application that reaches this device, and hands on its pieces as
    /// they come.
    pub async fn device_package(
        &self,
        application: Uuid,
        mut piece: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), ClientError> {
        let path = format!("/api/v1/device/applications/{application}/package");
        let mut response = opened(self.request(Method::GET, &path)).await?;
        while let Some(bytes) = response.chunk().await? {
            piece(&bytes).map_err(|error| ClientError::Transport(error.to_string()))?;
        }
        Ok(())
    }

    /// Says what came of a command.
    pub async fn report_command(
        &self,
        id: Uuid,
        report: &CommandStatusReport,
    ) -> Result<CommandAck, ClientError> {
        self.post(&format!("/api/v1/device/commands/{id}/status"), report)
            .await
    }
}
