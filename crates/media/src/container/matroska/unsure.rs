//! Handles elements larger than any before, whose size may be wrong. A flipped bit in the size would silently skip minutes of a
//! Cluster of unknown size.
//!
//! PURE. A Cluster or a head inside the element reveals a wrong size.

use super::super::Mark;
use super::super::feed::{Step, len64};
use super::super::work;
use super::ebml::Read;
use super::{Parser, plausible};

/// Element sizes up to this one are always accepted: 64 KiB.
const SURE: u64 = 64 << 10;

impl Parser {
    /// Skips an element of `total` bytes at `element_at`.
    pub(super) fn pass(&mut self, total: u64) -> Step {
        if total <= self.stream.largest.max(SURE) {
            return Step::Pass(total);
        }
        self.unsure = Some(self.element_at.saturating_add(total));
        Step::Pass(1)
    }

    /// Skips the part of an element that is in `view`. The element ends at `end`, or earlier if a Cluster or a head begins in it.
    pub(super) fn pass_unsure(&mut self, end: u64, pos: u64, view: &[u8], marks: &mut Vec<Mark>) -> Step {
        let left = end.saturating_sub(pos);
        if left == 0 {
            self.unsure = None;
            // The size proved right: elements up to this size are accepted from now on.
            self.stream.largest = self.stream.largest.max(end - self.element_at);
            return Step::Pass(0);
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(view.len());
        let body = view.get(..most).unwrap_or(view);
        let mut from = 0;
        while let Some(at) = body
            .get(from..)
            .and_then(|rest| rest.iter().position(|b| matches!(b, 0x1A | 0x1F)))
            .map(|at| from + at)
        {
            work::count(at + 1 - from);
            match plausible(view.get(at..).unwrap_or_default()) {
                Read::Bad => from = at + 1,
                Read::Need(n) if at == 0 => return Step::Need(n),
                Read::Need(_) => return Step::Pass(len64(at)),
                Read::Got(_) => {
                    self.unsure = None;
                    self.stream.end_picture_at(pos + len64(at), marks);
                    self.damaged(pos + len64(at), marks);
                    return Step::Pass(len64(at));
                }
            }
        }
        work::count(body.len().saturating_sub(from));
        Step::Pass(len64(body.len()))
    }
}
