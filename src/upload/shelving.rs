//! Which chunks on disk are queued, and which lie on the [`shelf`](super::shelf).
//!
//! PURE.

use std::sync::Arc;

use super::state::QueueState;
use super::ticket::Ticket;

/// Most chunks on disk that are queued: more than are ever in flight, and few enough to need little memory.
pub(super) const MAX_QUEUED: usize = 512;

impl QueueState {
    fn queued_on_disk(&self) -> usize {
        self.chunks.len() - self.in_memory.len()
    }

    /// Shelves the chunk before `newest`, which was just queued, if too many chunks on disk are queued.
    pub(super) fn shelve(&mut self, newest: Ticket) {
        if newest.is_recovered() || self.queued_on_disk() <= MAX_QUEUED {
            return;
        }
        // The newest itself stays: it is sent next.
        let Some((&ticket, chunk)) = self.chunks.range(..newest).next_back() else {
            return;
        };
        let is_next = self.shelf.newest().is_none_or(|last| last < ticket);
        // A chunk that was tried while it was the newest may be shelved like any other.
        if ticket.is_recovered() || !is_next || self.scheduler.is_in_flight(ticket) || Arc::strong_count(chunk) != 1 {
            return;
        }
        if self.shelf.put(chunk) {
            self.scheduler.remove(ticket);
            self.chunks.remove(&ticket);
        }
    }

    /// Returns shelved chunks to the queue while it has room. The oldest chunk of all is always in the queue, because it is
    /// dropped first, expires first, and its age is reported.
    pub(super) fn unshelve(&mut self) {
        let is_behind = |state: &Self| {
            let first = state.chunks.range(Ticket::own(0)..).next().map(|(ticket, _)| *ticket);
            first
                .zip(state.shelf.oldest())
                .is_some_and(|(first, shelved)| shelved < first)
        };
        while (self.queued_on_disk() < MAX_QUEUED || is_behind(self)) && self.take_shelved() {}
    }

    /// Returns all shelved chunks to the queue.
    pub(super) fn unshelve_all(&mut self) {
        while self.take_shelved() {}
    }

    fn take_shelved(&mut self) -> bool {
        let Some(chunk) = self.shelf.take() else { return false };
        let ticket = Ticket::own(chunk.summary.sequence);
        // With its original age: it was pending all the time.
        self.scheduler.queue(ticket, None, chunk.closed_at);
        self.chunks.insert(ticket, Arc::new(chunk));
        true
    }
}
