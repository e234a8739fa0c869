//! The event stream through all breaks.

use std::time::{Duration, Instant};

use mdm_proto::{channel::close, events::Frame};
use tokio::time::sleep;

use crate::{Backoff, Client, ClientError, Closed, EventQuery, EventStream};

/// A connection that held for so long was a good one: after it the pauses begin anew.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// What a follower is told.
#[derive(Debug)]
pub enum Step {
    /// An event. None is left out, and none comes twice.
    Event(Frame),
    /// Events are missing: read the present state of things. The later ones follow.
    Resync {
        /// Why, as `docs/events.md` names it.
        reason: String,
    },
    /// There is no connection. The next call waits for this long, and then connects again.
    Broken {
        /// What happened.
        reason: String,
        /// How long it waits.
        pause: Duration,
    },
}

/// Follows the event stream: connects, resumes after breaks with full jitter, renews its token.
///
/// `F` gives a client whose token is good, each time that it is asked: before each connection, and
/// when the token is about to end.
pub struct Follower<F> {
    client: F,
    query: EventQuery,
    stream: Option<(EventStream, Instant)>,
    backoff: Backoff,
    pause: Option<Duration>,
}

impl<F, E> Follower<F>
where
    F: AsyncFnMut() -> Result<Client, E>,
    E: From<ClientError>,
{
    /// Will follow what the query asks for, from `after` on, or from now on if that is not given.
    pub fn new(query: EventQuery, client: F) -> Self {
        Self {
            client,
            query,
            stream: None,
            backoff: Backoff::default(),
            pause: None,
        }
    }

    /// Where it stands: [`EventQuery::after`] of another follower that is to go on from here.
    pub fn cursor(&self) -> Option<&str> {
        let stream = self.stream.as_ref();
        let reached = stream.and_then(|(stream, _)| stream.cursor());
        reached.or(self.query.after.as_deref())
    }

    /// Sets the filters anew, now and for every connection to come. What was on its way already may
    /// still come.
    pub async fn subscribe(&mut self, filters: EventQuery) {
        self.query = EventQuery {
            after: self.query.after.take(),
            ..filters
        };
        if let Some((stream, _)) = &mut self.stream
            && let Err(closed) = stream.subscribe(&self.query).await
        {
            self.lost(closed.reason);
        }
    }

    /// Waits for what comes next. An error is one that another attempt would meet again: a
    /// credential or a filter that is refused.
    pub async fn next(&mut self) -> Result<Step, E> {
        loop {
            let Some((stream, _)) = &mut self.stream else {
                if let Some(step) = self.connect().await? {
                    return Ok(step);
                }
                continue;
            };
            match stream.next().await {
                Ok(frame) if frame.id.is_some() => return Ok(Step::Event(frame)),
                Ok(frame) if frame.kind == "resync" => {
                    let reason = frame.data.get("reason").and_then(|reason| reason.as_str());
                    let reason = reason.unwrap_or_default().to_owned();
                    return Ok(Step::Resync { reason });
                }
                Ok(frame) if frame.kind == "token_expiring" => {
                    let client = (self.client)().await?;
                    if let Err(closed) = stream.renew(&client).await {
                        return Ok(self.lost(closed.reason));
                    }
                }
                Ok(_) => {}
                Err(Closed {
                    code: Some(close::BAD_MESSAGE),
                    reason,
                }) => return Err(ClientError::Transport(reason).into()),
                Err(closed) => return Ok(self.lost(closed.reason)),
            }
        }
    }

    /// Connects, after the pause that is due.
    async fn connect(&mut self) -> Result<Option<Step>, E> {
        if let Some(pause) = self.pause {
            sleep(pause).await;
            self.pause = None;
        }
        let client = (self.client)().await?;
        match EventStream::follow(&client, &self.query).await {
            Ok(stream) => {
                self.stream = Some((stream, Instant::now()));
                Ok(None)
            }
            Err(error) if error.is_temporary() => Ok(Some(self.lost(error.to_string()))),
            Err(error) => Err(error.into()),
        }
    }

    fn lost(&mut self, reason: String) -> Step {
        if let Some((stream, since)) = self.stream.take() {
            self.query.after = stream
                .cursor()
                .map(str::to_owned)
                .or(self.query.after.take());
            if since.elapsed() >= GOOD_AFTER {
                self.backoff.reset();
            }
        }
        let pause = self.backoff.pause();
        self.pause = Some(pause);
        Step::Broken { reason, pause }
    }
}
