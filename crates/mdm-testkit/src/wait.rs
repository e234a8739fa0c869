//! Waiting for a condition instead of for a time.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Asks `condition` until it gives `Some`, and returns that.
///
/// # Panics
///
/// If it has not within `limit`; `what` then names what was waited for.
pub async fn wait_until<T, F>(what: impl Display, limit: Duration, mut condition: F) -> T
where
    F: AsyncFnMut() -> Option<T>,
{
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "waited {limit:?} in vain until {what}"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_value_of_the_condition_is_returned() {
        let mut calls = 0;
        let value = wait_until("the third call", Duration::from_secs(5), async || {
            calls += 1;
            (calls == 3).then_some(calls)
        })
        .await;
        assert_eq!(value, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "in vain until pigs fly")]
    async fn a_condition_that_never_holds_is_named() {
        wait_until("pigs fly", Duration::from_millis(5), async || None::<()>).await;
    }
}
