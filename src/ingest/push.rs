//! The path of a buffer into the engine. A large buffer is processed in parts. One that would displace nearly all chunks from the
//! memory is also charged part by part, as if it arrived in small buffers.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::engine::Engine;
use super::message::{Message, Refusal, Wait};
use crate::base::lock::lock;
use gcstreamer_media::chunk::clock::Stamp;

/// A larger buffer is processed in parts of this size, so that the chunks it begins fit into the memory.
const SLICE: usize = 64 << 10;

/// Returns how many bytes are charged at once of a buffer that needs more than its share of the memory.
pub(super) fn portion(max_memory: u64) -> usize {
    // Charged as a whole, each part would find the memory full: a cut every 4 KiB, or dropped chunks beside a healthy server.
    usize::try_from(max_memory / 16).unwrap_or(SLICE).clamp(SLICE / 16, SLICE)
}

impl Engine {
    /// Accepts a buffer for which [`Engine::reserve`] has made room. Returns whether a key unit from upstream is wanted.
    ///
    /// # Errors
    /// [`Refusal`] if the stream cannot be cut, which was posted as an ERROR, or if a wait was interrupted.
    pub fn push<W: Wait>(
        &self,
        data: &[u8],
        owned: impl FnOnce() -> Option<Bytes>,
        stamp: Stamp,
        is_discont: bool,
        wait: &W,
    ) -> Result<bool, Refusal<W::Flow>> {
        let slice = || slice_for(self.head_len.load(Ordering::Relaxed));
        let uncharged = self.uncharged.swap(0, Ordering::Relaxed);
        if uncharged == 0 && data.len() < 2 * slice() {
            return self.push_slice(data, owned, stamp, is_discont, data.len(), wait);
        }
        // Not for a buffer that is charged in parts: each slice of it would keep the whole buffer in memory. Its parts are
        // copied.
        let whole = if uncharged == 0 { owned() } else { None };
        let (mut at, mut most, mut wants_key_unit) = (0, SLICE, false);
        // Bytes that are charged and not pushed yet.
        let mut charged = data.len().saturating_sub(uncharged);
        if uncharged > 0 {
            most = portion(self.config().uploads.max_memory);
        }
        while at < data.len() {
            let (left, step) = (data.len() - at, slice().min(most));
            let end = if left < 2 * step { data.len() } else { at + step };
            if uncharged > 0 {
                let missing = (end - at).saturating_sub(charged);
                self.make_room_for(missing as u64, wait)
                    .inspect_err(|_| self.queue.refund(charged as u64))?;
                charged += missing;
            } else if at > 0 && self.queue.is_over() {
                // The buffer begins hundreds of chunks, whose overhead exceeds the charge: continue in smaller parts.
                most = SLICE / 16;
                self.make_room_for(0, wait)
                    .inspect_err(|_| self.queue.refund(charged as u64))?;
            }
            let piece = || whole.as_ref().map(|whole| whole.slice(at..end));
            wants_key_unit |= self.push_slice(&data[at..end], piece, stamp, is_discont && at == 0, charged, wait)?;
            charged = charged.saturating_sub(end - at);
            at = end;
        }
        Ok(wants_key_unit)
    }

    /// Accepts a part of a buffer. `charged` is the number of charged bytes from this part on.
    fn push_slice<W: Wait>(
        &self,
        data: &[u8],
        owned: impl FnOnce() -> Option<Bytes>,
        stamp: Stamp,
        is_discont: bool,
        charged: usize,
        wait: &W,
    ) -> Result<bool, Refusal<W::Flow>> {
        let ingest = loop {
            let ingest = lock(&self.ingest);
            if !ingest.stopped {
                break ingest;
            }
            // Another sink of the pipeline has left PAUSED, and our last chunk is closed. Data waits in the base class, as in
            // PAUSED, until the flush that follows soon.
            drop(ingest);
            wait.wait_preroll().map_err(|flow| {
                self.queue.refund(charged as u64);
                Refusal::Flow(flow)
            })?;
        };
        let (outcome, wants_key_unit, too_large) = self.on(ingest, |ingest| {
            if is_discont {
                ingest.chunker.discont();
            }
            let outcome = ingest.push(data, owned, stamp);
            self.key_units.store(ingest.chunker.key_units(), Ordering::Relaxed);
            self.head_len.store(ingest.chunker.head_len(), Ordering::Relaxed);
            (outcome, std::mem::take(&mut ingest.wants_key_unit), ingest.too_large)
        });
        if let Err(fault) = outcome {
            return Err(self.end_with(Message::Fault(fault)));
        }
        match too_large {
            Some(bytes) => Err(self.end_with(Message::TooLarge {
                size: bytes,
                full_memory: None,
            })),
            None => Ok(wants_key_unit),
        }
    }
}

/// Returns the size of the parts of a buffer, for headers of this length. Smaller for long headers: while a scanner processes a
/// part, it holds one header for every configuration change in it.
fn slice_for(head_len: usize) -> usize {
    const SMALL_HEAD: usize = 8 << 10;
    (SLICE * SMALL_HEAD / head_len.max(SMALL_HEAD)).max(SLICE / 32)
}
