//! Passwords: Argon2id (RFC 9106), at most two at a time, away from the runtime's threads.

use std::{sync::Arc, time::Duration};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use mdm_core::{Entropy, Invalid};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

/// A hash takes 19 MiB and some tens of milliseconds of one core: this many at once bound both.
const AT_ONCE: usize = 2;
/// Who has waited this long is sent away: a flood of logins must not pile up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Hashes and checks passwords.
#[derive(Clone)]
pub struct Passwords {
    entropy: Arc<dyn Entropy>,
    permits: Arc<Semaphore>,
}

/// A password could not be hashed or checked for a reason of our own.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The hash function refused.
    #[error("password hash: {0}")]
    Hash(argon2::password_hash::Error),
    /// More passwords wait than can be checked.
    #[error("too many passwords wait to be checked")]
    Busy,
    /// The work was cut off by the shutdown.
    #[error("the server is shutting down")]
    Stopped,
}

/// Takes a new password: 12 to 256 characters.
pub fn parse_new_password(pointer: &str, text: &str) -> Result<SecretString, Invalid> {
    let length = text.chars().count();
    if (12..=256).contains(&length) {
        Ok(text.to_owned().into())
    } else {
        Err(Invalid::new(
            pointer,
            "PASSWORD_LENGTH",
            "must have 12 to 256 characters",
        ))
    }
}

impl Passwords {
    /// Salts come from `entropy`.
    pub fn new(entropy: Arc<dyn Entropy>) -> Self {
        Self {
            entropy,
            permits: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Hashes a password into the PHC string format, parameters and salt included.
    pub async fn hash(&self, password: SecretString) -> Result<String, PasswordError> {
        let mut salt = [0_u8; 16];
        self.entropy.fill(&mut salt);
        self.work(move || {
            let hash: PasswordHash = Argon2::default()
                .hash_password_with_salt(password.expose_secret().as_bytes(), &salt)
                .map_err(PasswordError::Hash)?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether the password is the one that was hashed. With no hash (an unknown user) the work is
    /// done all the same and the answer is no, so that the time tells nothing.
    pub async fn verify(
        &self,
        password: SecretString,
        hash: Option<String>,
    ) -> Result<bool, PasswordError> {
        self.work(move || {
            let Some(hash) = hash else {
                let _same_work: PasswordHash = Argon2::default()
                    .hash_password_with_salt(password.expose_secret().as_bytes(), &[0_u8; 16])
                    .map_err(PasswordError::Hash)?;
                return Ok(false);
            };
            let parsed =
                PasswordHash::new(&hash).map_err(|error| PasswordError::Hash(error.into()))?;
            Ok(Argon2::default()
                .verify_password(password.expose_secret().as_bytes(), &parsed)
                .is_ok())
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let permit = tokio::time::timeout(PATIENCE, self.permits.acquire()).await;
        let _permit = permit
            .map_err(|_elapsed| PasswordError::Busy)?
            .map_err(|_closed| PasswordError::Stopped)?;
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_cut_off| PasswordError::Stopped)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mdm_core::OsEntropy;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_and_an_unknown_user_never_passes() {
        let passwords = Passwords::new(Arc::new(OsEntropy));
        let hash = passwords
            .hash("correct horse battery".to_owned().into())
            .await
            .unwrap();
        assert!(hash.starts_with("$argon2id$"));
        assert!(
            passwords
                .verify(
                    "correct horse battery".to_owned().into(),
                    Some(hash.clone())
                )
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .verify("wrong horse battery".to_owned().into(), Some(hash))
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .verify("correct horse battery".to_owned().into(), None)
                .await
                .unwrap()
        );
    }
}
