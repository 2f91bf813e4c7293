//! The middle of a long backlog on disk, in a form that costs a tenth of a queued chunk: a camera whose uplink is away for a month
//! leaves 267,000 chunks of 10 s.
//!
//! PURE: plain data under the lock of the queue. The queue keeps the newest chunk, which is sent first, and the oldest
//! [`MAX_QUEUED`], which are next; what lies between is shelved, and comes back oldest first as the others are stored or dropped.
//! Only what this session closed on disk and nobody has tried yet is shelved.

use std::collections::VecDeque;
use std::sync::Arc;

use super::chunk::{Chunk, Place, Summary};
use super::spooled_chunk::{ChunkFile, ShelvedFile, Times};
use super::state::QueueState;
use super::ticket::Ticket;
use crate::spool::DestinationId;

/// Chunks on disk that are queued; more than ever are in flight, and few enough to cost no memory.
pub(super) const MAX_QUEUED: usize = 512;

/// See the module. All of one session, the older first.
#[derive(Default)]
pub(super) struct Shelf {
    chunks: VecDeque<Shelved>,
    /// What they share.
    common: Option<Common>,
}

#[derive(Clone)]
struct Common {
    session: Arc<str>,
    destination: DestinationId,
    times: Arc<Times>,
}

/// A chunk on it; the rest of what its messages say is in its file's summary.
struct Shelved {
    file: ShelvedFile,
    running: Option<u64>,
    closed_at: u64,
}

impl Shelf {
    /// Chunks on it.
    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    fn newest(&self) -> Option<Ticket> {
        self.chunks.back().map(|shelved| Ticket::own(shelved.file.sequence()))
    }

    /// Puts a chunk behind the others, unless it is in somebody's hands or its file has a story that must not be forgotten.
    fn put(&mut self, chunk: &Chunk) -> bool {
        let Place::Disk(kept) = &chunk.place else { return false };
        if chunk.recovered || chunk.link_key.is_some() || chunk.renamed.is_some() || Arc::strong_count(kept) != 1 {
            return false;
        }
        let session = &chunk.summary.session;
        if self.common.as_ref().is_some_and(|common| common.session != *session) {
            return false;
        }
        let destination = self.common.as_ref().map(|common| common.destination);
        let Some((file, destination, times)) = kept.shelve(destination) else {
            return false;
        };
        self.common.get_or_insert_with(|| Common {
            session: Arc::clone(session),
            destination,
            times,
        });
        self.chunks.push_back(Shelved {
            file,
            running: chunk.summary.running,
            closed_at: chunk.closed_at,
        });
        true
    }

    /// Takes the oldest back.
    fn take(&mut self) -> Option<Chunk> {
        let Common {
            session,
            destination,
            times,
        } = self.common.clone()?;
        let Shelved {
            file,
            running,
            closed_at,
        } = self.chunks.pop_front()?;
        let known = file.summary(destination);
        Some(Chunk {
            summary: Summary {
                session,
                sequence: known.sequence,
                start: known.start,
                duration: known.duration,
                running,
                size: known.size,
            },
            place: Place::Disk(ChunkFile::new(file.into_stored(destination), times)),
            recovered: false,
            link_key: None,
            renamed: None,
            closed_at,
        })
    }
}

impl QueueState {
    fn queued_on_disk(&self) -> usize {
        self.chunks.len() - self.in_memory.len()
    }

    /// A chunk on disk was queued: shelves the one before it if there are too many.
    pub(super) fn shelve(&mut self, newest: Ticket) {
        if newest.is_recovered() || self.queued_on_disk() <= MAX_QUEUED {
            return;
        }
        let Some((&ticket, chunk)) = self.chunks.range(..newest).next_back() else {
            return;
        };
        let is_next = self.shelf.newest().is_none_or(|last| last < ticket);
        let is_untried = self.scheduler.attempts(ticket) == 0 && !self.scheduler.is_in_flight(ticket);
        if ticket.is_recovered() || !is_next || !is_untried || Arc::strong_count(chunk) != 1 {
            return;
        }
        if self.shelf.put(chunk) {
            self.scheduler.remove(ticket);
            self.chunks.remove(&ticket);
        }
    }

    /// There is room in the queue: takes the next back from the shelf.
    pub(super) fn unshelve(&mut self) {
        while self.queued_on_disk() < MAX_QUEUED && self.take_shelved() {}
    }

    /// Takes all of them back.
    pub(super) fn unshelve_all(&mut self) {
        while self.take_shelved() {}
    }

    fn take_shelved(&mut self) -> bool {
        let Some(chunk) = self.shelf.take() else { return false };
        let ticket = Ticket::own(chunk.summary.sequence);
        self.scheduler.queue(ticket, None, chunk.closed_at);
        self.chunks.insert(ticket, Arc::new(chunk));
        true
    }
}
