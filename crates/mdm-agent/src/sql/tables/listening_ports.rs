//! Sockets that wait for connections or datagrams.

use std::{collections::HashMap, net::SocketAddr};

use procfs::{
    net::TcpState,
    process::{FDTarget, all_processes},
};

use super::{Row, Value, integer, text};
use crate::sql::Table;

pub(super) const TABLE: Table = Table {
    name: c"listening_ports",
    columns: &[
        ("pid", "INTEGER"),
        ("port", "INTEGER"),
        ("protocol", "INTEGER"),
        ("family", "INTEGER"),
        ("address", "TEXT"),
        ("fd", "BIGINT"),
        ("socket", "BIGINT"),
        ("path", "TEXT"),
        ("net_namespace", "TEXT"),
    ],
    rows: || {
        let owners = owners();
        let tcp = [procfs::net::tcp(), procfs::net::tcp6()]
            .into_iter()
            .flatten()
            .flatten();
        let tcp = tcp
            .filter(|entry| entry.state == TcpState::Listen)
            .map(|entry| row(&owners, 6, entry.local_address, entry.inode));
        let udp = [procfs::net::udp(), procfs::net::udp6()]
            .into_iter()
            .flatten()
            .flatten();
        let udp = udp
            .filter(|entry| entry.remote_address.port() == 0)
            .map(|entry| row(&owners, 17, entry.local_address, entry.inode));
        tcp.chain(udp).collect()
    },
};

/// Which process holds which socket, and under which descriptor. Other users' are seen by root only.
fn owners() -> HashMap<u64, (i32, i32)> {
    let mut owners = HashMap::new();
    for process in all_processes().into_iter().flatten().flatten() {
        for descriptor in process.fd().into_iter().flatten().flatten() {
            if let FDTarget::Socket(inode) = descriptor.target {
                owners
                    .entry(inode)
                    .or_insert((process.pid(), descriptor.fd));
            }
        }
    }
    owners
}

fn row(owners: &HashMap<u64, (i32, i32)>, protocol: i64, address: SocketAddr, inode: u64) -> Row {
    let owner = owners.get(&inode);
    vec![
        owner.map_or(Value::Integer(-1), |(pid, _)| integer(*pid)),
        integer(address.port()),
        integer(protocol),
        // AF_INET and AF_INET6.
        integer(if address.is_ipv4() { 2 } else { 10 }),
        text(address.ip().to_string()),
        owner.map_or(Value::Integer(-1), |(_, fd)| integer(*fd)),
        integer(inode),
        text(""),
        Value::Null,
    ]
}
