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

/// Yields the frames that were queued for the client, encoded already, and else what actix-ws has
/// to say (answers to pings). With this body the connection's place ends.
pub(super) struct FrameBody {
    pub(super) worker: Rc<Worker>,
    pub(super) client: Rc<Client>,
    pub(super) inner: BoxBody,
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
        let now = Instant::now();
        let connection = this.client.connection();
        match this.worker.shard().poll_frame(connection, now, context) {
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
