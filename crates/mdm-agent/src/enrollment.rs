//! Joining and leaving an organisation.

use std::collections::BTreeMap;

use mdm_client::{Client, ClientError};
use mdm_proto::devices::EnrollRequest;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::{AgentError, Config, Identity, StateDir, clock, platform, state::write_whole};

/// What an enrolment needs.
pub struct EnrollOptions {
    /// The server's address.
    pub server: Url,
    /// The enrolment secret.
    pub secret: SecretString,
    /// The hardware's identifier; the machine's own if absent.
    pub uuid: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether to take over from a device that is enrolled with the same identifier.
    pub re_enroll: bool,
}

/// Enrols this machine and keeps its identity.
pub async fn enroll(config: &Config, options: EnrollOptions) -> Result<Identity, AgentError> {
    let state = StateDir::open(&config.state_dir)?;
    let _lock = state.lock()?;
    let former = state.identity()?;
    if let Some(identity) = &former
        && !options.re_enroll
    {
        return Err(AgentError::Enrolled(identity.server.to_string()));
    }
    let uuid = match options.uuid {
        Some(uuid) => uuid,
        None => own_uuid(&state)?,
    };
    let info = tokio::task::spawn_blocking(|| platform::system_info(clock::now()))
        .await
        .map_err(|_cut_off| AgentError::CutOff)?;
    let request = EnrollRequest {
        uuid: uuid.clone(),
        hostname: info.hostname.clone(),
        platform: std::env::consts::OS.to_owned(),
        os_version: Some(info.os_version.clone()).filter(|version| !version.is_empty()),
        serial_number: info.hardware.serial.clone(),
        enrollment_secret: Some(options.secret.expose_secret().to_owned()),
        hardware_info: serde_json::to_value(&info).ok(),
        labels: Some(options.labels),
    };
    let client = Client::new(options.server.clone(), None)?;
    let enrolled = client
        .enroll_self(&request, options.re_enroll)
        .await
        .map_err(|error| match error.code() {
            Some("DEVICE_ALREADY_ENROLLED") => AgentError::UuidTaken(uuid.clone()),
            _ => AgentError::Server(error),
        })?;
    // The same device goes on with its journal, which knows what was run already; what another
    // identity was told is nothing to this one.
    if former.is_none_or(|former| former.device_id != enrolled.device.id) {
        state.forget_journal()?;
    }
    let identity = Identity::new(
        options.server,
        enrolled.device.id,
        uuid,
        enrolled.device_token,
    );
    state.save_identity(&identity)?;
    Ok(identity)
}

/// Leaves the organisation and forgets the identity. A server that does not know the device any
/// more is no obstacle.
pub async fn unenroll(config: &Config) -> Result<Identity, AgentError> {
    let state = StateDir::open(&config.state_dir)?;
    let _lock = state.lock()?;
    let identity = state.identity()?.ok_or(AgentError::NotEnrolled)?;
    let client = Client::new(identity.server.clone(), Some(identity.token()))?;
    match client.unenroll_self().await {
        Err(error) if error.status() != Some(401) => return Err(ClientError::into(error)),
        _ => state.forget()?,
    }
    Ok(identity)
}

/// The machine's own identifier, or one that is made once and kept.
fn own_uuid(state: &StateDir) -> Result<String, AgentError> {
    if let Some(uuid) = platform::hardware_uuid() {
        return Ok(uuid);
    }
    let path = state.file("uuid");
    if let Ok(kept) = std::fs::read_to_string(&path) {
        return Ok(kept.trim().to_owned());
    }
    let made = uuid::Uuid::from_u128(rand::random_range(1..=u128::MAX)).to_string();
    write_whole(&path, made.as_bytes()).map_err(|error| AgentError::State { path, error })?;
    Ok(made)
}
