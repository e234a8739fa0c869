//! Webhooks: endpoints of other programs, to which events are posted.

use std::fmt;

use url::{Host, Url};

use crate::{
    Invalid,
    clock::Timestamp,
    events::EventKind,
    ids::{OrganizationId, WebhookDeliveryId, WebhookId},
};

/// Where events are posted to: `https` or `http`, at most 2,048 characters, without user and
/// password.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(Url);

impl WebhookUrl {
    /// Reads an address. Whether it may be called is another question: see
    /// [`WebhookUrl::address`].
    pub fn parse(pointer: &str, text: &str) -> Result<Self, Invalid> {
        let invalid = |detail: &str| Invalid::new(pointer, "INVALID_URL", detail);
        if text.len() > 2_048 {
            return Err(invalid("must have at most 2,048 characters"));
        }
        let url = Url::parse(text.trim()).map_err(|error| {
            invalid(&format!("is not a URL such as https://host/path: {error}"))
        })?;
        if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
            return Err(invalid("must begin with https:// or http:// and a host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let detail = "must have no user and no password: check the signature instead";
            return Err(invalid(detail));
        }
        Ok(Self(url))
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The IP address, if the host is one and not a name.
    pub fn address(&self) -> Option<std::net::IpAddr> {
        match self.0.host()? {
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
            Host::Domain(_) => None,
        }
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Paths and queries of webhooks are often secrets.
        write!(f, "WebhookUrl({})", self.0.host_str().unwrap_or_default())
    }
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Whose events it gets.
    pub organization_id: OrganizationId,
    /// What people call it.
    pub name: String,
    /// Where it is.
    pub url: WebhookUrl,
    /// Which events it gets; all if empty.
    pub event_types: Vec<EventKind>,
    /// Whether events are posted.
    pub enabled: bool,
    /// Why the server stopped; none if it did not.
    pub disabled_reason: Option<String>,
    /// All events up to this cursor were delivered, or are not for this endpoint.
    pub cursor: String,
    /// How often the next event was tried in vain.
    pub failures: i32,
    /// Since when.
    pub failing_since: Option<Timestamp>,
    /// When it is tried again.
    pub next_attempt_at: Option<Timestamp>,
    /// What went wrong the last time.
    pub last_error: Option<String>,
    /// The count of its changes by people.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// One attempt to deliver one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookDelivery {
    /// Its id.
    pub id: WebhookDeliveryId,
    /// To which endpoint.
    pub webhook_id: WebhookId,
    /// Of which event: its id in the log.
    pub event_id: String,
    /// The event's type.
    pub event_type: String,
    /// Which attempt, from 1.
    pub attempt: i32,
    /// Whether a person asked for it.
    pub is_replay: bool,
    /// Whether the endpoint took it.
    pub delivered: bool,
    /// The HTTP status of the answer, if there was one.
    pub status: Option<i16>,
    /// What went wrong.
    pub error: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: i32,
    /// When it began.
    pub at: Timestamp,
}

/// Reads the types of events that an endpoint wants. What is for the server's nodes only is none.
pub fn parse_event_types(pointer: &str, names: &[String]) -> Result<Vec<EventKind>, Invalid> {
    let mut kinds = Vec::with_capacity(names.len());
    for (place, name) in names.iter().enumerate() {
        match EventKind::parse_public(name) {
            Some(kind) if !kinds.contains(&kind) => kinds.push(kind),
            Some(_) => {}
            None => {
                let pointer = format!("{pointer}/{place}");
                return Err(EventKind::unknown(&pointer));
            }
        }
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_called_is_refused() {
        for text in [
            "",
            "example.org/hook",
            "ftp://example.org",
            "https://",
            "https://user:password@example.org/",
            "https://user@example.org/",
            "file:///etc/passwd",
            "javascript:alert(1)",
        ] {
            assert!(WebhookUrl::parse("/url", text).is_err(), "{text}");
        }
        let long = format!("https://example.org/{}", "x".repeat(2_048));
        assert!(WebhookUrl::parse("/url", &long).is_err());
    }

    #[test]
    fn a_url_does_not_show_its_path_to_logs() {
        let url = WebhookUrl::parse("/url", "https://example.org/secret?key=1").unwrap();
        assert_eq!(format!("{url:?}"), "WebhookUrl(example.org)");
        assert_eq!(url.as_str(), "https://example.org/secret?key=1");
    }

    #[test]
    fn an_address_is_found_however_it_is_written() {
        for (text, address) in [
            ("http://127.0.0.1/", Some("127.0.0.1")),
            ("http://0x7f.1/", Some("127.0.0.1")),
            ("http://2130706433/", Some("127.0.0.1")),
            ("http://[::1]:80/", Some("::1")),
            ("http://localhost/", None),
        ] {
            let url = WebhookUrl::parse("/url", text).unwrap();
            assert_eq!(url.address(), address.map(|a| a.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn the_nodes_own_events_are_no_types() {
        let names = ["device_updated", "device_updated"].map(str::to_owned);
        let kinds = parse_event_types("/event_types", &names).unwrap();
        assert_eq!(kinds, [EventKind::DeviceUpdated]);
        let names = ["device_updated", "session_ended"].map(str::to_owned);
        let refused = parse_event_types("/event_types", &names).unwrap_err();
        assert_eq!(refused.pointer, "/event_types/1");
    }
}
