//! The middle of a long backlog on disk, in a form that takes a tenth of the memory of a queued chunk (88 bytes instead of 0.8
//! KiB, see `docs/benchmarks.md`): a camera without an uplink for a month leaves 267,000 chunks of 10 s.
//!
//! PURE: plain data under the lock of the queue. The queue keeps the newest chunk, which is sent first, and the oldest few
//! hundred, which follow (`shelving`). The chunks between are shelved, and return oldest first as the others are stored or
//! dropped. A chunk is shelved only if this session closed it on disk, no other owner refers to it and it was never sent whole.

use std::collections::VecDeque;
use std::sync::Arc;

use super::chunk::{Chunk, Place, Reopen, Summary};
use super::ticket::Ticket;
use crate::spool::{DestinationId, ShelvedFile};

/// Chunks on disk that are pending but not queued. All of one session, oldest first.
#[derive(Default)]
pub(super) struct Shelf {
    chunks: VecDeque<Shelved>,
    /// What all of them share.
    common: Option<Common>,
}

#[derive(Clone)]
struct Common {
    session: Arc<str>,
    destination: DestinationId,
    reopen: Arc<dyn Reopen>,
}

/// A shelved chunk; the other fields of its messages are in its file's summary.
struct Shelved {
    file: ShelvedFile,
    running: Option<u64>,
    closed_at: u64,
}

impl Shelf {
    /// Returns the number of chunks.
    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Returns the oldest chunk.
    pub(super) fn oldest(&self) -> Option<Ticket> {
        self.chunks.front().map(|shelved| Ticket::own(shelved.file.sequence()))
    }

    /// Returns the newest chunk.
    pub(super) fn newest(&self) -> Option<Ticket> {
        self.chunks.back().map(|shelved| Ticket::own(shelved.file.sequence()))
    }

    /// Appends a chunk. Returns false, and leaves it, if another owner refers to it or if more is known about its file than a
    /// [`ShelvedFile`] records.
    pub(super) fn put(&mut self, chunk: &Chunk) -> bool {
        let Place::Disk(spooled) = &chunk.place else { return false };
        if chunk.recovered || chunk.link_key.is_some() || chunk.renamed.is_some() || Arc::strong_count(spooled) != 1 {
            return false;
        }
        let session = &chunk.summary.session;
        if self.common.as_ref().is_some_and(|common| common.session != *session) {
            return false;
        }
        let destination = self.common.as_ref().map(|common| common.destination);
        let Some((file, destination, reopen)) = spooled.shelve(destination) else {
            return false;
        };
        self.common.get_or_insert_with(|| Common {
            session: Arc::clone(session),
            destination,
            reopen,
        });
        self.chunks.push_back(Shelved {
            file,
            running: chunk.summary.running,
            closed_at: chunk.closed_at,
        });
        true
    }

    /// Removes the oldest chunk and returns it.
    pub(super) fn take(&mut self) -> Option<Chunk> {
        let Common {
            session,
            destination,
            reopen,
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
            place: Place::Disk(reopen.reopen(file.into_stored(destination))),
            recovered: false,
            link_key: None,
            renamed: None,
            closed_at,
        })
    }
}
