//! Applications and their assignment. Their packages come and go in `packages.rs`.

use mdm_proto::{
    applications::{Application, ApplicationList, InstallList, UpdateApplication},
    policies::{Assigned, AssignmentList},
};
use uuid::Uuid;

use crate::{Client, ClientError, ListQuery, http::segment};

/// The path of an application.
pub(crate) fn path(id: Uuid) -> String {
    format!("/api/v1/applications/{id}")
}

impl Client {
    /// A page of applications. Filters: `search`, `platform`.
    pub async fn applications(&self, query: &ListQuery) -> Result<ApplicationList, ClientError> {
        self.list("/api/v1/applications", query).await
    }

    /// An application.
    pub async fn application(&self, id: Uuid) -> Result<Application, ClientError> {
        self.get(&path(id)).await
    }

    /// Changes what is said of an application. The package itself never changes.
    pub async fn update_application(
        &self,
        id: Uuid,
        change: &UpdateApplication,
    ) -> Result<Application, ClientError> {
        self.put(&path(id), change, None).await
    }

    /// Deletes an application and its package. One that is assigned stays: 409.
    pub async fn delete_application(&self, id: Uuid) -> Result<(), ClientError> {
        self.delete(&path(id)).await
    }

    /// A page of the devices that an application is assigned to directly.
    pub async fn application_devices(
        &self,
        id: Uuid,
        query: &ListQuery,
    ) -> Result<AssignmentList, ClientError> {
        self.list(&format!("{}/devices", path(id)), query).await
    }

    /// A page of the groups that an application is assigned to.
    pub async fn application_groups(
        &self,
        id: Uuid,
        query: &ListQuery,
    ) -> Result<AssignmentList, ClientError> {
        self.list(&format!("{}/groups", path(id)), query).await
    }

    /// Assigns an application to 1 to 1,000 devices, by the server's ids or the hardware's;
    /// `intent` is `install` (the default), `available` or `uninstall`. One device that has it
    /// already is a 409; among several it is passed over.
    pub async fn assign_application_to_devices(
        &self,
        id: Uuid,
        devices: &[String],
        intent: Option<&str>,
    ) -> Result<Assigned, ClientError> {
        self.assign_to_devices(&path(id), devices, intent).await
    }

    /// Assigns an application to 1 to 1,000 groups, as to devices.
    pub async fn assign_application_to_groups(
        &self,
        id: Uuid,
        groups: &[Uuid],
        intent: Option<&str>,
    ) -> Result<Assigned, ClientError> {
        self.assign_to_groups(&path(id), groups, intent).await
    }

    /// Takes an application away from a device. What is installed stays as it is.
    pub async fn unassign_application_from_device(
        &self,
        id: Uuid,
        device: &str,
    ) -> Result<(), ClientError> {
        self.delete(&format!("{}/devices/{}", path(id), segment(device)))
            .await
    }

    /// Takes an application away from a group. What is installed stays as it is.
    pub async fn unassign_application_from_group(
        &self,
        id: Uuid,
        group: Uuid,
    ) -> Result<(), ClientError> {
        self.delete(&format!("{}/groups/{group}", path(id))).await
    }

    /// A page of the devices that an application reaches or is on. Filter: `state`.
    pub async fn application_installs(
        &self,
        id: Uuid,
        query: &ListQuery,
    ) -> Result<InstallList, ClientError> {
        self.list(&format!("{}/installs", path(id)), query).await
    }
}
