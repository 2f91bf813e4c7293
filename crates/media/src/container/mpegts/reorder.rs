//! Puts marks into the order of their offsets although units are decided in another order.
//!
//! PURE. Holds marks, never payload, and at most [`MAX_WAITING`] of them. ISO/IEC 13818-1 lets the PES packets of the streams
//! interleave: an audio packet is often complete while the picture that began before it is still being read.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::{Init, Key, Mark, MarkKind, StreamInfo, Track, Unit};

/// Most entries that wait behind an undecided one.
const MAX_WAITING: usize = 2048;

/// Farthest that an undecided entry may lie behind the input, in bytes: what is judged of a picture, with the packets and the
/// other streams around it.
const MAX_BEHIND: u64 = 1 << 20;

/// The marks of one offset, in order.
pub(super) type Kinds = [Option<MarkKind>; 3];

/// A position reserved by [`Reorder::reserve`] for a unit that is not decided yet. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(u64);

/// The marks of one offset, waiting behind an undecided slot.
#[derive(Debug)]
struct Waiting {
    at: u64,
    is_undecided: bool,
    kinds: Kinds,
}

/// Emits marks in the order of their offsets.
#[derive(Debug, Default)]
pub(super) struct Reorder {
    /// The streams, as far as they are known.
    pub(super) info: Arc<StreamInfo>,
    /// Offset of the first unit.
    origin: u64,
    begun: bool,
    /// Slot of the front of `waiting`.
    base: u64,
    waiting: VecDeque<Waiting>,
}

impl Reorder {
    /// Emits the marks of a decided offset, behind those that wait.
    #[inline]
    pub(super) fn put(&mut self, at: u64, kinds: Kinds, marks: &mut Vec<Mark>) {
        // Mostly nothing waits, and then nothing is queued.
        if self.waiting.is_empty() {
            self.send(at, kinds, marks);
        } else {
            self.waiting.push_back(Waiting {
                at,
                is_undecided: false,
                kinds,
            });
        }
    }

    /// Reserves a slot for a unit at `at` that [`Reorder::decide`] fills later.
    pub(super) fn reserve(&mut self, at: u64) -> Slot {
        self.waiting.push_back(Waiting {
            at,
            is_undecided: true,
            kinds: [None, None, None],
        });
        Slot(self.base + self.waiting.len() as u64 - 1)
    }

    /// Does what [`Reorder::decide`] does, for marks that turn out to be at `at`.
    pub(super) fn decide_at(&mut self, slot: Slot, at: u64, kinds: Kinds, marks: &mut Vec<Mark>) {
        let index = slot.0.checked_sub(self.base).and_then(|i| usize::try_from(i).ok());
        if let Some(waiting) = index.and_then(|i| self.waiting.get_mut(i)) {
            waiting.at = at;
        }
        self.decide(slot, kinds, marks);
    }

    /// Fills a slot and emits everything up to the next undecided one. Ignores a slot that is no longer waiting.
    pub(super) fn decide(&mut self, slot: Slot, kinds: Kinds, marks: &mut Vec<Mark>) {
        let index = slot.0.checked_sub(self.base).and_then(|i| usize::try_from(i).ok());
        if let Some(waiting) = index.and_then(|i| self.waiting.get_mut(i)) {
            waiting.is_undecided = false;
            waiting.kinds = kinds;
        }
        while self.waiting.front().is_some_and(|waiting| !waiting.is_undecided) {
            if let Some(waiting) = self.waiting.pop_front() {
                self.base += 1;
                self.send(waiting.at, waiting.kinds, marks);
            }
        }
    }

    /// Returns the slot that must be decided now, with the input read up to `end`: keeps the wait within [`MAX_WAITING`]
    /// entries and [`MAX_BEHIND`] bytes.
    #[inline]
    pub(super) fn overdue(&self, end: u64) -> Option<Slot> {
        let front = self.waiting.front()?;
        (self.waiting.len() > MAX_WAITING || end.saturating_sub(front.at) > MAX_BEHIND).then_some(Slot(self.base))
    }

    /// Returns the first undecided slot.
    pub(super) fn front(&self) -> Option<Slot> {
        (!self.waiting.is_empty()).then_some(Slot(self.base))
    }

    /// Returns the offset of the first undecided slot.
    #[inline]
    pub(super) fn first_undecided(&self) -> Option<u64> {
        self.waiting.front().map(|waiting| waiting.at)
    }

    /// Returns whether the first unit has been emitted.
    #[inline]
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Returns where the first unit is.
    pub(super) fn origin(&self) -> u64 {
        self.origin
    }

    /// Emits the first unit, unless it exists, once bytes above its offset are settled: no mark may be below `settled` later.
    pub(super) fn begin(&mut self, settled: u64, marks: &mut Vec<Mark>) {
        if !self.begun && settled > self.origin {
            self.begun = true;
            let kind = MarkKind::Unit(self.unit(
                Track::Other,
                Init {
                    info: self.info.clone(),
                    ..Init::default()
                },
            ));
            marks.push(Mark { at: self.origin, kind });
        }
    }

    /// Returns a unit that is not a key unit and has no time.
    pub(super) fn unit(&self, track: Track, init: Init) -> Unit {
        Unit {
            track,
            key: Key::No,
            pts: None,
            end: None,
            decode: None,
            sample_at: None,
            new_codec_config: false,
            init: Some(init),
        }
    }

    /// Drops what waits. Before the first mark, moves the first unit to `origin`.
    pub(super) fn restart(&mut self, origin: u64) {
        // Slots are never reused: one that a unit still has names nothing any more.
        self.base += self.waiting.len() as u64;
        self.waiting.clear();
        if !self.begun {
            self.origin = origin;
        }
    }

    fn send(&mut self, at: u64, kinds: Kinds, marks: &mut Vec<Mark>) {
        for kind in kinds.into_iter().flatten() {
            if !self.begun {
                match kind {
                    MarkKind::Unit(_) => self.begin(at, marks),
                    // Damage is payload, so the first unit comes before it.
                    _ => self.begin(u64::MAX, marks),
                }
                self.begun = true;
            }
            marks.push(Mark { at, kind });
        }
    }
}
