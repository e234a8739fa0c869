//! What devices call, with their device token.

use mdm_proto::{
    applications::DeviceApplications,
    device_side::{
        CheckinRequest, CheckinResponse, CommandAck, CommandStatusReport, DevicePolicies, Inventory,
    },
    devices::{EnrollRequest, EnrolledDevice},
};
use reqwest::Method;
use uuid::Uuid;

use crate::{Client, ClientError, TransferError, packages::next_chunk};

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

    /// Says what came of a command.
    pub async fn report_command(
        &self,
        id: Uuid,
        report: &CommandStatusReport,
    ) -> Result<CommandAck, ClientError> {
        self.post(&format!("/api/v1/device/commands/{id}/status"), report)
            .await
    }

    /// The policies that count on this device.
    pub async fn own_policies(&self) -> Result<DevicePolicies, ClientError> {
        self.get("/api/v1/device/policies").await
    }

    /// The applications that reach this device.
    pub async fn own_applications(&self) -> Result<DeviceApplications, ClientError> {
        self.get("/api/v1/device/applications").await
    }

    /// Says what is installed on this device.
    pub async fn report_inventory(&self, inventory: &Inventory) -> Result<(), ClientError> {
        let call = self.call(Method::POST, "/api/v1/device/inventory")?;
        call.json(inventory).done().await
    }

    /// Fetches the package of an application that reaches this device, and hands on its pieces as
    /// they come.
    pub async fn own_package(
        &self,
        application: Uuid,
        mut piece: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), TransferError> {
        let path = format!("/api/v1/device/applications/{application}/package");
        let mut response = self.open_package(&path, None).await?;
        while let Some(bytes) = next_chunk(&mut response).await? {
            piece(&bytes)?;
        }
        Ok(())
    }
}
