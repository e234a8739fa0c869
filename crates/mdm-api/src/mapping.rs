//! From the domain to the wire. The only place that knows both.

use mdm_core::{
    commands as core_commands, devices as core_devices, enrollment as core_enrollment,
    users as core_users,
};
use mdm_proto::{auth, commands, device_side, devices, enrollment};
use mdm_service::{
    auth::SignedIn,
    devices::{COUNT_AT_MOST, Enrolled, Listed},
};

/// A user.
pub fn user(user: core_users::User) -> auth::User {
    auth::User {
        id: user.id.uuid(),
        email: user.email.as_str().to_owned(),
        name: user.name,
        role: user.role.to_string(),
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
        hardware_info: device.hardware_info,
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

/// A page of devices.
pub fn device_list(
    listed: Listed<core_devices::Device>,
    limit: i64,
    offset: i64,
) -> devices::DeviceList {
    let next_cursor = listed
        .items
        .last()
        .filter(|_| listed.has_more)
        .map(|device| device.id.to_string());
    devices::DeviceList {
        devices: listed.items.into_iter().map(device).collect(),
        total: listed.total.min(COUNT_AT_MOST),
        total_is_estimate: listed.total > COUNT_AT_MOST,
        limit,
        offset,
        next_cursor,
    }
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

/// A page of commands.
pub fn command_list(
    listed: Listed<core_commands::Command>,
    limit: i64,
    offset: i64,
) -> commands::CommandList {
    let next_cursor = listed
        .items
        .last()
        .filter(|_| listed.has_more)
        .map(|command| command.id.to_string());
    commands::CommandList {
        commands: listed
            .items
            .into_iter()
            .map(|item| command(item, None))
            .collect(),
        total: listed.total.min(COUNT_AT_MOST),
        total_is_estimate: listed.total > COUNT_AT_MOST,
        limit,
        offset,
        next_cursor,
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
        expires_at: secret.expires_at.map(Into::into),
        max_uses: secret.max_uses.map(Into::into),
        uses: secret.uses.into(),
        revoked_at: secret.revoked_at.map(Into::into),
        created_by: secret.created_by.map(mdm_core::ids::UserId::uuid),
        created_at: secret.created_at.into(),
    }
}
