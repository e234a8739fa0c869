//! Devices, for operators.

use mdm_proto::devices::{Device, DeviceList, EnrollRequest, EnrolledDevice, UpdateDevice};
use reqwest::Method;

use crate::{
    Client, ClientError,
    http::{answer, segment},
};

impl Client {
    /// Enrols a device by an operator's hand.
    pub async fn enroll_device(
        &self,
        request: &EnrollRequest,
        re_enroll: bool,
    ) -> Result<EnrolledDevice, ClientError> {
        self.post(&format!("/api/v1/devices?re_enroll={re_enroll}"), request)
            .await
    }

    /// A page of devices; `query` is the query string, such as `limit=50&platform=linux`.
    pub async fn list_devices(&self, query: &str) -> Result<DeviceList, ClientError> {
        self.get(&format!("/api/v1/devices?{query}")).await
    }

    /// A device, by the server's id or by the hardware's.
    pub async fn device(&self, device: &str) -> Result<Device, ClientError> {
        self.get(&format!("/api/v1/devices/{}", segment(device)))
            .await
    }

    /// Changes a device. With `version`, only if the device still has it.
    pub async fn update_device(
        &self,
        device: &str,
        change: &UpdateDevice,
        version: Option<i64>,
    ) -> Result<Device, ClientError> {
        let mut request = self
            .request(Method::PUT, &format!("/api/v1/devices/{}", segment(device)))
            .json(change);
        if let Some(version) = version {
            request = request.header("if-match", format!("\"{version}\""));
        }
        answer(request).await
    }

    /// Unenrols a device.
    pub async fn unenroll_device(&self, device: &str) -> Result<(), ClientError> {
        self.delete(&format!("/api/v1/devices/{}", segment(device)))
            .await
    }
}
