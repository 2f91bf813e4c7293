//! The middle of a long backlog on disk, in a form that costs a tenth of a queued chunk: a camera whose uplink is away for a month
//! leaves 267,000 chunks of 10 s.
//!
//! PURE: plain data under the lock of the queue. The queue keeps the newest chunk, which is sent first, and the oldest
//! few hundred, which are next (`shelving`); what lies between is shelved, and comes back oldest first as the others are stored or dropped.
//! Only what this session closed on disk and nobody holds or has sent whole is shelved.

use std::collections::VecDeque;
use std::sync::Arc;

use super::chunk::{Chunk, Place, Reopen, Summary};
use super::ticket::Ticket;
use crate::spool::{DestinationId, ShelvedFile};

/// Chunks on disk that are pending and not queued. All of one session, oldest first.
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
    reopen: Arc<dyn Reopen>,
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

    /// The first one.
    pub(super) fn oldest(&self) -> Option<Ticket> {
        self.chunks.front().map(|shelved| Ticket::own(shelved.file.sequence()))
    }

    /// The last one.
    pub(super) fn newest(&self) -> Option<Ticket> {
        self.chunks.back().map(|shelved| Ticket::own(shelved.file.sequence()))
    }

    /// Puts a chunk behind the others, unless it is in somebody's hands or its file has a story that must not be forgotten.
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

    /// Takes the oldest back.
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
