//! What a subscriber says.

use std::{rc::Rc, time::Instant};

use actix_ws::{AggregatedMessage, MessageStream, Session};
use mdm_core::roles::Permission;
use mdm_events::Subscription;
use mdm_proto::{Timestamp, channel::close, events::ClientFrame};
use serde_json::json;

use super::{client::Client, filters, worker::Worker};

/// The largest message, and the largest frame of one.
pub(super) const MAX_MESSAGE: usize = 16 * 1024;
/// How many messages may not be understood before the connection is closed.
const MAX_MISTAKES: u32 = 5;

/// Reads until the connection ends.
pub(super) async fn listen(
    worker: Rc<Worker>,
    client: Rc<Client>,
    mut session: Session,
    stream: MessageStream,
) {
    let mut messages = stream
        .max_frame_size(MAX_MESSAGE)
        .aggregate_continuations()
        .max_continuation_size(MAX_MESSAGE);
    tokio::select! {
        () = client.opened() => {}
        () = client.gone() => return,
    }
    let mut mistakes = 0_u32;
    while let Some(message) = messages.recv().await {
        let Ok(message) = message else {
            refuse(&client, "the frame is malformed or larger than 16 KiB");
            break;
        };
        client.heard();
        let understood = match message {
            AggregatedMessage::Text(text) => take(&worker, &client, &text).await,
            AggregatedMessage::Binary(_) => Err(mistake("messages are JSON texts")),
            AggregatedMessage::Ping(payload) => {
                // Waits while the client reads nothing, and then takes nothing more from it.
                if session.pong(&payload).await.is_err() {
                    break;
                }
                Ok(())
            }
            AggregatedMessage::Pong(_) => Ok(()),
            AggregatedMessage::Close(_) => {
                client.connection().close(Instant::now(), NORMAL, "");
                break;
            }
        };
        if let Err((code, detail)) = understood {
            mistakes = mistakes.saturating_add(1);
            let data = json!({ "code": code, "detail": detail });
            client.tell("error", worker.now(), &data);
            if mistakes >= MAX_MISTAKES {
                refuse(&client, "too many messages were not understood");
                break;
            }
        }
    }
    // Without the session the body would end, with the close frame still in the queue.
    if client.connection().closing_since().is_some() {
        client.gone().await;
    }
}

/// The client closed and gets its close frame back (RFC 6455, section 7.4.1).
const NORMAL: u16 = 1000;

type Mistake = (&'static str, String);

fn mistake(detail: impl Into<String>) -> Mistake {
    ("BAD_MESSAGE", detail.into())
}

fn refuse(client: &Client, reason: &str) {
    client
        .connection()
        .close(Instant::now(), close::BAD_MESSAGE, reason);
}

async fn take(worker: &Worker, client: &Rc<Client>, text: &str) -> Result<(), Mistake> {
    let frame: ClientFrame = serde_json::from_str(text)
        .map_err(|error| mistake(format!("the message was not understood: {error}")))?;
    match frame {
        ClientFrame::Ping => client.tell("pong", worker.now(), &json!({})),
        ClientFrame::Subscribe(wanted) => {
            let filters = filters::of_frame(&wanted)
                .map_err(|invalid| ("INVALID_FILTER", invalid.to_string()))?;
            let claims = client.claims();
            // First the answer: what comes after it is what the new filters let through.
            client.tell("subscribed", worker.now(), &filters::to_frame(&filters));
            let subscription = Subscription {
                organization_id: claims.organization_id,
                role: claims.role,
                filters,
            };
            worker
                .shard()
                .resubscribe(client.connection(), subscription);
        }
        ClientFrame::Authenticate { token } => authenticate(worker, client, &token).await?,
    }
    Ok(())
}

/// Takes a newer token of the same session, perhaps with another role.
async fn authenticate(worker: &Worker, client: &Rc<Client>, token: &str) -> Result<(), Mistake> {
    let claims = worker.parts().tokens.verify(token).await;
    let claims = claims.map_err(|error| ("TOKEN_REFUSED", error.to_string()))?;
    let before = client.claims();
    if claims.session_id != before.session_id || claims.user_id != before.user_id {
        let detail = "the token belongs to another session: connect with it anew";
        return Err(("OTHER_SESSION", detail.to_owned()));
    }
    if !claims.role.permits(Permission::ReadEvents) {
        client.connection().close_now(
            Instant::now(),
            close::SESSION_ENDED,
            "the role may not follow events",
        );
        return Ok(());
    }
    if claims.role != before.role {
        let subscription = Subscription {
            role: claims.role,
            ..(*client.connection().subscription()).clone()
        };
        worker
            .shard()
            .resubscribe(client.connection(), subscription);
    }
    let data = json!({ "token_expires_at": Timestamp(claims.expires_at) });
    client.renew(claims);
    client.tell("authenticated", worker.now(), &data);
    Ok(())
}
