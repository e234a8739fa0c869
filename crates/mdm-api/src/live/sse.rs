//! `GET /events/stream`: the same stream as server-sent events.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, MessageBody},
    http::header,
    web::Bytes,
};
use mdm_events::{Cursor, sse};
use mdm_proto::channel::close;

use super::{
    body::Portion,
    client::Client,
    resume,
    seats::Seat,
    upgrade::{Hearing, admit, enter},
    worker::Worker,
};
use crate::problem::ApiError;

pub(super) async fn connect(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let worker = super::worker(&request)?;
    let (claims, mut wanted) = admit(&worker, &request).await?;
    // A browser that connects again repeats the address, and says here how far it came.
    if let Some(last) = last_event_id(&request)? {
        wanted.after = Some(last);
    }
    let after = wanted.after;
    let (client, seat) = enter(&worker, &request, claims, wanted, Hearing::Nothing);
    if seat.is_some() {
        actix_web::rt::spawn(resume::open(Rc::clone(&worker), Rc::clone(&client), after));
    } else {
        let reason = "too many connections of this user or from this address";
        client
            .connection()
            .close(Instant::now(), close::TOO_MANY_CONNECTIONS, reason);
    }
    let body = EventBody {
        first: Some(sse::retry(pause(&worker))),
        portion: Portion::default(),
        worker,
        client,
        _seat: seat,
    };
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // nginx would collect events before it passes them on.
        .insert_header(("X-Accel-Buffering", "no"))
        .body(body))
}

fn last_event_id(request: &HttpRequest) -> Result<Option<Cursor>, ApiError> {
    let Some(value) = request.headers().get("Last-Event-ID") else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let cursor = text.parse().map_err(|invalid: mdm_events::InvalidCursor| {
        ApiError::invalid_field("/Last-Event-ID", "INVALID_CURSOR", invalid.to_string())
    })?;
    Ok(Some(cursor))
}

/// After how long a browser shall connect again, in milliseconds: not all at the same time.
fn pause(worker: &Worker) -> u16 {
    let mut random = [0_u8; 2];
    worker.parts().entropy.fill(&mut random);
    500 + u16::from_be_bytes(random) % 4_500
}

/// Yields the frames that were queued for the client. With this body the connection's place ends.
struct EventBody {
    first: Option<Bytes>,
    portion: Portion,
    worker: Rc<Worker>,
    client: Rc<Client>,
    _seat: Option<Seat>,
}

impl MessageBody for EventBody {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if this.portion.is_full(context) {
            return Poll::Pending;
        }
        let connection = this.client.connection();
        let frame = this
            .worker
            .shard()
            .poll_frame(connection, Instant::now(), context);
        this.portion.count(&frame);
        frame.map(|frame| frame.map(|frame| Ok(sse::encode(&frame))))
    }
}

impl Drop for EventBody {
    fn drop(&mut self) {
        self.worker.leave(&self.client);
    }
}
