//! How many bytes a second came in the last minutes.
//!
//! PURE: time is an argument in ns on any monotonic scale.

use std::collections::VecDeque;

const SECOND: u64 = 1_000_000_000;
/// Bytes of this time are counted together.
const SLOT: u64 = 10 * SECOND;
/// So much is remembered: five minutes.
const SLOTS: u64 = 30;

/// A rate. What came long ago does not count: a camera may be set to another one.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    /// When the first byte came.
    since: Option<u64>,
    /// The number of a slot, and the bytes that came in it; none of them older than [`SLOTS`].
    slots: VecDeque<(u64, u64)>,
    /// The rate when something came last.
    last: u64,
}

impl Rate {
    /// These bytes have come.
    pub fn add(&mut self, bytes: u64, now: u64) {
        self.since.get_or_insert(now);
        let slot = now / SLOT;
        match self.slots.back_mut() {
            Some((last, sum)) if *last >= slot => *sum = sum.saturating_add(bytes),
            _ => {
                // Kept for a time in which nothing comes; the first bytes of a new slot would blur it.
                self.last = self.measured(now).unwrap_or(self.last);
                self.slots.push_back((slot, bytes));
            }
        }
        while self.slots.front().is_some_and(|(first, _)| first + SLOTS < slot) {
            self.slots.pop_front();
        }
    }

    /// These bytes, which have come just now, are not taken after all.
    pub fn take_back(&mut self, bytes: u64) {
        if let Some((_, sum)) = self.slots.back_mut() {
            *sum = sum.saturating_sub(bytes);
        }
    }

    /// Bytes a second; where nothing has come for minutes, what it was before. 0 while nothing has come at all.
    pub fn per_second(&self, now: u64) -> u64 {
        self.measured(now).unwrap_or(self.last)
    }

    /// `None` if nothing has come in the last minutes.
    fn measured(&self, now: u64) -> Option<u64> {
        let oldest = (now / SLOT).saturating_sub(SLOTS);
        let recent = self.slots.iter().filter(|(slot, _)| *slot >= oldest);
        let bytes: u64 = recent
            .map(|(_, bytes)| bytes)
            .fold(0, |sum, bytes| sum.saturating_add(*bytes));
        let from = self.since?.max(oldest * SLOT);
        // The first buffers of a session would give a rate without bounds.
        let time = now.saturating_sub(from).max(SECOND);
        // Bytes times ns pass 64 bits at 18 GB.
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
        rate.take_back(500);
        assert_eq!(rate.per_second(SECOND), 1000);
    }
}
