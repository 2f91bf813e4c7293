//! How long to wait after a failure. PURE: time and chance are arguments.

use std::time::Duration;

/// Longest pause.
const CAP: Duration = Duration::from_secs(60);
/// A connection that lived this long shows that the trouble is over.
pub(super) const LIVED: Duration = Duration::from_secs(60);

/// Doubling pauses: 1 s, 2 s, 4 s … 60 s, each with up to a second of chance on top, never over the cap.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after a failure; `lived` is how long connections had been up before it.
    pub(super) fn failed(&mut self, lived: Duration, jitter: Duration) -> Duration {
        if lived >= LIVED {
            self.failures = 0;
        }
        let pause = Duration::from_secs(1u64 << self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        pause.saturating_add(jitter.min(Duration::from_secs(1))).min(CAP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_only_after_a_minute_of_life() {
        let mut backoff = Backoff::default();
        let mut fail = |lived| {
            backoff
                .failed(Duration::from_secs(lived), Duration::from_millis(500))
                .as_millis()
        };
        let first: Vec<_> = (0..8).map(|_| fail(0)).collect();
        assert_eq!(first, [1500, 2500, 4500, 8500, 16500, 32500, 60000, 60000]);
        assert_eq!(fail(59), 60000);
        assert_eq!(fail(60), 1500);
    }
}
