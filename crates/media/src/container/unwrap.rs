//! Unwraps timestamps of limited width (33 bits in MPEG-TS, 32 bits in FLV).
//!
//! PURE. A timestamp means the time nearest to the last *confirmed* one. A time is confirmed if it is close to the one directly
//! before it. So one or a few wrong timestamps cannot move the time line across a wrap.

/// Unwraps one series of timestamps. Times are in ticks of the container.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unwrapper {
    /// Last confirmed time.
    confirmed: Option<i64>,
    /// Last time.
    last: i64,
}

impl Unwrapper {
    /// Creates an unwrapper that places the first timestamp near `time`.
    pub(super) fn near(time: Option<i64>) -> Self {
        Self {
            confirmed: time,
            last: time.unwrap_or_default(),
        }
    }

    /// Returns the last confirmed time.
    pub(super) fn confirmed(&self) -> Option<i64> {
        self.confirmed
    }

    /// Returns the time for the timestamp `raw`. Timestamps wrap at `wrap` ticks; times less than `close` ticks apart confirm
    /// each other. Except for the first, the result is greater than `-close`.
    pub(super) fn unwrap(&mut self, raw: i64, wrap: i64, close: i64) -> i64 {
        let Some(confirmed) = self.confirmed else {
            *self = Self::near(Some(raw));
            return raw;
        };
        let ahead = raw.saturating_sub(confirmed).rem_euclid(wrap);
        let step = if ahead < wrap / 2 { ahead } else { ahead - wrap };
        let mut time = confirmed.saturating_add(step);
        // Pictures stored behind the first may be shown a little before it, so small negative times are legal. A time further
        // below 0 belongs behind the next wrap.
        if time <= -close {
            time += wrap;
        }
        if time.saturating_sub(self.last).unsigned_abs() < close.unsigned_abs() {
            self.confirmed = Some(time);
        }
        self.last = time;
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(raw: &[i64]) -> Vec<i64> {
        let mut times = Unwrapper::default();
        raw.iter().map(|&raw| times.unwrap(raw, 1000, 20)).collect()
    }

    #[test]
    fn times_go_on_over_every_wrap() {
        assert_eq!(line(&[980, 995, 5, 15, 4]), [980, 995, 1005, 1015, 1004]);
        assert_eq!(line(&[5, 995, 10]), [5, -5, 10], "shown before the first one");
    }

    #[test]
    fn wrong_times_in_a_row_carry_the_line_over_no_wrap() {
        assert_eq!(line(&[10, 12, 400, 800, 14, 16]), [10, 12, 400, 800, 14, 16]);
        assert_eq!(line(&[10, 600, 610, 620, 20, 30])[4..], [1020, 1030], "nearest");
    }
}
