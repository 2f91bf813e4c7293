//! How the times of one track go on, and where they break.
//!
//! PURE.

use super::JUMP;

/// Pictures are not stored in the order they are shown in, and tracks not quite beside each other: a step back of less is no
/// jump. Longer where pictures are farther apart.
const BACK: i128 = 2_000_000_000;
/// Most pictures that one can be stored ahead of.
pub(super) const REORDER: i128 = 16;
/// Pictures of cameras with unsteady clocks go back by less: 100 ms.
const REWIND: i128 = 100_000_000;
/// Units without gaps or overlaps in a row whose lengths are relied on. Two tracks that share a lane never have them.
const SEAMS: u8 = 3;
/// A step of more than this many usual ones may be a mistake: pictures are stored ahead of fewer.
const UNUSUAL: i128 = 4;
/// Between the end of a unit and the next, as far as pictures are stored ahead of others: 500 ms.
const HOLE: i128 = 500_000_000;
/// Units in a row whose times may be wrong together, and the next are right again.
const WRONG: i128 = 3;
/// Equal times of units that arrive over less than this are slices of one picture: 1 s.
const FROZEN: i128 = 1_000_000_000;
/// Longest step that counts as elapsed because it is as long as the one before it: 10 min.
const REGULAR: i128 = 600_000_000_000;

/// How one track has come along. Times in ns, after the offset was taken off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    pub(super) offset: i128,
    before: i128,
    pub(super) last: i128,
    pub(super) end: i128,
    /// Last step forward that was none of a jump.
    step: i128,
    /// The one before that.
    usual: i128,
    /// Last step of any kind: of pictures a minute apart, the second is no surprise.
    gap: i128,
    /// When the last unit arrived.
    pub(super) arrival: u64,
    /// Latest time so far.
    top: i128,
    /// The time before a long step that was taken for elapsed time, and how many units may still show that it was a mistake.
    pub(super) leap: Option<(i128, i128)>,
    /// A shorter step, of which the same may turn out.
    peak: Option<Peak>,
    /// A rewind that was corrected and may have been a mistake.
    undo: Option<Undo>,
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

/// A step that is far longer than usual and no leap: the time before it, and the units since then that lie above it.
#[derive(Clone, Copy, Debug)]
struct Peak {
    before: i128,
    units: i128,
    /// So high that it may not end a chunk before the next unit shows what it is.
    is_high: bool,
}

/// A corrected rewind: the offset before it, where the unit was placed, and how many units came since.
#[derive(Clone, Copy, Debug)]
struct Undo {
    offset: i128,
    at: i128,
    units: i128,
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
    pub(super) fn at(offset: i128, raw: i128) -> Self {
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
            peak: None,
            undo: None,
            below: Below::default(),
            frozen: Frozen {
                raw,
                ..Frozen::default()
            },
            seams: 0,
        }
    }
}

impl Lane {
    /// Returns the lane with the unit's end and arrival noted.
    pub(super) fn arrived(self, length: i128, arrival: u64) -> Self {
        Self {
            end: self.last + length,
            arrival,
            ..self
        }
    }

    /// The next unit of the track; whether the line broke before it.
    pub(super) fn follow(self, raw: i128, length: i128, waited: i128, other: Option<Self>, now: i128) -> (Self, bool) {
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
            if old.abs() <= BACK.min(step / 2) {
                return (self.moved(self.before, raw, step), true);
            }
        }
        if let Some(lane) = self.after_mistake(raw, step) {
            return (lane, true);
        }
        if let Some(lane) = self.undone(raw, step) {
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

    /// Returns the lane with its offset before a corrected rewind, if the times go on there: what went back was a mistake.
    fn undone(self, raw: i128, step: i128) -> Option<Self> {
        let undo = self.undo?;
        let (usual, units) = (self.step, undo.units + 1);
        let apart = |time: i128, expected: i128| (time - expected).abs();
        let old = apart(raw - undo.offset, undo.at + units * usual);
        let new = apart(raw - self.offset, self.last + usual);
        (old * 2 < new && new > REWIND).then(|| Self {
            undo: None,
            below: Below::default(),
            step: usual,
            usual: self.usual,
            ..self.moved(undo.offset, raw, step)
        })
    }

    /// Returns the lane without a peak, if this unit goes on where the times were before it.
    pub(super) fn off_peak(self, before: Self, waited: i128) -> Self {
        let Some(peak) = before.peak else {
            let (height, usual) = (self.last - before.top, before.usual_step());
            // Units as long as fragments are not stored ahead of each other.
            let length = before.end - before.last;
            let hole = if length > 0 { self.last - before.end } else { 0 };
            let is_peak = height > REWIND.max(usual * UNUSUAL) || hole > HOLE.max(length);
            let is_high = height > BACK.max(usual * UNUSUAL * 2) || hole > BACK.max(length * 2);
            let is_waited_for = waited * 4 >= height * 3;
            let peak = is_peak.then_some(Peak {
                before: before.top,
                units: 1,
                is_high: is_high && !is_waited_for,
            });
            return Self { peak, ..self };
        };
        if self.last >= before.top {
            let units = peak.units + 1;
            let peak = (units <= WRONG).then_some(Peak { units, ..peak });
            return Self { peak, ..self };
        }
        let most = (peak.units + 2) * before.usual + REWIND;
        let is_mistake = (self.last - peak.before).abs() <= most;
        Self {
            peak: None,
            top: if is_mistake { peak.before } else { self.top },
            ..self
        }
    }

    /// Whether this unit's time may be a mistake that the next one shows.
    pub(super) fn is_doubtful(self) -> bool {
        let is_leap = self.leap.is_some_and(|(_, left)| left == REORDER);
        is_leap || self.peak.is_some_and(|peak| peak.is_high && peak.units == 1)
    }

    /// Whether this unit has shown that a peak before it was a mistake.
    pub(super) fn is_off_peak(self, before: Self) -> bool {
        before.peak.is_some() && self.top < before.top
    }

    /// The smaller one of the last two steps, as pictures that are stored ahead of others make every other one long; or the length.
    fn usual_step(self) -> i128 {
        let step = if self.usual > 0 {
            self.step.min(self.usual)
        } else {
            self.step
        };
        step.max(self.end - self.last)
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
    pub(super) fn rewound(self, before: Self, length: i128, is_key_picture: bool) -> Option<Self> {
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
        let lane = self.moved(self.offset - by, raw, self.gap);
        // So many units in a row are no mistake.
        let undo = (before.below.count < REORDER).then_some(Undo {
            offset: self.offset,
            at: lane.last,
            units: 0,
        });
        Some(Self {
            step,
            usual,
            undo,
            ..lane
        })
    }

    /// Returns the lane with its time advanced by arrival while the container's times do not move.
    pub(super) fn unfrozen(self, before: Self, raw: i128, waited: i128) -> Self {
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
    pub(super) fn measured(self, before: Self, length: i128) -> Self {
        let is_below = self.last < self.top;
        let lowest = if before.below.count > 0 {
            before.below.lowest
        } else {
            self.last
        };
        // Of a short unit a part of its length, or a picture that is stored ahead of two others would seem to follow on.
        let tolerance = REWIND.min(length / 2).max(length / 8);
        let undo = match self.undo {
            // Made by this unit.
            Some(undo) if before.undo.is_none_or(|known| known.at != undo.at) => Some(undo),
            Some(undo) if undo.units < WRONG => Some(Undo {
                units: undo.units + 1,
                ..undo
            }),
            _ => None,
        };
        Self {
            undo,
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
