//! The sessions of earlier processes that a sink holds, and those that wait for their turn. Plain data; [`super::leftovers`]
//! decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::chunk::Chunk;
use super::ticket::Ticket;
use crate::flow::pending::Pending;
use crate::spool::Leftover;

/// Sessions held at once: each costs a descriptor for its lock.
pub(super) const MAX_HELD: usize = 32;
/// The sessions that are held, and what waits for its turn.
#[derive(Debug, Default)]
pub(super) struct HeldSessions {
    pub(super) held: BTreeMap<Arc<str>, HeldSession>,
    /// What the sessions hold whose turn has not come.
    pub(super) rest: Pending,
    /// When they were found, ns.
    pub(super) since: u64,
    /// Their number was reported.
    pub(super) reported: bool,
    /// At least one adopted chunk is not parked.
    pub(super) is_served: bool,
}

/// A held session.
#[derive(Debug)]
pub(super) struct HeldSession {
    /// Its chunks.
    pub(super) tickets: BTreeSet<Ticket>,
    /// When progress was last seen: one of its chunks was stored or dropped, or all were adopted.
    pub(super) moved_at: u64,
    /// One of its chunks was stored or dropped after `moved_at`.
    pub(super) has_moved: bool,
    /// How to put it back; `None` for an earlier life of this sink's own session, which is never put back.
    pub(super) left: Option<Leftover>,
}

/// A session that gave way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GaveWay {
    /// How to find it again.
    pub(super) left: Leftover,
    /// All of it is parked.
    pub(super) is_parked: bool,
}

impl HeldSessions {
    /// Adds an adopted chunk. `is_parked`: this sink has no credentials for its destination.
    pub(super) fn add(&mut self, chunk: &Chunk, ticket: Ticket, is_parked: bool, now: u64) {
        self.is_served |= !is_parked;
        let session = Arc::clone(&chunk.summary.session);
        let held = self.held.entry(session).or_insert_with(|| HeldSession {
            tickets: BTreeSet::new(),
            moved_at: now,
            has_moved: false,
            left: None,
        });
        held.tickets.insert(ticket);
    }

    /// Removes a chunk that was stored or dropped. Returns whether it was the last one of its session.
    pub(super) fn remove(&mut self, chunk: &Chunk, ticket: Ticket) -> bool {
        let Some(held) = self.held.get_mut(&chunk.summary.session) else {
            return false;
        };
        held.has_moved = true;
        held.tickets.remove(&ticket);
        let is_done = held.tickets.is_empty();
        if is_done {
            self.held.remove(&chunk.summary.session);
        }
        is_done
    }

    /// Returns what waits for its turn; `oldest` counts from when it was found.
    pub(super) fn rest(&self, now: u64) -> Pending {
        Pending {
            oldest: if self.rest.chunks > 0 {
                now.saturating_sub(self.since)
            } else {
                0
            },
            ..self.rest
        }
    }
}
