//! Opaque tokens: 256 random bits with a prefix that tells what they are, kept only as hashes.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::entropy::Entropy;

/// What a token is for. The prefix lets people and secret scanners recognise a leaked one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A device's bearer token.
    Device,
    /// Enrols devices.
    EnrollmentSecret,
    /// Exchanged once for a new pair of tokens.
    Refresh,
    /// A program's key.
    ApiKey,
    /// Opens one connection to the event stream.
    SocketTicket,
}

impl TokenKind {
    /// The text that every token of this kind begins with.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Device => "mdmd_",
            Self::EnrollmentSecret => "mdme_",
            Self::Refresh => "mdmr_",
            Self::ApiKey => "mdmk_",
            Self::SocketTicket => "mdmt_",
        }
    }
}

/// A token in clear. Shown once, to whom it belongs; has no `Debug` that shows it.
#[derive(Debug, Clone)]
pub struct Token(SecretString);

/// SHA-256 of a token: what is stored and looked up. A fast hash is enough for 256 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl Token {
    /// A new random token.
    pub fn generate(kind: TokenKind, entropy: &dyn Entropy) -> Self {
        let mut bytes = [0_u8; 32];
        entropy.fill(&mut bytes);
        Self(format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(bytes)).into())
    }

    /// Takes a token that a caller presented; `None` if it cannot be one of this kind.
    pub fn parse(kind: TokenKind, text: &str) -> Option<Self> {
        let plausible = text.starts_with(kind.prefix()) && text.len() <= 128;
        plausible.then(|| Self(text.to_owned().into()))
    }

    /// The token in clear, for the one answer that shows it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What is stored of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.expose().as_bytes()).into())
    }
}

impl TokenHash {
    /// Takes a stored hash; `None` if it has not 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The hash's bytes, as the database holds them.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn a_token_is_known_by_its_hash_and_does_not_print_itself() {
        let token = Token::generate(TokenKind::Device, &SeededEntropy::new(1));
        let presented = Token::parse(TokenKind::Device, token.expose()).unwrap();
        assert_eq!(token.hash(), presented.hash());
        assert!(!format!("{token:?}").contains(token.expose()));
    }

    #[test]
    fn a_token_of_another_kind_is_refused() {
        let token = Token::generate(TokenKind::Refresh, &SeededEntropy::new(1));
        assert!(Token::parse(TokenKind::Device, token.expose()).is_none());
    }
}
