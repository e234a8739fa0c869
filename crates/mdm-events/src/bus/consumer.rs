//! From the bus to this node.

use async_nats::jetstream::consumer::{DeliverPolicy, pull::OrderedConfig};
use futures_util::StreamExt;
use tokio::{sync::mpsc, time::sleep};

use super::{Bus, RETRY, wire};
use crate::envelope::LogEvent;

pub(super) async fn run(bus: &Bus, incoming: mpsc::Sender<Vec<LogEvent>>) {
    while !incoming.is_closed() {
        if bus.is_connected()
            && let Err(error) = follow(bus, &incoming).await
        {
            tracing::warn!(%error, "cannot follow NATS; reading events from the database");
        }
        sleep(RETRY).await;
    }
}

/// Follows until the stream is deleted or the connection is lost for long.
async fn follow(
    bus: &Bus,
    incoming: &mpsc::Sender<Vec<LogEvent>>,
) -> Result<(), async_nats::Error> {
    let stream = bus.stream().await?;
    let consumer = stream
        .create_consumer(OrderedConfig {
            deliver_policy: DeliverPolicy::New,
            ..OrderedConfig::default()
        })
        .await?;
    let mut messages = consumer.messages().await?;
    while let Some(message) = messages.next().await {
        // What cannot be read was written by another version, or is missing: the log has it.
        if let Some(events) = wire::read(&message?.payload) {
            let _busy = incoming.try_send(events);
        }
    }
    Ok(())
}
