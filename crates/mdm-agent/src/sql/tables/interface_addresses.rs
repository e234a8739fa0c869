//! Addresses of network interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sysinfo::Networks;

use super::{Value, text};
use crate::sql::Table;

pub(super) const TABLE: Table = Table {
    name: c"interface_addresses",
    columns: &[
        ("interface", "TEXT"),
        ("address", "TEXT"),
        ("mask", "TEXT"),
        ("broadcast", "TEXT"),
        ("point_to_point", "TEXT"),
        ("type", "TEXT"),
    ],
    rows: || {
        let Ok(networks) = Networks::new_with_refreshed_list() else {
            return Vec::new();
        };
        let rows = networks.iter().flat_map(|(name, network)| {
            network.ip_networks().iter().map(move |ip| {
                vec![
                    text(name.to_string_lossy()),
                    text(ip.addr.to_string()),
                    text(mask(ip.addr, ip.prefix)),
                    broadcast(ip.addr, ip.prefix),
                    Value::Null,
                    text("unknown"),
                ]
            })
        });
        rows.collect()
    },
};

fn mask(address: IpAddr, prefix: u8) -> String {
    match address {
        IpAddr::V4(_) => Ipv4Addr::from_bits(
            u32::MAX
                .checked_shl(32 - u32::from(prefix.min(32)))
                .unwrap_or(0),
        )
        .to_string(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(
            u128::MAX
                .checked_shl(128 - u32::from(prefix.min(128)))
                .unwrap_or(0),
        )
        .to_string(),
    }
}

fn broadcast(address: IpAddr, prefix: u8) -> Value {
    match address {
        IpAddr::V4(v4) if prefix < 31 && !v4.is_loopback() => {
            text(Ipv4Addr::from_bits(v4.to_bits() | (u32::MAX >> prefix)).to_string())
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_follow_the_prefix() {
        assert_eq!(mask(Ipv4Addr::LOCALHOST.into(), 8), "255.0.0.0");
        assert_eq!(mask(Ipv4Addr::LOCALHOST.into(), 0), "0.0.0.0");
        assert_eq!(
            mask(Ipv6Addr::LOCALHOST.into(), 64),
            "ffff:ffff:ffff:ffff::"
        );
        assert_eq!(
            broadcast(Ipv4Addr::new(10, 1, 2, 3).into(), 16),
            text("10.1.255.255")
        );
    }
}
