//! Users: people who sign in.

use std::fmt;

use crate::{
    clock::Timestamp,
    ids::{OrganizationId, UserId},
    invalid::Invalid,
    roles::Role,
};

/// An e-mail address, in lower case: the name a user signs in with.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

impl Email {
    /// Takes an address of at most 254 characters (RFC 5321, section 4.5.3.1) with one `@` that
    /// has something on both sides. Whether mail arrives there only mail can tell.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let address = text.trim().to_lowercase();
        let shaped = address.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty() && !domain.is_empty() && !domain.contains('@')
        });
        let clean = !address.chars().any(|c| c.is_whitespace() || c.is_control());
        if shaped && clean && address.len() <= 254 {
            Ok(Self(address))
        } else {
            Err(Invalid::new(
                "/email",
                "INVALID_EMAIL",
                "must be an e-mail address such as name@example.org",
            ))
        }
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

/// A person who may sign in.
#[derive(Debug, Clone)]
pub struct User {
    /// The user's id.
    pub id: UserId,
    /// The organisation that the user belongs to.
    pub organization_id: OrganizationId,
    /// What the user signs in with.
    pub email: Email,
    /// How the user is called.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// Whether the user needs a second factor to sign in.
    pub totp_enabled: bool,
    /// When the account was closed, if it was.
    pub disabled_at: Option<Timestamp>,
    /// When the account was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Counts the changes of the row: its `ETag`.
    pub version: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_in_lower_case() {
        assert_eq!(
            Email::parse(" Admin@Mobius.Local ").unwrap().as_str(),
            "admin@mobius.local"
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "admin",
            "@x",
            "a@",
            "a@b@c",
            "a b@c",
            &format!("{}@x", "a".repeat(260)),
        ] {
            assert!(Email::parse(text).is_err(), "{text}");
        }
    }
}
