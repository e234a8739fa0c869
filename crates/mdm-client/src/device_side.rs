//! What devices call, with their device token.

use mdm_proto::{
    device_side::{CheckinRequest, CheckinResponse, CommandAck, CommandStatusReport},
    devices::{EnrollRequest, EnrolledDevice},
};
use uuid::Uuid;

use crate::{Client, ClientError};

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
}
