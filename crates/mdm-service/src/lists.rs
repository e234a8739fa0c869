//! Lists as use cases give them.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use mdm_core::ids::OrganizationId;
use mdm_store::{
    StoreError,
    lists::{ListPage, Total},
};

use crate::changes::Changes;

/// A page of a list, and how much there is in all.
#[derive(Debug)]
pub struct Listed<T> {
    /// The page.
    pub items: Vec<T>,
    /// For the next page; none on the last.
    pub next_cursor: Option<String>,
    /// How many match.
    pub total: Total,
}

impl<T> Listed<T> {
    /// A page and its total.
    pub fn new(page: ListPage<T>, total: Total) -> Self {
        Self {
            items: page.items,
            next_cursor: page.next_cursor,
            total,
        }
    }
}

/// How long a total is held.
const FRESH: Duration = Duration::from_secs(10);
/// How many totals are held at most.
const HELD_AT_MOST: usize = 1_000;

/// How long lists are. Counting to ten thousand takes longer than reading a page, so totals are
/// held: an exact one until anything was changed, by this node or, as far as its event log says, by
/// another; an estimate, which the API calls one, for some seconds.
#[derive(Debug, Default)]
pub struct Totals {
    held: Mutex<HashMap<String, Held>>,
}

#[derive(Debug)]
struct Held {
    total: Total,
    changes: u64,
    since: Instant,
}

impl Totals {
    /// The total of a list: what the page itself shows, what is held, or what `count` gives.
    pub async fn get<T>(
        &self,
        changes: &Changes,
        (organization, list): (OrganizationId, &str),
        page: &ListPage<T>,
        count: impl Future<Output = Result<Total, StoreError>>,
    ) -> Result<Total, StoreError> {
        if let Some(total) = page.total {
            return Ok(total);
        }
        let key = key(organization, list);
        let changes = changes.count();
        if let Some(total) = self.held(&key, changes) {
            return Ok(total);
        }
        let total = count.await?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= HELD_AT_MOST {
            held.clear();
        }
        let since = Instant::now();
        held.insert(
            key,
            Held {
                total,
                changes,
                since,
            },
        );
        Ok(total)
    }

    /// Whether the list is known to be longer than what is counted.
    pub fn is_estimated(&self, organization: OrganizationId, list: &str) -> bool {
        // An estimate is good whatever was changed.
        let held = self.held(&key(organization, list), 0);
        matches!(held, Some(Total::Estimate(_)))
    }

    fn held(&self, key: &str, changes: u64) -> Option<Total> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = held.get(key).filter(|held| held.since.elapsed() < FRESH)?;
        match held.total {
            Total::Exact(_) if held.changes != changes => None,
            total => Some(total),
        }
    }
}

fn key(organization: OrganizationId, list: &str) -> String {
    format!("{organization} {list}")
}
