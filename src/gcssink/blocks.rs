//! Reuses blocks of memory: faulting in fresh pages costs more than the copy into them.
//!
//! Shared by all sinks of the process. The number of idle blocks is bounded; more are returned to the system.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use gcstreamer_media::chunk::byte_queue::{BLOCK, Blocks};

/// Maximum number of idle blocks: 8 MiB.
const MAX_IDLE: usize = 32;

static IDLE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// The blocks of the process's pool.
pub(super) const POOL: Blocks = Blocks { fresh, seal };

fn fresh() -> Vec<u8> {
    let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    idle.unwrap_or_else(|| Vec::with_capacity(BLOCK))
}

fn seal(block: Vec<u8>) -> Bytes {
    Bytes::from_owner(Block(block))
}

/// A block in use; it returns to the pool when its last reader drops it.
struct Block(Vec<u8>);

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut block = std::mem::take(&mut self.0);
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            block.clear();
            idle.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_again_when_its_last_reader_has_gone() {
        let mut block = fresh();
        let place = block.as_ptr();
        block.extend_from_slice(b"pictures");
        let bytes = seal(block);
        let part = bytes.slice(4..);
        drop(bytes);
        assert_eq!(&part[..], b"ures");
        drop(part);
        let again = fresh();
        assert!(again.is_empty() && again.capacity() >= BLOCK);
        assert_eq!(again.as_ptr(), place);
    }
}
