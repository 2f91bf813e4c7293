//! Delimiter, parameter sets and SEI in a tag of their own: they are the beginning of the picture that follows.
//!
//! PURE. A chunk has to begin with them, so they are held back until the picture shows whether it is a key frame, together
//! with the units in between.

use bytes::Bytes;

use super::super::{Key, Mark, MarkKind, Track, Unit};
use super::super::{nal, work};
use super::Flv;
use super::pictures::PictureTag;
use super::tag::TagHeader;

/// Most coded bytes that are held back: 64 KiB.
pub(super) const MOST: usize = 64 << 10;
/// Most units that are held back behind them, and most bytes.
const MOST_UNITS: usize = 256;
/// See [`MOST_UNITS`].
const MOST_BYTES: u64 = 1 << 20;

/// What waits for its picture.
#[derive(Debug)]
pub(super) struct Prefix {
    /// Offset of its tag.
    pub(super) at: u64,
    /// The header in front of it, where it is the first unit of the input.
    pub(super) head: Option<Bytes>,
    /// The units behind it.
    pub(super) behind: Vec<Mark>,
    /// The unit that it is without a picture.
    unit: Unit,
    coded: Vec<u8>,
}

impl Prefix {
    /// The coded bytes of the picture, with these in front.
    pub(super) fn join(&self, coded: &[u8]) -> Vec<u8> {
        let most = nal::MAX_PREFIX.min(coded.len());
        work::count(self.coded.len() + most);
        [&self.coded, coded.get(..most).unwrap_or(coded)].concat()
    }

    /// Whether too much would be held back with a unit at `at`.
    pub(super) fn is_overdue(&self, at: u64) -> bool {
        self.behind.len() > MOST_UNITS || at.saturating_sub(self.at) > MOST_BYTES
    }
}

impl Flv {
    /// Holds back a tag without a slice, behind others of the same picture.
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
        // A later slice of the picture before may follow: then that one has not ended.
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

    /// No picture follows: emits what is held back as it stands.
    pub(super) fn release_prefix(&mut self, marks: &mut Vec<Mark>) {
        let Some(prefix) = self.prefix.take() else { return };
        self.emit_picture_end(prefix.at, marks);
        let in_band = nal::parameter_sets(self.video, self.framing, &prefix.coded);
        // Its sets are in force all the same: a later key frame may lack them.
        self.sets.take(&in_band, false);
        marks.push(Mark {
            at: prefix.at,
            kind: MarkKind::Unit(prefix.unit),
        });
        marks.extend(prefix.behind);
    }
}
