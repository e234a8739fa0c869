//! Devices, for operators.

use mdm_proto::{
    devices::{
        BulkEnroll, BulkEnrolled, Device, DeviceInventory, DeviceList, EnrollRequest,
        EnrolledDevice, SoftwareList, UpdateDevice,
    },
    events::EventPage,
    groups::GroupList,
    policies::EffectivePolicies,
};

use crate::{Client, ClientError, EventQuery, ListQuery, http::segment};

/// The path of a device, or of something below it.
fn path(device: &str, below: &str) -> String {
    format!("/api/v1/devices/{}{below}", segment(device))
}

impl Client {
    /// Enrols a device by an operator's hand. The answer is the only one that shows its token.
    pub async fn enroll_device(
        &self,
        request: &EnrollRequest,
        re_enroll: bool,
    ) -> Result<EnrolledDevice, ClientError> {
        self.post(&format!("/api/v1/devices?re_enroll={re_enroll}"), request)
            .await
    }

    /// Enrols 1 to 1,000 devices, each with its own outcome.
    pub async fn enroll_devices(&self, request: &BulkEnroll) -> Result<BulkEnrolled, ClientError> {
        self.post("/api/v1/devices/bulk", request).await
    }

    /// A page of devices. Filters: `platform`, `status`, `search`, `label` (`key:value`),
    /// `group_id`, `policy_id`, `compliance`. Unenrolled ones are listed only with their status.
    pub async fn devices(&self, query: &ListQuery) -> Result<DeviceList, ClientError> {
        self.list("/api/v1/devices", query).await
    }

    /// A device, by the server's id or by the hardware's.
    pub async fn device(&self, device: &str) -> Result<Device, ClientError> {
        self.get(&path(device, "")).await
    }

    /// Changes a device. With `version`, only if the device still has it.
    pub async fn update_device(
        &self,
        device: &str,
        change: &UpdateDevice,
        version: Option<i64>,
    ) -> Result<Device, ClientError> {
        self.put(&path(device, ""), change, version).await
    }

    /// Unenrols a device: its token stops working at once.
    pub async fn unenroll_device(&self, device: &str) -> Result<(), ClientError> {
        self.delete(&path(device, "")).await
    }

    /// A page of the groups that a device is in. Filter: `search`.
    pub async fn device_groups(
        &self,
        device: &str,
        query: &ListQuery,
    ) -> Result<GroupList, ClientError> {
        self.list(&path(device, "/groups"), query).await
    }

    /// The policies that count on a device, how they came there, and where it stands.
    pub async fn device_policies(&self, device: &str) -> Result<EffectivePolicies, ClientError> {
        self.get(&path(device, "/policies")).await
    }

    /// What a device last said of its hardware and system.
    pub async fn device_inventory(&self, device: &str) -> Result<DeviceInventory, ClientError> {
        self.get(&path(device, "/inventory")).await
    }

    /// A page of what a device last said is installed on it, by name. Filter: `search`.
    pub async fn device_software(
        &self,
        device: &str,
        query: &ListQuery,
    ) -> Result<SoftwareList, ClientError> {
        self.list(&path(device, "/software"), query).await
    }

    /// A piece of the event log, of one device only.
    pub async fn device_events(
        &self,
        device: &str,
        query: &EventQuery,
    ) -> Result<EventPage, ClientError> {
        let path = path(device, "/events");
        self.get(&crate::http::with_query(&path, &query.to_string()))
            .await
    }
}
