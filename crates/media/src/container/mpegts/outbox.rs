//! The marks on their way out, in the order of their offsets although units are decided in another order.
//!
//! PURE. Holds marks, never payload, and at most [`MAX_WAITING`] of them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::{Init, Key, Mark, MarkKind, StreamInfo, Track, Unit};

/// Most places that wait for one before them to be decided.
const MAX_WAITING: usize = 2048;

/// Farthest that an undecided place may lie back, in bytes.
const MAX_BEHIND: u64 = 1 << 20;

/// The marks of one place, in order.
pub(super) type Kinds = [Option<MarkKind>; 3];

/// Marks of one place that wait behind an undecided one.
#[derive(Debug)]
struct Place {
    at: u64,
    open: bool,
    kinds: Kinds,
}

/// Hands marks over in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// What the streams are, as far as is known.
    pub(super) info: Arc<StreamInfo>,
    /// Where the first unit has to stand.
    origin: u64,
    begun: bool,
    /// Ticket of the first place that waits.
    base: u64,
    waiting: VecDeque<Place>,
}

impl Outbox {
    /// Says something of a place that is decided.
    pub(super) fn put(&mut self, at: u64, kinds: Kinds, marks: &mut Vec<Mark>) {
        if self.waiting.is_empty() {
            self.send(at, kinds, marks);
        } else {
            self.waiting.push_back(Place { at, open: false, kinds });
        }
    }

    /// Keeps a place for a unit that is not decided; the ticket is for [`Outbox::decide`].
    pub(super) fn open(&mut self, at: u64) -> u64 {
        self.waiting.push_back(Place {
            at,
            open: true,
            kinds: [None, None, None],
        });
        self.base + self.waiting.len() as u64 - 1
    }

    /// Decides a place, and hands over all that had to wait for it alone.
    pub(super) fn decide(&mut self, ticket: u64, kinds: Kinds, marks: &mut Vec<Mark>) {
        let index = ticket.checked_sub(self.base).and_then(|i| usize::try_from(i).ok());
        if let Some(place) = index.and_then(|i| self.waiting.get_mut(i)) {
            place.open = false;
            place.kinds = kinds;
        }
        while self.waiting.front().is_some_and(|place| !place.open) {
            if let Some(place) = self.waiting.pop_front() {
                self.base += 1;
                self.send(place.at, place.kinds, marks);
            }
        }
    }

    /// The place that has to be decided now, with the input read up to `end`, so that the wait stays bounded.
    pub(super) fn overdue(&self, end: u64) -> Option<u64> {
        let front = self.waiting.front()?;
        (self.waiting.len() > MAX_WAITING || end.saturating_sub(front.at) > MAX_BEHIND).then_some(self.base)
    }

    /// Offset of the first undecided place.
    pub(super) fn first_open(&self) -> Option<u64> {
        self.waiting.front().map(|place| place.at)
    }

    /// Whether the first unit was made.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Makes the first unit, if there is none yet, because the bytes up to `settled` are about to be let go.
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

    /// A unit that is no key and has no time.
    pub(super) fn unit(&self, track: Track, init: Init) -> Unit {
        Unit {
            track,
            key: Key::No,
            pts: None,
            end: None,
            new_config: false,
            init: Some(init),
        }
    }

    /// Forgets what waits; if nothing was said yet the first unit will stand at `origin`.
    pub(super) fn restart(&mut self, origin: u64) {
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
                    _ => self.begin(u64::MAX, marks),
                }
                self.begun = true;
            }
            marks.push(Mark { at, kind });
        }
    }
}
