//! Sorts marks by offset, although units are decided in another order.
//!
//! PURE. Stores marks, never payload, for at most [`MAX_WAITING`] offsets. ISO/IEC 13818-1 lets the PES packets of the streams
//! interleave: an audio packet is often complete while the picture that began before it is still being read.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::{Init, Key, Mark, MarkKind, StreamInfo, Track, Unit};

/// Maximum number of entries that wait behind an undecided one.
const MAX_WAITING: usize = 2048;

/// Maximum distance in bytes of an undecided entry from the end of the input read: enough for the part of a picture that is
/// classified, with the packet headers and the other streams in between.
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
    /// Offset of the first unit of the input.
    origin: u64,
    begun: bool,
    /// Slot of the front of `waiting`.
    base: u64,
    waiting: VecDeque<Waiting>,
}

impl Reorder {
    /// Emits the marks of a decided offset, or queues them behind those that wait.
    #[inline]
    pub(super) fn put(&mut self, at: u64, kinds: Kinds, marks: &mut Vec<Mark>) {
        // The usual case: nothing waits, so nothing has to be queued.
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

    /// Moves a slot to offset `at`, then fills it like [`Reorder::decide`].
    pub(super) fn decide_at(&mut self, slot: Slot, at: u64, kinds: Kinds, marks: &mut Vec<Mark>) {
        let index = slot.0.checked_sub(self.base).and_then(|i| usize::try_from(i).ok());
        if let Some(waiting) = index.and_then(|i| self.waiting.get_mut(i)) {
            waiting.at = at;
        }
        self.decide(slot, kinds, marks);
    }

    /// Fills a slot and emits all marks up to the next undecided slot. Ignores a slot that no longer waits.
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

    /// Returns the slot that must be decided now, so that no more than [`MAX_WAITING`] entries and [`MAX_BEHIND`] bytes wait.
    /// `end` is the offset up to which the input has been read.
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

    /// Returns the offset of the first unit.
    pub(super) fn origin(&self) -> u64 {
        self.origin
    }

    /// Emits the first unit, unless it exists, once bytes above its offset are settled: no later mark may be below `settled`.
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

    /// Drops all waiting marks. Moves the first unit to `origin` if no mark has been emitted.
    pub(super) fn restart(&mut self, origin: u64) {
        // Numbers of slots are not reused: a slot that a unit still has is then ignored.
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
                    // Damage is payload, so the first unit must come before it.
                    _ => self.begin(u64::MAX, marks),
                }
                self.begun = true;
            }
            marks.push(Mark { at, kind });
        }
    }
}
