//! Handles access unit delimiters, parameter sets and SEI in a tag of their own: they are the beginning of the next picture.
//!
//! PURE. A chunk that begins with that picture has to begin with them. So they are held back, together with the units in
//! between, until the picture shows whether it is a key frame.

use bytes::Bytes;

use super::super::{Key, Mark, MarkKind, Track, Unit};
use super::super::{nal, work};
use super::Flv;
use super::pictures::PictureTag;
use super::tag::TagHeader;

/// Maximum number of coded bytes that are held back: 64 KiB.
pub(super) const MOST: usize = 64 << 10;
/// Maximum number of units held back behind them. [`MOST_BYTES`] limits the distance in bytes.
const MOST_UNITS: usize = 256;
/// See [`MOST_UNITS`].
const MOST_BYTES: u64 = 1 << 20;

/// One or more tags that wait for their picture.
#[derive(Debug)]
pub(super) struct Prefix {
    /// Offset of the first tag.
    pub(super) at: u64,
    /// The head of the input, if this is its first unit.
    pub(super) head: Option<Bytes>,
    /// Marks behind it, held back too.
    pub(super) behind: Vec<Mark>,
    /// The unit to emit if no picture follows.
    unit: Unit,
    coded: Vec<u8>,
}

impl Prefix {
    /// Returns the coded bytes of the prefix, followed by the first bytes of the picture `coded`.
    pub(super) fn join(&self, coded: &[u8]) -> Vec<u8> {
        let most = nal::MAX_PREFIX.min(coded.len());
        work::count(self.coded.len() + most);
        [&self.coded, coded.get(..most).unwrap_or(coded)].concat()
    }

    /// Returns whether a unit at `at` exceeds the limits of what may be held back.
    pub(super) fn is_overdue(&self, at: u64) -> bool {
        self.behind.len() > MOST_UNITS || at.saturating_sub(self.at) > MOST_BYTES
    }
}

impl Flv {
    /// Holds back a tag without a slice. Appends it to the prefix if there is one already.
    pub(super) fn hold_prefix(&mut self, tag: &PictureTag<'_>, header: TagHeader, marks: &mut Vec<Mark>) {
        if self
            .prefix
            .as_ref()
            .is_some_and(|prefix| prefix.coded.len() + tag.coded.len() > MOST)
        {
            self.release_prefix(marks);
        }
        if let Some(prefix) = &mut self.prefix {
            prefix.coded.extend_from_slice(tag.coded);
            return;
        }
        // The end of the previous picture is not emitted here: another slice of it may still follow.
        self.see_video();
        let pts = self.time(header.time, tag.composition_ms);
        let is_first = self.head.is_some();
        let init = self.init_here();
        self.prefix = Some(Prefix {
            at: self.at,
            head: is_first.then(|| init.head.clone()),
            behind: Vec::new(),
            unit: Unit {
                track: Track::Video,
                key: Key::No,
                pts: Some(pts),
                end: None,
                decode: None,
                sample_at: None,
                new_codec_config: false,
                init: Some(init),
            },
            coded: tag.coded.to_vec(),
        });
    }

    /// Emits the held-back tags as a unit of their own, because no picture follows.
    pub(super) fn release_prefix(&mut self, marks: &mut Vec<Mark>) {
        let Some(prefix) = self.prefix.take() else { return };
        self.emit_picture_end(prefix.at, marks);
        let in_band = nal::parameter_sets(self.video, self.framing, &prefix.coded);
        // Its parameter sets are in force nevertheless: a later key frame may need them.
        self.sets.take(&in_band, false);
        marks.push(Mark {
            at: prefix.at,
            kind: MarkKind::Unit(prefix.unit),
        });
        marks.extend(prefix.behind);
    }
}
