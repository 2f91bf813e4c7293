//! Puts the events of the chunker together to whole chunks in memory, with their checksum.
//!
//! PURE. The checksum is taken as bytes arrive, while they are in the processor's cache.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::container::Init;

/// The bytes of a chunk.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// Header and payload in order.
    pub pieces: Vec<Bytes>,
    /// CRC32C of all of them.
    pub crc32c: u32,
    /// Bytes altogether.
    pub size: u64,
    /// Bytes of the payload: what the memory is charged with.
    pub payload: u64,
}

/// The chunks that are not complete: the open one, and one whose length is not known yet.
#[derive(Debug, Default)]
pub struct Gather {
    open: BTreeMap<u64, Gathered>,
}

impl Gather {
    /// A chunk begins with this header.
    pub fn begin(&mut self, sequence: u64, init: Init) {
        let mut chunk = Gathered::default();
        for bytes in [init.head, init.tail] {
            chunk.append(bytes);
        }
        self.open.insert(sequence, chunk);
    }

    /// Payload of a chunk.
    pub fn data(&mut self, sequence: u64, bytes: Bytes) {
        if let Some(chunk) = self.open.get_mut(&sequence) {
            chunk.payload += bytes.len() as u64;
            chunk.append(bytes);
        }
    }

    /// The chunk is complete.
    pub fn end(&mut self, sequence: u64) -> Option<Gathered> {
        self.open.remove(&sequence)
    }
}

impl Gathered {
    fn append(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes);
            self.size += bytes.len() as u64;
            self.pieces.push(bytes);
        }
    }
}
