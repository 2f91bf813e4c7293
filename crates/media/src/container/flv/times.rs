//! Unwraps the timestamps of writers that leave `TimestampExtended` at 0.
//!
//! PURE. Source: Adobe FLV 10.1 E.4.1: a timestamp of 24 bits, which wraps after 4 h 40 min, and an octet with its upper 8 bits.

/// Timestamps of 24 bits wrap here.
const WRAP: u32 = 1 << 24;
/// A step from less than 5 s before the wrap to less than 5 s behind 0 counts as a wrap, any other step back to a small value as
/// a new recording: one is unlikely to begin at 0 within just these 5 s.
const CLOSE: u32 = 5000;

/// Adds the missing upper bits. Times are in ms.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Widened {
    last: u32,
    /// Number of wraps so far times [`WRAP`].
    base: u32,
    /// Whether the writer has used the octet.
    is_extended: bool,
}

impl Widened {
    /// Returns the timestamp of 32 bits that a tag's `ms` stands for.
    pub(super) fn widen(&mut self, ms: u32) -> u32 {
        // A writer that uses the octet does not wrap at 24 bits: from here on a small value is a real one.
        self.is_extended |= ms >= WRAP;
        if self.is_extended {
            return ms;
        }
        let is_behind = |ms: u32| ms >= WRAP - CLOSE;
        if self.base > 0 && self.last < CLOSE && is_behind(ms) {
            // A late tag of the other track, from before the wrap.
            return self.base.wrapping_add(ms).wrapping_sub(WRAP);
        }
        if is_behind(self.last) && ms < CLOSE {
            self.base = self.base.wrapping_add(WRAP);
        }
        self.last = ms;
        self.base.wrapping_add(ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_24_bits_go_on_over_every_wrap_and_others_stay() {
        let widen = |times: &[u32]| {
            let mut widened = Widened::default();
            times.iter().map(|&ms| widened.widen(ms)).collect::<Vec<_>>()
        };
        let (before, late) = (WRAP - 20, WRAP - 5);
        assert_eq!(
            widen(&[before, 10, late, 30, WRAP / 2, before, 7]),
            [
                before,
                WRAP + 10,
                late,
                WRAP + 30,
                WRAP + WRAP / 2,
                WRAP + before,
                2 * WRAP + 7
            ]
        );
        let extended = [before, WRAP + 10, late, WRAP + 30, 0, 40];
        assert_eq!(widen(&extended), extended);
        let restarted = [100_000, 0, 40, WRAP - 6000, 40];
        assert_eq!(widen(&restarted), restarted);
    }
}
