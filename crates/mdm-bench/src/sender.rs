//! The floor of all fan-out: one thread that gives each event to each connection by one `send`. Run
//! as a process of its own, it takes events as lines from standard input.

use std::{
    io::{BufRead, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::Context as _;
use clap::Args;

use crate::{process, wire};

/// How many connections to wait for.
#[derive(Debug, Args)]
pub struct Options {
    /// How many subscribers there will be
    #[arg(long)]
    subscribers: usize,
}

/// Accepts the subscribers, and then sends every line of standard input to all of them.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on {}", listener.local_addr()?)?;
    out.flush()?;
    let mut sockets = Vec::with_capacity(options.subscribers);
    for _ in 0..options.subscribers {
        sockets.push(accept(&listener)?);
    }
    for line in std::io::stdin().lock().lines() {
        let frame = wire::server_text(line?.as_bytes())?;
        for socket in &mut sockets {
            socket.write_all(&frame)?;
        }
    }
    Ok(())
}

fn accept(listener: &TcpListener) -> anyhow::Result<TcpStream> {
    let (mut socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let answer =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let welcome = wire::server_text(br#"{"type":"welcome"}"#)?;
    socket.write_all(&[answer.as_slice(), &welcome].concat())?;
    Ok(socket)
}

/// A process that takes events from its standard input: the floor, or a peer to compare with.
pub struct Sender {
    child: Child,
    input: Option<ChildStdin>,
    /// Where it listens.
    pub address: std::net::SocketAddr,
}

impl Sender {
    /// Starts the floor for so many subscribers.
    pub fn floor(subscribers: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["raw-sender", "--subscribers", &subscribers.to_string()]);
        Self::start(command)
    }

    /// Starts another hub, which prints `listening on ADDRESS` and takes events as the floor does.
    pub fn peer(program: &PathBuf) -> anyhow::Result<Self> {
        Self::start(Command::new(program))
    }

    fn start(mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the other hub")?;
        let address = process::listening(&mut child)?.parse()?;
        let input = child.stdin.take();
        Ok(Self {
            child,
            input,
            address,
        })
    }

    /// Which process it is.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives it events, a line each.
    pub fn publish(&mut self, lines: &[u8]) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("its input is closed")?;
        input.write_all(lines)?;
        Ok(input.flush()?)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }
}
