//! Blocks held back until it is known with which of them a chunk can begin.
//!
//! PURE. Two reasons: a Cluster is a key unit if its first picture is key, even if sound precedes that picture; and parameter
//! sets in a block of their own are the beginning of the picture that follows.

use super::super::nal::Part;
use super::super::{Mark, Track};
use super::stream::{CutPoint, Frame, Stream};

/// Most blocks and bytes held back.
pub(super) const MAX_HELD_BLOCKS: usize = 256;
/// See [`MAX_HELD_BLOCKS`].
pub(super) const MAX_HELD_BYTES: u64 = 8 << 20;

/// Blocks from one place on.
#[derive(Debug)]
pub(super) struct Held {
    /// Where a chunk would begin.
    pub(super) at: u64,
    /// With which header.
    place: CutPoint,
    frames: Vec<Frame>,
}

impl Held {
    pub(super) fn new(at: u64, place: CutPoint) -> Self {
        Self {
            at,
            place,
            frames: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether this is the start of a Cluster, of which no block has been emitted.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.place, CutPoint::Cluster)
    }

    /// Holds back a block. Returns whether that is too much.
    pub(super) fn push(&mut self, frame: Frame) -> bool {
        let bytes = frame.end_at.saturating_sub(self.at);
        self.frames.push(frame);
        self.frames.len() >= MAX_HELD_BLOCKS || bytes > MAX_HELD_BYTES
    }

    /// The picture has come: emits it where its first block begins, or in front of everything if it is key. `rest` is where
    /// those behind it may begin a chunk.
    pub(super) fn resolve(mut self, mut picture: Frame, rest: &CutPoint, stream: &mut Stream, marks: &mut Vec<Mark>) {
        let is_prefix = |frame: &Frame| frame.part == Part::Prefix;
        picture.at = self.frames.iter().find(|f| is_prefix(f)).map_or(picture.at, |f| f.at);
        // They are the beginning of the picture now, and no units of their own.
        self.frames.retain(|frame| !is_prefix(frame));
        if picture.key.is_key() {
            stream.unit(self.at, &picture, &self.place, marks);
            for earlier in &self.frames {
                stream.unit(earlier.at, earlier, rest, marks);
            }
            return;
        }
        // By offset, since marks come in order.
        let index = self.frames.partition_point(|frame| frame.at < picture.at);
        self.frames.insert(index, picture);
        self.release(rest, stream, marks);
    }

    /// The rest of the picture before has come, to `end`: emits the other blocks.
    pub(super) fn resume(mut self, end: u64, rest: &CutPoint, stream: &mut Stream, marks: &mut Vec<Mark>) {
        stream.extend_picture(end);
        self.frames.retain(|frame| frame.part != Part::Prefix);
        for frame in &self.frames {
            stream.unit(frame.at, frame, rest, marks);
        }
    }

    /// No key frame comes: the first block is the unit at the start.
    pub(super) fn release(self, rest: &CutPoint, stream: &mut Stream, marks: &mut Vec<Mark>) {
        let Some((first, others)) = self.frames.split_first() else {
            return;
        };
        stream.unit(self.at, first, &self.place, marks);
        for frame in others {
            stream.unit(frame.at, frame, rest, marks);
        }
    }
}

/// Whether that block shows with what kind of picture the Cluster begins.
pub(super) fn is_decisive(frame: &Frame, stream: &Stream) -> bool {
    frame.track == Track::Video || !stream.tracks.has(Track::Video)
}
