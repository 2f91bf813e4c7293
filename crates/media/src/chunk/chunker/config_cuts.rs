//! Detects a stream that changes its decoder configuration constantly: every change begins a chunk.
//!
//! PURE.

const SECOND: u64 = 1_000_000_000;
/// More changes than this in each second are too many.
const PER_SECOND: u64 = 2;
/// For this many seconds in a row.
const SECONDS: u64 = 10;

/// Counts the cuts for a new configuration.
#[derive(Debug, Default)]
pub(super) struct ConfigCuts {
    /// Start of the second that is being counted, ns.
    since: u64,
    /// Cuts in it.
    count: u64,
    /// Consecutive seconds before it that had too many.
    seconds: u64,
    /// Cuts in those.
    before: u64,
}

impl ConfigCuts {
    /// Counts a cut at `now`, ns on any scale. Returns the number of cuts in the last [`SECONDS`] s if each of these had more
    /// than [`PER_SECOND`].
    pub(super) fn cut(&mut self, now: u64) -> Option<u64> {
        let passed = now.saturating_sub(self.since) / SECOND;
        // Start again if the clock went back: otherwise the current second would last until the clock has caught up.
        if passed > 0 || now < self.since {
            let is_row = passed == 1 && self.count > PER_SECOND;
            (self.seconds, self.before) = if is_row {
                (self.seconds + 1, self.before + self.count)
            } else {
                (0, 0)
            };
            // Consecutive seconds begin where the previous one ended: counted from the first cut of each, they would drift.
            self.since = if is_row { self.since + SECOND } else { now };
            self.count = 0;
        }
        self.count += 1;
        (self.seconds + 1 >= SECONDS && self.count > PER_SECOND).then_some(self.before + self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(cuts_per_second: u64, seconds: u64) -> Option<u64> {
        let mut cuts = ConfigCuts::default();
        let step = SECOND / cuts_per_second;
        let times = (0..cuts_per_second * seconds).map(|i| 1_795_329_912 * SECOND + i * step);
        let start = 1_795_329_912 * SECOND;
        times
            .into_iter()
            .find(|&at| cuts.cut(at).is_some())
            .map(|at| (at - start) / SECOND)
    }

    #[test]
    fn three_a_second_for_ten_seconds_are_too_many_and_two_never_are() {
        assert_eq!(first(3, 60), Some(9));
        assert_eq!(first(50, 60), Some(9));
        assert_eq!(first(2, 3600), None);
        assert_eq!(first(50, 9), None, "a burst");
    }

    #[test]
    fn a_quiet_second_begins_the_count_again_and_so_does_a_clock_that_goes_back() {
        let mut cuts = ConfigCuts::default();
        for second in (0..60).filter(|second| second % 8 != 7).chain(20..29) {
            for i in 0..5 {
                assert_eq!(cuts.cut(second * SECOND + i), None, "{second}");
            }
        }
    }
}
