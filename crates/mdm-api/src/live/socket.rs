//! The TCP socket below a connection.
//!
//! A peer that stopped reading cannot be closed through actix: its dispatcher waits for the socket
//! to become writable and asks the response body for nothing. So the socket's descriptor is noted
//! when the connection is made, and the socket is shut down from outside.

use std::{
    any::Any,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::OnceLock,
    time::Duration,
};

use actix_web::{dev::Extensions, rt::net::TcpStream};
use rustix::{
    net::{Shutdown, shutdown, sockopt},
    process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open},
};

/// The kernel hides what waits in its buffer: with its usual megabytes a reader that stopped would
/// look healthy for long. The kernel doubles the figure.
const SEND_BUFFER: usize = 48 * 1024;

/// After this long without progress the kernel gives up on a peer. It stands behind
/// [`SocketHandle::abort`], which a container's system-call filter may forbid.
const USER_TIMEOUT_MILLIS: u32 = 30_000;

/// The descriptor of a connection's socket. Good while the connection's response body lives, in
/// the thread that it lives in.
#[derive(Debug, Clone, Copy)]
pub(super) struct SocketHandle(RawFd);

/// Notes the socket of a new connection, and limits how long its peer may take nothing; for
/// `HttpServer::on_connect`.
pub fn on_connect(connection: &dyn Any, extensions: &mut Extensions) {
    if let Some(stream) = connection.downcast_ref::<TcpStream>() {
        if let Err(error) = sockopt::set_tcp_user_timeout(stream, USER_TIMEOUT_MILLIS) {
            tracing::debug!(%error, "a connection has no limit to its time without progress");
        }
        extensions.insert(SocketHandle(stream.as_raw_fd()));
    }
}

impl SocketHandle {
    /// Sets the socket up for a long stream of small frames.
    pub(super) fn tune(self) {
        let tuned = self.duplicate().and_then(|socket| {
            sockopt::set_tcp_nodelay(&socket, true)?;
            sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)
        });
        if let Err(error) = tuned {
            tracing::debug!(%error, "a subscriber's socket keeps the system's settings");
        }
    }

    /// Resets the connection: nothing that waits is sent any more, and the dispatcher's write
    /// fails at once.
    pub(super) fn abort(self) {
        let aborted = self.duplicate().and_then(|socket| {
            sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
            shutdown(&socket, Shutdown::Both)
        });
        if let Err(error) = aborted {
            tracing::debug!(%error, "a subscriber's socket is left to its timeout");
        }
    }

    /// Another descriptor for the same socket. The number alone can't be used as a descriptor
    /// without unsafe code, but the kernel takes it as one of this process.
    fn duplicate(self) -> rustix::io::Result<OwnedFd> {
        static PROCESS: OnceLock<rustix::io::Result<OwnedFd>> = OnceLock::new();
        let process = PROCESS.get_or_init(|| pidfd_open(getpid(), PidfdFlags::empty()));
        match process {
            Ok(process) => pidfd_getfd(process, self.0, PidfdGetfdFlags::empty()),
            Err(error) => Err(*error),
        }
    }
}
