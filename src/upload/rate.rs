//! Bytes per second received in the last minutes.
//!
//! PURE: time is an argument in ns on any monotonic scale.

use std::collections::VecDeque;

const SECOND: u64 = 1_000_000_000;
/// Length of a slot, ns: bytes received in it are counted together.
const SLOT: u64 = 10 * SECOND;
/// Number of slots: five minutes.
const SLOTS: u64 = 30;

/// A rate. Bytes received earlier do not count: a camera may be set to another rate.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    /// When the first byte was received.
    since: Option<u64>,
    /// Slot number and bytes received in it; no slot is older than [`SLOTS`].
    slots: VecDeque<(u64, u64)>,
    /// The rate when bytes were last received.
    last: u64,
}

impl Rate {
    /// Counts received bytes.
    pub fn add(&mut self, bytes: u64, now: u64) {
        self.since.get_or_insert(now);
        let slot = now / SLOT;
        match self.slots.back_mut() {
            Some((last, sum)) if *last >= slot => *sum = sum.saturating_add(bytes),
            _ => {
                // Remember the rate for a later pause. Measured before the new slot is added, whose first bytes would distort it.
                self.last = self.measured(now).unwrap_or(self.last);
                self.slots.push_back((slot, bytes));
            }
        }
        while self.slots.front().is_some_and(|(first, _)| first + SLOTS < slot) {
            self.slots.pop_front();
        }
    }

    /// Reverts the last [`Self::add`] of that many bytes.
    pub fn refund(&mut self, bytes: u64) {
        if let Some((_, sum)) = self.slots.back_mut() {
            *sum = sum.saturating_sub(bytes);
        }
    }

    /// Returns bytes per second. If nothing was received for minutes, returns the rate before that; 0 if nothing was ever
    /// received.
    pub fn per_second(&self, now: u64) -> u64 {
        self.measured(now).unwrap_or(self.last)
    }

    /// Returns the rate of the last minutes; `None` if nothing was received in them.
    fn measured(&self, now: u64) -> Option<u64> {
        let oldest = (now / SLOT).saturating_sub(SLOTS);
        let recent = self.slots.iter().filter(|(slot, _)| *slot >= oldest);
        let bytes: u64 = recent
            .map(|(_, bytes)| bytes)
            .fold(0, |sum, bytes| sum.saturating_add(*bytes));
        let from = self.since?.max(oldest * SLOT);
        // At least one second: the first buffers of a session would give an unbounded rate.
        let time = now.saturating_sub(from).max(SECOND);
        // Computed in 128 bits: bytes times ns exceed 64 bits at 18 GB.
        let rate = u128::from(bytes) * u128::from(SECOND) / u128::from(time);
        (bytes > 0).then(|| u64::try_from(rate).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds `from..to` of a stream of so many bytes a second, 25 buffers each.
    fn stream(rate: &mut Rate, from: u64, to: u64, bytes: u64) {
        for second in from..to {
            (0..25).for_each(|i| rate.add(bytes / 25, second * SECOND + i * SECOND / 25));
        }
    }

    fn is_near(rate: u64, wanted: u64) -> bool {
        rate.abs_diff(wanted) <= wanted / 50
    }

    #[test]
    fn the_rate_is_right_after_a_minute_a_day_and_a_month() {
        for end in [60, 86_400, 30 * 86_400, 365 * 86_400] {
            let mut rate = Rate::default();
            stream(&mut rate, 0, 60, 500_000);
            stream(&mut rate, end - 60, end, 500_000);
            stream(&mut rate, end, end + 400, 500_000);
            let found = rate.per_second((end + 400) * SECOND);
            assert!(is_near(found, 500_000), "{found} after {end} s");
        }
    }

    #[test]
    fn another_rate_of_the_camera_counts_within_minutes_and_none_counts_as_the_last_one() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(0), 0);
        stream(&mut rate, 0, 1000, 500_000);
        stream(&mut rate, 1000, 1320, 4_000_000);
        assert!(is_near(rate.per_second(1320 * SECOND), 4_000_000));
        stream(&mut rate, 1320, 1321, 4_000_000);
        let later = rate.per_second(90_000 * SECOND);
        assert!(is_near(later, 4_000_000), "{later}");
    }

    #[test]
    fn the_largest_figures_do_not_overflow_and_what_is_taken_back_does_not_count() {
        let mut rate = Rate::default();
        rate.add(u64::MAX, u64::MAX - 2 * SECOND);
        rate.add(u64::MAX, u64::MAX - SECOND);
        assert!(rate.per_second(u64::MAX) > 1 << 60);
        let mut rate = Rate::default();
        rate.add(1000, 0);
        rate.add(500, SECOND);
        rate.refund(500);
        assert_eq!(rate.per_second(SECOND), 1000);
    }
}
