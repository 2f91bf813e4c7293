//! Holds back blocks until it is known with which of them a chunk can begin.
//!
//! PURE. Two reasons: a Cluster is a key unit if its first picture is a key frame, even if audio precedes that picture; and
//! parameter sets in a block of their own are the beginning of the picture that follows.

use super::super::nal::Part;
use super::super::{Mark, Track};
use super::stream::{CutPoint, Frame, Stream};

/// Maximum number of blocks held back. [`MAX_HELD_BYTES`] limits their bytes.
pub(super) const MAX_HELD_BLOCKS: usize = 256;
/// See [`MAX_HELD_BLOCKS`].
pub(super) const MAX_HELD_BYTES: u64 = 8 << 20;

/// The blocks held back from one offset on.
#[derive(Debug)]
pub(super) struct HeldBlocks {
    /// Offset where a chunk would begin.
    pub(super) at: u64,
    /// The header that this chunk would need.
    place: CutPoint,
    frames: Vec<Frame>,
}

impl HeldBlocks {
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

    /// Returns whether the blocks are held back from the start of a Cluster, none of whose blocks has been emitted.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.place, CutPoint::Cluster)
    }

    /// Adds a block. Returns whether a limit is reached, so that the caller must release the blocks.
    pub(super) fn push(&mut self, frame: Frame) -> bool {
        let bytes = frame.end_at.saturating_sub(self.at);
        self.frames.push(frame);
        self.frames.len() >= MAX_HELD_BLOCKS || bytes > MAX_HELD_BYTES
    }

    /// Emits all blocks, now that their picture has come. The unit of the picture is where its first block begins, or, if the
    /// picture is a key frame, in front of all blocks. `rest` is the cut point of the blocks behind it.
    pub(super) fn resolve(mut self, mut picture: Frame, rest: &CutPoint, stream: &mut Stream, marks: &mut Vec<Mark>) {
        let is_prefix = |frame: &Frame| frame.part == Part::Prefix;
        picture.at = self.frames.iter().find(|f| is_prefix(f)).map_or(picture.at, |f| f.at);
        // These blocks are now the beginning of the picture, not units of their own.
        self.frames.retain(|frame| !is_prefix(frame));
        if picture.key.is_key() {
            stream.unit(self.at, &picture, &self.place, marks);
            for earlier in &self.frames {
                stream.unit(earlier.at, earlier, rest, marks);
            }
            return;
        }
        // Inserted by offset: marks must be in order.
        let index = self.frames.partition_point(|frame| frame.at < picture.at);
        self.frames.insert(index, picture);
        self.release(rest, stream, marks);
    }

    /// Extends the previous picture to `end`, because the rest of it has come, and emits the other blocks.
    pub(super) fn resume(mut self, end: u64, rest: &CutPoint, stream: &mut Stream, marks: &mut Vec<Mark>) {
        stream.extend_picture(end);
        self.frames.retain(|frame| frame.part != Part::Prefix);
        for frame in &self.frames {
            stream.unit(frame.at, frame, rest, marks);
        }
    }

    /// Emits all blocks without a picture: the unit of the first block is at the start.
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

/// Returns whether a block decides what the Cluster opens with: a picture, or any block if there is no video.
pub(super) fn is_decisive(frame: &Frame, stream: &Stream) -> bool {
    frame.track == Track::Video || !stream.tracks.has(Track::Video)
}
