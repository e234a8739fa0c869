//! `mdm-api license`: for whoever sells or meters.

use std::path::Path;

use anyhow::Context as _;
use mdm_core::{
    Clock, OsEntropy, SystemClock,
    ids::{OrganizationId, new_uuid},
    licenses::Tier,
};
use mdm_service::licenses::{self, LicensePrivateKey, LicensePublicKey};
use serde_json::json;

use crate::cli::LicenseCommand;

/// The variable that may hold the private key.
const VARIABLE: &str = "MDM_LICENSE_PRIVATE_KEY";

/// Does what is asked; gives what goes to stdout.
pub fn run(command: LicenseCommand, known_keys: &[String]) -> anyhow::Result<String> {
    match command {
        LicenseCommand::Keygen { json } => Ok(keygen(json)),
        LicenseCommand::Issue {
            private_key_file,
            organization,
            tier,
            devices,
            days,
            features,
        } => {
            let key = private_key(private_key_file.as_deref())?;
            let tier: Tier = tier.parse()?;
            let id = new_uuid(&SystemClock, &OsEntropy).to_string();
            let organization = OrganizationId::from_uuid(organization);
            let now = SystemClock.now();
            let ends = now + chrono::Duration::days(days.into());
            let limit = devices.map(i64::from);
            let terms = licenses::terms(id, organization, tier, limit, features, ends);
            let issued = licenses::issue(&key, &terms, now);
            issued.map_err(|error| anyhow::anyhow!("the license cannot be issued: {error}"))
        }
        LicenseCommand::Inspect { key, public_key } => {
            let keys = if public_key.is_empty() {
                known_keys
            } else {
                &public_key
            };
            inspect(&key, keys)
        }
    }
}

fn keygen(as_json: bool) -> String {
    let private = LicensePrivateKey::generate(&OsEntropy);
    let public = private.public().to_text();
    let private = private.to_text();
    if as_json {
        return json!({"private_key": private, "public_key": public}).to_string();
    }
    format!(
        "private key (keep it secret: whoever has it can issue licenses): {private}\npublic key (for license_public_keys): {public}"
    )
}

fn private_key(file: Option<&Path>) -> anyhow::Result<LicensePrivateKey> {
    let text = match file {
        Some(file) => std::fs::read_to_string(file)
            .with_context(|| format!("the private key {} cannot be read", file.display()))?,
        None => std::env::var(VARIABLE)
            .with_context(|| format!("give the private key by --private-key-file or {VARIABLE}"))?,
    };
    Ok(LicensePrivateKey::parse(&text)?)
}

fn inspect(key: &str, public_keys: &[String]) -> anyhow::Result<String> {
    anyhow::ensure!(
        !public_keys.is_empty(),
        "give the issuer's public key by --public-key, or set license_public_keys"
    );
    let keys: Result<Vec<_>, _> = public_keys
        .iter()
        .map(|text| LicensePublicKey::parse(text))
        .collect();
    let terms = licenses::inspect(&keys?, key)
        .context("none of the public keys signed this license key")?;
    let shown = json!({
        "id": terms.id,
        "organization_id": terms.organization_id,
        "tier": terms.tier,
        "device_limit": terms.device_limit,
        "features": terms.features,
        "expires_at": terms.expires_at,
        "grace_until": terms.grace_until,
        "state": terms.state(SystemClock.now()),
    });
    Ok(serde_json::to_string_pretty(&shown)?)
}
