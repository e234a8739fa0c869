//! Slows down who keeps failing: at logins, and with enrolment secrets.
//!
//! Only failures count, so that a busy office behind one address is not shut out by its own
//! success. Ten failures are free, then one every six seconds; who goes on is refused until then,
//! with the right password as well.

use std::{
    num::NonZeroU32,
    sync::Mutex,
    time::{Duration, Instant},
};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock as _};
use std::collections::HashMap;

const FREE_FAILURES: NonZeroU32 = NonZeroU32::new(10).unwrap();
const ONE_MORE_EVERY: Duration = Duration::from_secs(6);

/// Counts failures by key, such as an address and an account.
pub struct Throttle {
    failures: DefaultKeyedRateLimiter<String>,
    shut_until: Mutex<HashMap<String, Instant>>,
}

/// Too many failures; try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many failed attempts; try again in {retry_after_seconds} s")]
pub struct Throttled {
    /// How long to wait.
    pub retry_after_seconds: u64,
}

impl Default for Throttle {
    fn default() -> Self {
        let quota = Quota::with_period(ONE_MORE_EVERY)
            .unwrap_or_else(|| Quota::per_minute(FREE_FAILURES))
            .allow_burst(FREE_FAILURES);
        Self {
            failures: RateLimiter::keyed(quota),
            shut_until: Mutex::default(),
        }
    }
}

impl Throttle {
    /// Refuses while the key is shut out.
    pub fn check(&self, key: &str) -> Result<(), Throttled> {
        let mut shut = self
            .shut_until
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(until) = shut.get(key).copied() else {
            return Ok(());
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            shut.remove(key);
            return Ok(());
        }
        Err(Throttled {
            retry_after_seconds: left.as_secs() + 1,
        })
    }

    /// Counts a failure.
    pub fn failed(&self, key: &str) {
        if let Err(not_until) = self.failures.check_key(&key.to_owned()) {
            let wait = not_until.wait_time_from(governor::clock::DefaultClock::default().now());
            let mut shut = self
                .shut_until
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            shut.insert(key.to_owned(), Instant::now() + wait);
        }
    }

    /// Forgets keys that have not failed for long. Called from time to time, so that the table is
    /// bounded by the failures of some minutes.
    pub fn forget_old(&self) {
        self.failures.retain_recent();
        let now = Instant::now();
        self.shut_until
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .retain(|_, until| *until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eleventh_failure_in_a_row_shuts_out_its_own_key_only() {
        let throttle = Throttle::default();
        for _ in 0..10 {
            throttle.failed("a");
            assert!(throttle.check("a").is_ok());
        }
        throttle.failed("a");
        assert!(throttle.check("a").unwrap_err().retry_after_seconds <= 7);
        assert!(throttle.check("b").is_ok());
    }
}
