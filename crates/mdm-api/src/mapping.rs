//! From the domain to the wire. The only place that knows both.

use std::collections::BTreeMap;

use actix_web::ResponseError;
use mdm_core::{
    Timestamp, api_keys as core_api_keys, applications as core_applications,
    commands as core_commands, devices as core_devices, enrollment as core_enrollment,
    groups as core_groups,
    ids::{GroupId, PolicyId},
    policies as core_policies,
    tokens::Token,
    users as core_users, webhooks as core_webhooks,
};
use mdm_proto::{
    applications, auth, commands, device_side, devices, enrollment, groups, licenses, lists::Page,
    policies, users, webhooks,
};
use mdm_service::{
    auth::SignedIn,
    batches::BatchProgress,
    devices::{DeviceError, Enrolled},
    licenses::LicenseStatus,
    lists::Listed,
    policies::{DevicePolicies, PolicyComplianceOf, Summary},
};
use mdm_store::{
    applications::{InstallOnDevice, Wanted},
    assignments::{Assignment, Targets},
    devices::Inventory,
    lists::{ListRequest, Total},
    policies::{DeviceState, EffectiveRow},
};
use uuid::Uuid;

use crate::problem::ApiError;

/// A user.
pub fn user(user: core_users::User) -> auth::User {
    auth::User {
        id: user.id.uuid(),
        email: user.email.as_str().to_owned(),
        name: user.name,
        role: user.role.to_string(),
        totp_enabled: user.totp_enabled,
        created_at: user.created_at.into(),
        updated_at: user.updated_at.into(),
    }
}

/// A pair of tokens.
pub fn tokens(signed_in: SignedIn) -> auth::TokenResponse {
    auth::TokenResponse {
        token: signed_in.token,
        expires_at: signed_in.expires_at.into(),
        refresh_token: signed_in.refresh_token.expose().to_owned(),
        refresh_expires_at: signed_in.refresh_expires_at.into(),
        user: user(signed_in.user),
    }
}

/// A ticket for the event stream.
pub fn ticket((ticket, expires_at): (Token, Timestamp)) -> auth::SocketTicket {
    auth::SocketTicket {
        ticket: ticket.expose().to_owned(),
        expires_at: expires_at.into(),
    }
}

/// A device.
pub fn device(device: core_devices::Device) -> devices::Device {
    devices::Device {
        id: device.id.uuid(),
        uuid: device.uuid.as_str().to_owned(),
        hostname: device.hostname.as_str().to_owned(),
        platform: device.platform.to_string(),
        os_version: device.os_version,
        serial_number: device.serial_number,
        status: device.status.to_string(),
        last_seen: device.last_seen.map(Into::into),
        enrolled_at: device.enrolled_at.into(),
        labels: device.labels.pairs().clone(),
        hardware_info: mdm_proto::raw::RawJson(device.hardware_info.into_raw()),
        observed_at: device.hardware_observed_at.map(Into::into),
        version: device.version,
    }
}

/// A device with its token, which is shown this once.
pub fn enrolled(enrolled: Enrolled) -> devices::EnrolledDevice {
    devices::EnrolledDevice {
        device: device(enrolled.device),
        device_token: enrolled.token.expose().to_owned(),
    }
}

/// A page of a list on the wire.
macro_rules! page_of {
    ($(#[$doc:meta])* $name:ident: $item:ty => $list:ty, $map:expr) => {
        $(#[$doc])*
        pub fn $name(listed: Listed<$item>, request: &ListRequest) -> $list {
            let (total, total_is_estimate) = match listed.total {
                Total::Exact(total) => (total, false),
                Total::Estimate(total) => (total, true),
            };
            <$list>::from(Page {
                items: listed.items.into_iter().map($map).collect(),
                total,
                total_is_estimate,
                limit: request.limit(),
                offset: request.offset(),
                next_cursor: listed.next_cursor,
            })
        }
    };
}

page_of! {
    /// A page of devices.
    device_list: core_devices::Device => devices::DeviceList, device
}
page_of! {
    /// A page of commands.
    command_list: core_commands::Command => commands::CommandList, |item| command(item, None)
}
page_of! {
    /// A page of enrolment secrets.
    enrollment_secret_list: core_enrollment::EnrollmentSecret
        => enrollment::EnrollmentSecretList, enrollment_secret
}
page_of! {
    /// A page of groups.
    group_list: core_groups::DeviceGroup => groups::GroupList, group
}
page_of! {
    /// A page of policies.
    policy_list: core_policies::Policy => policies::PolicyList, policy
}
page_of! {
    /// A page of applications.
    application_list: core_applications::Application
        => applications::ApplicationList, application
}
page_of! {
    /// A page of users.
    user_list: core_users::User => users::UserList, user_account
}
page_of! {
    /// A page of webhooks.
    webhook_list: core_webhooks::Webhook => webhooks::WebhookList, webhook
}
page_of! {
    /// A page of deliveries.
    webhook_delivery_list: core_webhooks::WebhookDelivery
        => webhooks::WebhookDeliveryList, webhook_delivery
}
page_of! {
    /// A page of API keys.
    api_key_list: core_api_keys::ApiKey => users::ApiKeyList, api_key
}

/// A command, with its steps where they were asked for.
pub fn command(
    command: core_commands::Command,
    steps: Option<Vec<core_commands::CommandTransition>>,
) -> commands::Command {
    commands::Command {
        id: command.id.uuid(),
        device_id: command.device_id.uuid(),
        command: command.kind.to_string(),
        parameters: command.parameters,
        status: command.status.to_string(),
        result: command.result,
        error: command.error,
        created_by: command.created_by.map(mdm_core::ids::UserId::uuid),
        created_at: command.created_at.into(),
        sent_at: command.sent_at.map(Into::into),
        completed_at: command.completed_at.map(Into::into),
        expires_at: command.expires_at.into(),
        priority: command.priority.into(),
        lane: command.lane.to_string(),
        attempts: command.attempts.into(),
        batch_id: command.batch_id.map(mdm_core::ids::BatchId::uuid),
        transitions: steps.map(|steps| steps.into_iter().map(transition).collect()),
    }
}

fn transition(step: core_commands::CommandTransition) -> commands::CommandTransition {
    commands::CommandTransition {
        status: step.status.to_string(),
        at: step.at.into(),
        node: step.node,
        cause: step.cause,
    }
}

/// A command as its device gets it.
pub fn delivered(command: core_commands::Command) -> device_side::DeliveredCommand {
    device_side::DeliveredCommand {
        id: command.id.uuid(),
        command: command.kind.to_string(),
        parameters: command.parameters,
        lane: command.lane.to_string(),
        expires_at: command.expires_at.into(),
        attempt: command.attempts.into(),
    }
}

/// An enrolment secret, without the secret.
pub fn enrollment_secret(
    secret: core_enrollment::EnrollmentSecret,
) -> enrollment::EnrollmentSecret {
    enrollment::EnrollmentSecret {
        id: secret.id.uuid(),
        name: secret.name,
        labels: secret.labels.pairs().clone(),
        group_ids: secret.group_ids.into_iter().map(GroupId::uuid).collect(),
        expires_at: secret.expires_at.map(Into::into),
        max_uses: secret.max_uses.map(Into::into),
        uses: secret.uses.into(),
        revoked_at: secret.revoked_at.map(Into::into),
        created_by: secret.created_by.map(mdm_core::ids::UserId::uuid),
        created_at: secret.created_at.into(),
    }
}

/// What came of a bulk enrolment.
pub fn bulk(outcomes: Vec<Result<Enrolled, DeviceError>>) -> devices::BulkEnrolled {
    let outcomes: Vec<devices::BulkOutcome> = outcomes
        .into_iter()
        .enumerate()
        .map(|(index, outcome)| bulk_outcome(index, outcome))
        .collect();
    let enrolled = outcomes
        .iter()
        .filter(|outcome| outcome.device.is_some())
        .count();
    devices::BulkEnrolled {
        enrolled,
        failed: outcomes.len() - enrolled,
        outcomes,
    }
}

fn bulk_outcome(index: usize, outcome: Result<Enrolled, DeviceError>) -> devices::BulkOutcome {
    match outcome {
        Ok(enrolled) => devices::BulkOutcome {
            index,
            status: 201,
            device_token: Some(enrolled.token.expose().to_owned()),
            device: Some(device(enrolled.device)),
            code: None,
            detail: None,
        },
        Err(error) => {
            let error = ApiError::from(error);
            let status = error.status_code().as_u16();
            let problem = error.to_problem();
            devices::BulkOutcome {
                index,
                status,
                device_token: None,
                device: None,
                code: Some(
                    problem
                        .errors
                        .first()
                        .map_or(problem.code, |field| field.code.clone()),
                ),
                detail: Some(problem.detail),
            }
        }
    }
}

/// A page of what is installed on a device, from the place `begin`.
pub fn software_list(
    found: Option<Inventory>,
    search: Option<&str>,
    limit: i64,
    begin: i64,
) -> devices::SoftwareList {
    let observed_at = found.as_ref().map(|found| found.observed_at.into());
    let all: Vec<devices::Software> = found
        .and_then(|found| serde_json::from_value(found.data).ok())
        .unwrap_or_default();
    let wanted = search.map(str::to_lowercase);
    let matching: Vec<devices::Software> = all
        .into_iter()
        .filter(|software| {
            let wanted = wanted.as_ref();
            wanted.is_none_or(|wanted| software.name.to_lowercase().contains(wanted))
        })
        .collect();
    let total = i64::try_from(matching.len()).unwrap_or(i64::MAX);
    let end = begin.saturating_add(limit);
    let skip = usize::try_from(begin).unwrap_or(usize::MAX);
    let take = usize::try_from(limit).unwrap_or(usize::MAX);
    devices::SoftwareList {
        software: matching.into_iter().skip(skip).take(take).collect(),
        observed_at,
        total,
        limit,
        offset: begin,
        next_cursor: (end < total).then(|| end.to_string()),
    }
}

/// A batch of commands.
pub fn batch(progress: BatchProgress) -> commands::CommandBatch {
    let batch = progress.batch;
    let counts: BTreeMap<String, i64> = core_commands::CommandStatus::ALL
        .iter()
        .map(|status| {
            let count = progress.counts.get(status).copied().unwrap_or(0);
            (status.to_string(), count)
        })
        .collect();
    commands::CommandBatch {
        id: batch.id.uuid(),
        command: batch.kind.to_string(),
        parameters: batch.parameters,
        expanded: batch.pending_after.is_none(),
        total: counts.values().sum(),
        skipped: batch.skipped,
        counts,
        created_by: batch.created_by.map(mdm_core::ids::UserId::uuid),
        created_at: batch.created_at.into(),
        expires_at: batch.expires_at.into(),
    }
}

/// A group.
pub fn group(group: core_groups::DeviceGroup) -> groups::DeviceGroup {
    groups::DeviceGroup {
        id: group.id.uuid(),
        name: group.name,
        description: group.description,
        device_count: group.device_count,
        filters: group
            .filters
            .and_then(|filters| serde_json::to_value(filters).ok()),
        up_to_date: group.up_to_date,
        labels: group.labels.pairs().clone(),
        version: group.version,
        created_at: group.created_at.into(),
        updated_at: group.updated_at.into(),
    }
}

/// A policy.
pub fn policy(policy: core_policies::Policy) -> policies::Policy {
    policies::Policy {
        id: policy.id.uuid(),
        name: policy.name,
        description: policy.description,
        platform: policy.platform.as_str().to_owned(),
        kind: policy.kind,
        enabled: policy.enabled,
        configuration: policy.configuration.to_json(),
        version: policy.version,
        created_at: policy.created_at.into(),
        updated_at: policy.updated_at.into(),
    }
}

/// A setting of the catalogue.
pub fn policy_setting(setting: &core_policies::catalogue::Setting) -> policies::PolicySetting {
    use core_policies::catalogue::ValueKind;
    let unit = match setting.kind {
        ValueKind::Integer { unit, .. } => Some(unit.to_owned()),
        _ => None,
    };
    let checked = setting
        .platforms
        .iter()
        .filter_map(|(platform, how)| Some((platform.to_string(), (*how)?.to_owned())));
    policies::PolicySetting {
        name: setting.name.to_owned(),
        title: setting.title.to_owned(),
        description: setting.description.to_owned(),
        schema: setting.schema(),
        unit,
        platforms: setting
            .platforms
            .iter()
            .map(|(p, _)| p.to_string())
            .collect(),
        default: setting.default_value(),
        strictest: setting.strictness.as_str().to_owned(),
        checked: checked.collect(),
        enforced: setting.enforced.map(str::to_owned),
    }
}

/// A page of assignments.
pub fn assignment_list(
    listed: Listed<Assignment>,
    request: &ListRequest,
    targets: Targets,
) -> policies::AssignmentList {
    let (total, total_is_estimate) = match listed.total {
        Total::Exact(total) => (total, false),
        Total::Estimate(total) => (total, true),
    };
    let item = |assignment: Assignment| policies::Assignment {
        device_id: (targets == Targets::Devices).then_some(assignment.target),
        group_id: (targets == Targets::Groups).then_some(assignment.target),
        name: assignment.name,
        intent: assignment.intent.map(|intent| intent.to_string()),
        assigned_at: assignment.assigned_at.into(),
    };
    policies::AssignmentList {
        assignments: listed.items.into_iter().map(item).collect(),
        total,
        total_is_estimate,
        limit: request.limit(),
        offset: request.offset(),
        next_cursor: listed.next_cursor,
    }
}

fn rule_result(result: core_policies::RuleResult) -> policies::RuleResult {
    policies::RuleResult {
        rule: result.rule,
        state: result.state.to_string(),
        actual: result.actual,
        detail: result.detail,
    }
}

fn path(path: core_policies::AssignmentPath) -> policies::Path {
    match path {
        core_policies::AssignmentPath::Direct => policies::Path {
            via: "direct".to_owned(),
            group_id: None,
            group_name: None,
        },
        core_policies::AssignmentPath::Group { id, name } => policies::Path {
            via: "group".to_owned(),
            group_id: Some(id.uuid()),
            group_name: Some(name),
        },
    }
}

fn effective_policy(row: EffectiveRow) -> policies::EffectivePolicy {
    policies::EffectivePolicy {
        policy: policy(row.policy),
        paths: row.paths.into_iter().map(path).collect(),
        compliance: policies::Compliance {
            state: row.state.to_string(),
            rules: row.rules.into_iter().map(rule_result).collect(),
            observed_at: row.observed_at.map(Into::into),
        },
    }
}

fn effective_settings(
    settings: BTreeMap<String, core_policies::EffectiveSetting>,
) -> BTreeMap<String, policies::EffectiveSetting> {
    settings
        .into_iter()
        .map(|(name, setting)| {
            let overruled = setting.overruled.into_iter();
            let setting = policies::EffectiveSetting {
                value: setting.value,
                policy_ids: setting.policies.into_iter().map(PolicyId::uuid).collect(),
                overruled: overruled
                    .map(|overruled| policies::OverruledSetting {
                        policy_id: overruled.policy_id.uuid(),
                        value: overruled.value,
                    })
                    .collect(),
            };
            (name, setting)
        })
        .collect()
}

/// What a device is, if no policy reaches it.
const NO_POLICY: &str = "no_policy";

/// What counts on a device, for operators.
pub fn effective_policies(found: DevicePolicies) -> policies::EffectivePolicies {
    let worst = found.worst();
    policies::EffectivePolicies {
        device_id: found.device_id.uuid(),
        compliance: worst
            .map_or(NO_POLICY, core_policies::ComplianceState::as_str)
            .to_owned(),
        total: i64::try_from(found.policies.len()).unwrap_or(i64::MAX),
        policies: found.policies.into_iter().map(effective_policy).collect(),
        settings: effective_settings(found.settings),
        policy_revision: found.revision,
    }
}

/// What counts on a device, for itself: policies for other platforms are none of its business.
pub fn device_policies(
    found: DevicePolicies,
    platform: core_devices::Platform,
) -> device_side::DevicePolicies {
    let own = found
        .policies
        .into_iter()
        .map(|row| row.policy)
        .filter(|policy| policy.platform.includes(platform));
    device_side::DevicePolicies {
        policy_revision: found.revision,
        policies: own
            .map(|policy| device_side::DevicePolicy {
                id: policy.id.uuid(),
                name: policy.name,
                version: policy.version,
                configuration: policy.configuration.to_json(),
            })
            .collect(),
        settings: effective_settings(found.settings),
    }
}

fn state_counts(counts: &BTreeMap<core_policies::ComplianceState, i64>) -> BTreeMap<String, i64> {
    core_policies::ComplianceState::ALL
        .iter()
        .map(|state| (state.to_string(), counts.get(state).copied().unwrap_or(0)))
        .collect()
}

/// Where the devices of a policy stand.
pub fn policy_compliance(
    policy: PolicyId,
    mut found: PolicyComplianceOf,
    wanted: Option<core_policies::ComplianceState>,
    (_after, limit, offset): (Uuid, i64, i64),
) -> policies::PolicyCompliance {
    let total = match wanted {
        Some(state) => found.counts.get(&state).copied().unwrap_or(0),
        None => found.counts.values().sum(),
    };
    let next_cursor = cut(&mut found.devices, limit, |device: &DeviceState| {
        device.device_id.uuid()
    });
    let device = |device: DeviceState| policies::DeviceCompliance {
        device_id: device.device_id.uuid(),
        hostname: device.hostname,
        compliance: policies::Compliance {
            state: device.state.to_string(),
            rules: device.rules.into_iter().map(rule_result).collect(),
            observed_at: device.observed_at.map(Into::into),
        },
    };
    policies::PolicyCompliance {
        policy_id: policy.uuid(),
        counts: state_counts(&found.counts),
        devices: found.devices.into_iter().map(device).collect(),
        total,
        limit,
        offset,
        next_cursor,
    }
}

/// Makes a page of `limit` from one that was asked for one more, and says where the next begins.
fn cut<T>(items: &mut Vec<T>, limit: i64, id: impl Fn(&T) -> Uuid) -> Option<String> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = items.len() > limit;
    items.truncate(limit);
    items
        .last()
        .filter(|_| more)
        .map(|last| id(last).to_string())
}

/// Where all devices stand.
pub fn compliance_summary(summary: Summary) -> policies::ComplianceSummary {
    let mut devices: BTreeMap<String, i64> = state_counts(&BTreeMap::new());
    devices.insert(NO_POLICY.to_owned(), 0);
    for (state, count) in summary.devices {
        let name = state.map_or(NO_POLICY, core_policies::ComplianceState::as_str);
        devices.insert(name.to_owned(), count);
    }
    let policies = summary.policies.into_iter();
    policies::ComplianceSummary {
        devices,
        policies: policies
            .map(|(id, name, counts)| policies::PolicyCounts {
                policy_id: id.uuid(),
                name,
                counts: state_counts(&counts),
            })
            .collect(),
    }
}

/// An application.
pub fn application(application: core_applications::Application) -> applications::Application {
    applications::Application {
        id: application.id.uuid(),
        name: application.name,
        version: application.app_version,
        platform: application.platform.to_string(),
        description: application.description,
        file_name: application.file_name,
        size: application.size,
        checksum: application.checksum,
        created_at: application.created_at.into(),
        updated_at: application.updated_at.into(),
    }
}

/// An application as its device gets it.
pub fn device_application(wanted: Wanted) -> applications::DeviceApplication {
    let id = wanted.application.id;
    applications::DeviceApplication {
        application: application(wanted.application),
        intent: wanted.intent.to_string(),
        package_path: format!("/api/v1/device/applications/{id}/package"),
    }
}

/// A page of where an application stands.
pub fn install_list(
    mut installs: Vec<InstallOnDevice>,
    total: i64,
    (_after, limit, offset): (Uuid, i64, i64),
) -> applications::InstallList {
    let next_cursor = cut(&mut installs, limit, |on: &InstallOnDevice| {
        on.install.device_id.uuid()
    });
    let install = |on: InstallOnDevice| applications::Install {
        device_id: on.install.device_id.uuid(),
        hostname: on.hostname,
        intent: on.intent.map(|intent| intent.to_string()),
        state: on.install.state.to_string(),
        error: on.install.error,
        command_id: on.install.command_id.map(mdm_core::ids::CommandId::uuid),
        updated_at: on.install.updated_at.map(Into::into),
    };
    applications::InstallList {
        installs: installs.into_iter().map(install).collect(),
        total,
        total_is_estimate: false,
        limit,
        offset,
        next_cursor,
    }
}

/// The license.
pub fn license_status(status: LicenseStatus) -> licenses::LicenseStatus {
    use mdm_core::licenses::{LicenseState, Tier};
    let terms = status.terms;
    licenses::LicenseStatus {
        valid: status.state != LicenseState::Expired,
        tier: terms
            .as_ref()
            .map_or(Tier::Community, |terms| terms.tier)
            .to_string(),
        device_limit: terms.as_ref().and_then(|terms| terms.device_limit),
        devices_enrolled: status.devices_enrolled,
        expires_at: terms.as_ref().map(|terms| terms.expires_at.into()),
        grace_until: terms.as_ref().map(|terms| terms.grace_until.into()),
        state: status.state.to_string(),
        features: terms.map(|terms| terms.features).unwrap_or_default(),
        organization_id: status.organization_id.uuid(),
    }
}

/// A user as administrators see it.
pub fn user_account(user: core_users::User) -> users::UserAccount {
    users::UserAccount {
        id: user.id.uuid(),
        email: user.email.as_str().to_owned(),
        name: user.name,
        role: user.role.to_string(),
        totp_enabled: user.totp_enabled,
        disabled: user.disabled_at.is_some(),
        version: user.version,
        created_at: user.created_at.into(),
        updated_at: user.updated_at.into(),
    }
}

/// An API key, without the key.
pub fn api_key(key: core_api_keys::ApiKey) -> users::ApiKey {
    let scopes = key.scopes;
    users::ApiKey {
        id: key.id.uuid(),
        name: key.name,
        role: key.role.to_string(),
        scopes: scopes.map(|scopes| scopes.iter().map(ToString::to_string).collect()),
        expires_at: key.expires_at.map(Into::into),
        last_used_at: key.last_used_at.map(Into::into),
        created_by: key.created_by.uuid(),
        created_at: key.created_at.into(),
        updated_at: key.updated_at.into(),
    }
}

/// A webhook.
pub fn webhook(webhook: core_webhooks::Webhook) -> webhooks::Webhook {
    webhooks::Webhook {
        id: webhook.id.uuid(),
        name: webhook.name,
        url: webhook.url.as_str().to_owned(),
        event_types: webhook
            .event_types
            .iter()
            .map(|kind| kind.as_str().to_owned())
            .collect(),
        enabled: webhook.enabled,
        disabled_reason: webhook.disabled_reason,
        cursor: webhook.cursor,
        failures: webhook.failures,
        failing_since: webhook.failing_since.map(Into::into),
        next_attempt_at: webhook.next_attempt_at.map(Into::into),
        last_error: webhook.last_error,
        version: webhook.version,
        created_at: webhook.created_at.into(),
        updated_at: webhook.updated_at.into(),
    }
}

/// An attempt to deliver an event.
pub fn webhook_delivery(delivery: core_webhooks::WebhookDelivery) -> webhooks::WebhookDelivery {
    webhooks::WebhookDelivery {
        id: delivery.id.uuid(),
        webhook_id: delivery.webhook_id.uuid(),
        event_id: delivery.event_id,
        event_type: delivery.event_type,
        attempt: delivery.attempt,
        is_replay: delivery.is_replay,
        delivered: delivery.delivered,
        status: delivery.status,
        error: delivery.error,
        duration_ms: delivery.duration_ms,
        at: delivery.at.into(),
    }
}
