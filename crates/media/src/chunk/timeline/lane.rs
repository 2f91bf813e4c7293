//! Follows the times of one track and detects where they break.
//!
//! PURE.

use super::JUMP;
use super::seam::Seam;

/// A smaller step back is no jump: 2 s. Pictures are not stored in display order, and tracks are not interleaved exactly.
/// `Lane::follow` allows more where pictures are farther apart.
const BACK: i128 = 2_000_000_000;
/// Sound and pictures of one recording are less than this apart: 3 s.
pub(super) const LATE: i128 = 3_000_000_000;
// The picture buffer of a decoder holds at most 16 (H.264 A.3.1, H.265 A.4.2).
/// Most pictures that a picture can be stored ahead of.
const REORDER: i128 = 16;
/// Pictures of cameras with unsteady clocks go back by less: 100 ms.
pub(super) const REWIND: i128 = 100_000_000;
/// Lengths are relied on after this many units in a row without gaps or overlaps. Two tracks that share a lane never have that.
const SEAMS: u8 = 3;
/// Equal times of units that arrive over less than this are slices of one picture: 1 s.
const FROZEN: i128 = 1_000_000_000;
/// A shorter step forward is never a surprise, whatever the steps before it were: 250 ms.
const SURPRISE: i128 = 250_000_000;
/// [`Strides`] covers at least this many steps forward, and at most twice as many.
const STRIDES: u8 = 32;
/// Most units after the correction of a rewind that can show that only a single time was wrong.
const UNDO: i128 = 4;
/// Longest step that counts as elapsed because it is as regular as the one before it: 10 min.
const REGULAR: i128 = 600_000_000_000;

/// State of one track. Times in ns, minus the offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    pub(super) offset: i128,
    /// The offset before its last change.
    before: i128,
    pub(super) last: i128,
    pub(super) end: i128,
    /// Where the last unit meets the next.
    seam: i128,
    /// Length of the last unit as the container states it.
    length: i128,
    /// The last two unit lengths that are confirmed: the next unit began where the unit ended.
    confirmed: [i128; 2],
    /// Last step forward that was not a jump.
    step: i128,
    /// The one before that.
    usual: i128,
    /// Last step forward of any size, 0 after a step back. With pictures a minute apart, the second such step is no surprise.
    gap: i128,
    /// When the last unit arrived.
    pub(super) arrival: u64,
    /// Latest time so far.
    top: i128,
    /// Second-latest time. A rewind is measured against it, since the latest may be a single wrong time.
    second: i128,
    strides: Strides,
    leap: Option<Leap>,
    undo: Option<Undo>,
    below: Below,
    frozen: Frozen,
    /// Units in a row that began where the one before ended: the lengths can be relied on.
    seams: u8,
    /// The last unit is the first, or began where the one before ended.
    is_met: bool,
}

/// A surprisingly long step that was taken for elapsed time.
#[derive(Clone, Copy, Debug)]
struct Leap {
    /// The time before it.
    last: i128,
    /// How many more units may show that it was wrong.
    left: i128,
    /// The usual step until then, and the longest.
    usual: i128,
    longest: i128,
    /// It is longer than pictures are reordered by.
    is_long: bool,
}

/// A correction that moved times forward after they had gone back. It can be undone.
#[derive(Clone, Copy, Debug)]
struct Undo {
    /// The offset before.
    offset: i128,
    /// By how much they were moved.
    by: i128,
    /// The time that the first of them got.
    at: i128,
    /// Units since.
    units: i128,
}

/// The longest of the last steps by which the latest time advanced: how far pictures are stored ahead of others.
#[derive(Clone, Copy, Debug, Default)]
struct Strides {
    longest: i128,
    /// The longest of the [`STRIDES`] steps before those in `longest`.
    older: i128,
    count: u8,
}

impl Strides {
    fn longest(self) -> i128 {
        self.longest.max(self.older)
    }

    fn with(self, step: i128) -> Self {
        if step <= 0 {
            self
        } else if self.count < STRIDES {
            Self {
                longest: self.longest.max(step),
                count: self.count + 1,
                ..self
            }
        } else {
            Self {
                longest: step,
                older: self.longest,
                count: 1,
            }
        }
    }
}

/// Units in a row that are before the second-latest time.
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
    /// There are enough of them, over enough time, to be sure that the times freeze.
    is_certain: bool,
}

/// Returns where the other track has ended; `now` without another track. Its end is limited to between `now` and [`JUMP`]
/// later, because no later unit has confirmed it.
pub(super) fn ended(other: Option<Lane>, now: i128) -> i128 {
    other.map_or(now, |other| other.end.clamp(now, now + JUMP))
}

impl Lane {
    pub(super) fn at(offset: i128, raw: i128) -> Self {
        let last = raw - offset;
        Self {
            offset,
            before: offset,
            last,
            end: last,
            seam: last,
            length: 0,
            confirmed: [0; 2],
            step: 0,
            usual: 0,
            gap: 0,
            arrival: 0,
            top: last,
            second: last,
            strides: Strides::default(),
            leap: None,
            undo: None,
            below: Below::default(),
            frozen: Frozen {
                raw,
                ..Frozen::default()
            },
            seams: 0,
            is_met: true,
        }
    }

    /// Returns where the last unit begins, by its [`Seam`].
    fn began(self) -> i128 {
        self.seam - self.length
    }

    /// Returns the lane with the unit's end and arrival noted.
    pub(super) fn arrived(self, length: i128, seam: Seam, arrival: u64) -> Self {
        Self {
            end: self.last + length,
            seam: seam.begin - self.offset + seam.length,
            length: seam.length,
            arrival,
            ..self
        }
    }

    /// Returns the confirmed length of recent units; 0 if none is confirmed.
    fn usual_length(self) -> i128 {
        self.confirmed.into_iter().max().unwrap_or(0)
    }

    /// Returns the length to use for the next unit. A stated length of more than [`JUMP`] and more than twice the usual length is
    /// wrong: returns the usual length instead.
    pub(super) fn believed(self, length: i128) -> i128 {
        let usual = self.usual_length();
        if usual > 0 && length > JUMP.max(usual * 2) {
            usual
        } else {
            length
        }
    }

    /// Returns the lane after its next unit, and whether the time line broke before that unit.
    pub(super) fn follow(
        self,
        raw: i128,
        length: i128,
        seam: Seam,
        waited: i128,
        other: Option<Self>,
        now: i128,
    ) -> (Self, bool) {
        let back = BACK.max(self.step * REORDER).max(length * 2);
        let fits = |offset: i128| {
            let time = raw - offset;
            // Decode times never go back: so far behind the last unit, another recording begins.
            let is_late = seam.is_decoded && seam.begin - offset < self.began() - BACK.max(self.length / 8);
            time >= self.last - back && time <= self.end.max(self.last).max(now) + JUMP && !is_late
        };
        let step = raw - self.offset - self.last;
        // A step is elapsed time if the unit took at least 3/4 of it to arrive, or if it is at most twice the previous step.
        let is_regular = step <= self.gap * 2 && step <= REGULAR;
        let is_explained = step > 0 && (waited * 4 >= step * 3 || is_regular);
        let is_surprise = self.usual > 0 && step > SURPRISE.max(self.strides.longest() * 2) && !is_regular;
        let is_leap = step > BACK.max(self.step * REORDER) && waited * 4 < step * 3;
        // Between units as long as fragments, even a step that is no leap leaves a hole.
        let last_length = self.end - self.last;
        let is_hole = last_length > 0 && step - last_length > BACK.max(last_length * 2);
        // The step leads to where the previous unit stated its end: two sources agree.
        let is_announced = (1..=JUMP).contains(&last_length) && (step - last_length).abs() <= BACK.max(last_length / 8);
        let is_decoded_next = seam.is_decoded && seam.meets(self.offset + self.seam);
        // First: times that continue where they were before the correction would look like a long step.
        if let Some(lane) = self.undone(raw) {
            return lane;
        }
        if self.before != self.offset && is_leap {
            // The correction was wrong, or its cause has ended: the old offset fits far better.
            let old = raw - self.before - self.last;
            if old > 0 && old <= BACK.min(step / 2) {
                return (self.moved(self.before, raw, step), true);
            }
        }
        if let Some(lane) = self.after_mistake(raw, step) {
            return lane;
        }
        if fits(self.offset) || is_explained {
            let leap = match self.leap {
                _ if (is_leap || is_surprise) && !is_explained && !is_decoded_next => Some(Leap {
                    last: self.last,
                    left: REORDER,
                    usual: self.step,
                    longest: self.strides.longest(),
                    is_long: (is_leap && !is_announced) || is_hole,
                }),
                Some(leap) if leap.left > 1 => Some(Leap {
                    left: leap.left - 1,
                    ..leap
                }),
                _ => None,
            };
            let lane = Self { leap, ..self }.moved(self.offset, raw, step);
            return (
                // A surprising step does not predict the next one.
                if is_surprise {
                    lane.with_steps_of(self)
                } else {
                    lane.strode(self.top)
                },
                false,
            );
        }
        let beside = other.filter(|other| (raw - other.offset - other.last).abs() <= BACK);
        if let Some(other) = beside {
            // The time fits the other track, which has jumped already or has not jumped yet: use its offset.
            return (self.moved(other.offset, raw, step), other.offset == self.offset);
        }
        // The times are back where they were, so that a single wrong time leaves no trace.
        if self.before != self.offset && fits(self.before) {
            return (self.moved(self.before, raw, step), true);
        }
        (self.jumped(raw, waited, other, now), true)
    }

    /// Returns the lane after a break that no known offset explains: its times continue after the last unit.
    fn jumped(self, raw: i128, waited: i128, other: Option<Self>, now: i128) -> Self {
        let length = self.end - self.last;
        let usual = if length > 0 { length } else { self.step };
        // The last unit may be a reordered picture: `top` is shown later but was stored before it.
        let is_ahead = (1..=self.strides.longest()).contains(&(self.top - self.last));
        let ahead = if is_ahead { self.top - self.last } else { 0 };
        // The time that arrival took has passed, whatever the container times are.
        let time = ahead + self.last + usual.max(waited);
        // The other track may have continued without this one.
        let time = if now - time > LATE { ended(other, now) } else { time };
        let step = raw - self.offset - self.last;
        self.moved(raw - time, raw, step).undoable(self, time)
    }

    /// Returns whether the last unit came after a long step that may turn out to be wrong.
    pub(super) fn is_doubtful(self) -> bool {
        self.leap.is_some_and(|leap| leap.is_long && leap.left == REORDER)
    }

    /// Returns the lane reset to the times before a long step, and whether the time line broke. `None` unless the times continue
    /// there, which shows that the step was wrong.
    fn after_mistake(self, raw: i128, step: i128) -> Option<(Self, bool)> {
        let leap = self.leap.filter(|_| step < 0)?;
        let time = raw - self.offset;
        let most = (REORDER - leap.left + 2) * leap.usual + leap.longest + REWIND;
        ((time - leap.last).abs() <= most).then(|| {
            let lane = Self {
                leap: None,
                // `top` may be the wrong time itself.
                top: self.second.max(leap.last),
                below: Below::default(),
                ..self.moved(self.offset, raw, 0)
            };
            (lane.with_steps_of(self), leap.is_long)
        })
    }

    /// Returns the lane reset to its old offset, and whether the time line broke. `None` unless the times continue there, which
    /// shows that a single time was wrong, and so was the correction for it.
    fn undone(self, raw: i128) -> Option<(Self, bool)> {
        let undo = self.undo?;
        let passed = raw - self.offset - undo.at;
        let expected = self.strides.longest() + undo.units * self.step;
        (passed > expected + undo.by / 2 && passed - undo.by <= expected + undo.by / 2).then(|| {
            let lane = Self {
                before: undo.offset,
                undo: None,
                ..self.moved(undo.offset, raw, raw - undo.offset - self.last)
            };
            (lane.with_steps_of(self), undo.by > BACK)
        })
    }

    /// Notes that the times moved forward from those of `before`, to `at`.
    fn undoable(self, before: Self, at: i128) -> Self {
        let by = before.offset - self.offset;
        let undo = (by > 0).then_some(Undo {
            offset: before.offset,
            by,
            at,
            units: 0,
        });
        Self { undo, ..self }
    }

    /// Notes by how much the latest time, `top` until now, has advanced. Steps from unit to unit would also count the way back
    /// from a wrong time.
    fn strode(self, top: i128) -> Self {
        let strides = self.strides.with(self.last - top);
        Self { strides, ..self }
    }

    fn with_steps_of(self, before: Self) -> Self {
        Self {
            step: before.step,
            usual: before.usual,
            ..self
        }
    }

    fn moved(self, offset: i128, raw: i128, gap: i128) -> Self {
        let last = raw - offset;
        let step = last - self.last;
        Self {
            offset,
            before: if offset == self.offset { self.before } else { self.offset },
            last,
            // Neither a step back nor a jump is a measure of what is usual.
            step: if step > 0 && step <= JUMP { step } else { self.step },
            usual: if step > 0 && step <= JUMP { self.step } else { self.usual },
            gap: gap.max(0),
            undo: self.undo.filter(|undo| undo.units < UNDO).map(|undo| Undo {
                units: undo.units + 1,
                ..undo
            }),
            ..self
        }
    }

    /// Returns the lane with a rewind corrected; `None` unless a rewind is certain. It is if a key frame is shown before pictures
    /// that precede it, if at least [`REORDER`] units in a row are before an earlier time, or if units overlap after units that
    /// neither overlapped nor left gaps.
    pub(super) fn rewound(self, before: Self, seam: Seam, is_key_picture: bool) -> Option<Self> {
        let (length, begin) = (seam.length, seam.begin - self.offset);
        // Nothing confirms the stated length of the previous unit: it counts up to the confirmed lengths plus a sixteenth.
        let most = before.usual_length() * 17 / 16;
        let overlap = before.seam - (before.length - most).max(0) - begin;
        // A picture that is shown after the previous one only comes early.
        let is_early = seam.is_shown && self.last > before.last;
        let next = before.end.max(before.top + before.step);
        let began = if before.below.count > 0 {
            before.below.lowest.min(self.last)
        } else {
            self.last
        };
        // After a wrong time, pictures stored out of order can seem to follow one another.
        let is_reordered = before.strides.longest() > length * 2;
        let by = if let Some(by) = before.overlapped(seam, begin) {
            by
        } else if is_key_picture && self.last + REWIND.max(before.step * 2) < before.second {
            next - began
        } else if before.seams >= SEAMS && !is_reordered && !is_early && length > 0 && overlap > REWIND.max(length / 8) {
            overlap
        } else if before.below.count >= REORDER && self.last < before.second {
            next - began
        } else {
            return None;
        };
        let raw = self.last + self.offset;
        let lane = self.moved(self.offset - by, raw, self.gap);
        Some(lane.with_steps_of(before).undoable(before, lane.last))
    }

    /// Returns by how much the unit decoded at `begin` goes back, if it begins where the last unit began or before: another
    /// recording begins, perhaps of a single fragment. `None` if the last unit did not meet the one before it, since its own
    /// time may then be wrong.
    fn overlapped(self, seam: Seam, begin: i128) -> Option<i128> {
        let usual = self.usual_length();
        let length = if usual > 0 {
            self.length.min(usual * 17 / 16)
        } else {
            self.length
        };
        let is_back = begin <= self.began() + REWIND.min(length / 8);
        (seam.is_decoded && self.is_met && seam.length > 0 && length > 0 && is_back).then(|| self.began() + length - begin)
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
            // Requires both: slices of one picture share a time, and the units of a file arrive all at once.
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

    /// Records what [`Lane::rewound`] needs about this unit.
    pub(super) fn measured(self, before: Self, seam: Seam) -> Self {
        let is_below = self.last < self.second;
        let lowest = if before.below.count > 0 {
            before.below.lowest
        } else {
            self.last
        };
        let fits = seam.meets(self.offset + before.seam);
        Self {
            confirmed: if fits {
                [before.length, before.confirmed[0]]
            } else {
                before.confirmed
            },
            top: self.last.max(self.top),
            second: self.second.max(self.last.min(self.top)),
            below: Below {
                count: if is_below { before.below.count + 1 } else { 0 },
                lowest: lowest.min(self.last),
            },
            seams: if fits { (before.seams + 1).min(SEAMS) } else { 0 },
            is_met: fits,
            ..self
        }
    }
}
