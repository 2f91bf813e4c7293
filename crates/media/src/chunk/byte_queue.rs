//! A queue of the bytes that are in no chunk yet, in pieces large enough to upload.
//!
//! PURE. Small slices are copied into blocks of our own, since a sub-buffer would pin its parent and pooled buffers starve
//! their source; large ones are taken over as they are. Pieces leave in order, split where a chunk is cut.

use std::collections::VecDeque;

use bytes::Bytes;

/// Slices of this size or more are taken over without a copy: 64 KiB.
pub const TAKE_OVER: usize = 64 << 10;
/// Size of a block: 256 KiB, a good size for one write to a connection.
pub const BLOCK: usize = 256 << 10;

/// Supplies blocks and takes full ones. The pool behind it is outside this crate, which is pure.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    /// Returns an empty vector with room for [`BLOCK`] bytes.
    pub fresh: fn() -> Vec<u8>,
    /// Turns a block into `Bytes`. The block returns to the pool when the last reference to it is dropped.
    pub seal: fn(Vec<u8>) -> Bytes,
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            fresh: || Vec::with_capacity(BLOCK),
            seal: Bytes::from,
        }
    }
}

/// A queue of bytes with absolute offsets.
#[derive(Debug, Default)]
pub struct ByteQueue {
    blocks: Blocks,
    /// Offset of the first byte in the queue.
    base: u64,
    pieces: VecDeque<Bytes>,
    tail: Vec<u8>,
    len: usize,
}

impl ByteQueue {
    /// Returns an empty queue that takes its blocks from `blocks`.
    pub fn new(blocks: Blocks) -> Self {
        Self {
            blocks,
            ..Self::default()
        }
    }

    /// Returns the offset of the first byte in the queue.
    #[inline]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Returns the offset after the last byte in the queue.
    #[inline]
    pub fn end(&self) -> u64 {
        self.base + self.len as u64
    }

    /// Appends a copy of a slice.
    #[inline]
    pub fn copy(&mut self, mut data: &[u8]) {
        self.len += data.len();
        while !data.is_empty() {
            if self.tail.capacity() == self.tail.len() {
                self.seal();
                self.tail = (self.blocks.fresh)();
            }
            // Never beyond the capacity: a block that grows is copied, and is no longer of the pool's size.
            let n = data.len().min(self.tail.capacity() - self.tail.len());
            let (now, later) = data.split_at(n);
            self.tail.extend_from_slice(now);
            data = later;
        }
    }

    /// Appends a slice without copying it.
    #[inline]
    pub fn take_over(&mut self, data: Bytes) {
        // Bytes leave in order: what was copied before them goes first.
        self.seal();
        self.len += data.len();
        self.pieces.push_back(data);
    }

    /// Moves all bytes below `offset` to `out`.
    pub fn take_below(&mut self, offset: u64, out: &mut Vec<Bytes>) {
        while self.base < offset && self.len > 0 {
            let wanted = usize::try_from(offset - self.base).unwrap_or(usize::MAX);
            let piece = match self.pieces.front_mut() {
                Some(first) if first.len() > wanted => first.split_to(wanted),
                Some(_) => self.pieces.pop_front().unwrap_or_default(),
                // The bytes are in the block being filled: its content becomes a piece.
                None => {
                    self.seal();
                    continue;
                }
            };
            self.base += piece.len() as u64;
            self.len -= piece.len();
            out.push(piece);
        }
    }

    /// Moves the pieces that end at or below `offset` to `out`. The block being filled stays, so that a chunk consists of few
    /// large pieces.
    pub fn take_finished_below(&mut self, offset: u64, out: &mut Vec<Bytes>) {
        while let Some(first) = self.pieces.front()
            && self.base + first.len() as u64 <= offset
        {
            let Some(piece) = self.pieces.pop_front() else { return };
            self.base += piece.len() as u64;
            self.len -= piece.len();
            out.push(piece);
        }
    }

    /// Returns all bytes in the queue, which keeps them. Those in the block being filled are copied.
    pub fn copied(&self) -> Vec<Bytes> {
        // A copy, since the block being filled is still written to.
        let tail = (!self.tail.is_empty()).then(|| Bytes::copy_from_slice(&self.tail));
        self.pieces.iter().cloned().chain(tail).collect()
    }

    /// Drops all bytes below `offset`; returns how many.
    pub fn drop_below(&mut self, offset: u64) -> u64 {
        let mut gone = Vec::new();
        let before = self.base;
        self.take_below(offset, &mut gone);
        self.base - before
    }

    fn seal(&mut self) {
        if self.tail.is_empty() {
            return;
        }
        // Copy a block with little in it, since it would pin a whole block: between large buffers there is often only a little
        // sound.
        let piece = if self.tail.len() < BLOCK / 8 * 7 {
            let piece = Bytes::copy_from_slice(&self.tail);
            self.tail.clear();
            piece
        } else {
            (self.blocks.seal)(std::mem::take(&mut self.tail))
        };
        self.pieces.push_back(piece);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_goes_in_comes_out_in_order(steps in prop::collection::vec((0usize..300_000, any::<bool>(), 0u64..700_000), 1..20)) {
            let (mut stash, mut expected, mut out) = (ByteQueue::default(), Vec::new(), Vec::new());
            for (n, copied, take) in steps {
                let data: Vec<u8> = (0..n).map(|i| u8::try_from((i * 7 + expected.len()) % 256).unwrap()).collect();
                expected.extend_from_slice(&data);
                if copied { stash.copy(&data) } else { stash.take_over(data.into()) }
                prop_assert_eq!(stash.end(), expected.len() as u64);
                prop_assert_eq!(stash.copied().concat(), &expected[usize::try_from(stash.base()).unwrap()..]);
                stash.take_finished_below(take, &mut out);
                prop_assert!(stash.base() <= take.max(stash.base()));
                if take % 3 == 0 {
                    stash.take_below(take, &mut out);
                }
            }
            stash.take_below(u64::MAX, &mut out);
            prop_assert_eq!(out.concat(), expected);
        }
    }
}
