//! The leanest HTTP client that does: the load generator shares its cores with the server.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use url::Url;

/// An answer takes no longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection that is kept (HTTP/1.1). One call at a time.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A request as bytes.
pub fn request(
    server: &Url,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Vec<u8> {
    let host = server.authority();
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        let _infallible = write!(text, "{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "POST" {
        text.push_str("Content-Type: application/json\r\n");
        let _infallible = write!(text, "Content-Length: {}\r\n", body.len());
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}

impl Connection {
    /// Connects to a server without TLS.
    pub async fn open(server: &Url) -> anyhow::Result<Self> {
        ensure!(
            server.scheme() == "http",
            "the load generator speaks plain HTTP only"
        );
        let host = server
            .host_str()
            .context("the server's address has no host")?;
        let port = server.port_or_known_default().unwrap_or(80);
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(64 * 1024),
        })
    }

    /// Sends a request and reads the whole answer; gives its status and body.
    pub async fn call(&mut self, request: &[u8]) -> anyhow::Result<(u16, &[u8])> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let (status, head, length) = timeout(PATIENCE, self.read_head())
            .await
            .context("no answer")??;
        while self.buffer.len() < head + length {
            self.read_more().await?;
        }
        Ok((
            status,
            self.buffer.get(head..head + length).unwrap_or_default(),
        ))
    }

    /// The status, where the body begins, and how long it is.
    async fn read_head(&mut self) -> anyhow::Result<(u16, usize, usize)> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut response = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(head) = response.parse(&self.buffer)? {
                let length = response
                    .headers
                    .iter()
                    .find(|header| header.name.eq_ignore_ascii_case("content-length"))
                    .map(|header| std::str::from_utf8(header.value)?.parse().context("length"))
                    .transpose()?;
                let status = response.code.context("no status")?;
                let Some(length) = length.or((status == 204).then_some(0)) else {
                    bail!("an answer {status} without a length");
                };
                return Ok((status, head, length));
            }
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> anyhow::Result<()> {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        ensure!(
            read.context("half an answer")?? > 0,
            "the server closed the connection"
        );
        Ok(())
    }
}
