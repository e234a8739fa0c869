//! Check-ins without news: by far the most requests that a server gets. What they ask is one look
//! at the database, and those that come at the same time look together.

use std::collections::HashMap;

use mdm_core::tokens::{Token, TokenHash, TokenKind};
use mdm_store::{
    StoreError,
    devices::{self, Glance},
};
use tokio::sync::oneshot;

use crate::{gathering::Duty, services::Services};

/// Looks that are under way at once.
pub const LOOKS_AT_ONCE: usize = 2;

/// A device that is to be looked at, and who asks.
pub type AskedGlance = (TokenHash, oneshot::Sender<Option<Glance>>);

impl Services {
    /// The device that a token belongs to, and whether anything waits for it. `None` for an unknown
    /// or ended token.
    pub async fn glance(&self, presented: &str) -> Result<Option<Glance>, StoreError> {
        let Some(token) = Token::parse(TokenKind::Device, presented) else {
            return Ok(None);
        };
        let hash = token.hash();
        let (tell, told) = oneshot::channel();
        if let Some(duty) = self.glances.add((hash, tell)) {
            tokio::spawn(self.clone().look(duty));
        }
        if let Ok(glance) = told.await {
            return Ok(glance);
        }
        // The look failed. Alone, the request gets to know why, or meets a database that is back.
        let found = self.glances_of(&[hash]).await?;
        Ok(found.first().map(|(_, glance)| *glance))
    }

    async fn look(self, mut duty: Duty<AskedGlance>) {
        loop {
            let mut asked = HashMap::<_, Vec<_>>::new();
            for (hash, tell) in duty.next() {
                asked.entry(hash).or_default().push(tell);
            }
            if asked.is_empty() {
                return;
            }
            let hashes: Vec<_> = asked.keys().copied().collect();
            let Ok(found) = self.glances_of(&hashes).await else {
                // Dropping the senders tells them.
                continue;
            };
            for (hash, glance) in found {
                for tell in asked.remove(&hash).unwrap_or_default() {
                    let _given_up = tell.send(Some(glance));
                }
            }
            for tell in asked.into_values().flatten() {
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
