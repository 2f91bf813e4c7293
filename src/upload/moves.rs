//! Decides which chunks move from memory to disk, and when.
//!
//! PURE. A chunk stays in memory, charged there, until all of it is on disk. The chunk that would be sent last moves first. A
//! chunk that is being sent moves only if everything has to go to disk, or if nothing else makes room. In mode `always`, or if
//! its beginning was on disk before, its attempt continues from memory, and it stays charged until that attempt ends.

use std::sync::Arc;

use super::chunk::{Chunk, Place, SpooledChunk};
use super::disk_state::{DiskState, Mode, Phase};
use super::life::{Recall, Step};
use super::state::QueueState;
use super::ticket::Ticket;

impl QueueState {
    /// Whether the memory is so full that whole chunks are to be moved to disk.
    fn is_pressed(&self) -> bool {
        let moving: u64 = self.moving_bytes();
        // At three quarters, not when it is full: a chunk stays charged until all of it is on disk.
        self.memory.used.saturating_sub(moving).saturating_add(self.memory.need) > self.memory.limit / 4 * 3
    }

    /// Whether movable chunks are to be moved: at the end, in mode `always`, and when the memory fills up.
    fn is_moving(&self) -> bool {
        let to_disk = |d: &DiskState| d.phase.is_ending() || d.mode == Mode::Always;
        self.disk.as_ref().is_some_and(to_disk) || self.is_pressed()
    }

    fn moving_bytes(&self) -> u64 {
        let Some(disk) = &self.disk else { return 0 };
        let bytes = |ticket: &Ticket| self.chunks.get(ticket).map_or(0, |c| c.charged());
        disk.in_hand.moving.iter().map(bytes).sum()
    }

    /// Returns the chunk to move next: the one that would be sent last.
    fn movable(&self) -> Option<Ticket> {
        let disk = self.disk.as_ref().filter(|d| !d.is_blocked())?;
        let first = self.scheduler.sent_last(&self.movable, |t| !self.scheduler.is_in_flight(t));
        // An attempt from memory keeps its chunk there until it ends, so moving such a chunk frees nothing. It moves only if
        // everything has to be on disk, or if aborting its attempt is the only way to make room.
        let any = disk.phase.is_ending() || disk.mode == Mode::Always || (self.memory.need > 0 && disk.is_open_on_disk());
        first.or_else(|| self.scheduler.sent_last(&self.movable, |_| true).filter(|_| any))
    }

    /// Takes the next chunk to move, if there is one.
    pub(super) fn take_move(&mut self) -> Option<(Ticket, Arc<Chunk>)> {
        if !self.is_moving() {
            return None;
        }
        let ticket = self.movable()?;
        let chunk = Arc::clone(self.chunks.get(&ticket)?);
        if let Some(disk) = &mut self.disk {
            disk.in_hand.moving.insert(ticket);
        }
        self.movable.remove(&ticket);
        Some((ticket, chunk))
    }

    /// Records that a chunk was moved to disk, or `None` if that failed. Returns the file if it is not wanted on disk any more.
    pub(super) fn moved(&mut self, ticket: Ticket, spooled: Option<Arc<dyn SpooledChunk>>) -> Option<Arc<dyn SpooledChunk>> {
        if self.chunks.get(&ticket).is_some_and(|chunk| chunk.is_movable()) {
            // Removed again below if it is on disk now.
            self.movable.insert(ticket);
        }
        if let Some(disk) = &mut self.disk {
            disk.in_hand.moving.remove(&ticket);
            disk.in_hand.finishing = disk.in_hand.finishing.filter(|&t| t != ticket);
            if disk.phase == Phase::Forgotten {
                // The file stays in place for the next start.
                return None;
            }
        }
        let spooled = spooled?;
        // A chunk that was partly on disk has no other copy of that part: its file is the chunk.
        let was_part = self.chunks.get(&ticket).is_some_and(|chunk| chunk.part().is_some());
        let is_ending = self.disk.as_ref().is_some_and(|d| d.phase.is_ending());
        let mut is_sent_on = false;
        if !is_ending && self.scheduler.is_in_flight(ticket) {
            if self.memory.need > 0 {
                self.send_from_disk(ticket);
            } else if was_part || self.disk.as_ref().is_some_and(|d| d.mode == Mode::Always) {
                // Count it as on disk although its attempt continues from memory: an attempt may take minutes, and a kill would
                // lose what counts as in memory only.
                is_sent_on = true;
            } else {
                // It is being sent from memory and no buffer waits for its room: the copy on disk is not needed.
                return Some(spooled);
            }
        }
        let Some(chunk) = self.chunks.get(&ticket).cloned() else {
            // Stored or dropped meanwhile: the next start would send its file again.
            return Some(spooled);
        };
        if is_sent_on {
            self.sent_on.insert(ticket, chunk);
        } else {
            self.refund(&chunk);
        }
        self.in_memory.remove(&ticket);
        self.movable.remove(&ticket);
        let Some(chunk) = self.chunks.get_mut(&ticket) else {
            return Some(spooled);
        };
        let (session, sequence) = (Arc::clone(&chunk.summary.session), chunk.summary.sequence);
        *chunk = Arc::new(Chunk {
            summary: chunk.summary.clone(),
            place: Place::Disk(spooled),
            renamed: chunk.renamed.clone(),
            ..**chunk
        });
        self.note(&session, sequence, Step::Spooled);
        None
    }

    /// Aborts the attempt at a chunk that is sent from memory and is on disk by now.
    fn send_from_disk(&mut self, ticket: Ticket) {
        if self.scheduler.recall(ticket) {
            self.aborts.push(ticket);
            self.note_recall(ticket, Recall::FromDisk);
        }
    }

    /// Refunds a chunk on disk that was still sent from memory: its attempt has ended or was aborted. The caller frees the
    /// returned chunk after it has released the lock.
    #[must_use = "freed under the lock"]
    pub(super) fn sent_no_more(&mut self, ticket: Ticket) -> Option<Arc<Chunk>> {
        let chunk = self.sent_on.remove(&ticket)?;
        self.refund(&chunk);
        Some(chunk)
    }

    /// Aborts all attempts that send a chunk from memory which is on disk, because a buffer waits for room. The caller frees the
    /// returned chunks after it has released the lock.
    #[must_use = "freed under the lock"]
    pub(super) fn send_all_from_disk(&mut self) -> Vec<Arc<Chunk>> {
        let tickets: Vec<Ticket> = self.sent_on.keys().copied().collect();
        let mut gone = Vec::new();
        for ticket in tickets {
            self.send_from_disk(ticket);
            gone.extend(self.sent_no_more(ticket));
        }
        gone
    }

    /// Whether the disk is making room, or is about to.
    pub(super) fn disk_makes_room(&self) -> bool {
        let Some(disk) = self.disk.as_ref().filter(|d| !d.is_blocked()) else {
            return false;
        };
        disk.is_writing() || (self.is_moving() && self.movable().is_some())
    }

    /// Whether the disk will accept more of what is in memory, as far as that can be known.
    pub(super) fn disk_goes_on(&self) -> bool {
        self.disk.as_ref().is_some_and(DiskState::is_writing) || self.movable().is_some()
    }

    /// Returns whether a chunk is to be moved and no move of it has begun.
    pub(super) fn wants_move(&self) -> bool {
        self.is_moving() && self.movable().is_some()
    }

    /// Whether the open chunk should continue on disk because no other chunk can be moved.
    pub(super) fn wants_open_on_disk(&self, must_make_room: bool) -> bool {
        let Some(disk) = &self.disk else { return false };
        let may_move = disk.mode == Mode::Overflow { open_on_disk: false };
        // A chunk that is being moved makes room by itself.
        let useful = may_move && !disk.is_blocked() && disk.in_hand.moving.is_empty();
        useful && (must_make_room || self.is_pressed()) && self.movable().is_none()
    }
}
