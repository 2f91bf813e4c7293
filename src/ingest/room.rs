//! Makes room when the memory is full: the upload queue reports what it cannot do itself, and the engine does it.

use std::sync::atomic::Ordering;

use super::engine::Engine;
use super::message::{Message, Refusal, Wait};
use super::push::portion;
use super::stream::Ingest;
use crate::upload::queue::{Charged, NoRoom, Overflow};

impl Engine {
    /// Returns for how long the stream was kept waiting for room since the session began, ns.
    pub fn held(&self) -> u64 {
        self.held.total()
    }

    /// Counts the time that `ask` takes as a stall of the stream caused by us.
    fn while_held<T>(&self, ask: impl FnOnce() -> T) -> T {
        self.held.during(|| self.queue.now(), ask)
    }

    /// Charges the memory for a buffer of `bytes`: waits, drops or fails by the policy. After a pause it continues with the same
    /// buffer. For a buffer that would displace nearly all chunks only its beginning is charged; [`Engine::push`] charges the
    /// rest.
    ///
    /// # Errors
    /// [`Refusal`] if the policy is to fail, an ERROR was posted before, or a wait was interrupted.
    pub fn reserve<W: Wait>(&self, bytes: u64, wait: &W) -> Result<(), Refusal<W::Flow>> {
        let max_memory = self.config().uploads.max_memory;
        // An open chunk may take half of the memory, where it is cut anywhere; a sixteenth is for the chunk after it. A buffer
        // that fits beside both causes no earlier cut.
        let is_large = bytes > max_memory / 16 * 7;
        let charged = if is_large {
            bytes.min(portion(max_memory) as u64)
        } else {
            bytes
        };
        self.make_room_for(charged, wait)?;
        let uncharged = usize::try_from(bytes - charged).unwrap_or(usize::MAX);
        self.uncharged.store(uncharged, Ordering::Relaxed);
        Ok(())
    }

    /// Refunds what [`Engine::reserve`] has charged for a buffer of `bytes` that is not pushed.
    pub fn give_back(&self, bytes: u64) {
        let uncharged = self.uncharged.swap(0, Ordering::Relaxed) as u64;
        self.queue.release(bytes.saturating_sub(uncharged));
    }

    /// Charges the memory for `bytes` that are pushed next.
    pub(super) fn make_room_for<W: Wait>(&self, bytes: u64, wait: &W) -> Result<(), Refusal<W::Flow>> {
        if self.is_failed() {
            return Err(Refusal::Failed);
        }
        let mut has_cut = false;
        loop {
            match self.while_held(|| self.queue.charge(bytes, self.overflow())) {
                Charged::Yes => return Ok(()),
                Charged::MoveOpen => {
                    self.with(Ingest::move_open_to_disk);
                    return Ok(());
                }
                Charged::No(NoRoom::MoveOpen) => self.with(Ingest::move_open_to_disk),
                Charged::No(NoRoom::Full) => return Err(self.end_with(Message::Full)),
                Charged::No(NoRoom::Refused) => return Err(self.end_with(Message::Refused(self.queue.last_reason()))),
                Charged::No(NoRoom::CutOpen) => {
                    // If the open chunk has no place to cut, nothing else can be dropped, so the chunk that is being sent has to
                    // go after all.
                    let before = self.queue.snapshot().pending.chunks;
                    self.with(Ingest::make_room);
                    if self.queue.snapshot().pending.chunks <= before {
                        self.queue.drop_sent();
                    }
                }
                Charged::No(NoRoom::Again) => {}
                Charged::No(NoRoom::Nothing) => {
                    // Cut only once: what is left afterwards is the beginning of the next chunk, and a buffer larger than the
                    // memory is admitted beside it.
                    let is_in_vain = std::mem::replace(&mut has_cut, true);
                    if !is_in_vain {
                        self.with(Ingest::make_room);
                    }
                    // A single object cannot be cut: only the spool can take it out of memory.
                    if self.config().limits.single && self.queue.is_disk_refusing() {
                        if self.overflow() != Overflow::Block {
                            return Err(self.end_with(self.too_large_for_spool()));
                        }
                        self.while_held(|| self.queue.wait_for_disk());
                    } else if is_in_vain || self.queue.snapshot().pending.chunks == 0 {
                        // Force the charge: the pending chunks may be on disk, or in the sessions of earlier processes, and would
                        // make no room.
                        self.queue.force_charge(bytes);
                        return Ok(());
                    }
                }
                Charged::No(NoRoom::Interrupted) if self.is_failed() => return Err(Refusal::Failed),
                // The base class interrupts for a pause too: the same buffer goes on afterwards.
                Charged::No(NoRoom::Interrupted) => wait.wait_preroll().map_err(Refusal::Flow)?,
            }
        }
    }

    fn too_large_for_spool(&self) -> Message {
        Message::TooLarge {
            size: self.queue.snapshot().stats.bytes_received,
            full_memory: Some(self.config().uploads.max_memory),
        }
    }

    /// Returns the policy for the next buffer: it may be changed at any time.
    pub fn overflow(&self) -> Overflow {
        let policy = self.config().overflow;
        policy.unwrap_or_else(|| match self.playing.is_live.load(Ordering::Relaxed) {
            true => Overflow::DropOldest,
            false => Overflow::Block,
        })
    }
}
