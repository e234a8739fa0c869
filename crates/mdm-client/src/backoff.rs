//! Pauses between attempts: exponential, with full jitter, so that a fleet that lost its server
//! does not come back in one moment.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

const LONGEST: Duration = Duration::from_mins(1);

/// Pauses between attempts: each anything between nothing and a bound, which doubles from a second
/// to a minute. So clients that lost their server together do not come back together.
#[derive(Debug)]
pub struct Backoff(ExponentialBackoff);

impl Default for Backoff {
    fn default() -> Self {
        let builder = ExponentialBuilder::default();
        Self(
            builder
                .with_min_delay(Duration::from_secs(1))
                .with_max_delay(LONGEST)
                .with_factor(2.0)
                .without_max_times()
                .build(),
        )
    }
}

impl Backoff {
    /// The next pause: anything between nothing and the present bound.
    pub fn pause(&mut self) -> Duration {
        let bound = self.0.next().unwrap_or(LONGEST);
        bound.mul_f64(rand::random_range(0.0..=1.0))
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute_and_no_further() {
        let mut backoff = Backoff::default();
        assert!(backoff.pause() <= Duration::from_secs(1));
        for _ in 0..50 {
            assert!(backoff.pause() <= LONGEST);
        }
    }
}
