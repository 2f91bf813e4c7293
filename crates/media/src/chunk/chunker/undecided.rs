//! Bytes that are in no chunk yet, and when they arrived.
//!
//! PURE.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::chunk::byte_queue::{Blocks, ByteQueue, TAKE_OVER};
use crate::chunk::clock::Stamp;

/// The bytes above the last decided offset, with the stamps of the buffers they came in.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    pub(super) bytes: ByteQueue,
    /// Offset of the first byte of each buffer, ascending.
    stamps: VecDeque<(u64, Stamp)>,
}

impl Undecided {
    /// Returns an empty queue that takes its blocks from `blocks`.
    pub(super) fn new(blocks: Blocks) -> Self {
        Self {
            bytes: ByteQueue::new(blocks),
            stamps: VecDeque::new(),
        }
    }

    /// Appends a buffer. Calls `owned` only for a buffer of [`TAKE_OVER`] bytes or more; if that returns the bytes, they are
    /// kept without a copy.
    #[inline]
    pub(super) fn push(&mut self, data: &[u8], owned: impl FnOnce() -> Option<Bytes>, stamp: Stamp) {
        // Before the bytes are appended: they begin at the current end.
        self.stamps.push_back((self.bytes.end(), stamp));
        match if data.len() >= TAKE_OVER { owned() } else { None } {
            Some(bytes) => self.bytes.take_over(bytes),
            None => self.bytes.copy(data),
        }
    }

    /// Returns the stamp of the buffer that holds the byte at `at`.
    pub(super) fn stamp_at(&self, at: u64) -> Stamp {
        let i = self.stamps.partition_point(|s| s.0 <= at);
        self.stamps.get(i.saturating_sub(1)).map_or_else(Stamp::default, |s| s.1)
    }

    /// Returns the stamp of the oldest buffer that is not decided.
    pub(super) fn first_stamp(&self) -> Option<Stamp> {
        self.stamps.front().map(|s| s.1)
    }

    /// Returns the stamp of the newest buffer.
    pub(super) fn last_stamp(&self) -> Option<Stamp> {
        self.stamps.back().map(|s| s.1)
    }

    /// Drops the stamps of buffers that are entirely below `settled`. Keeps that of the buffer which contains `settled`.
    #[inline]
    pub(super) fn forget_stamps_below(&mut self, settled: u64) {
        while self.stamps.len() > 1 && self.stamps.get(1).is_some_and(|s| s.0 <= settled) {
            self.stamps.pop_front();
        }
    }
}
