//! Puts the events of the chunker together to whole chunks, with their checksum. A chunk's bytes are kept in memory, or only
//! counted where somebody else keeps them.
//!
//! PURE. The checksum is taken as bytes arrive, while they are in the processor's cache.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::container::Init;

/// A chunk that is being put together.
#[derive(Clone, Debug, Default)]
pub struct Assembly {
    /// Header and payload in order; empty where they are kept elsewhere.
    pub pieces: Vec<Bytes>,
    /// The bytes are kept elsewhere.
    pub elsewhere: bool,
    /// CRC32C of all bytes.
    pub crc32c: u32,
    /// Bytes altogether.
    pub size: u64,
    /// Bytes of the header.
    pub init: u64,
    /// Where its payload begins in the input.
    pub input_offset: u64,
    /// When it began by the clock that counts from the machine's boot, and by the wall clock, ns.
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
    /// Begins a chunk with this header. `begun` holds where and when it began, and whether its bytes are kept
    /// elsewhere; those are appended to `out`.
    pub fn begin(&mut self, sequence: u64, init: Init, begun: Assembly, out: &mut Vec<Piece>) {
        let mut chunk = begun;
        for bytes in [init.head, init.tail] {
            chunk.append(bytes, out);
        }
        chunk.init = chunk.size;
        self.open.insert(sequence, chunk);
    }

    /// Payload of a chunk.
    #[inline]
    pub fn data(&mut self, sequence: u64, bytes: Bytes, out: &mut Vec<Piece>) {
        if let Some(chunk) = self.open.get_mut(&sequence) {
            chunk.append(bytes, out);
        }
    }

    /// From here on its bytes are kept elsewhere; those that were kept here are put into `out`.
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

    /// A chunk that is not complete.
    #[inline]
    pub fn get(&self, sequence: u64) -> Option<&Assembly> {
        self.open.get(&sequence)
    }

    /// The chunk is complete.
    pub fn end(&mut self, sequence: u64) -> Option<Assembly> {
        self.open.remove(&sequence)
    }
}

impl Assembly {
    /// Bytes of the payload: what the memory was charged with.
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
