//! The floor of every fan-out: for each event one `send` to each socket, one after the other, of
//! bytes that were framed once. No queue, no permissions, no log, nobody is waited for.
//!
//! It speaks the protocol of a peer hub, which `peers/gorilla-hub/README.md` describes.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
};

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::wire;

/// Where.
#[derive(Debug, Args)]
pub struct Options {
    /// The port
    port: u16,
}

/// A head and a part of what follows it.
struct Head {
    subscribes: bool,
    length: usize,
    rest: Vec<u8>,
}

/// Takes subscribers and, in between, a publisher until it goes.
pub fn serve(options: &Options) -> anyhow::Result<()> {
    // Whoever started this ends it by ending.
    std::thread::spawn(|| {
        let _ended = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    accept(&TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))?)
}

/// Does so on a listener, without an end.
pub fn accept(listener: &TcpListener) -> anyhow::Result<()> {
    let mut subscribers = Vec::new();
    loop {
        let (mut stream, _from) = listener.accept()?;
        stream.set_nodelay(true)?;
        let Some(head) = read_head(&mut stream)? else {
            continue;
        };
        if head.subscribes {
            stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            )?;
            subscribers.push(stream);
        } else {
            publish(&mut stream, head, &mut subscribers)?;
        }
    }
}

fn publish(
    stream: &mut TcpStream,
    mut head: Head,
    subscribers: &mut [TcpStream],
) -> anyhow::Result<()> {
    loop {
        let mut body = std::mem::take(&mut head.rest);
        let have = body.len();
        ensure!(have <= head.length, "requests must wait for answers");
        body.resize(head.length, 0);
        stream.read_exact(body.get_mut(have..).unwrap_or_default())?;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
        for text in body.split(|byte| *byte == b'\n') {
            let frame = wire::server_text(text)?;
            for subscriber in &mut *subscribers {
                // One that is gone is not counted, so the load will miss it.
                let _gone = subscriber.write_all(&frame);
            }
        }
        match read_head(stream)? {
            Some(next) => head = next,
            None => return Ok(()),
        }
    }
}

/// Reads until a head is whole; nothing if the other side leaves.
fn read_head(stream: &mut TcpStream) -> anyhow::Result<Option<Head>> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(end) = request.parse(&bytes)? {
            let length = request
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case("content-length"))
                .map(|header| std::str::from_utf8(header.value)?.parse().context("length"))
                .transpose()?;
            return Ok(Some(Head {
                subscribes: request.method == Some("GET"),
                length: length.unwrap_or(0),
                rest: bytes.split_off(end),
            }));
        }
        match stream.read(&mut piece)? {
            0 => return Ok(None),
            read => bytes.extend(piece.get(..read).unwrap_or_default()),
        }
    }
}
