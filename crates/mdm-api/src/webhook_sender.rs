//! Posting to webhooks' endpoints, and to nowhere else: an address that a user gives must not lead
//! into the network of the server.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mdm_core::webhooks::WebhookUrl;
use mdm_service::webhooks::{Posting, SignedMessage, WebhookTransport};
use reqwest::{
    Client,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{CONTENT_TYPE, USER_AGENT},
    redirect::Policy,
};
use tokio::sync::Semaphore;

/// How long an endpoint may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many events are posted at once, to all endpoints together.
const AT_ONCE: usize = 64;

/// Posts events to endpoints.
pub struct WebhookSender {
    client: Client,
    allow_private: bool,
    permits: Semaphore,
}

impl WebhookSender {
    /// With `allow_private`, endpoints in private networks and on this machine may be called.
    pub fn new(allow_private: bool) -> reqwest::Result<Self> {
        // Whoever came first chose it.
        let _chosen_already = rustls::crypto::ring::default_provider().install_default();
        let builder = Client::builder()
            .timeout(TIMEOUT)
            // A redirect could lead inside, and a proxy would hide where to.
            .redirect(Policy::none())
            .no_proxy()
            .pool_idle_timeout(Duration::from_secs(30))
            .dns_resolver(Arc::new(Resolver { allow_private }));
        Ok(Self {
            client: builder.build()?,
            allow_private,
            permits: Semaphore::new(AT_ONCE),
        })
    }

    async fn send(&self, message: SignedMessage<'_>) -> Result<u16, String> {
        if !self.may_call(message.url) {
            return Err(PRIVATE.to_owned());
        }
        let _permit = self.permits.acquire().await;
        let request = self
            .client
            .post(message.url.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, "Mobius-MDM")
            .header("webhook-id", message.id)
            .header("webhook-timestamp", message.timestamp)
            .header("webhook-signature", message.signature)
            .body(message.body);
        let answered = request.send().await;
        answered
            .map(|answer| answer.status().as_u16())
            .map_err(|error| describe(&error))
    }
}

impl WebhookTransport for WebhookSender {
    /// As far as the address tells it. Names are looked at when they are resolved, each time.
    fn may_call(&self, url: &WebhookUrl) -> bool {
        self.allow_private || url.address().is_none_or(is_public)
    }

    fn post<'a>(&'a self, message: SignedMessage<'a>) -> Posting<'a> {
        Box::pin(self.send(message))
    }
}

const PRIVATE: &str =
    "the address is in a private network or on this machine: webhook_allow_private lets it through";

/// The innermost reason: the outer ones repeat the address.
fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", TIMEOUT.as_secs());
    }
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}

/// Resolves names to those of their addresses that may be called.
struct Resolver {
    allow_private: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found
                .filter(|address| allow_private || is_public(address.ip()))
                .collect();
            if allowed.is_empty() {
                return Err(PRIVATE.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Whether the address is one of the Internet at large (IANA's special-purpose registries).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded_v4(address) {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        // This network, shared (RFC 6598), protocol assignments, benchmarks, reserved.
        [0 | 240..=255, ..] | [192, 0, 0, _] | [198, 18 | 19, ..] => true,
        [100, second, ..] => (64..128).contains(&second),
        _ => false,
    };
    !(special
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Global unicast is 2000::/3, without documentation and the assignments of protocols.
    matches!(address.segments(), [0x2000..=0x3fff, second, ..]
        if !matches!((address.segments(), second), ([0x2001, ..], 0xdb8 | 0..=0x1ff) | ([0x3fff, ..], 0..=0xfff)))
}

/// The IPv4 address that an IPv6 one leads to: mapped (RFC 4291), translated (RFC 6052), or by
/// 6to4 (RFC 3056).
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(join(high, low))
        }
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for address in [
            "127.0.0.1",
            "127.1.2.3",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "::127.0.0.1",
            "100::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860:4860::8888",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
