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

/// How long an estimate is good for.
const FRESH: Duration = Duration::from_secs(10);
/// How many estimates are held at most.
const HELD_AT_MOST: usize = 1_000;

/// Estimates of how long lists are. Counting to ten thousand takes longer than reading a page, and
/// beyond that the API calls the number an estimate anyway: so an estimate is held for some seconds,
/// while an exact number is always counted.
#[derive(Debug, Default)]
pub struct Totals(Mutex<HashMap<String, (Instant, i64)>>);

impl Totals {
    /// The held estimate for a list, or what `count` gives.
    pub async fn get(
        &self,
        organization: OrganizationId,
        list: &str,
        count: impl Future<Output = Result<Total, StoreError>>,
    ) -> Result<Total, StoreError> {
        let key = format!("{organization} {list}");
        if let Some(estimate) = self.held(&key) {
            return Ok(Total::Estimate(estimate));
        }
        let total = count.await?;
        if let Total::Estimate(estimate) = total {
            let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if table.len() >= HELD_AT_MOST {
                table.clear();
            }
            table.insert(key, (Instant::now(), estimate));
        }
        Ok(total)
    }

    fn held(&self, key: &str) -> Option<i64> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table
            .get(key)
            .filter(|(since, _)| since.elapsed() < FRESH)
            .map(|(_, estimate)| *estimate)
    }
}
