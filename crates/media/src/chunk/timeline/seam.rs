//! Where units of a track meet.
//!
//! PURE.

use super::Timed;
use super::lane::REWIND;
use crate::container::Track;

/// Where a unit meets its neighbours, ns of the container: when it is shown, or, where pictures are stored in another order than they
/// are shown in, when it is decoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seam {
    pub(super) begin: i128,
    pub(super) length: i128,
    /// Of a picture that has a time to be shown at alone.
    pub(super) is_shown: bool,
    /// `begin` is when it is decoded. Such times never go back, however pictures are reordered.
    pub(super) is_decoded: bool,
}

impl Seam {
    /// Of a unit that is shown for `length`; 0: not known.
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

    /// Whether it begins where the unit before ended, at `end`.
    pub(super) fn meets(self, end: i128) -> bool {
        // Of a short unit a part of its length, or a picture that is stored ahead of two others would seem to follow on.
        let tolerance = REWIND.min(self.length / 2).max(self.length / 8);
        self.length > 0 && (self.begin - end).abs() <= tolerance
    }
}
