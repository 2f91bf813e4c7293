//! One time line for a recording whose timestamps jump: a broken camera, a single wrong value, two files one after the other.
//!
//! PURE. Every track keeps its container's times, minus an offset. Where its times break, a track gets another offset:
//! - **A step** far longer than any picture lasts, which the arrival of the bytes does not explain, does not count as elapsed
//!   time. A track that comes back to where it was gets its old offset back, so that a single wrong time leaves no trace.
//! - **A long step** below that is elapsed time, unless the times go back to before it within a few units.
//! - **A rewind** shorter than such a step: a key frame, or more units in a row than pictures can be reordered by, that are
//!   before what came earlier. Without this check many small rewinds would add up. If the next units continue where the times
//!   were before the rewind, a single time was wrong and its correction is undone. A rewind is never measured by one time
//!   alone, since that may be the wrong one.
//! - **Decode times** are never reordered: where they go back to the start of the last fragment or before it, another recording
//!   begins, however short it is.
//! - **Two tracks** of one recording are less than 3 s apart: a track that begins farther behind the other, or breaks there,
//!   continues where the other has ended.
//! - **Times that freeze**: after a second of equal ones, arrival counts.
//! - **Lengths** count as far as other units confirm them: a length that is too long does not move any time.
//!
//! `lane` follows one track; `seam` decides whether units of a track meet.

mod lane;
mod seam;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_wrong;

use crate::container::{Key, Track};
use lane::{LATE, Lane, ended};
use seam::Seam;

/// A step forward of more than this is a jump: 30 s.
pub const JUMP: i128 = 30_000_000_000;
/// The time line of a recording, with one lane for pictures and one for sound.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeLine {
    video: Option<Lane>,
    audio: Option<Lane>,
    /// The latest time of any track.
    now: i128,
}

/// What the time line needs to know about a unit. Times in ns.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// Whose unit it is.
    pub track: Track,
    /// Whether decoding can begin with it.
    pub key: Key,
    /// Its container time.
    pub pts: u64,
    /// Its end, if the container has it.
    pub end: Option<u64>,
    /// When its decoding begins and ends, if the container has it.
    pub decode: Option<(u64, u64)>,
}

/// A unit's place on the time line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its time, ns.
    pub pts: u64,
    /// Its end, if the container has it.
    pub end: Option<u64>,
    /// The time line breaks before it.
    pub jumped: bool,
    /// It comes after a long step that may turn out to be wrong.
    pub is_doubtful: bool,
    /// Time since the last unit of its track arrived, ns.
    pub waited: u64,
}

impl TimeLine {
    /// Places a unit that arrived at `arrival`, ns on a clock that does not step.
    pub fn place(&mut self, unit: Timed, arrival: u64) -> Placed {
        let Timed {
            track, key, pts, end, ..
        } = unit;
        let (lane, other) = match track {
            Track::Video => (self.video, self.audio),
            Track::Audio => (self.audio, self.video),
            // Subtitles come at irregular times: place them at the latest time of the other tracks.
            Track::Other => {
                let is_alone = self.video.is_none() && self.audio.is_none();
                return Placed {
                    pts: if is_alone { pts } else { unsigned(self.now) },
                    end: end.filter(|_| is_alone),
                    jumped: false,
                    is_doubtful: false,
                    waited: 0,
                };
            }
        };
        let raw = i128::from(pts);
        let length = end.map_or(0, |end| (i128::from(end) - raw).max(0));
        let seam = Seam::of(unit, length);
        let believed = lane.map_or(length, |lane| lane.believed(length));
        let (length, seam) = if believed < length {
            (believed, seam.of_length(believed))
        } else {
            (length, seam)
        };
        let waited = lane.map_or(0, |lane| arrival.saturating_sub(lane.arrival));
        let (lane, jumped) = match lane {
            Some(before) => {
                let waited = i128::from(waited);
                let (lane, jumped) = before.follow(raw, length, seam, waited, other, self.now);
                let is_key_picture = track == Track::Video && key.is_key();
                let rewound = if jumped {
                    None
                } else {
                    lane.rewound(before, seam, is_key_picture)
                };
                let lane = match rewound {
                    // Fragments of several recordings in a row can have equal times: that is a rewind, not a freeze.
                    Some(lane) if unit.decode.is_some() => lane,
                    _ => rewound.unwrap_or(lane).unfrozen(before, raw, waited),
                };
                (lane.measured(before, seam), jumped || rewound.is_some())
            }
            None => (first(raw, other, self.now), false),
        };
        let lane = lane.arrived(length, seam, arrival);
        self.now = self.now.max(lane.last);
        if track == Track::Video {
            self.video = Some(lane);
        } else {
            self.audio = Some(lane);
        }
        Placed {
            pts: unsigned(lane.last),
            end: end.map(|_| unsigned(lane.end)),
            jumped,
            is_doubtful: lane.is_doubtful(),
            waited,
        }
    }
}

/// Returns the lane of a track that begins. Its times are placed beside those of the other track. If they are too far from
/// them, another recording has begun, with a track that the one before did not have: they continue where the other has ended.
fn first(raw: i128, other: Option<Lane>, now: i128) -> Lane {
    let offset = other.map_or(0, |other| {
        let ahead = raw - other.offset - now;
        // A fragment is written once complete: this track may begin as far behind the other as the other's fragment is long.
        let is_beside = ahead <= JUMP && -ahead <= LATE.max(other.end - other.last);
        if is_beside {
            other.offset
        } else {
            raw - ended(Some(other), now)
        }
    });
    Lane::at(offset, raw)
}

fn unsigned(ns: i128) -> u64 {
    u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
}
