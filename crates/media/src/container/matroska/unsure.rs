//! An element larger than any before: its size may be wrong. A flipped bit in it would pass over minutes of a Cluster of unknown
//! size in silence.
//!
//! PURE. The next Cluster, or head, inside of it shows it.

use super::super::Mark;
use super::super::feed::{Step, len64};
use super::super::work;
use super::ebml::Read;
use super::{Parser, plausible};

/// An element up to this size is believed in any case: 64 KiB.
const SURE: u64 = 64 << 10;

impl Parser {
    /// Passes over an element of `total` bytes at `element_at`.
    pub(super) fn pass(&mut self, total: u64) -> Step {
        if total <= self.stream.largest.max(SURE) {
            return Step::Pass(total);
        }
        self.unsure = Some(self.element_at.saturating_add(total));
        Step::Pass(1)
    }

    /// Passes over what of an element that ends at `end` is in `view`, unless a Cluster begins in it.
    pub(super) fn pass_unsure(&mut self, end: u64, pos: u64, view: &[u8], marks: &mut Vec<Mark>) -> Step {
        let left = end.saturating_sub(pos);
        if left == 0 {
            self.unsure = None;
            // Its size has proved right: as large ones are believed from here on.
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
