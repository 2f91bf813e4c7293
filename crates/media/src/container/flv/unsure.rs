//! Handles tags whose size may be wrong: larger than any before, or of a reserved type or another stream. A wrong size would
//! silently skip seconds of the stream.
//!
//! PURE. The `PreviousTagSize` behind the true end of a tag reveals a wrong size: it is the distance to the start of the tag.
//! Bytes that are no tag at all have no `PreviousTagSize`; there, consecutive tags inside the announced size reveal it.

use super::super::feed::{Step, len64};
use super::super::work;
use super::super::{Mark, MarkKind};
use super::Flv;
use super::tag::{TAG_HEADER, TRAILER, TagHeader};

/// Tag sizes up to this one are always accepted: 16 KiB.
pub(super) const SURE: usize = 16 << 10;

/// A tag that is being skipped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsure {
    /// Offset of its first byte.
    pub(super) start: u64,
    /// Offset where it ends according to its own size.
    end: u64,
}

impl Unsure {
    pub(super) fn new(start: u64, total: usize) -> Self {
        Self {
            start,
            end: start + len64(total),
        }
    }

    /// Returns whether the tag ends at `at`: `data`, the bytes from there on, are a matching `PreviousTagSize` and the header of
    /// another tag. Returns `None` if more bytes are needed.
    fn ends_at(&self, at: u64, data: &[u8], stream: [u8; 3]) -> Option<bool> {
        let size = data.first_chunk::<TRAILER>()?;
        if u64::from(u32::from_be_bytes(*size)) != at - self.start {
            return Some(false);
        }
        // Four bytes alone equal the distance by chance too often: a tag header has to follow as well.
        let next = data.get(TRAILER..TRAILER + TAG_HEADER)?;
        Some(TagHeader::parse(next).is_some_and(|header| header.is_plain(stream)))
    }
}

/// Returns the position of the first complete tag behind the start of `view` that ends with its own size and is followed by
/// another tag.
pub(super) fn holds_tags(view: &[u8], stream: [u8; 3]) -> Option<usize> {
    work::count(view.len());
    (1..view.len()).find(|&at| {
        let tag = view.get(at..).unwrap_or_default();
        TagHeader::parse(tag).is_some_and(|header| {
            header.is_plain(stream)
                && header.size > 0
                && header.is_confirmed(tag)
                && tag
                    .get(header.total()..)
                    .and_then(TagHeader::parse)
                    .is_some_and(|next| next.is_plain(stream))
        })
    })
}

impl Flv {
    /// Skips the part of the tag that is in `view`, up to the announced end, or up to the real end if that comes earlier.
    pub(super) fn pass_unsure(&mut self, unsure: Unsure, view: &[u8], marks: &mut Vec<Mark>) -> Step {
        let left = unsure.end - self.at;
        let needed = TRAILER + TAG_HEADER;
        // Too few bytes are left for an earlier end with a tag behind it: the announced size was right.
        if left <= len64(needed) {
            self.unsure = None;
            let size = usize::try_from(unsure.end - unsure.start).unwrap_or(0);
            self.largest = self.largest.max(size.saturating_sub(TAG_HEADER + TRAILER));
            return Step::Pass(left);
        }
        let most = usize::try_from(left - len64(needed)).unwrap_or(usize::MAX);
        let here = view.get(..view.len().min(most)).unwrap_or(view);
        for at in 0..here.len() {
            work::count(1);
            let data = view.get(at..).unwrap_or_default();
            match unsure.ends_at(self.at + len64(at), data, self.stream) {
                Some(false) => {}
                Some(true) => {
                    let end = self.at + len64(at + TRAILER);
                    self.unsure = None;
                    self.release_prefix(marks);
                    // The announced end lies behind the damage: the picture ends at the real end of its tag.
                    self.picture_end = self.picture_end.map(|_| end);
                    self.emit_picture_end(end, marks);
                    marks.push(Mark {
                        at: end,
                        kind: MarkKind::Damage,
                    });
                    return Step::Pass(len64(at + TRAILER));
                }
                None if at == 0 => return Step::Need(needed),
                None => return Step::Pass(len64(at)),
            }
        }
        Step::Pass(len64(here.len()))
    }
}
