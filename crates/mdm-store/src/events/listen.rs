//! Connections that wait.

use std::time::Duration;

use sqlx::{
    ConnectOptions, PgConnection, PgPool,
    postgres::{PgListener, PgPoolOptions},
};

use super::{HEAD_CHANNEL, WAKE_CHANNEL};
use crate::error::StoreError;

/// A connection of its own to the pool's database: one whose end is noticed, where a pool would
/// quietly open another one, perhaps to another server.
pub async fn connect_alone(pool: &PgPool) -> Result<PgConnection, StoreError> {
    Ok(pool.connect_options().connect().await?)
}

/// A statement of the log's tasks that takes longer will not come back.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Gives up on a statement that hangs, as behind a network that swallows packets. Its connection
/// is in the middle of something then and must be given up too.
pub async fn in_time<T>(
    statement: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(STATEMENT_TIMEOUT, statement).await {
        Ok(outcome) => outcome,
        Err(elapsed) => {
            let hung = std::io::Error::new(std::io::ErrorKind::TimedOut, elapsed);
            Err(StoreError::Database(sqlx::Error::Io(hung)))
        }
    }
}

/// What a [`Listener`] hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The log has a new head, at this offset.
    Head(u64),
    /// Another node committed events to the outbox.
    Outbox,
    /// The connection was lost for a while, and with it what was said meanwhile.
    Gap,
}

/// Hears of new events. It only saves waiting: all that it tells can also be read.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Listener {
    /// Connects to the pool's database.
    pub async fn connect(pool: &PgPool) -> Result<Self, StoreError> {
        // A connection that listens for good would take one of the pool's away.
        let own = PgPoolOptions::new()
            .max_connections(1)
            .connect_lazy_with((*pool.connect_options()).clone());
        let mut listener = PgListener::connect_with(&own).await?;
        listener.listen_all([HEAD_CHANNEL, WAKE_CHANNEL]).await?;
        Ok(Self(listener))
    }

    /// Waits for the next thing said.
    pub async fn hear(&mut self) -> Result<Heard, StoreError> {
        Ok(match self.0.try_recv().await? {
            Some(said) if said.channel() == HEAD_CHANNEL => {
                // Whatever else somebody may say there: then it is not known how far.
                Heard::Head(said.payload().parse().unwrap_or(u64::MAX))
            }
            Some(_) => Heard::Outbox,
            None => Heard::Gap,
        })
    }
}
