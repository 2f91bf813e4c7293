//! Computes how long a chunk is from the times of its frames.
//!
//! PURE.

/// The times of the frames of one track, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    count: u64,
    first: u64,
    last: u64,
    end: u64,
    /// Whether the end of the last frame is known.
    last_has_end: bool,
}

impl Frames {
    /// Adds a frame at `pts`; `end` if it is known. Both in ns.
    #[inline]
    pub fn add(&mut self, pts: u64, end: Option<u64>) {
        if self.count == 0 {
            (self.first, self.last) = (pts, pts);
        }
        // Frames come in the order of decoding: only the latest one can end the chunk.
        if pts >= self.last {
            self.last_has_end = end.is_some();
        }
        self.first = self.first.min(pts);
        self.last = self.last.max(pts);
        self.end = self.end.max(end.unwrap_or(0));
        self.count += 1;
    }

    /// Returns whether there are no frames.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the mean length of a frame, ns; `None` if there are fewer than two, or all have the same time.
    pub fn mean(&self) -> Option<u64> {
        // Equal times do not show a length.
        (self.last - self.first)
            .checked_div(self.count.saturating_sub(1))
            .filter(|&m| m > 0)
    }

    /// Returns the end of the last frame: the known one, or one mean frame after its start. `usual` is the duration of
    /// earlier frames, ns.
    pub fn end(&self, usual: u64) -> u64 {
        if self.last_has_end {
            return self.end;
        }
        // The known end of an earlier frame may lie behind this guess.
        self.end.max(self.last.saturating_add(self.mean().unwrap_or(usual)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_frame_lasts_as_long_as_the_others() {
        let mut frames = Frames::default();
        for pts in [0, 120, 40, 80] {
            frames.add(pts, None);
        }
        assert_eq!(frames.end(7), 160);
        frames.add(160, Some(190));
        assert_eq!(frames.end(7), 190, "but its own word counts");
    }

    #[test]
    fn a_single_frame_is_as_long_as_those_before() {
        let mut frames = Frames::default();
        assert!(frames.is_empty());
        frames.add(7, None);
        assert_eq!(frames.end(0), 7);
        assert_eq!(frames.end(40), 47);
    }
}
