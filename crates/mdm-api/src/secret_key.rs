//! The installation's secret key: from a setting, or from a file in the data directory that the
//! first start makes.

use std::{
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use mdm_core::Entropy;
use mdm_service::sealing::SecretKey;
use secrecy::ExposeSecret;

use crate::config::Settings;

/// The key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretKeyError {
    /// Not 64 hexadecimal digits.
    #[error(
        "the secret key in {0} must be 64 hexadecimal digits, as `openssl rand -hex 32` prints them"
    )]
    Malformed(String),
    /// The file cannot be read or written.
    #[error("the secret key's file {path}: {error}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// Reads the key; makes the file in the data directory if there is neither setting nor file.
pub fn load(settings: &Settings, entropy: &dyn Entropy) -> Result<SecretKey, SecretKeyError> {
    if let Some(text) = &settings.secret_key {
        return parse(text.expose_secret(), "MDM_SECRET_KEY (secret_key)");
    }
    if let Some(path) = &settings.secret_key_file {
        return read(path);
    }
    let path = settings.data_dir.join("secret.key");
    if !path.exists() {
        make(&path, entropy).map_err(|error| SecretKeyError::File {
            path: path.clone(),
            error,
        })?;
    }
    read(&path)
}

fn read(path: &Path) -> Result<SecretKey, SecretKeyError> {
    let text = std::fs::read_to_string(path).map_err(|error| SecretKeyError::File {
        path: path.to_owned(),
        error,
    })?;
    parse(text.trim(), &path.display().to_string())
}

fn parse(text: &str, source: &str) -> Result<SecretKey, SecretKeyError> {
    let mut bytes = [0_u8; 32];
    hex::decode_to_slice(text.trim(), &mut bytes)
        .map_err(|_error| SecretKeyError::Malformed(source.to_owned()))?;
    Ok(SecretKey::new(&bytes))
}

/// Written beside and linked into place, so that a start that is cut off leaves no half of a key,
/// and of two starts at once one wins and both use its key.
fn make(path: &Path, entropy: &dyn Entropy) -> std::io::Result<()> {
    let mut bytes = [0_u8; 32];
    entropy.fill(&mut bytes);
    let beside = path.with_extension(format!("key.{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(hex::encode(bytes).as_bytes())?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&beside, path);
    std::fs::remove_file(&beside)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => std::fs::File::open(path.parent().unwrap_or(path))?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mdm_core::entropy::SeededEntropy;

    fn settings(dir: &Path) -> Settings {
        let flags = vec![(
            "data_dir",
            figment::value::Value::from(dir.display().to_string()),
        )];
        crate::config::load(None, std::iter::empty(), flags)
            .unwrap()
            .settings
    }

    #[test]
    fn the_file_is_made_once_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let entropy = SeededEntropy::new(1);
        let check = load(&settings(dir.path()), &entropy)
            .unwrap()
            .make_check(&entropy)
            .unwrap();
        assert!(
            load(&settings(dir.path()), &entropy)
                .unwrap()
                .matches(&check)
        );
        let mode = std::fs::metadata(dir.path().join("secret.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_malformed_key_is_refused_with_its_source() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret.key"), "nonsense").unwrap();
        let error = load(&settings(dir.path()), &SeededEntropy::new(1))
            .err()
            .unwrap();
        assert!(error.to_string().contains("secret.key"), "{error}");
    }
}
