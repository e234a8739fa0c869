//! Many subscribers of an event stream, on one thread that waits for all of them at once: what the
//! load costs must not depend on how many there are.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
    net::{
        AddressFamily, SocketFlags, SocketType, bind, connect, recv, send, socket_with, sockopt,
    },
};

use crate::{
    sequence::{EVENT, Sequence},
    wire,
};

/// How many subscribers come from one address: ports run out.
const PER_ADDRESS: usize = 5_000;
/// What one read takes at most.
const SCRATCH: usize = 256 * 1024;
/// How many sockets are looked at at a time.
const READY: usize = 512;

/// Where events come from, and with which request.
#[derive(Debug, Clone)]
pub struct Target {
    /// The server.
    pub address: SocketAddr,
    /// The path with its query.
    pub path: String,
    /// Who asks.
    pub token: String,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum State {
    Connecting,
    Upgrading,
    Open,
    Welcomed,
}

struct Subscriber {
    socket: OwnedFd,
    state: State,
    /// The beginning of a frame whose rest has not come.
    rest: Vec<u8>,
    events: u64,
    sequence: Sequence,
    begun: Instant,
    welcomed_after: Duration,
}

/// The subscribers.
pub struct Subscribers {
    epoll: OwnedFd,
    all: Vec<Subscriber>,
    scratch: Vec<u8>,
    request: Vec<u8>,
    welcomed: usize,
    /// How often something was read.
    pub reads: u64,
    /// How many events came, to all together.
    pub events: u64,
}

impl Subscribers {
    /// Begins to connect so many, all at once.
    pub fn connect(target: &Target, count: usize) -> anyhow::Result<Self> {
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            target.path, target.address, target.token
        );
        let mut subscribers = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            all: Vec::with_capacity(count),
            scratch: Vec::with_capacity(SCRATCH),
            request: request.into_bytes(),
            welcomed: 0,
            reads: 0,
            events: 0,
        };
        for number in 0..count {
            subscribers.begin(target, number)?;
        }
        Ok(subscribers)
    }

    fn begin(&mut self, target: &Target, number: usize) -> anyhow::Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        let host = u8::try_from(1 + number / PER_ADDRESS)?;
        let source = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), 0);
        bind(&socket, &source)?;
        match connect(&socket, &target.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error).context("connect"),
        }
        let data = epoll::EventData::new_u64(u64::try_from(number)?);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &socket, data, flags)?;
        self.all.push(Subscriber {
            socket,
            state: State::Connecting,
            rest: Vec::new(),
            events: 0,
            sequence: Sequence::default(),
            begun: Instant::now(),
            welcomed_after: Duration::ZERO,
        });
        Ok(())
    }

    /// Waits until all are welcomed.
    pub fn settle(&mut self, patience: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + patience;
        while self.welcomed < self.all.len() {
            self.turn(until, &mut |_, _| {})?;
        }
        Ok(())
    }

    /// Waits until each has got so many events since it connected. `arrived` is told of each event,
    /// by its text, and when it came.
    pub fn until(
        &mut self,
        events: u64,
        patience: Duration,
        arrived: &mut impl FnMut(&[u8], Instant),
    ) -> anyhow::Result<()> {
        let until = Instant::now() + patience;
        let wanted = events * u64::try_from(self.all.len())?;
        while self.events < wanted {
            self.turn(until, arrived)?;
        }
        ensure!(
            self.all
                .iter()
                .all(|subscriber| subscriber.events == events),
            "some got more events than others"
        );
        Ok(())
    }

    /// How long each took from the beginning of its connection to the welcome.
    pub fn welcomed_after(&self) -> Vec<Duration> {
        let all = self.all.iter();
        all.map(|subscriber| subscriber.welcomed_after).collect()
    }

    /// Waits until something comes, and takes it.
    fn turn(
        &mut self,
        until: Instant,
        arrived: &mut impl FnMut(&[u8], Instant),
    ) -> anyhow::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        ensure!(
            !left.is_zero(),
            "{} of {} subscribers were welcomed, {} events came",
            self.welcomed,
            self.all.len(),
            self.events
        );
        let mut ready = Vec::with_capacity(READY);
        let left = Timespec::try_from(left)?;
        match epoll::wait(&self.epoll, spare_capacity(&mut ready), Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in ready {
            let number = usize::try_from(event.data.u64())?;
            self.serve(number, arrived)?;
        }
        Ok(())
    }

    fn serve(
        &mut self,
        number: usize,
        arrived: &mut impl FnMut(&[u8], Instant),
    ) -> anyhow::Result<()> {
        let Some(subscriber) = self.all.get_mut(number) else {
            bail!("no such subscriber");
        };
        if subscriber.state == State::Connecting {
            match send(
                &subscriber.socket,
                &self.request,
                rustix::net::SendFlags::empty(),
            ) {
                Ok(sent) => ensure!(sent == self.request.len(), "a request was cut"),
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error).context("the connection was refused"),
            }
            subscriber.state = State::Upgrading;
        }
        loop {
            self.scratch.clear();
            self.scratch.append(&mut subscriber.rest);
            let flags = rustix::net::RecvFlags::empty();
            match recv(
                subscriber.socket.as_fd(),
                spare_capacity(&mut self.scratch),
                flags,
            ) {
                Ok((_, 0)) => bail!("a connection was closed by the server"),
                Ok(_) => self.reads += 1,
                Err(Errno::AGAIN) => {
                    subscriber.rest.extend_from_slice(&self.scratch);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            let before = (subscriber.state, subscriber.events);
            let taken = subscriber.take(&self.scratch, arrived)?;
            self.welcomed +=
                usize::from(before.0 != State::Welcomed && subscriber.state == State::Welcomed);
            self.events += subscriber.events - before.1;
            let rest = self.scratch.get(taken..).unwrap_or_default();
            subscriber.rest.extend_from_slice(rest);
        }
    }
}

impl Subscriber {
    /// Takes what is whole of what came; tells how much that was.
    fn take(
        &mut self,
        bytes: &[u8],
        arrived: &mut impl FnMut(&[u8], Instant),
    ) -> anyhow::Result<usize> {
        let now = Instant::now();
        let mut taken = 0;
        if self.state == State::Upgrading {
            let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
            let Some(end) = end else { return Ok(0) };
            let head = bytes.get(..end).unwrap_or_default();
            ensure!(
                head.starts_with(b"HTTP/1.1 101"),
                "refused: {}",
                String::from_utf8_lossy(bytes)
            );
            taken = end + 4;
            self.state = State::Open;
        }
        while let Some((frame, length)) = wire::first(bytes.get(taken..).unwrap_or_default())? {
            taken += length;
            match frame.opcode {
                wire::TEXT if frame.payload.starts_with(EVENT) => {
                    self.events += 1;
                    self.sequence.take(frame.payload)?;
                    arrived(frame.payload, now);
                }
                wire::TEXT if self.state == State::Open => {
                    self.state = State::Welcomed;
                    self.welcomed_after = now.duration_since(self.begun);
                }
                wire::TEXT => {}
                wire::PING => {
                    let pong = wire::pong(frame.payload)?;
                    send(&self.socket, &pong, rustix::net::SendFlags::empty())?;
                }
                wire::CLOSE => bail!("a connection was closed: {:?}", frame.payload),
                other => bail!("an unexpected frame: {other}"),
            }
        }
        Ok(taken)
    }
}
