//! The chunks of one link, in the orders in which they are asked for: no question looks at all of them.
//!
//! PURE.

use std::collections::BTreeSet;

use crate::upload::ticket::Ticket;

/// What the place of a chunk among the others depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) in_flight: bool,
    pub(super) refused: bool,
    /// A time of its own, ns; 0 = none.
    pub(super) not_before: u64,
    /// Which attempt of all its last one was.
    pub(super) started: u64,
}

/// The chunks of one link, sorted by each order in which the scheduler asks for them. In a pair, index 1 holds refused chunks, index 0 all
/// others.
#[derive(Debug, Default)]
pub(super) struct Index {
    all: BTreeSet<Ticket>,
    /// Those that wait for nothing of their own.
    ready: [BTreeSet<Ticket>; 2],
    /// Those that wait for a time of their own, by that time.
    later: [BTreeSet<(u64, Ticket)>; 2],
    /// All that are not in flight, by their last attempt.
    by_attempt: BTreeSet<(u64, Ticket)>,
}

impl Index {
    /// Adds a chunk, or what has changed of it after [`Index::suspend`].
    pub(super) fn add(&mut self, ticket: Ticket, chunk: Order) {
        self.all.insert(ticket);
        if chunk.in_flight {
            return;
        }
        let of = usize::from(chunk.refused);
        if chunk.not_before == 0 {
            self.ready[of].insert(ticket);
        } else {
            self.later[of].insert((chunk.not_before, ticket));
        }
        self.by_attempt.insert((chunk.started, ticket));
    }

    /// Takes a chunk out of all orders that depend on what may change of it.
    pub(super) fn suspend(&mut self, ticket: Ticket, chunk: Order) {
        let of = usize::from(chunk.refused);
        // It stays in `all`: the newest counts also while it is in flight.
        self.ready[of].remove(&ticket);
        self.later[of].remove(&(chunk.not_before, ticket));
        self.by_attempt.remove(&(chunk.started, ticket));
    }

    /// Takes a chunk out.
    pub(super) fn remove(&mut self, ticket: Ticket, chunk: Order) {
        self.suspend(ticket, chunk);
        self.all.remove(&ticket);
    }

    /// The time is `now`: those whose own time has come are ready.
    pub(super) fn promote(&mut self, now: u64) {
        for (later, ready) in self.later.iter_mut().zip(&mut self.ready) {
            while let Some(&(at, ticket)) = later.first().filter(|(at, _)| *at <= now) {
                later.remove(&(at, ticket));
                ready.insert(ticket);
            }
        }
    }

    /// The newest chunk, in flight or not.
    pub(super) fn newest(&self) -> Option<Ticket> {
        self.all.last().copied()
    }

    /// Whether it waits for nothing of its own; `with_refused`: as one that was refused may, too.
    pub(super) fn is_ready(&self, ticket: Ticket, with_refused: bool) -> bool {
        self.ready[0].contains(&ticket) || (with_refused && self.ready[1].contains(&ticket))
    }

    /// The oldest that is ready.
    pub(super) fn oldest_ready(&self, with_refused: bool) -> Option<Ticket> {
        let refused = self.ready[1].first().filter(|_| with_refused);
        self.ready[0].first().into_iter().chain(refused).min().copied()
    }

    /// The one whose last attempt is the longest ago: the attempt and the chunk.
    pub(super) fn least_tried(&self) -> Option<(u64, Ticket)> {
        self.by_attempt.first().copied()
    }

    /// When the first is due as far as its own time goes: of those that were not refused, and of those that were. 0 = ready.
    pub(super) fn due(&self) -> [Option<u64>; 2] {
        [0, 1].map(|of| match self.ready[of].is_empty() {
            false => Some(0),
            true => self.later[of].first().map(|&(at, _)| at),
        })
    }
}
