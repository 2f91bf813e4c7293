//! The memory of one sink's uploads: which bytes are charged, and what waits or is dropped when it is full.
//!
//! The streaming thread's side of [`UploadQueue`]. Only [`UploadQueue::charge`] and [`UploadQueue::wait_for_disk`] block, on the
//! queue's condition. A charge is refunded when its chunk is stored, dropped or moved to disk.

use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;

use super::disk_state::DiskState;
use super::queue::{Charged, NoRoom, Overflow, UploadQueue};
use super::state::QueueState;
use super::ticket::Ticket;

impl UploadQueue {
    /// Charges the memory for a buffer of `bytes`. If there is no room, makes some: moves chunks to disk, waits, or drops chunks,
    /// by `overflow`.
    pub fn charge(&self, bytes: u64, overflow: Overflow) -> Charged {
        let mut state = self.lock();
        let version = state.version;
        loop {
            if state.memory.fits(bytes) {
                state.received(bytes, self.now());
                state.memory.need = 0;
                if state.disk.is_none() {
                    return Charged::Yes;
                }
                if state.wants_move() {
                    self.disk_wake.notify_one();
                }
                return match state.wants_open_on_disk(false) {
                    true => Charged::MoveOpen,
                    false => Charged::Yes,
                };
            }
            if state.interrupted {
                return Charged::No(NoRoom::Interrupted);
            }
            // `overflow` may be out of date; the caller reads the settings again.
            if state.version != version {
                return Charged::No(NoRoom::Again);
            }
            state.memory.need = bytes;
            // Try the disk before dropping anything: a chunk that moves to disk is not lost. The spooler ends this wait.
            if state.disk_makes_room() {
                self.disk_wake.notify_one();
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if state.wants_open_on_disk(true) {
                return Charged::No(NoRoom::MoveOpen);
            }
            // A chunk that is on disk already and is sent from memory is not lost either if its attempt is aborted.
            let on_disk = state.send_all_from_disk();
            if !on_disk.is_empty() {
                drop(state);
                // Freed without the lock, as in `drop_for_room`.
                drop(on_disk);
                self.wake.notify_one();
                state = self.lock();
                continue;
            }
            // Waiting would not help: only the user can end a refusal.
            if state.health.is_refused() && state.health.goes_on_refused() {
                return Charged::No(NoRoom::Refused);
            }
            // Parked chunks are the oldest on a full disk, so they may be dropped like any other.
            let may_drop_parked = overflow == Overflow::DropOldest && state.is_parked_in_the_way();
            // Nothing is pending, so no event would end a wait.
            if state.scheduler.pending() == 0 && !may_drop_parked {
                return Charged::No(NoRoom::Nothing);
            }
            match overflow {
                Overflow::Error => return Charged::No(NoRoom::Full),
                Overflow::DropOldest => {
                    // If the only chunk were dropped while it is being sent, and each one after it too, none would ever be
                    // stored.
                    let is_only = state.scheduler.pending() == 1 && state.scheduler.in_flight() == 1;
                    if is_only && state.disk.is_none() {
                        return Charged::No(NoRoom::CutOpen);
                    }
                    if let Some(ticket) = state.to_drop() {
                        state = self.drop_for_room(state, ticket);
                        continue;
                    }
                    // The open chunk occupies all memory. Wait only if the writer has an ended chunk: it may return to memory and
                    // can be dropped then.
                    if !state.disk.as_ref().is_some_and(DiskState::has_ends) {
                        return Charged::No(NoRoom::Nothing);
                    }
                }
                Overflow::Block => {}
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Drops a chunk to make room. Releases the lock meanwhile and returns it locked again.
    fn drop_for_room<'a>(&'a self, mut state: MutexGuard<'a, QueueState>, ticket: Ticket) -> MutexGuard<'a, QueueState> {
        if state.scheduler.is_in_flight(ticket) {
            state.scheduler.reduce_concurrency();
        }
        let gone = state.drop_chunk(ticket, "overflow");
        // Free what may be megabytes without the lock, which `render` takes for each buffer.
        drop(state);
        drop(gone);
        self.publish();
        self.wake.notify_one();
        self.disk_wake.notify_one();
        self.lock()
    }

    /// Drops the chunk that is being sent: the open chunk could not be cut instead.
    pub fn drop_sent(&self) {
        let state = self.lock();
        if let Some(ticket) = state.to_drop() {
            drop(self.drop_for_room(state, ticket));
        }
    }

    /// Whether the spool accepts nothing: it is full, fails or does not answer.
    pub fn is_disk_refusing(&self) -> bool {
        let state = self.lock();
        state.disk.as_ref().is_some_and(DiskState::is_refusing)
    }

    /// Blocks while the spool accepts nothing. Returns when the next try begins, when waits are interrupted, or when the settings
    /// change.
    pub fn wait_for_disk(&self) {
        let state = self.lock();
        let version = state.version;
        let is_waiting = |state: &mut QueueState| {
            let is_refusing = state.disk.as_ref().is_some_and(DiskState::is_refusing);
            is_refusing && !state.interrupted && state.version == version
        };
        drop(
            self.changed
                .wait_while(state, is_waiting)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Makes the spool refuse, or accept again.
    #[cfg(test)]
    pub fn set_disk_refusing(&self, is_refusing: bool) {
        if let Some(disk) = &mut self.lock().disk {
            match is_refusing {
                true => disk.health.block(),
                false => disk.health.unblock(),
            }
        }
        self.changed.notify_all();
    }

    /// Charges the memory even beyond its limit: nothing can make room.
    pub fn force_charge(&self, bytes: u64) {
        self.lock().received(bytes, self.now());
    }

    /// Reserves `bytes` at every charge for the bookkeeping of one more chunk, so that the memory keeps its limit when a buffer
    /// begins one.
    pub fn set_headroom(&self, bytes: u64) {
        let mut state = self.lock();
        // Capped: the metadata of a chunk must not leave a small memory without room for buffers.
        state.memory.headroom = bytes.min(state.memory.limit / 16);
    }

    /// Begins a chunk in memory: charges `overhead` bytes for its bookkeeping, and its header if no other chunk has the same.
    /// Returns the shared copy of the header.
    pub fn begin_in_memory(&self, head: Bytes, overhead: u64) -> Bytes {
        let mut state = self.lock();
        state.memory.charge(overhead);
        state.memory.hold_head(head)
    }

    /// Begins a chunk that is written to disk as it is recorded: charges `bytes` until they are written.
    pub fn begin_on_disk(&self, bytes: u64) {
        self.lock().memory.charge(bytes);
    }

    /// Moves the open chunk from memory to disk: its header is no longer shared and is charged separately from here on.
    pub fn leaves_memory(&self, head: &Bytes) {
        let mut state = self.lock();
        state.memory.charge(head.len() as u64);
        state.memory.drop_head(head);
    }

    /// Whether more is charged than the limit, as after a buffer that began many chunks.
    pub fn is_over(&self) -> bool {
        let state = self.lock();
        state.memory.used > state.memory.limit
    }

    /// Reverts a charge for a buffer that is not accepted after all.
    pub fn refund(&self, bytes: u64) {
        let mut state = self.lock();
        state.memory.refund(bytes);
        state.stats.bytes_received = state.stats.bytes_received.saturating_sub(bytes);
        state.input.refund(bytes);
        drop(state);
        self.changed.notify_all();
    }

    /// Refunds bytes that belong to no chunk.
    pub fn release(&self, bytes: u64) {
        let mut state = self.lock();
        state.memory.refund(bytes);
        drop(state);
        self.changed.notify_all();
    }
}
