//! Where units of a track meet.
//!
//! PURE.

use super::Timed;
use super::lane::REWIND;
use crate::container::Track;

/// Where a unit meets its neighbours, in ns of container time: its decode time if the container has it, since presentation
/// times overlap where pictures are reordered; otherwise its presentation time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seam {
    pub(super) begin: i128,
    pub(super) length: i128,
    /// The unit is a picture that has a display time only.
    pub(super) is_shown: bool,
    /// `begin` is when it is decoded. Such times never go back, however pictures are reordered.
    pub(super) is_decoded: bool,
}

impl Seam {
    /// Returns the seam of a unit that is shown for `length` ns; 0 means unknown.
    pub(super) fn of(unit: Timed, length: i128) -> Self {
        let decoded = unit.decode.map(|(begin, end)| (i128::from(begin), i128::from(end)));
        let (begin, length) = decoded.map_or((i128::from(unit.pts), length), |(begin, end)| (begin, (end - begin).max(0)));
        Self {
            begin,
            length,
            is_shown: decoded.is_none() && unit.track == Track::Video,
            is_decoded: decoded.is_some(),
        }
    }

    pub(super) fn of_length(self, length: i128) -> Self {
        Self { length, ..self }
    }

    /// Returns whether the unit begins where the previous one ended, at `end`.
    pub(super) fn meets(self, end: i128) -> bool {
        // For a short unit, a fraction of its length: with a fixed tolerance, a picture stored ahead of two others would seem to
        // follow the last one.
        let tolerance = REWIND.min(self.length / 2).max(self.length / 8);
        self.length > 0 && (self.begin - end).abs() <= tolerance
    }
}
