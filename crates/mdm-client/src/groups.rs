//! Device groups.

use mdm_proto::{
    devices::DeviceList,
    groups::{
        AddMember, CreateGroup, DeviceGroup, GroupList, GroupPreview, MembersAdded, PreviewGroup,
        UpdateGroup,
    },
    policies::PolicyList,
};
use uuid::Uuid;

use crate::{Client, ClientError, ListQuery, http::segment};

impl Client {
    /// Makes a group.
    pub async fn create_group(&self, wish: &CreateGroup) -> Result<DeviceGroup, ClientError> {
        self.post("/api/v1/device-groups", wish).await
    }

    /// A page of groups. Filter: `search`.
    pub async fn groups(&self, query: &ListQuery) -> Result<GroupList, ClientError> {
        self.list("/api/v1/device-groups", query).await
    }

    /// A group.
    pub async fn group(&self, id: Uuid) -> Result<DeviceGroup, ClientError> {
        self.get(&format!("/api/v1/device-groups/{id}")).await
    }

    /// Changes a group. With `version`, only if the group still has it.
    pub async fn update_group(
        &self,
        id: Uuid,
        change: &UpdateGroup,
        version: Option<i64>,
    ) -> Result<DeviceGroup, ClientError> {
        self.put(&format!("/api/v1/device-groups/{id}"), change, version)
            .await
    }

    /// Deletes a group; its devices stay.
    pub async fn delete_group(&self, id: Uuid) -> Result<(), ClientError> {
        self.delete(&format!("/api/v1/device-groups/{id}")).await
    }

    /// A page of a group's members.
    pub async fn group_members(
        &self,
        id: Uuid,
        query: &ListQuery,
    ) -> Result<DeviceList, ClientError> {
        self.list(&format!("/api/v1/device-groups/{id}/devices"), query)
            .await
    }

    /// Puts a device into a group by hand. One that is in already is a 409.
    pub async fn add_group_member(
        &self,
        id: Uuid,
        device: &str,
    ) -> Result<MembersAdded, ClientError> {
        let body = AddMember {
            device_id: Some(device.to_owned()),
            device_ids: None,
        };
        self.post(&format!("/api/v1/device-groups/{id}/devices"), &body)
            .await
    }

    /// Puts up to 1,000 devices into a group by hand; those that are in already are passed over.
    pub async fn add_group_members(
        &self,
        id: Uuid,
        devices: &[String],
    ) -> Result<MembersAdded, ClientError> {
        let body = AddMember {
            device_id: None,
            device_ids: Some(devices.to_vec()),
        };
        self.post(&format!("/api/v1/device-groups/{id}/devices"), &body)
            .await
    }

    /// Takes a device out of a group. One that the group's filters admit stays: 409.
    pub async fn remove_group_member(&self, id: Uuid, device: &str) -> Result<(), ClientError> {
        let device = segment(device);
        self.delete(&format!("/api/v1/device-groups/{id}/devices/{device}"))
            .await
    }

    /// A page of the policies that are assigned to a group.
    pub async fn group_policies(
        &self,
        id: Uuid,
        query: &ListQuery,
    ) -> Result<PolicyList, ClientError> {
        self.list(&format!("/api/v1/device-groups/{id}/policies"), query)
            .await
    }

    /// Who would be in a group with these filters.
    pub async fn preview_group(&self, wish: &PreviewGroup) -> Result<GroupPreview, ClientError> {
        self.post("/api/v1/device-groups/preview", wish).await
    }
}
