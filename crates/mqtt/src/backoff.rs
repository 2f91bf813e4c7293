//! How long to wait after a failure. PURE: time and jitter are arguments.

use std::time::Duration;

// With the jitter at most a minute, as the report of an outage states.
/// Longest pause, without the jitter.
const CAP: Duration = Duration::from_secs(59);
/// Largest jitter. Applied at the cap too: otherwise all cameras of a site would reconnect to their broker at the same moment.
const JITTER: Duration = Duration::from_secs(1);
// An accepted connection alone is not enough: two clients with one id end each other's connection right after it.
/// A connection that lasted this long resets the back-off.
pub(super) const LIVED: Duration = Duration::from_secs(60);

/// Doubling pauses: 1 s, 2 s, 4 s … 59 s, each plus up to a second of jitter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Returns the pause after a failure. `lived` is how long the connection had lasted before it.
    pub(super) fn failed(&mut self, lived: Duration, jitter: Duration) -> Duration {
        if lived >= LIVED {
            self.failures = 0;
        }
        // 2^6 s exceeds `CAP`; an unbounded shift would overflow.
        let pause = Duration::from_secs(1u64 << self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        pause.min(CAP).saturating_add(jitter.min(JITTER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cameras_that_lost_one_broker_do_not_all_come_back_at_once() {
        let mut backoff = Backoff::default();
        for _ in 0..8 {
            backoff.failed(Duration::ZERO, Duration::ZERO);
        }
        let pauses = [0, 250, 999].map(|ms| backoff.failed(Duration::ZERO, Duration::from_millis(ms)).as_millis());
        assert_eq!(pauses, [59_000, 59_250, 59_999]);
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_again_only_after_a_minute_of_life() {
        let mut backoff = Backoff::default();
        let mut fail = |lived| {
            backoff
                .failed(Duration::from_secs(lived), Duration::from_millis(500))
                .as_millis()
        };
        let first: Vec<_> = (0..8).map(|_| fail(0)).collect();
        assert_eq!(first, [1500, 2500, 4500, 8500, 16500, 32500, 59500, 59500]);
        assert_eq!(fail(59), 59500);
        assert_eq!(fail(60), 1500);
    }
}
