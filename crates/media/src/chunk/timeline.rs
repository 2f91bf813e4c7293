//! One time line for a recording whose timestamps jump: a broken camera, a single wrong value, two files one after the other.
//!
//! PURE. Every track keeps its container's times, minus an offset. A step that is far longer than any picture lasts, and
//! that the arrival of the bytes does not explain, is no time that has passed: from there on the track has another offset.
//! A track that comes back to where it was gets its old offset back, so that a single wrong time leaves no trace.

use crate::container::Track;

/// A step forward of more than this is a jump: 30 s.
pub const JUMP: i128 = 30_000_000_000;
/// Pictures are not stored in the order they are shown in, and tracks not quite beside each other: a step back of less is
/// none. Longer where pictures are farther apart.
const BACK: i128 = 2_000_000_000;
/// Most pictures that one can be stored ahead of.
const REORDER: i128 = 16;

/// How one track has come along. Times in ns, after the offset was taken off.
#[derive(Clone, Copy, Debug)]
struct Lane {
    offset: i128,
    before: i128,
    last: i128,
    end: i128,
    /// Last step forward that was none of a jump.
    step: i128,
    /// Last step of any kind: of pictures a minute apart, the second is no surprise.
    gap: i128,
    /// When the last unit came, by the wall clock.
    wall: u64,
}

impl Lane {
    fn at(offset: i128, last: i128, end: i128, wall: u64) -> Self {
        Self {
            offset,
            before: offset,
            last,
            end,
            step: 0,
            gap: 0,
            wall,
        }
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeLine {
    video: Option<Lane>,
    audio: Option<Lane>,
    /// The latest time of any track.
    now: i128,
}

/// A unit's place on the time line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its time, ns.
    pub pts: u64,
    /// Its end, if the container has it.
    pub end: Option<u64>,
    /// The time line was broken before it.
    pub jumped: bool,
    /// By the wall clock since the last unit of its track, ns.
    pub waited: u64,
}

impl TimeLine {
    /// Places a unit with the container time `pts` that came at `wall`.
    pub fn place(&mut self, track: Track, pts: u64, end: Option<u64>, wall: u64) -> Placed {
        let (lane, other) = match track {
            Track::Video => (self.video, self.audio),
            Track::Audio => (self.audio, self.video),
            // Subtitles come when they like: they are at the time of the others.
            Track::Other => {
                let is_alone = self.video.is_none() && self.audio.is_none();
                return Placed {
                    pts: if is_alone { pts } else { unsigned(self.now) },
                    end: end.filter(|_| is_alone),
                    jumped: false,
                    waited: 0,
                };
            }
        };
        let raw = i128::from(pts);
        let length = end.map_or(0, |end| (i128::from(end) - raw).max(0));
        let waited = lane.map_or(0, |lane| wall.saturating_sub(lane.wall));
        let (lane, jumped) = match lane {
            Some(lane) => lane.follow(raw, length, i128::from(waited), other, self.now),
            None => (first(raw, other, self.now), false),
        };
        let lane = Lane {
            end: lane.last + length,
            wall,
            ..lane
        };
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
            waited,
        }
    }
}

/// The first unit of a track: beside the other's, wherever its own times begin.
fn first(raw: i128, other: Option<Lane>, now: i128) -> Lane {
    let offset = match other {
        Some(other) if (raw - other.offset - now).abs() > JUMP => raw - now,
        Some(other) => other.offset,
        None => 0,
    };
    Lane::at(offset, raw - offset, raw - offset, 0)
}

impl Lane {
    /// The next unit of the track; whether the line broke before it.
    fn follow(self, raw: i128, length: i128, waited: i128, other: Option<Self>, now: i128) -> (Self, bool) {
        let back = BACK.max(self.step * REORDER).max(length * 2);
        let fits = |offset: i128| {
            let time = raw - offset;
            time >= self.last - back && time <= self.end.max(self.last).max(now) + JUMP
        };
        let step = raw - self.offset - self.last;
        // A step that was waited for, or as regular as those before it, is time that has passed.
        let is_explained = step > 0 && (waited * 4 >= step * 3 || step <= self.gap * 2);
        if fits(self.offset) || is_explained {
            return (self.moved(self.offset, raw, step), false);
        }
        let beside = other.filter(|other| (raw - other.offset - other.last).abs() <= BACK);
        if let Some(other) = beside {
            // Where the other track is already, or still.
            return (self.moved(other.offset, raw, step), other.offset == self.offset);
        }
        if self.before != self.offset && fits(self.before) {
            return (self.moved(self.before, raw, step), true);
        }
        let time = self.end.max(self.last + self.step);
        (self.moved(raw - time, raw, step), true)
    }

    fn moved(self, offset: i128, raw: i128, gap: i128) -> Self {
        let last = raw - offset;
        let step = last - self.last;
        Self {
            offset,
            before: if offset == self.offset { self.before } else { self.offset },
            last,
            step: if step > 0 && step <= JUMP { step } else { self.step },
            gap: gap.max(0),
            ..self
        }
    }
}

fn unsigned(ns: i128) -> u64 {
    u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    /// Times that a track's units get, and which of them broke the line.
    fn video(times: &[u64]) -> (Vec<u64>, Vec<usize>) {
        let mut line = TimeLine::default();
        let placed: Vec<Placed> = times.iter().map(|&t| line.place(Track::Video, t, None, 0)).collect();
        let jumps = placed.iter().enumerate().filter(|(_, p)| p.jumped).map(|(i, _)| i);
        (placed.iter().map(|p| p.pts).collect(), jumps.collect())
    }

    #[test]
    fn a_single_wrong_time_leaves_no_trace() {
        let (times, jumps) = video(&[0, S, 90_000 * S, 3 * S, 4 * S]);
        assert_eq!(times, [0, S, 2 * S, 3 * S, 4 * S]);
        assert_eq!(jumps, [2, 3]);
    }

    #[test]
    fn after_a_jump_in_either_direction_time_goes_on() {
        let (times, jumps) = video(&[100 * S, 101 * S, 500 * S, 501 * S, 3 * S, 4 * S]);
        assert_eq!(times, [100, 101, 102, 103, 104, 105].map(|t| t * S));
        assert_eq!(jumps, [2, 4]);
    }

    #[test]
    fn pictures_out_of_order_and_pictures_a_minute_apart_are_no_jumps() {
        let (times, jumps) = video(&[0, 4 * S, 2 * S, S, 3 * S]);
        assert_eq!((times, jumps), ([0, 4, 2, 1, 3].map(|t| t * S).to_vec(), vec![]));
        let (times, jumps) = video(&[0, 60 * S, 120 * S, 180 * S]);
        assert_eq!((times, jumps), ([0, 0, 60, 120].map(|t| t * S).to_vec(), vec![1]));
    }

    #[test]
    fn time_that_was_waited_for_has_passed() {
        let mut line = TimeLine::default();
        line.place(Track::Video, 0, None, 7);
        let placed = line.place(Track::Video, 600 * S, None, 590 * S);
        assert_eq!((placed.pts, placed.jumped), (600 * S, false));
    }

    #[test]
    fn a_long_fragment_and_sound_that_pauses_are_no_jumps() {
        let mut line = TimeLine::default();
        for at in [0, 60, 120] {
            for track in [Track::Audio, Track::Video] {
                let placed = line.place(track, at * S, Some((at + 60) * S), 0);
                assert_eq!((placed.pts, placed.end, placed.jumped), (at * S, Some((at + 60) * S), false));
            }
        }
        for at in 180..280 {
            line.place(Track::Video, at * S, None, 0);
        }
        let placed = line.place(Track::Audio, 279 * S, None, 0);
        assert_eq!((placed.pts, placed.jumped), (279 * S, false));
    }

    #[test]
    fn the_other_track_follows_a_jump_and_subtitles_never_make_one() {
        let mut line = TimeLine::default();
        line.place(Track::Video, 10 * S, None, 0);
        line.place(Track::Audio, 10 * S, None, 0);
        assert_eq!(line.place(Track::Other, 900 * S, None, 0).pts, 10 * S);
        assert!(line.place(Track::Video, 900 * S, None, 0).jumped);
        let audio = line.place(Track::Audio, 900 * S, None, 0);
        assert_eq!((audio.pts, audio.jumped), (10 * S, false));
    }
}
