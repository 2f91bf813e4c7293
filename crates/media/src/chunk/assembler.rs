//! Assembles the events of the chunker into whole chunks with their checksums. The bytes of a chunk stay in memory, or are passed
//! on and only counted if they are stored elsewhere.
//!
//! PURE. The checksum is computed as bytes arrive, while they are in the processor's cache.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::container::Init;

/// A chunk that is being assembled.
#[derive(Clone, Debug, Default)]
pub struct Assembly {
    /// Header and payload in order; empty if they are stored elsewhere.
    pub pieces: Vec<Bytes>,
    /// The bytes are stored elsewhere.
    pub elsewhere: bool,
    /// CRC32C of all bytes.
    pub crc32c: u32,
    /// Bytes of header and payload.
    pub size: u64,
    /// Bytes of the header.
    pub init: u64,
    /// Where its payload begins in the input.
    pub input_offset: u64,
    /// When it began: by the clock that counts from the machine's boot, and by the wall clock, ns.
    pub began: (u64, u64),
}

/// A piece of a chunk: its offset in the object, and its bytes.
pub type Piece = (u64, Bytes);

/// The chunks that are not complete: the open one, and one whose length is not known yet.
#[derive(Debug, Default)]
pub struct Assembler {
    open: BTreeMap<u64, Assembly>,
}

impl Assembler {
    /// Begins a chunk with this header. `begun` holds where and when it began, and whether its bytes are stored elsewhere. If so,
    /// appends the header to `out`.
    pub fn begin(&mut self, sequence: u64, init: Init, begun: Assembly, out: &mut Vec<Piece>) {
        let mut chunk = begun;
        for bytes in [init.head, init.tail] {
            chunk.append(bytes, out);
        }
        chunk.init = chunk.size;
        self.open.insert(sequence, chunk);
    }

    /// Adds payload to a chunk, or appends it to `out` if the bytes of the chunk are stored elsewhere. Ignores an unknown chunk.
    #[inline]
    pub fn data(&mut self, sequence: u64, bytes: Bytes, out: &mut Vec<Piece>) {
        if let Some(chunk) = self.open.get_mut(&sequence) {
            chunk.append(bytes, out);
        }
    }

    /// Moves the bytes of a chunk to `out`. Its further bytes are stored elsewhere too.
    pub fn move_out(&mut self, sequence: u64, out: &mut Vec<Piece>) {
        let Some(chunk) = self.open.get_mut(&sequence) else { return };
        chunk.elsewhere = true;
        let mut at = 0;
        for bytes in std::mem::take(&mut chunk.pieces) {
            let next = at + bytes.len() as u64;
            out.push((at, bytes));
            at = next;
        }
    }

    /// Returns a chunk that is not complete.
    #[inline]
    pub fn get(&self, sequence: u64) -> Option<&Assembly> {
        self.open.get(&sequence)
    }

    /// Removes a complete chunk and returns it.
    pub fn end(&mut self, sequence: u64) -> Option<Assembly> {
        self.open.remove(&sequence)
    }
}

impl Assembly {
    /// Returns the bytes of the payload, which the memory was charged with.
    #[inline]
    pub fn payload(&self) -> u64 {
        self.size - self.init
    }

    fn append(&mut self, bytes: Bytes, out: &mut Vec<Piece>) {
        if bytes.is_empty() {
            return;
        }
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes);
        let at = self.size;
        self.size += bytes.len() as u64;
        if self.elsewhere {
            out.push((at, bytes));
        } else {
            self.pieces.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_that_moves_out_hands_over_every_byte_once_and_in_order() {
        let init = Init {
            head: Bytes::from_static(b"head"),
            tail: Bytes::from_static(b"er"),
            ..Init::default()
        };
        let (mut gather, mut out) = (Assembler::default(), Vec::new());
        gather.begin(7, init, Assembly::default(), &mut out);
        gather.data(7, Bytes::from_static(b"one"), &mut out);
        assert!(out.is_empty());
        gather.move_out(7, &mut out);
        gather.data(7, Bytes::from_static(b"two"), &mut out);
        let mut at = 0;
        for (offset, bytes) in &out {
            assert_eq!(*offset, at);
            at += bytes.len() as u64;
        }
        let all: Vec<u8> = out.iter().flat_map(|(_, b)| b.to_vec()).collect();
        let chunk = gather.end(7).unwrap();
        assert_eq!(all, b"headeronetwo");
        assert_eq!((chunk.size, chunk.payload(), chunk.crc32c), (12, 6, crc32c::crc32c(&all)));
        assert!(chunk.pieces.is_empty());
    }
}
