//! A hub that the server is compared with, as a process of its own: the floor, or a peer.

use std::{
    ffi::OsStr,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use url::Url;

use crate::{
    http::{Connection, request},
    stamp,
    subscribers::Stream,
};

/// How long a hub has to begin to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// The process. It is killed when this is dropped.
pub struct Hub {
    child: Child,
    address: SocketAddrV4,
}

impl Hub {
    /// Starts `program` with `arguments` and, as the last, a free port, and waits until it listens.
    pub fn start(program: &OsStr, arguments: &[&str]) -> anyhow::Result<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = free.local_addr()?.port();
        drop(free);
        let child = Command::new(program)
            .args(arguments)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let mut hub = Self { child, address };
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            let ended = hub.child.try_wait()?;
            ensure!(
                ended.is_none() && Instant::now() < until,
                "{} does not listen on port {port}",
                program.display()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(hub)
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its subscribers connect to.
    pub fn stream(&self) -> Stream {
        stream(self.address)
    }

    /// What makes it send. To be called when all subscribers are there.
    pub async fn publisher(&self) -> anyhow::Result<HubPublisher> {
        HubPublisher::open(self.address).await
    }
}

fn stream(address: SocketAddrV4) -> Stream {
    Stream {
        address,
        path: "/".to_owned(),
        api_key: "none".to_owned(),
        welcomes: false,
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A connection over which a hub takes events.
pub struct HubPublisher {
    connection: Connection,
    url: Url,
    published: u64,
}

impl HubPublisher {
    async fn open(address: SocketAddrV4) -> anyhow::Result<Self> {
        let url = format!("http://{address}").parse()?;
        Ok(Self {
            connection: Connection::open(&url).await?,
            url,
            published: 0,
        })
    }

    /// Hands over the events in one request; says when that began.
    pub async fn publish(&mut self, data: &[String]) -> anyhow::Result<Instant> {
        let first = self.published + 1;
        let events: Vec<_> = (first..)
            .zip(data)
            .map(|(number, data)| stamp::event(number, data))
            .collect();
        self.published += u64::try_from(data.len())?;
        let request = request(&self.url, "POST", "/events", &[], &events.join("\n"));
        let begun = Instant::now();
        let (status, _nothing) = self.connection.call(&request).await?;
        ensure!(status == 204, "the hub answers {status}");
        Ok(begun)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use uuid::Uuid;

    use super::*;
    use crate::{
        raw_send,
        subscribers::{PATIENCE, Subscribers},
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn the_floor_sends_each_event_to_each_subscriber_and_the_load_counts_them() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            panic!("an address of version 4")
        };
        std::thread::spawn(move || raw_send::accept(&listener));
        let base = Instant::now();
        let mut load = Subscribers::new(base, true).unwrap();
        load.noting = true;
        let group = load.group(&stream(address));
        load.join(group, &stream(address), 300).unwrap();
        let mut publisher = HubPublisher::open(address).await.unwrap();
        for _ in 0..2 {
            let data: Vec<_> = (0..50)
                .map(|stamp| stamp::data(Uuid::nil(), stamp))
                .collect();
            publisher.publish(&data).await.unwrap();
            load.drive(PATIENCE, |load| load.deliveries(group) == 300 * 50)
                .unwrap();
            assert_eq!(load.equal(group).unwrap(), 50);
            let tally = load.take(group);
            let event = stamp::event(1, &stamp::data(Uuid::nil(), 1));
            assert_eq!(tally.bytes, 300 * 50 * u64::try_from(event.len()).unwrap());
            let mut stamps = [0; 50];
            for (stamp, _at) in tally.arrivals {
                stamps[usize::try_from(stamp).unwrap()] += 1;
            }
            assert_eq!(stamps, [300; 50]);
        }
    }
}
