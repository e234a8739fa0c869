//! The port through which messages are posted; `mdm-api` has the HTTP client.

use std::{future::Future, pin::Pin, time::Duration};

use mdm_core::webhooks::WebhookUrl;

/// A signed message on its way to an endpoint.
pub struct SignedMessage<'a> {
    /// Where to.
    pub url: &'a WebhookUrl,
    /// The same for each attempt, so that the receiver can tell what it has seen.
    pub id: &'a str,
    /// When it is sent, in seconds since 1970.
    pub timestamp: i64,
    /// What proves that it is ours.
    pub signature: String,
    /// The JSON.
    pub body: String,
}

/// An attempt under way: the status of the answer, or, for people, why there was none.
pub type Posting<'a> = Pin<Box<dyn Future<Output = Result<u16, String>> + Send + 'a>>;

/// Posts messages to endpoints.
pub trait WebhookTransport: Send + Sync + 'static {
    /// Whether the endpoint may be called.
    fn may_call(&self, url: &WebhookUrl) -> bool;

    /// Posts a message. Ends within some seconds, whatever the endpoint does.
    fn post<'a>(&'a self, message: SignedMessage<'a>) -> Posting<'a>;
}

/// What became of an attempt.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The answer's status, if there was one.
    pub(super) status: Option<u16>,
    /// What went wrong; none if the endpoint took the message.
    pub(super) error: Option<String>,
    /// How long it took.
    pub(super) took: Duration,
}

impl Outcome {
    pub(super) fn of(answered: Result<u16, String>, took: Duration) -> Self {
        let (status, error) = match answered {
            Ok(status @ 200..300) => (Some(status), None),
            Ok(status) => (
                Some(status),
                Some(format!("the endpoint answered {status}")),
            ),
            Err(error) => (None, Some(error)),
        };
        Self {
            status,
            error,
            took,
        }
    }

    /// The endpoint says that it is gone for good (RFC 9110, section 15.5.11).
    pub(super) fn is_gone(&self) -> bool {
        self.status == Some(410)
    }
}
