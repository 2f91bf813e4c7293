//! Times of tags whose writer leaves `TimestampExtended` at 0.
//!
//! PURE. Source: Adobe FLV 10.1 E.4.1: 24 bits, which wrap after 4 h 40 min, and an octet of further ones.

/// Where 24 bits wrap.
const WRAP: u32 = 1 << 24;
/// Times this close to the wrap, before it and behind it, are on either side of it: 5 s. A recording that begins anew from 0 hardly
/// does so just there.
const CLOSE: u32 = 5000;

/// Adds the bits that are missing. Times in ms.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Widened {
    last: u32,
    /// What has been wrapped over.
    base: u32,
    /// The writer has used the octet.
    is_extended: bool,
}

impl Widened {
    /// Returns the time that a tag's `ms` means, of 32 bits.
    pub(super) fn widen(&mut self, ms: u32) -> u32 {
        // Once the octet has been used, a small time is a real one: nothing is added any more.
        self.is_extended |= ms >= WRAP;
        if self.is_extended {
            return ms;
        }
        let is_behind = |ms: u32| ms >= WRAP - CLOSE;
        if self.base > 0 && self.last < CLOSE && is_behind(ms) {
            // Of the other track, from before the wrap.
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
        let anew = [100_000, 0, 40, WRAP - 6000, 40];
        assert_eq!(widen(&anew), anew);
    }
}
