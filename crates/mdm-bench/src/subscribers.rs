//! The subscribers: thousands of WebSocket clients on one thread, with one `epoll`, so that the
//! load takes as little as it can of what is measured. Each frame is counted.
//!
//! Nothing happens between calls: who measures something drives the load until it has what it waits
//! for.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    mem,
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    fd::OwnedFd,
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt},
};
use serde::Deserialize;

use crate::{
    sequence::{EVENT, Sequence},
    stamp, wire,
};

/// How long anything may take that is waited for, unless it takes long by itself.
pub const PATIENCE: Duration = Duration::from_mins(2);
/// Connections that are begun before what came meanwhile is read.
const AT_ONCE: usize = 128;

/// Where subscribers connect to.
#[derive(Debug, Clone)]
pub struct Stream {
    /// The server.
    pub address: SocketAddrV4,
    /// Path and query.
    pub path: String,
    /// A key that the server takes.
    pub api_key: String,
    /// Whether the server begins with a `welcome`.
    pub welcomes: bool,
}

impl Stream {
    fn request(&self) -> Vec<u8> {
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             X-API-Key: {}\r\n\r\n",
            self.path, self.address, self.api_key
        )
        .into_bytes()
    }
}

/// What came for a group of subscribers since it was last asked for.
#[derive(Debug, Default)]
pub struct Tally {
    /// Events.
    pub deliveries: u64,
    /// Bytes of the events' texts.
    pub bytes: u64,
    /// Reads that found something.
    pub reads: u64,
    /// When the last event came.
    pub last: Duration,
    /// The events' stamps and when they came, as stamps, if they are noted.
    pub arrivals: Vec<(u64, u64)>,
    /// How long it took from the call of `connect` to the welcome, or to the upgrade of a server
    /// without one.
    pub welcomes: Vec<Duration>,
    /// Those whose welcome said that all they missed follows.
    pub recovered: u64,
    /// Where the log was when the last one was welcomed.
    pub cursor: Option<String>,
}

#[derive(Deserialize)]
struct WelcomeFrame {
    data: Welcome,
}

#[derive(Deserialize)]
struct Welcome {
    cursor: String,
    recovered: bool,
}

struct Group {
    request: Vec<u8>,
    welcomes: bool,
    open: usize,
    tally: Tally,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Upgrading,
    Open,
}

struct Subscriber {
    socket: TcpStream,
    group: usize,
    phase: Phase,
    begun: Instant,
    /// The beginning of a frame whose end has not come.
    rest: Vec<u8>,
    deliveries: u64,
    sequence: Sequence,
}

/// All subscribers, of all groups.
pub struct Subscribers {
    epoll: OwnedFd,
    all: Vec<Subscriber>,
    groups: Vec<Group>,
    buffer: Vec<u8>,
    ready: Vec<epoll::Event>,
    base: Instant,
    check: bool,
    /// Whether the stamps of events are noted as they come.
    pub noting: bool,
}

impl Subscribers {
    /// None yet. With `check` each event's id must follow the one before. Times count from `base`.
    pub fn new(base: Instant, check: bool) -> anyhow::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            all: Vec::new(),
            groups: Vec::new(),
            buffer: vec![0; 2 * wire::LARGEST],
            ready: Vec::with_capacity(512),
            base,
            check,
            noting: false,
        })
    }

    /// A new group, which has nobody in it.
    pub fn group(&mut self, stream: &Stream) -> usize {
        self.groups.push(Group {
            request: stream.request(),
            welcomes: stream.welcomes,
            open: 0,
            tally: Tally::default(),
        });
        self.groups.len() - 1
    }

    /// Connects `count` more in the group, some at a time, and waits until all are welcomed.
    pub fn join(&mut self, group: usize, stream: &Stream, count: usize) -> anyhow::Result<()> {
        let mut left = count;
        while left > 0 {
            let some = left.min(AT_ONCE);
            self.storm(group, stream, some)?;
            left -= some;
            let open = self.count(group);
            self.drive(PATIENCE, |load| load.open(group) == open)?;
        }
        Ok(())
    }

    /// Begins `count` more connections in the group, all at once.
    pub fn storm(&mut self, group: usize, stream: &Stream, count: usize) -> anyhow::Result<()> {
        for number in 1..=count {
            self.begin(group, stream.address)?;
            if number % AT_ONCE == 0 {
                self.turn(Duration::ZERO)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, group: usize, to: SocketAddrV4) -> anyhow::Result<()> {
        let begun = Instant::now();
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        // An end without TIME_WAIT, which would keep ports from the next run.
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        // One source address has 28,000 ports, and servers limit what one address may have.
        let host = u8::try_from(self.all.len() % 200)?;
        bind(
            &socket,
            &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 1 + host), 0),
        )?;
        match connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error).context("cannot connect"),
        }
        let data = epoll::EventData::new_u64(u64::try_from(self.all.len())?);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::OUT)?;
        self.all.push(Subscriber {
            socket: TcpStream::from(socket),
            group,
            phase: Phase::Connecting,
            begun,
            rest: Vec::new(),
            deliveries: 0,
            sequence: Sequence::default(),
        });
        Ok(())
    }

    /// How many the group has.
    pub fn count(&self, group: usize) -> usize {
        let of_group = self.all.iter().filter(|one| one.group == group);
        of_group.count()
    }

    /// How many of the group were welcomed.
    pub fn open(&self, group: usize) -> usize {
        self.groups.get(group).map_or(0, |group| group.open)
    }

    /// What came for the group so far.
    pub fn deliveries(&self, group: usize) -> u64 {
        let group = self.groups.get(group);
        group.map_or(0, |group| group.tally.deliveries)
    }

    /// What came for the group; counting begins anew.
    pub fn take(&mut self, group: usize) -> Tally {
        let group = self.groups.get_mut(group);
        group.map_or_else(Tally::default, |group| mem::take(&mut group.tally))
    }

    /// Fails unless everyone in the group got the same number of events since it was last asked;
    /// gives the number.
    pub fn equal(&mut self, group: usize) -> anyhow::Result<u64> {
        let mut of_group = self.all.iter_mut().filter(|one| one.group == group);
        let got = of_group
            .next()
            .map_or(0, |one| mem::take(&mut one.deliveries));
        for other in of_group {
            let other = mem::take(&mut other.deliveries);
            ensure!(
                other == got,
                "one subscriber got {other} events, another {got}"
            );
        }
        Ok(got)
    }

    /// Reads what comes until `done`, which must come about in time.
    pub fn drive(
        &mut self,
        patience: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + patience;
        while !done(self) {
            ensure!(
                Instant::now() < until,
                "waited {patience:?} in vain: {}",
                self.state_of_groups()
            );
            self.turn(Duration::from_millis(100))?;
        }
        Ok(())
    }

    /// Waits, but reads what comes and answers pings.
    pub fn rest(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left)?;
        }
    }

    fn state_of_groups(&self) -> String {
        let of_group = |number: usize| {
            let (open, count) = (self.open(number), self.count(number));
            format!(
                "group {number}: {open} of {count} are welcomed, {} deliveries",
                self.deliveries(number)
            )
        };
        let groups: Vec<_> = (0..self.groups.len()).map(of_group).collect();
        groups.join("; ")
    }

    fn turn(&mut self, patience: Duration) -> anyhow::Result<()> {
        let timeout = Timespec::try_from(patience)?;
        let mut ready = mem::take(&mut self.ready);
        ready.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut ready), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &ready {
            let number = usize::try_from(event.data.u64())?;
            self.attend(number)
                .with_context(|| format!("subscriber {number}"))?;
        }
        self.ready = ready;
        Ok(())
    }

    fn attend(&mut self, number: usize) -> anyhow::Result<()> {
        let one = self.all.get_mut(number).context("is not there")?;
        let group = self.groups.get_mut(one.group).context("has no group")?;
        if one.phase == Phase::Connecting {
            if let Some(error) = one.socket.take_error()? {
                return Err(error).context("cannot connect");
            }
            one.socket.write_all(&group.request)?;
            one.phase = Phase::Upgrading;
            let data = epoll::EventData::new_u64(u64::try_from(number)?);
            epoll::modify(&self.epoll, &one.socket, data, epoll::EventFlags::IN)?;
            return Ok(());
        }
        let held = one.rest.len();
        let room = self.buffer.split_at_mut_checked(held);
        let (begun, room) = room.context("a frame without an end")?;
        begun.copy_from_slice(&one.rest);
        let read = match one.socket.read(room) {
            Ok(0) => bail!("was disconnected"),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("was disconnected"),
        };
        group.tally.reads += 1;
        let bytes = self.buffer.get(..held + read).unwrap_or_default();
        let mut reading = Reading {
            one,
            group,
            now: self.base.elapsed(),
            check: self.check,
            noting: self.noting,
        };
        let taken = reading.take(bytes)?;
        one.rest.clear();
        one.rest.extend(bytes.get(taken..).unwrap_or_default());
        Ok(())
    }
}

/// What one read brought.
struct Reading<'a> {
    one: &'a mut Subscriber,
    group: &'a mut Group,
    now: Duration,
    check: bool,
    noting: bool,
}

impl Reading<'_> {
    /// Takes all that is there whole; says how much that was.
    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<usize> {
        let mut taken = 0;
        if self.one.phase == Phase::Upgrading {
            let end = bytes.windows(4).position(|part| part == b"\r\n\r\n");
            let Some(end) = end else { return Ok(0) };
            let head = String::from_utf8_lossy(bytes);
            ensure!(head.starts_with("HTTP/1.1 101 "), "no upgrade: {head}");
            self.one.phase = Phase::Open;
            taken = end + 4;
            if !self.group.welcomes {
                self.welcomed();
            }
        }
        while let Some((frame, length)) = wire::first(bytes.get(taken..).unwrap_or_default())? {
            self.frame(&frame)?;
            taken += length;
        }
        Ok(taken)
    }

    fn frame(&mut self, frame: &wire::Frame<'_>) -> anyhow::Result<()> {
        match frame.opcode {
            wire::TEXT if frame.payload.starts_with(EVENT) => self.event(frame.payload),
            wire::TEXT => self.control(frame.payload),
            wire::PING => {
                let pong = wire::pong(frame.payload)?;
                self.one.socket.write_all(&pong).context("cannot answer")
            }
            wire::CLOSE => {
                let code = frame.payload.first_chunk().copied();
                let reason = frame.payload.get(2..).unwrap_or_default();
                bail!(
                    "was closed with {}: {}",
                    code.map_or(1005, u16::from_be_bytes),
                    String::from_utf8_lossy(reason)
                )
            }
            other => bail!("a frame of the kind {other}"),
        }
    }

    fn event(&mut self, text: &[u8]) -> anyhow::Result<()> {
        let tally = &mut self.group.tally;
        tally.deliveries += 1;
        tally.bytes += u64::try_from(text.len())?;
        tally.last = self.now;
        self.one.deliveries += 1;
        if self.noting
            && let Some(stamp) = stamp::read(text)
        {
            let now = stamp::nanoseconds(self.now);
            tally.arrivals.push((stamp, now));
        }
        if self.check {
            self.one.sequence.take(text)?;
        }
        Ok(())
    }

    fn control(&mut self, text: &[u8]) -> anyhow::Result<()> {
        let is = |kind: &str| text.starts_with(format!(r#"{{"type":"{kind}""#).as_bytes());
        if is("welcome") {
            let frame: WelcomeFrame = serde_json::from_slice(text)?;
            let tally = &mut self.group.tally;
            tally.cursor = Some(frame.data.cursor.clone());
            tally.recovered += u64::from(frame.data.recovered);
            self.welcomed();
        } else if !is("heartbeat") {
            bail!("was told: {}", String::from_utf8_lossy(text));
        }
        Ok(())
    }

    fn welcomed(&mut self) {
        self.group.open += 1;
        let waited = self.one.begun.elapsed();
        self.group.tally.welcomes.push(waited);
    }
}
