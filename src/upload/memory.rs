//! The memory of one sink's uploads: what is charged with which bytes, and who waits or gives way when it is full.
//!
//! The streaming thread's side of [`UploadQueue`]. Blocks on the queue's condition in [`UploadQueue::charge`] alone. What is charged
//! here is given back when its chunk is stored, dropped or moved to disk.

use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;

use super::disk_state::Disk;
use super::queue::{Charged, NoRoom, Overflow, UploadQueue};
use super::state::QueueState;
use super::ticket::Ticket;

impl UploadQueue {
    /// Makes room for a buffer of `bytes` and charges the memory with it. Waits if it has to and may.
    pub fn charge(&self, bytes: u64, overflow: Overflow) -> Charged {
        let mut state = self.lock();
        let version = state.version;
        loop {
            // A buffer that is larger than all memory is let in when nothing else is there.
            if state.memory == 0 || state.memory.saturating_add(bytes) <= state.max_memory.saturating_sub(state.headroom) {
                state.received(bytes, self.now());
                state.need = 0;
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
            // `overflow` may be out of date: the caller reads the settings again.
            if state.version != version {
                return Charged::No(NoRoom::Again);
            }
            state.need = bytes;
            // Before anything is dropped: a chunk that moves to disk is not lost. The spooler wakes this wait.
            if state.disk_makes_room() {
                self.disk_wake.notify_one();
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if state.wants_open_on_disk(true) {
                return Charged::No(NoRoom::MoveOpen);
            }
            // Nor is one that is on disk, and is sent from memory.
            let on_disk = state.send_all_from_disk();
            if !on_disk.is_empty() {
                drop(state);
                drop(on_disk);
                self.wake.notify_one();
                state = self.lock();
                continue;
            }
            // Only the user can end this: a wait would not.
            if state.health.is_refused() && state.health.goes_on_refused() {
                return Charged::No(NoRoom::Refused);
            }
            // On a disk that is full, what is parked is the oldest, and gives way as any other does.
            let may_drop_parked = overflow == Overflow::DropOldest && state.is_parked_in_the_way();
            // Nothing is on its way, so nothing would end a wait.
            if state.scheduler.pending() == 0 && !may_drop_parked {
                return Charged::No(NoRoom::Nothing);
            }
            match overflow {
                Overflow::Error => return Charged::No(NoRoom::Full),
                Overflow::DropOldest => {
                    // If the only chunk gave way while it is being sent, and so did each one after it, none would ever arrive.
                    let is_only = state.scheduler.pending() == 1 && state.scheduler.in_flight() == 1;
                    if is_only && state.disk.is_none() {
                        return Charged::No(NoRoom::CutOpen);
                    }
                    if let Some(ticket) = state.to_drop() {
                        state = self.drop_for_room(state, ticket);
                        continue;
                    }
                    // All memory is the open chunk's, or will be that of a chunk whose end the writer has in hand.
                    if !state.disk.as_ref().is_some_and(Disk::has_ends) {
                        return Charged::No(NoRoom::Nothing);
                    }
                }
                Overflow::Block => {}
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets go of a chunk for want of room.
    fn drop_for_room<'a>(&'a self, mut state: MutexGuard<'a, QueueState>, ticket: Ticket) -> MutexGuard<'a, QueueState> {
        if state.scheduler.is_in_flight(ticket) {
            state.scheduler.reduce_concurrency();
        }
        let gone = state.drop_chunk(ticket, "overflow");
        // Megabytes are freed without the lock, which `render` takes for each buffer.
        drop(state);
        drop(gone);
        self.publish();
        self.wake.notify_one();
        self.disk_wake.notify_one();
        self.lock()
    }

    /// The open chunk could not be cut: the one that is being sent has to go after all.
    pub fn drop_sent(&self) {
        let state = self.lock();
        if let Some(ticket) = state.to_drop() {
            drop(self.drop_for_room(state, ticket));
        }
    }

    /// Whether the spool takes nothing: it is full, fails or does not answer.
    pub fn is_disk_refusing(&self) -> bool {
        let state = self.lock();
        state.disk.as_ref().is_some_and(Disk::is_refusing)
    }

    /// Waits while the spool takes nothing. Returns when it is tried again, and at once if waits are interrupted. Returns too when
    /// the settings change.
    pub fn wait_for_disk(&self) {
        let state = self.lock();
        let version = state.version;
        let is_waiting = |state: &mut QueueState| {
            let is_refusing = state.disk.as_ref().is_some_and(Disk::is_refusing);
            is_refusing && !state.interrupted && state.version == version
        };
        drop(
            self.changed
                .wait_while(state, is_waiting)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// The spool refuses, or takes again.
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

    /// Charges the memory whatever is there: nothing could be done to make room.
    pub fn force_charge(&self, bytes: u64) {
        self.lock().received(bytes, self.now());
    }

    /// Leaves room for one chunk more at every charge, so that the memory keeps its bound when a buffer begins one.
    pub fn set_headroom(&self, bytes: u64) {
        let mut state = self.lock();
        // At most a part: the texts of a chunk must not leave a small memory without room for buffers.
        state.headroom = bytes.min(state.max_memory / 16);
    }

    /// A chunk begins in memory: charges `overhead` bytes for what is kept of it beside its payload, and its header where no
    /// other chunk has the same. Returns the one copy of the header.
    pub fn begin_in_memory(&self, head: Bytes, overhead: u64) -> Bytes {
        let mut state = self.lock();
        state.memory += overhead;
        state.hold_head(head)
    }

    /// A chunk begins that is written to disk as it comes: charges `bytes` until they are written.
    pub fn begin_on_disk(&self, bytes: u64) {
        self.lock().memory += bytes;
    }

    /// The open chunk leaves the memory for the disk: its header is charged on its own from here on.
    pub fn leaves_memory(&self, head: &Bytes) {
        let mut state = self.lock();
        state.memory += head.len() as u64;
        state.drop_head(head);
    }

    /// Whether more is charged than fits, as after a buffer that began many chunks.
    pub fn is_over(&self) -> bool {
        let state = self.lock();
        state.memory > state.max_memory
    }

    /// Takes a charge back: the buffer is not taken after all.
    pub fn refund(&self, bytes: u64) {
        let mut state = self.lock();
        state.memory = state.memory.saturating_sub(bytes);
        state.stats.bytes_received = state.stats.bytes_received.saturating_sub(bytes);
        state.input.take_back(bytes);
        drop(state);
        self.changed.notify_all();
    }

    /// Gives back what was charged for bytes that are in no chunk.
    pub fn release(&self, bytes: u64) {
        let mut state = self.lock();
        state.memory = state.memory.saturating_sub(bytes);
        drop(state);
        self.changed.notify_all();
    }
}
