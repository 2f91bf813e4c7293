//! One time line for a recording whose timestamps jump: a broken camera, a single wrong value, two files one after the other.
//!
//! PURE. Every track keeps its container's times, minus an offset. From where its times break, a track has another offset:
//! - **A step** far longer than any picture lasts, which the arrival of the bytes does not explain, does not count as elapsed
//!   time. A track that comes back to where it was gets its old offset back, so that a single wrong time leaves no trace.
//! - **A long step** below that is elapsed time, unless the times go back to before it within a few units.
//! - **A rewind** shorter than such a step: a key picture, or more units in a row than pictures can be reordered by, that lie
//!   before what came earlier. Without this check many small ones would add up.
//! - **Times that freeze**: after a second of equal ones, arrival counts.

use crate::container::{Key, Track};

/// A step forward of more than this is a jump: 30 s.
pub const JUMP: i128 = 30_000_000_000;
/// Pictures are not stored in the order they are shown in, and tracks not quite beside each other: a step back of less is no
/// jump. Longer where pictures are farther apart.
const BACK: i128 = 2_000_000_000;
/// Most pictures that one can be stored ahead of.
const REORDER: i128 = 16;
/// Pictures of cameras with unsteady clocks go back by less: 100 ms.
const REWIND: i128 = 100_000_000;
/// Units without gaps or overlaps in a row whose lengths are relied on. Two tracks that share a lane never have them.
const SEAMS: u8 = 3;
/// Equal times of units that arrive over less than this are slices of one picture: 1 s.
const FROZEN: i128 = 1_000_000_000;
/// Longest step that counts as elapsed because it is as long as the one before it: 10 min.
const REGULAR: i128 = 600_000_000_000;

/// How one track has come along. Times in ns, after the offset was taken off.
#[derive(Clone, Copy, Debug)]
struct Lane {
    offset: i128,
    before: i128,
    last: i128,
    end: i128,
    /// Last step forward that was none of a jump.
    step: i128,
    /// The one before that.
    usual: i128,
    /// Last step of any kind: of pictures a minute apart, the second is no surprise.
    gap: i128,
    /// When the last unit arrived.
    arrival: u64,
    /// Latest time so far.
    top: i128,
    /// The time before a long step that was taken for elapsed time, and how many units may still show that it was a mistake.
    leap: Option<(i128, i128)>,
    below: Below,
    frozen: Frozen,
    /// Units in a row that began where the one before ended: the lengths can be relied on.
    seams: u8,
}

/// Units in a row that lie before what came earlier.
#[derive(Clone, Copy, Debug, Default)]
struct Below {
    count: i128,
    lowest: i128,
}

/// Units in a row with equal container times.
#[derive(Clone, Copy, Debug, Default)]
struct Frozen {
    raw: i128,
    count: i128,
    /// How long they took to arrive.
    waited: i128,
    /// There are enough of them.
    is_certain: bool,
}

impl Lane {
    fn at(offset: i128, raw: i128) -> Self {
        let last = raw - offset;
        Self {
            offset,
            before: offset,
            last,
            end: last,
            step: 0,
            usual: 0,
            gap: 0,
            arrival: 0,
            top: last,
            leap: None,
            below: Below::default(),
            frozen: Frozen {
                raw,
                ..Frozen::default()
            },
            seams: 0,
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

/// What the time line has to know of a unit. Times in ns.
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
    /// It comes after a long step that may turn out to be a mistake.
    pub is_doubtful: bool,
    /// Time since the last unit of its track arrived, ns.
    pub waited: u64,
}

impl TimeLine {
    /// Places a unit that arrived at `arrival`, ns on a clock that does not step.
    pub fn place(&mut self, unit: Timed, arrival: u64) -> Placed {
        let Timed { track, key, pts, end } = unit;
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
                    is_doubtful: false,
                    waited: 0,
                };
            }
        };
        let raw = i128::from(pts);
        let length = end.map_or(0, |end| (i128::from(end) - raw).max(0));
        let waited = lane.map_or(0, |lane| arrival.saturating_sub(lane.arrival));
        let (lane, jumped) = match lane {
            Some(before) => {
                let waited = i128::from(waited);
                let (lane, jumped) = before.follow(raw, length, waited, other, self.now);
                let is_key_picture = track == Track::Video && key.is_key();
                let rewound = if jumped {
                    None
                } else {
                    lane.rewound(before, length, is_key_picture)
                };
                let lane = rewound.unwrap_or(lane).unfrozen(before, raw, waited);
                (lane.measured(before, length), jumped || rewound.is_some())
            }
            None => (first(raw, other, self.now), false),
        };
        let lane = Lane {
            end: lane.last + length,
            arrival,
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
            is_doubtful: lane.leap.is_some_and(|(_, left)| left == REORDER),
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
    Lane::at(offset, raw)
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
        let is_regular = step <= self.gap * 2 && step <= REGULAR;
        let is_explained = step > 0 && (waited * 4 >= step * 3 || is_regular);
        let is_leap = step > BACK.max(self.step * REORDER) && waited * 4 < step * 3;
        if self.before != self.offset && is_leap {
            // The correction was wrong, or its cause has ended: the old offset fits far better.
            let old = raw - self.before - self.last;
            if old > 0 && old <= BACK.min(step / 2) {
                return (self.moved(self.before, raw, step), true);
            }
        }
        if let Some(lane) = self.after_mistake(raw, step) {
            return (lane, true);
        }
        if fits(self.offset) || is_explained {
            let leap = match self.leap {
                _ if is_leap && !is_explained => Some((self.last, REORDER)),
                Some((last, left)) if left > 1 => Some((last, left - 1)),
                _ => None,
            };
            let lane = Self { leap, ..self };
            return (lane.moved(self.offset, raw, step), false);
        }
        let beside = other.filter(|other| (raw - other.offset - other.last).abs() <= BACK);
        if let Some(other) = beside {
            // Where the other track is already, or still.
            return (self.moved(other.offset, raw, step), other.offset == self.offset);
        }
        if self.before != self.offset && fits(self.before) {
            return (self.moved(self.before, raw, step), true);
        }
        // What was waited for has passed, whatever the times say.
        let time = self.end.max(self.last + self.step.max(waited));
        (self.moved(raw - time, raw, step), true)
    }

    /// Returns the lane back at the times before a long step, if they go on there: the step was a mistake.
    fn after_mistake(self, raw: i128, step: i128) -> Option<Self> {
        let (last, left) = self.leap.filter(|_| step < 0)?;
        let time = raw - self.offset;
        let most = (REORDER - left + 2) * self.usual + REWIND;
        ((time - last).abs() <= most).then(|| {
            let lane = self.moved(self.offset, raw, 0);
            let (leap, top, step, below) = (None, last, self.usual, Below::default());
            Self {
                leap,
                top,
                step,
                below,
                ..lane
            }
        })
    }

    fn moved(self, offset: i128, raw: i128, gap: i128) -> Self {
        let last = raw - offset;
        let step = last - self.last;
        Self {
            offset,
            before: if offset == self.offset { self.before } else { self.offset },
            last,
            step: if step > 0 && step <= JUMP { step } else { self.step },
            usual: if step > 0 && step <= JUMP { self.step } else { self.usual },
            gap: gap.max(0),
            ..self
        }
    }

    /// Returns the lane with a rewind corrected, once it is certain: no picture that precedes a key picture is shown after
    /// it, none is shown before more than [`REORDER`] that precede it, and units without gaps or overlaps do not overlap.
    fn rewound(self, before: Self, length: i128, is_key_picture: bool) -> Option<Self> {
        let next = before.end.max(before.top + before.step);
        let began = if before.below.count > 0 {
            before.below.lowest.min(self.last)
        } else {
            self.last
        };
        let by = if is_key_picture && self.last + REWIND.max(before.step * 2) < before.top {
            next - began
        } else if before.seams >= SEAMS && length > 0 && before.end - self.last > REWIND.max(length / 8) {
            before.end - self.last
        } else if before.below.count >= REORDER && self.last < before.top {
            next - began
        } else {
            return None;
        };
        let raw = self.last + self.offset;
        let (step, usual) = (before.step, before.usual);
        Some(Self {
            step,
            usual,
            ..self.moved(self.offset - by, raw, self.gap)
        })
    }

    /// Returns the lane with its time advanced by arrival while the container's times do not move.
    fn unfrozen(self, before: Self, raw: i128, waited: i128) -> Self {
        if raw != before.frozen.raw {
            let frozen = Frozen {
                raw,
                ..Frozen::default()
            };
            return Self { frozen, ..self };
        }
        let frozen = Frozen {
            raw,
            count: before.frozen.count + 1,
            waited: before.frozen.waited + waited,
            is_certain: before.frozen.is_certain || (before.frozen.count >= REORDER && before.frozen.waited >= FROZEN),
        };
        let passed = match (before.frozen.is_certain, frozen.is_certain) {
            (_, false) => 0,
            (false, true) => frozen.waited,
            (true, true) => waited,
        };
        Self {
            offset: self.offset - passed,
            // Times that move on as if they had never frozen get the old offset back.
            before: if before.frozen.is_certain { self.before } else { self.offset },
            last: self.last + passed,
            frozen,
            ..self
        }
    }

    /// Notes what [`Lane::rewound`] has to know of this unit.
    fn measured(self, before: Self, length: i128) -> Self {
        let is_below = self.last < self.top;
        let lowest = if before.below.count > 0 {
            before.below.lowest
        } else {
            self.last
        };
        // Of a short unit a part of its length, or a picture that is stored ahead of two others would seem to follow on.
        let tolerance = REWIND.min(length / 2).max(length / 8);
        Self {
            top: self.last.max(self.top),
            below: Below {
                count: if is_below { before.below.count + 1 } else { 0 },
                lowest: lowest.min(self.last),
            },
            seams: if length > 0 && (self.last - before.end).abs() <= tolerance {
                (before.seams + 1).min(SEAMS)
            } else {
                0
            },
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

    fn timed(track: Track, pts: u64, end: Option<u64>) -> Timed {
        Timed {
            track,
            key: Key::No,
            pts,
            end,
        }
    }

    const S: u64 = 1_000_000_000;

    /// Times that a track's units get, and which of them broke the line.
    fn video(times: &[u64]) -> (Vec<u64>, Vec<usize>) {
        let mut line = TimeLine::default();
        let placed: Vec<Placed> = times.iter().map(|&t| line.place(timed(Track::Video, t, None), 0)).collect();
        let jumps = placed.iter().enumerate().filter(|(_, p)| p.jumped).map(|(i, _)| i);
        (placed.iter().map(|p| p.pts).collect(), jumps.collect())
    }

    #[test]
    fn pictures_stored_ahead_of_others_move_no_time_however_many_lie_between() {
        for (ahead, fps) in [(1u64, 25u64), (2, 25), (3, 25), (7, 25), (2, 12), (3, 60), (2, 5)] {
            let length = S / fps;
            let mut order = Vec::new();
            // GOPs of pictures one after the other, then of pictures that others are stored behind.
            for gop in 0..20u64 {
                let first = gop * 40;
                order.extend(first..first + 8);
                let mut at = first + 8;
                while at < first + 40 {
                    let last = (at + ahead).min(first + 39);
                    order.push(last);
                    order.extend(at..last);
                    at = last + 1;
                }
            }
            let mut line = TimeLine::default();
            for (i, n) in order.into_iter().enumerate() {
                // Matroska rounds to milliseconds.
                let pts = n * length / 1_000_000 * 1_000_000;
                let key = if n % 40 == 0 { Key::Closed } else { Key::No };
                let placed = line.place(
                    Timed {
                        key,
                        ..timed(Track::Video, pts, Some(pts + length))
                    },
                    i as u64 * length,
                );
                assert_eq!(
                    (placed.pts, placed.jumped),
                    (pts, false),
                    "{ahead} ahead at {fps} a second, picture {n}"
                );
            }
        }
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
        line.place(timed(Track::Video, 0, None), 7);
        let placed = line.place(timed(Track::Video, 600 * S, None), 590 * S);
        assert_eq!((placed.pts, placed.jumped), (600 * S, false));
    }

    #[test]
    fn a_long_fragment_and_sound_that_pauses_are_no_jumps() {
        let mut line = TimeLine::default();
        for at in [0, 60, 120] {
            for track in [Track::Audio, Track::Video] {
                let placed = line.place(timed(track, at * S, Some((at + 60) * S)), 0);
                assert_eq!((placed.pts, placed.end, placed.jumped), (at * S, Some((at + 60) * S), false));
            }
        }
        for at in 180..280 {
            line.place(timed(Track::Video, at * S, None), 0);
        }
        let placed = line.place(timed(Track::Audio, 279 * S, None), 0);
        assert_eq!((placed.pts, placed.jumped), (279 * S, false));
    }

    #[test]
    fn the_other_track_follows_a_jump_and_subtitles_never_make_one() {
        let mut line = TimeLine::default();
        line.place(timed(Track::Video, 10 * S, None), 0);
        line.place(timed(Track::Audio, 10 * S, None), 0);
        assert_eq!(line.place(timed(Track::Other, 900 * S, None), 0).pts, 10 * S);
        assert!(line.place(timed(Track::Video, 900 * S, None), 0).jumped);
        let audio = line.place(timed(Track::Audio, 900 * S, None), 0);
        assert_eq!((audio.pts, audio.jumped), (10 * S, false));
    }

    #[test]
    fn small_rewinds_do_not_add_up() {
        // 25 pictures a second, 1.5 s back every 2 s, at a key picture or in between.
        for rewind_at in [0, 20] {
            let mut line = TimeLine::default();
            let (mut first, mut last) = (None, 0);
            for i in 0..1000u64 {
                let back = (i + 50 - rewind_at) / 50 * 1500;
                let unit = Timed {
                    key: if i % 50 == 0 { Key::Closed } else { Key::No },
                    ..timed(Track::Video, (100_000 + i * 40 - back) * 1_000_000, None)
                };
                last = line.place(unit, 0).pts;
                first.get_or_insert(last);
            }
            let passed = (last - first.unwrap_or(0)) / 1_000_000;
            assert!((39_000..41_000).contains(&passed), "{rewind_at}: {passed} ms of 40 s");
        }
    }

    #[test]
    fn fragments_that_overlap_those_before_do_not_add_up() {
        let mut line = TimeLine::default();
        let mut last = 0;
        for i in 0..20u64 {
            let start = (i * 2000 - i.saturating_sub(4) / 4 * 1500) * 1_000_000;
            let unit = timed(Track::Audio, start, Some(start + 2 * S));
            last = line.place(unit, 0).pts;
        }
        assert!((37 * S..=39 * S).contains(&last), "{last}");
    }

    #[test]
    fn two_sound_tracks_and_unsteady_pictures_are_no_rewinds() {
        let mut line = TimeLine::default();
        for i in 0..100 {
            for skew in [1500, 0] {
                let unit = timed(Track::Audio, (2000 + i * 20 - skew) * 1_000_000, None);
                let placed = line.place(unit, 0);
                assert_eq!((placed.pts, placed.jumped), (unit.pts, false));
            }
        }
        for i in 0..100 {
            let unit = Timed {
                key: if i % 10 == 0 { Key::Closed } else { Key::No },
                ..timed(
                    Track::Video,
                    (2000 + i * 40 - if i % 10 == 0 { 50 } else { 0 }) * 1_000_000,
                    None,
                )
            };
            assert_eq!(line.place(unit, 0).pts, unit.pts);
        }
    }

    #[test]
    fn times_that_freeze_advance_by_arrival_and_go_on_where_they_should() {
        let mut line = TimeLine::default();
        let mut place = |raw: u64, arrival: u64| line.place(timed(Track::Video, raw, None), arrival * S / 25).pts;
        for i in 0..25 {
            place(i * S / 25, i);
        }
        for i in 25..250 {
            place(S, i);
        }
        assert_eq!(place(S, 250), 10 * S);
        assert_eq!(place(251 * S / 25, 251), 251 * S / 25, "the container's time again");
    }

    #[test]
    fn equal_times_of_slices_and_of_a_file_do_not_freeze() {
        let mut line = TimeLine::default();
        for i in 0..2000 {
            let placed = line.place(timed(Track::Video, i / 40 * S / 25, None), i * S / 1000);
            assert_eq!(placed.pts, i / 40 * S / 25);
        }
    }

    #[test]
    fn a_jump_that_was_waited_for_takes_that_time() {
        let mut line = TimeLine::default();
        line.place(timed(Track::Video, 500 * S, None), S);
        let placed = line.place(timed(Track::Video, 0, None), 11 * S);
        assert_eq!((placed.pts, placed.jumped), (510 * S, true));
    }
}
