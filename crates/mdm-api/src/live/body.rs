//! The response body of an upgraded connection.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use actix_web::{
    body::{BodySize, BoxBody, MessageBody},
    web::Bytes,
};

use super::{client::Client, seats::Seat, worker::Worker};

/// How many bytes are handed over before they are written. The server keeps for each connection a
/// buffer as large as what it was ever handed at once: a replay of some hundred events would leave
/// it at 64 KiB for good. It begins with 8 KiB, which this and one more event fit into.
const AT_ONCE: usize = 7 * 1024;

/// Lets what was handed over be written before there is more.
#[derive(Debug, Default)]
pub(super) struct Portion(usize);

impl Portion {
    /// Whether the portion is full; then the task is woken again, and what is there is written.
    pub(super) fn is_full(&mut self, context: &Context<'_>) -> bool {
        let full = self.0 >= AT_ONCE;
        if full {
            self.0 = 0;
            context.waker().wake_by_ref();
        }
        full
    }

    /// Notes what is handed over; without anything, a new portion begins.
    pub(super) fn count(&mut self, frame: &Poll<Option<Bytes>>) {
        self.0 = match frame {
            Poll::Ready(Some(frame)) => self.0.saturating_add(frame.len()),
            Poll::Ready(None) | Poll::Pending => 0,
        };
    }
}

/// Yields the frames that were queued for the client, encoded already, and else what actix-ws has
/// to say (answers to pings). With this body the connection's place ends.
pub(super) struct FrameBody {
    pub(super) worker: Rc<Worker>,
    pub(super) client: Rc<Client>,
    pub(super) inner: BoxBody,
    pub(super) portion: Portion,
    pub(super) _seat: Option<Seat>,
}

impl MessageBody for FrameBody {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        if this.portion.is_full(context) {
            return Poll::Pending;
        }
        let now = Instant::now();
        let connection = this.client.connection();
        let frame = this.worker.shard().poll_frame(connection, now, context);
        this.portion.count(&frame);
        match frame {
            Poll::Ready(frame) => Poll::Ready(frame.map(Ok)),
            Poll::Pending => Pin::new(&mut this.inner).poll_next(context),
        }
    }
}

impl Drop for FrameBody {
    fn drop(&mut self) {
        self.worker.leave(&self.client);
    }
}
