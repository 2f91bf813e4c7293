//! Bytes that arrive without completing a unit: a large picture over a very slow link.
//!
//! PURE. After [`crate::chunk::Limits::patience`] the chunker stores what came before the unit in progress, then the part of that
//! unit that has come: a live recording must not wait for its end.

use super::start::Waiting;
use super::{ChunkState, Chunker};
use crate::chunk::Event;
use crate::chunk::clock::Stamp;

/// Most time that counts between two buffers: 5 s. While upstream is blocked, time passes in which no bytes arrive.
const MAX_STEP: u64 = 5_000_000_000;

/// For how long bytes have come since the last unit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trickle {
    last: Option<Stamp>,
    /// In ns.
    total: u64,
    /// For how long bytes have come, ns, while the units that the scanner gives up are processed; else 0.
    pub(super) given_up_after: u64,
}

impl Trickle {
    pub(super) fn unit_came(&mut self) {
        self.total = 0;
    }

    /// Counts a buffer. Returns for how long bytes have come since the last unit, ns.
    fn buffer_came(&mut self, stamp: &Stamp) -> u64 {
        let step = self.last.map_or(0, |last| last.arrived_before(stamp));
        self.last = Some(*stamp);
        self.total = self.total.saturating_add(step.min(MAX_STEP));
        self.total
    }
}

impl Chunker {
    /// Stores the bytes that have come if they came without a unit for the patience.
    pub(super) fn store_trickle(&mut self, stamp: &Stamp, events: &mut Vec<Event>) {
        let limits = self.limits;
        let waited = self.trickle.buffer_came(stamp);
        if limits.max_time == 0 || limits.single || self.stopped || waited < limits.patience() {
            return;
        }
        self.trickle.unit_came();
        // Counts as time waited for a key unit, so that a waiting chunker begins a chunk with what the scanner gives up now.
        self.trickle.given_up_after = waited;
        let mut marks = std::mem::take(&mut self.input.marks);
        if let Some(scanner) = &mut self.input.scanner {
            scanner.give_up(&mut marks);
        }
        self.apply(marks, events);
        self.trickle.given_up_after = 0;
        self.begin_with_held(events);
        // Close the chunk as if idle: only closed chunks are uploaded.
        self.close_idle(events);
    }

    /// Begins a chunk with the decided bytes that are in no chunk. No unit has come to begin it, and perhaps none ever will.
    fn begin_with_held(&mut self, events: &mut Vec<Event>) {
        let base = self.undecided.bytes.base();
        if self.input.settled().is_none_or(|settled| settled <= base) {
            return;
        }
        match &self.state {
            // Not without a first unit: the bytes before it are an incomplete header.
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
