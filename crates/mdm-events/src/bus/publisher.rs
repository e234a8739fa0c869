//! From the leader to the bus.

use std::sync::Arc;

use async_nats::jetstream::context::traits::Publisher as _;
use async_nats::jetstream::message::PublishMessage;
use tokio::{sync::mpsc, time::sleep};

use super::{Bus, RETRY, wire};
use crate::envelope::LogEvent;

/// How many bytes of payloads one message holds, about; servers take 1 MiB.
const MESSAGE_BYTES: usize = 256 * 1024;

pub(super) async fn run(bus: &Bus, mut outgoing: mpsc::Receiver<Arc<[Arc<LogEvent>]>>) {
    let mut ready = false;
    while let Some(events) = outgoing.recv().await {
        for piece in pieces(&events) {
            if !ready {
                ready = prepare(bus).await;
            }
            if !ready || !publish(bus, piece).await {
                ready = false;
                metrics::counter!("mdm_bus_events_left_to_the_log_total")
                    .increment(u64::try_from(piece.len()).unwrap_or_default());
            }
        }
        if !ready {
            sleep(RETRY).await;
        }
    }
}

async fn prepare(bus: &Bus) -> bool {
    match bus.stream().await {
        Ok(_stream) => true,
        Err(error) => {
            tracing::warn!(%error, "events do not reach NATS; the nodes read them from the database");
            false
        }
    }
}

async fn publish(bus: &Bus, events: &[Arc<LogEvent>]) -> bool {
    let (Some(first), Some(payload)) = (events.first(), wire::write(events)) else {
        // A kind that only a newer version knows: that one reads it from the log.
        return true;
    };
    let message = PublishMessage::build()
        .payload(payload.into())
        .message_id(first.cursor().to_string())
        .outbound_message(bus.events_subject());
    let published = bus.jetstream.publish_message(message).await;
    let acknowledged = match published {
        Ok(acknowledgement) => acknowledgement.await,
        Err(error) => Err(error),
    };
    if let Err(error) = &acknowledged {
        tracing::warn!(%error, "events did not reach NATS; the nodes read them from the database");
    }
    acknowledged.is_ok()
}

/// Parts events into messages.
fn pieces(events: &[Arc<LogEvent>]) -> impl Iterator<Item = &[Arc<LogEvent>]> {
    let mut bytes = 0_usize;
    events.chunk_by(move |_, next| {
        bytes = bytes.saturating_add(next.weight());
        if bytes > MESSAGE_BYTES {
            bytes = 0;
            return false;
        }
        true
    })
}
