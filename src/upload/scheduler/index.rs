//! The chunks of one link, sorted in every order that the scheduler needs, so that no query iterates over all of them.
//!
//! PURE.

use std::collections::BTreeSet;

use crate::upload::ticket::Ticket;

/// The values that determine a chunk's place in the orders.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) in_flight: bool,
    pub(super) refused: bool,
    /// Earliest time of its next attempt, ns; 0 = none.
    pub(super) not_before: u64,
    /// Number of its last attempt, counted over all attempts of the scheduler.
    pub(super) started: u64,
}

/// The chunks of one link, sorted in every order that the scheduler needs. In a pair, index 1 is for refused chunks and index 0
/// for all others.
#[derive(Debug, Default)]
pub(super) struct Index {
    all: BTreeSet<Ticket>,
    /// Chunks without a time of their own.
    ready: [BTreeSet<Ticket>; 2],
    /// Chunks that wait for a time of their own, sorted by it.
    later: [BTreeSet<(u64, Ticket)>; 2],
    /// All chunks that are not in flight, sorted by their last attempt.
    by_attempt: BTreeSet<(u64, Ticket)>,
}

impl Index {
    /// Adds a chunk, or adds it again with changed values after [`Index::suspend`].
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

    /// Removes a chunk from all orders that depend on values which may change.
    pub(super) fn suspend(&mut self, ticket: Ticket, chunk: Order) {
        let of = usize::from(chunk.refused);
        // It stays in `all`: the newest chunk counts even while it is in flight.
        self.ready[of].remove(&ticket);
        self.later[of].remove(&(chunk.not_before, ticket));
        self.by_attempt.remove(&(chunk.started, ticket));
    }

    /// Removes a chunk.
    pub(super) fn remove(&mut self, ticket: Ticket, chunk: Order) {
        self.suspend(ticket, chunk);
        self.all.remove(&ticket);
    }

    /// Makes the chunks ready whose own time has come by `now`.
    pub(super) fn promote(&mut self, now: u64) {
        for (later, ready) in self.later.iter_mut().zip(&mut self.ready) {
            while let Some(&(at, ticket)) = later.first().filter(|(at, _)| *at <= now) {
                later.remove(&(at, ticket));
                ready.insert(ticket);
            }
        }
    }

    /// Returns the newest chunk, in flight or not.
    pub(super) fn newest(&self) -> Option<Ticket> {
        self.all.last().copied()
    }

    /// Whether a chunk is ready. `with_refused`: a refused one counts too.
    pub(super) fn is_ready(&self, ticket: Ticket, with_refused: bool) -> bool {
        self.ready[0].contains(&ticket) || (with_refused && self.ready[1].contains(&ticket))
    }

    /// Returns the oldest ready chunk.
    pub(super) fn oldest_ready(&self, with_refused: bool) -> Option<Ticket> {
        let refused = self.ready[1].first().filter(|_| with_refused);
        self.ready[0].first().into_iter().chain(refused).min().copied()
    }

    /// Returns the chunk whose last attempt is the longest ago, with that attempt.
    pub(super) fn least_tried(&self) -> Option<(u64, Ticket)> {
        self.by_attempt.first().copied()
    }

    /// Returns when the first chunk is due by its own time, for those that were not refused and for refused ones. 0 = ready.
    pub(super) fn due(&self) -> [Option<u64>; 2] {
        [0, 1].map(|of| match self.ready[of].is_empty() {
            false => Some(0),
            true => self.later[of].first().map(|&(at, _)| at),
        })
    }
}
