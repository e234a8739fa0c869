//! Policies, their assignment, and compliance.

use mdm_proto::policies::{
    Assigned, AssignmentList, ComplianceSummary, CreatePolicy, Policy, PolicyCompliance,
    PolicyList, PolicySettings, UpdatePolicy,
};
use uuid::Uuid;

use crate::{Client, ClientError, ListQuery, http::segment};

/// The path of a policy.
fn path(id: Uuid) -> String {
    format!("/api/v1/policies/{id}")
}

impl Client {
    /// Makes a policy.
    pub async fn create_policy(&self, wish: &CreatePolicy) -> Result<Policy, ClientError> {
        self.post("/api/v1/policies", wish).await
    }

    /// A page of policies. Filters: `search`, `platform`, `enabled`, `type`.
    pub async fn policies(&self, query: &ListQuery) -> Result<PolicyList, ClientError> {
        self.list("/api/v1/policies", query).await
    }

    /// A policy.
    pub async fn policy(&self, id: Uuid) -> Result<Policy, ClientError> {
        self.get(&path(id)).await
    }

    /// Changes a policy. With `version`, only if the policy still has it.
    pub async fn update_policy(
        &self,
        id: Uuid,
        change: &UpdatePolicy,
        version: Option<i64>,
    ) -> Result<Policy, ClientError> {
        self.put(&path(id), change, version).await
    }

    /// Deletes a policy, which is taken away from everybody first.
    pub async fn delete_policy(&self, id: Uuid) -> Result<(), ClientError> {
        self.delete(&path(id)).await
    }

    /// The catalogue of settings that policies can ask for.
    pub async fn policy_settings(&self) -> Result<PolicySettings, ClientError> {
        self.get("/api/v1/policy-settings").await
    }

    /// A page of the devices that a policy is assigned to directly.
    pub async fn policy_devices(
        &self,
        id: Uuid,
        query: &ListQuery,
    ) -> Result<AssignmentList, ClientError> {
        self.list(&format!("{}/devices", path(id)), query).await
    }

    /// A page of the groups that a policy is assigned to.
    pub async fn policy_groups(
        &self,
        id: Uuid,
        query: &ListQuery,
    ) -> Result<AssignmentList, ClientError> {
        self.list(&format!("{}/groups", path(id)), query).await
    }

    /// Assigns a policy to 1 to 1,000 devices, by the server's ids or the hardware's. One device
    /// that has it already is a 409; among several it is passed over.
    pub async fn assign_policy_to_devices(
        &self,
        id: Uuid,
        devices: &[String],
    ) -> Result<Assigned, ClientError> {
        self.assign_to_devices(&path(id), devices, None).await
    }

    /// Assigns a policy to 1 to 1,000 groups, as to devices.
    pub async fn assign_policy_to_groups(
        &self,
        id: Uuid,
        groups: &[Uuid],
    ) -> Result<Assigned, ClientError> {
        self.assign_to_groups(&path(id), groups, None).await
    }

    /// Takes a policy away from a device.
    pub async fn unassign_policy_from_device(
        &self,
        id: Uuid,
        device: &str,
    ) -> Result<(), ClientError> {
        self.delete(&format!("{}/devices/{}", path(id), segment(device)))
            .await
    }

    /// Takes a policy away from a group.
    pub async fn unassign_policy_from_group(
        &self,
        id: Uuid,
        group: Uuid,
    ) -> Result<(), ClientError> {
        self.delete(&format!("{}/groups/{group}", path(id))).await
    }

    /// A page of the devices that a policy reaches, and where they stand. Filter: `state`.
    pub async fn policy_compliance(
        &self,
        id: Uuid,
        query: &ListQuery,
    ) -> Result<PolicyCompliance, ClientError> {
        self.list(&format!("{}/compliance", path(id)), query).await
    }

    /// Where all devices stand.
    pub async fn compliance_summary(&self) -> Result<ComplianceSummary, ClientError> {
        self.get("/api/v1/compliance/summary").await
    }
}
