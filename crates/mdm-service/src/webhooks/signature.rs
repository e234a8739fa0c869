//! Signatures of what is posted, as "Standard Webhooks" 1.0.0 has them: receivers check them with
//! its libraries, or with a few lines.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use mdm_core::Entropy;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;

const PREFIX: &str = "whsec_";
const BYTES: usize = 32;

/// An endpoint's secret.
pub struct WebhookSecret(SecretSlice<u8>);

impl WebhookSecret {
    /// A new random secret.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = vec![0_u8; BYTES];
        entropy.fill(&mut bytes);
        Self(bytes.into())
    }

    /// As it was stored.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    /// For storing it, sealed.
    pub fn bytes(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// As the receiver is given it: `whsec_` and Base64.
    pub fn text(&self) -> SecretString {
        format!("{PREFIX}{}", STANDARD.encode(self.bytes())).into()
    }

    /// The value of `webhook-signature`: of the message's id, its time in seconds, and its body.
    pub fn sign(&self, id: &str, timestamp: i64, body: &str) -> Option<String> {
        // Any length of key will do for HMAC (RFC 2104, section 3).
        let mut mac = Hmac::<Sha256>::new_from_slice(self.bytes()).ok()?;
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body.as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        Some(format!("v1,{signature}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_standards_example() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let secret = WebhookSecret::from_bytes(key);
        assert_eq!(
            secret.text().expose_secret(),
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        );
        let signature = secret.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(
            signature.unwrap(),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }
}
