//! Sealing of what must be stored and read again, such as private keys: ChaCha20-Poly1305
//! (RFC 8439) with the installation's secret key, which never enters the database.

use chacha20poly1305::{
    ChaCha20Poly1305, Key, Nonce,
    aead::{Aead, KeyInit},
};
use mdm_core::Entropy;

/// The installation's secret key: 32 bytes from a file in the data directory or from
/// `MDM_SECRET_KEY`.
pub struct SecretKey(ChaCha20Poly1305);

/// The sealed value cannot be opened with this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value was sealed with another secret key, or is damaged")]
pub struct CannotOpen;

const NONCE_BYTES: usize = 12;
const KEY_CHECK: &[u8] = b"mobius-mdm key check";

impl SecretKey {
    /// Takes the key's bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(ChaCha20Poly1305::new(&Key::from(*bytes)))
    }

    /// Seals a value; the nonce goes in front.
    pub fn seal(&self, entropy: &dyn Entropy, plain: &[u8]) -> Result<Vec<u8>, CannotOpen> {
        let mut nonce = [0_u8; NONCE_BYTES];
        entropy.fill(&mut nonce);
        let sealed = self
            .0
            .encrypt(&Nonce::from(nonce), plain)
            .map_err(|_opaque| CannotOpen)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens a sealed value.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, CannotOpen> {
        let (nonce, body) = sealed
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(CannotOpen)?;
        self.0
            .decrypt(&Nonce::from(*nonce), body)
            .map_err(|_opaque| CannotOpen)
    }

    /// A value that only this key can have made, to be kept in the database.
    pub fn make_check(&self, entropy: &dyn Entropy) -> Result<Vec<u8>, CannotOpen> {
        self.seal(entropy, KEY_CHECK)
    }

    /// Whether `check` was made with this key.
    pub fn matches(&self, check: &[u8]) -> bool {
        self.open(check).is_ok_and(|plain| plain == KEY_CHECK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mdm_core::entropy::SeededEntropy;

    #[test]
    fn a_sealed_value_opens_with_its_own_key_only_and_not_when_changed() {
        let entropy = SeededEntropy::new(3);
        let key = SecretKey::new(&[1; 32]);
        let mut sealed = key.seal(&entropy, b"private").unwrap();
        assert_eq!(key.open(&sealed).unwrap(), b"private");
        assert_eq!(SecretKey::new(&[2; 32]).open(&sealed), Err(CannotOpen));
        *sealed.last_mut().unwrap() ^= 1;
        assert_eq!(key.open(&sealed), Err(CannotOpen));
        assert_eq!(key.open(b"short"), Err(CannotOpen));
    }

    #[test]
    fn the_check_tells_the_right_key_from_a_wrong_one() {
        let check = SecretKey::new(&[1; 32])
            .make_check(&SeededEntropy::new(3))
            .unwrap();
        assert!(SecretKey::new(&[1; 32]).matches(&check));
        assert!(!SecretKey::new(&[2; 32]).matches(&check));
    }
}
