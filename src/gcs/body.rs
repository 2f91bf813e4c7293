//! The bytes of an object, and how they are taken in pieces. Memory only: no clock, no network.
//!
//! Pieces below [`MIN_PIECE`] are joined (each piece costs an HTTP chunk and a lock), larger ones are handed out as slices
//! of what is held, without a copy.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// Pieces below this are joined.
pub const MIN_PIECE: usize = 64 << 10;
/// No piece is larger. Small enough that a link of 20 kbit/s takes one in every minute, which is how progress is seen.
pub const MAX_PIECE: usize = 128 << 10;
/// The least that a pacer can ask for.
const SMALLEST_LIMIT: usize = 4 << 10;

/// The bytes of an object. Cheap to clone.
#[derive(Clone)]
pub struct Body(Repr);

#[derive(Clone)]
enum Repr {
    /// Buffers held in memory.
    Memory { pieces: Arc<[Bytes]>, len: u64 },
    // A spool file (path, offset, length) goes here; `Reader` then reads it piece by piece.
}

impl Body {
    /// A body of these buffers, one after the other.
    #[must_use]
    pub fn from_pieces(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let pieces: Arc<[Bytes]> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let len = pieces.iter().fold(0u64, |sum, piece| sum.saturating_add(piece.len() as u64));
        Self(Repr::Memory { pieces, len })
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        let Repr::Memory { len, .. } = &self.0;
        *len
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// CRC32C of the bytes as they are now. Reads all of them: only for finding out where damage came from.
    #[must_use]
    pub fn crc32c(&self) -> u32 {
        let Repr::Memory { pieces, .. } = &self.0;
        pieces.iter().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece))
    }

    pub(crate) fn reader(&self) -> Reader {
        Reader {
            body: self.clone(),
            index: 0,
            within: 0,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::from_pieces([bytes])
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Repr::Memory { pieces, len } = &self.0;
        write!(f, "Body({len} bytes in {} pieces of memory)", pieces.len())
    }
}

/// A place in a [`Body`].
#[derive(Debug)]
pub(crate) struct Reader {
    body: Body,
    /// The buffer we are in.
    index: usize,
    /// Bytes of it that are taken.
    within: usize,
}

impl Reader {
    /// Goes to `offset`; `false` when that is beyond the end.
    pub(crate) fn seek(&mut self, offset: u64) -> bool {
        if offset > self.body.len() {
            return false;
        }
        let Repr::Memory { pieces, .. } = &self.body.0;
        let mut left = offset;
        for (index, piece) in pieces.iter().enumerate() {
            match usize::try_from(left) {
                Ok(within) if within < piece.len() => {
                    (self.index, self.within) = (index, within);
                    return true;
                }
                _ => left = left.saturating_sub(piece.len() as u64),
            }
        }
        (self.index, self.within) = (pieces.len(), 0);
        true
    }

    /// The next piece, at most `limit` bytes (kept between 4 KiB and [`MAX_PIECE`]).
    pub(crate) fn next(&mut self, limit: usize) -> Option<Bytes> {
        let limit = limit.clamp(SMALLEST_LIMIT, MAX_PIECE);
        let first = self.take(limit)?;
        if first.len() >= MIN_PIECE.min(limit) || !self.joins(first.len(), limit) {
            return Some(first);
        }
        let mut joined = BytesMut::with_capacity(limit);
        joined.extend_from_slice(&first);
        while self.joins(joined.len(), limit) {
            let Some(more) = self.take(limit.saturating_sub(joined.len())) else {
                break;
            };
            joined.extend_from_slice(&more);
        }
        Some(joined.freeze())
    }

    /// Whether what follows is small enough to be copied behind `held` bytes.
    fn joins(&self, held: usize, limit: usize) -> bool {
        self.rest()
            .is_some_and(|rest| rest < MIN_PIECE && held.saturating_add(rest) <= limit)
    }

    /// Bytes left in the present buffer.
    fn rest(&self) -> Option<usize> {
        let Repr::Memory { pieces, .. } = &self.body.0;
        pieces.get(self.index).map(|piece| piece.len().saturating_sub(self.within))
    }

    /// A slice of the present buffer, without a copy.
    fn take(&mut self, limit: usize) -> Option<Bytes> {
        let Repr::Memory { pieces, .. } = &self.body.0;
        let piece = pieces.get(self.index)?;
        let end = self.within.saturating_add(limit).min(piece.len());
        let slice = piece.slice(self.within..end);
        if end == piece.len() {
            (self.index, self.within) = (self.index.saturating_add(1), 0);
        } else {
            self.within = end;
        }
        Some(slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(body: &Body, limit: usize) -> Vec<Bytes> {
        let mut reader = body.reader();
        std::iter::from_fn(|| reader.next(limit)).collect()
    }

    fn numbered(len: usize) -> Bytes {
        (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect::<Vec<_>>().into()
    }

    #[test]
    fn many_small_buffers_leave_as_few_large_pieces() {
        let all = numbered(1_000_000);
        let body = Body::from_pieces((0..1000).map(|i| all.slice(i * 1000..(i + 1) * 1000)));
        let pieces = drain(&body, MAX_PIECE);
        assert!(pieces.len() <= 8, "{} pieces", pieces.len());
        assert_eq!(pieces.concat(), all);
    }

    #[test]
    fn large_buffers_are_not_copied() {
        let all = numbered(1_000_000);
        for piece in drain(&Body::from(all.clone()), MAX_PIECE) {
            assert!(all.as_ptr_range().contains(&piece.as_ptr()));
            assert!(piece.len() <= MAX_PIECE);
        }
    }

    #[test]
    fn a_small_header_before_a_large_payload_does_not_copy_the_payload() {
        let (header, payload) = (numbered(500), numbered(300_000));
        let pieces = drain(&Body::from_pieces([header.clone(), payload.clone()]), MAX_PIECE);
        assert_eq!(pieces.first().unwrap(), &header);
        assert!(
            pieces
                .iter()
                .skip(1)
                .all(|piece| payload.as_ptr_range().contains(&piece.as_ptr()))
        );
    }

    #[test]
    fn a_slow_pacer_gets_small_pieces() {
        let body = Body::from_pieces([numbered(100), numbered(200_000), numbered(7)]);
        let pieces = drain(&body, 1);
        assert!(pieces.iter().all(|piece| piece.len() <= 4096));
        assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), 200_107);
    }

    #[test]
    fn the_checksum_is_that_of_all_buffers_in_order() {
        let all = numbered(10_000);
        let body = Body::from_pieces([all.slice(..1), Bytes::new(), all.slice(1..777), all.slice(777..)]);
        assert_eq!(body.crc32c(), crc32c::crc32c(&all));
        assert_eq!(body.len(), 10_000);
    }

    proptest::proptest! {
        #[test]
        fn what_is_read_after_a_seek_is_the_tail(lens in proptest::collection::vec(0usize..200_000, 0..6), at in 0.0f64..=1.0, limit in 0usize..300_000) {
            let pieces: Vec<_> = lens.iter().map(|len| numbered(*len)).collect();
            let all = pieces.concat();
            let body = Body::from_pieces(pieces);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let offset = (all.len() as f64 * at) as usize;
            let mut reader = body.reader();
            proptest::prop_assert!(reader.seek(offset as u64));
            let tail: Vec<Bytes> = std::iter::from_fn(|| reader.next(limit)).collect();
            proptest::prop_assert_eq!(tail.concat(), &all[offset..]);
            proptest::prop_assert!(!reader.seek(all.len() as u64 + 1));
        }
    }
}
