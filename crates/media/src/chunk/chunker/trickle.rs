//! Bytes that come, but no unit: a large picture over a link that hardly moves.
//!
//! PURE. After [`crate::chunk::Limits::patience`] of them, what came before the unit in progress is stored, and then what there
//! is of it: a live line must not wait for its end.

use super::start::Waiting;
use super::{ChunkState, Chunker};
use crate::chunk::Event;
use crate::chunk::clock::Stamp;

/// Most that counts of the time between two buffers: while upstream is blocked, nothing comes. 5 s.
const MAX_STEP: u64 = 5_000_000_000;

/// How long bytes have come since the last unit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trickle {
    last: Option<Stamp>,
    /// In ns.
    total: u64,
    /// Of the units that are emitted now, because bytes have come for that long, ns.
    pub(super) given_up_after: u64,
}

impl Trickle {
    pub(super) fn unit_came(&mut self) {
        self.total = 0;
    }

    /// A buffer arrived. Returns how long bytes have come since the last unit, ns.
    fn buffer_came(&mut self, stamp: &Stamp) -> u64 {
        let step = self.last.map_or(0, |last| last.arrived_before(stamp));
        self.last = Some(*stamp);
        self.total = self.total.saturating_add(step.min(MAX_STEP));
        self.total
    }
}

impl Chunker {
    /// Stores what there is if bytes have come without a unit for the patience.
    pub(super) fn store_trickle(&mut self, stamp: &Stamp, events: &mut Vec<Event>) {
        let limits = self.limits;
        let waited = self.trickle.buffer_came(stamp);
        if limits.max_time == 0 || limits.single || self.stopped || waited < limits.patience() {
            return;
        }
        self.trickle.unit_came();
        // Counts as waited for a key unit: a chunk that waits for one begins with what is given up now.
        self.trickle.given_up_after = waited;
        let mut marks = std::mem::take(&mut self.input.marks);
        if let Some(scanner) = &mut self.input.scanner {
            scanner.give_up(&mut marks);
        }
        for mark in marks.drain(..) {
            self.mark(mark, events);
        }
        self.input.marks = marks;
        self.trickle.given_up_after = 0;
        self.begin_with_held(events);
        // Closed as in a standstill: only a closed chunk is uploaded.
        self.close_idle(events);
    }

    /// Begins a chunk with the decided bytes that none has: no unit is there that would begin it, and perhaps none ever comes.
    fn begin_with_held(&mut self, events: &mut Vec<Event>) {
        let base = self.undecided.bytes.base();
        if self.input.settled().is_none_or(|settled| settled <= base) {
            return;
        }
        match &self.state {
            // Bytes before the first unit are a head that is not whole.
            ChunkState::Waiting(Waiting {
                dropping: None,
                first: Some(_),
                ..
            }) => self.begin_without_key(events),
            ChunkState::Idle(_) => {
                let stamp = self.undecided.stamp_at(base);
                self.begin(base, self.next.init.clone(), stamp, events);
            }
            ChunkState::Waiting(_) | ChunkState::Open(_) => {}
        }
    }
}
