//! Check-ins without news: by far the most requests that a server gets.
//!
//! What they ask is one look at the database, and those that come at the same time look together:
//! while a look is under way the next ones gather. So a server that has little to do answers as fast
//! as a query goes, and one that has much to do needs fewer queries for each device.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mdm_core::tokens::{Token, TokenHash, TokenKind};
use mdm_store::{
    StoreError,
    devices::{self, Glance},
};
use tokio::sync::oneshot;

use crate::services::Services;

/// Looks that are under way at once: while one is on its way, another can be made ready.
const AT_ONCE: usize = 2;

#[derive(Default)]
struct Gathered {
    waiting: Vec<(TokenHash, oneshot::Sender<Option<Glance>>)>,
    under_way: usize,
}

/// Who waits for the next look.
#[derive(Default)]
pub struct Glances(Mutex<Gathered>);

impl Glances {
    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins those that wait; says whether the caller must see to a look.
    fn join(&self, hash: TokenHash, tell: oneshot::Sender<Option<Glance>>) -> bool {
        let mut gathered = self.gathered();
        gathered.waiting.push((hash, tell));
        let is_first = gathered.under_way < AT_ONCE;
        gathered.under_way += usize::from(is_first);
        is_first
    }
}

/// The duty to look as long as anybody waits.
struct Look {
    glances: Arc<Glances>,
    is_over: bool,
}

impl Look {
    /// Those that wait; if nobody does, the duty is over.
    fn next(&mut self) -> HashMap<TokenHash, Vec<oneshot::Sender<Option<Glance>>>> {
        let mut gathered = self.glances.gathered();
        let mut next = HashMap::<_, Vec<_>>::new();
        for (hash, tell) in mem::take(&mut gathered.waiting) {
            next.entry(hash).or_default().push(tell);
        }
        if next.is_empty() {
            gathered.under_way -= 1;
            self.is_over = true;
        }
        next
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        if !self.is_over {
            let mut gathered = self.glances.gathered();
            gathered.under_way -= 1;
            // Nobody may look any more: dropping the senders tells those that wait.
            gathered.waiting.clear();
        }
    }
}

impl Services {
    /// The device that a token belongs to, and whether anything waits for it. `None` for an unknown
    /// or ended token.
    pub async fn glance(&self, presented: &str) -> Result<Option<Glance>, StoreError> {
        let Some(token) = Token::parse(TokenKind::Device, presented) else {
            return Ok(None);
        };
        let hash = token.hash();
        let (tell, told) = oneshot::channel();
        if self.glances.join(hash, tell) {
            // A task of its own: the request that begins it may be given up before the others.
            tokio::spawn(self.clone().look());
        }
        if let Ok(glance) = told.await {
            return Ok(glance);
        }
        // The look failed. Alone, the request gets to know why, or meets a database that is back.
        let mut conn = self.pool.acquire().await?;
        let found = devices::glances(&mut conn, &[hash]).await?;
        Ok(found.first().map(|(_, glance)| *glance))
    }

    async fn look(self) {
        let mut look = Look {
            glances: Arc::clone(&self.glances),
            is_over: false,
        };
        loop {
            let mut waiting = look.next();
            if waiting.is_empty() {
                return;
            }
            let hashes: Vec<_> = waiting.keys().copied().collect();
            let Ok(found) = self.glances_of(&hashes).await else {
                // Dropping the senders tells them.
                continue;
            };
            for (hash, glance) in found {
                for tell in waiting.remove(&hash).unwrap_or_default() {
                    let _given_up = tell.send(Some(glance));
                }
            }
            for tell in waiting.into_values().flatten() {
                let _given_up = tell.send(None);
            }
        }
    }

    async fn glances_of(
        &self,
        hashes: &[TokenHash],
    ) -> Result<Vec<(TokenHash, Glance)>, StoreError> {
        let mut conn = self.pool.acquire().await?;
        devices::glances(&mut conn, hashes).await
    }
}
