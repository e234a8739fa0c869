//! What counts on a device, what devices say of it, and what that comes to.

use std::collections::BTreeMap;

use mdm_core::{
    Timestamp,
    devices::{Device, DeviceStatus},
    events::{EventData, NewEvent},
    ids::{DeviceId, OrganizationId, PolicyId},
    policies::{ComplianceState, EffectiveSetting, RuleResult, assess, resolve},
    roles::Permission,
};
use mdm_store::{
    PgConnection, StoreError,
    devices::{self, DeviceRef, Revision},
    events,
    policies::{self, DeviceState, EffectiveRow, StoredResult},
};
use uuid::Uuid;

use super::PolicyError;
use crate::{context::OpContext, services::Services};

/// What a device says of one policy.
#[derive(Debug, Clone)]
pub struct PolicyReport {
    /// Which policy.
    pub policy_id: PolicyId,
    /// Which version of it.
    pub policy_version: i64,
    /// When it looked.
    pub observed_at: Timestamp,
    /// What came of each rule.
    pub rules: Vec<RuleResult>,
}

/// What counts on a device.
#[derive(Debug)]
pub struct DevicePolicies {
    /// Which device.
    pub device_id: DeviceId,
    /// Each policy that reaches it, those for other platforms as well.
    pub policies: Vec<EffectiveRow>,
    /// What counts for each setting when those for the device's platform are put together.
    pub settings: BTreeMap<String, EffectiveSetting>,
    /// The number that changes with them.
    pub revision: i64,
}

impl DevicePolicies {
    /// The device's state over all policies: the worst; `None` if no policy reaches it.
    pub fn worst(&self) -> Option<ComplianceState> {
        self.policies
            .iter()
            .map(|row| row.state)
            .min_by_key(|state| severity(*state))
    }
}

/// The worst comes first.
const fn severity(state: ComplianceState) -> u8 {
    match state {
        ComplianceState::NonCompliant => 0,
        ComplianceState::Error => 1,
        ComplianceState::Pending => 2,
        ComplianceState::Compliant => 3,
        ComplianceState::NotApplicable => 4,
    }
}

/// Where the devices of a policy stand.
#[derive(Debug)]
pub struct PolicyComplianceOf {
    /// How many stand where.
    pub counts: BTreeMap<ComplianceState, i64>,
    /// A page of them, with one more if more follow.
    pub devices: Vec<DeviceState>,
}

/// Where an organisation's devices stand.
#[derive(Debug)]
pub struct Summary {
    /// In the worst of their policies; `None` counts those without one.
    pub devices: Vec<(Option<ComplianceState>, i64)>,
    /// By policy.
    pub policies: Vec<(PolicyId, String, BTreeMap<ComplianceState, i64>)>,
}

impl Services {
    /// What counts on a device of the organisation.
    pub async fn device_policies(
        &self,
        ctx: &OpContext,
        device: &DeviceRef,
    ) -> Result<DevicePolicies, PolicyError> {
        ctx.require(Permission::ReadPolicies)?;
        let device = self.get_device(ctx, device).await?;
        Ok(self.effective_policies(&device).await?)
    }

    /// What counts on this device.
    pub async fn effective_policies(&self, device: &Device) -> Result<DevicePolicies, StoreError> {
        let mut tx = self.begin().await?;
        // One snapshot: the number must belong to the policies.
        mdm_store::consistent_read(&mut tx).await?;
        let revision = revision_of(&mut tx, device).await?;
        let policies = policies::effective(&mut tx, device.organization_id, device.id).await?;
        let settings = resolve(
            policies
                .iter()
                .filter(|row| row.policy.platform.includes(device.platform))
                .map(|row| (row.policy.id, &row.policy.configuration)),
        );
        Ok(DevicePolicies {
            device_id: device.id,
            policies,
            settings,
            revision: revision.current,
        })
    }

    /// The number that changes with a device's policies and applications.
    pub async fn policy_revision(&self, device: &Device) -> Result<i64, StoreError> {
        let mut conn = self.pool.acquire().await?;
        Ok(revision_of(&mut conn, device).await?.current)
    }

    /// Takes over what a device says of its policies. Reports on policies that do not reach it, or
    /// on versions that are not the present ones, are passed over: it will be told of the present
    /// ones and look again.
    pub async fn report_policies(
        &self,
        device: &Device,
        reports: Vec<PolicyReport>,
    ) -> Result<(), StoreError> {
        if reports.is_empty() {
            return Ok(());
        }
        let organization = device.organization_id;
        let mut tx = self.begin().await?;
        let locked = devices::lock(&mut tx, organization, device.id).await?;
        if locked.is_none_or(|device| device.status == DeviceStatus::Unenrolled) {
            return Ok(());
        }
        let now = self.now();
        let before = policies::states_of(&mut tx, organization, device.id).await?;
        let present = policies::effective(&mut tx, organization, device.id).await?;
        let mut results = Vec::with_capacity(reports.len());
        for report in reports {
            let policy = present
                .iter()
                .map(|row| &row.policy)
                .find(|policy| policy.id == report.policy_id)
                .filter(|policy| policy.version == report.policy_version);
            let Some(policy) = policy else { continue };
            let (state, rules) = assess(&policy.configuration, report.rules);
            results.push(StoredResult {
                policy_id: policy.id,
                policy_version: policy.version,
                state,
                rules,
                // A device whose clock runs ahead must not shut out its own later reports.
                observed_at: report.observed_at.min(now),
            });
        }
        policies::record_results(&mut tx, organization, device.id, &results).await?;
        let after = policies::states_of(&mut tx, organization, device.id).await?;
        let told = changes(organization, device.id, &before, &after);
        events::append_all(&mut tx, now, &told).await?;
        self.commit(tx).await
    }

    /// Where the devices that a policy reaches stand: how many where, and a page of them.
    pub async fn policy_compliance(
        &self,
        ctx: &OpContext,
        id: PolicyId,
        state: Option<ComplianceState>,
        (after, limit, offset): (Uuid, i64, i64),
    ) -> Result<PolicyComplianceOf, PolicyError> {
        self.get_policy(ctx, id).await?;
        let organization = ctx.organization_id;
        let mut tx = self.begin().await?;
        // One snapshot: the counts must be those of the devices.
        mdm_store::consistent_read(&mut tx).await?;
        let counted = policies::policy_counts(&mut tx, organization, Some(id)).await?;
        let devices =
            policies::device_states(&mut tx, organization, id, state, after, limit + 1, offset)
                .await?;
        let counts = counted.into_iter().map(|(_, _, counts)| counts).next();
        Ok(PolicyComplianceOf {
            counts: counts.unwrap_or_default(),
            devices,
        })
    }

    /// Where the organisation's devices stand.
    pub async fn compliance_summary(&self, ctx: &OpContext) -> Result<Summary, PolicyError> {
        ctx.require(Permission::ReadPolicies)?;
        let mut tx = self.begin().await?;
        mdm_store::consistent_read(&mut tx).await?;
        Ok(Summary {
            devices: policies::organization_counts(&mut tx, ctx.organization_id).await?,
            policies: policies::policy_counts(&mut tx, ctx.organization_id, None).await?,
        })
    }
}

async fn revision_of(conn: &mut PgConnection, device: &Device) -> Result<Revision, StoreError> {
    let found = devices::revision(conn, device.organization_id, device.id).await?;
    Ok(found.unwrap_or(Revision {
        current: 0,
        applied: 0,
    }))
}

/// What was told of a policy for the first time counts as having been pending.
fn changes(
    organization: OrganizationId,
    device_id: DeviceId,
    before: &BTreeMap<PolicyId, ComplianceState>,
    after: &BTreeMap<PolicyId, ComplianceState>,
) -> Vec<NewEvent> {
    after
        .iter()
        .filter_map(|(policy_id, new_state)| {
            let old_state = before.get(policy_id).copied();
            let old_state = old_state.unwrap_or(ComplianceState::Pending);
            let data = EventData::ComplianceChange {
                policy_id: *policy_id,
                device_id,
                old_state,
                new_state: *new_state,
            };
            (old_state != *new_state).then(|| NewEvent::new(organization, data))
        })
        .collect()
}
