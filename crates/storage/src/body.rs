//! The bytes of an object and how an upload reads them in pieces: from memory, or from a [`Backing`] such as a file.
//! Touches no clock and no network.
//!
//! Pieces below [`MIN_PIECE`] are joined, because each piece costs an HTTP chunk and a lock. Larger pieces are slices of the
//! buffers, without a copy. A backing is read ahead in blocks of [`READ_AHEAD`] on tokio's threads for blocking work.

use std::sync::Arc;
use std::{fmt, io};

use bytes::{Bytes, BytesMut};

/// Pieces below this size are joined.
pub const MIN_PIECE: usize = 64 << 10;
/// Largest piece. A link of 20 kbit/s sends one within a minute, so that the watchdog sees progress.
pub const MAX_PIECE: usize = 128 << 10;
/// Smallest piece that a pacer can ask for.
const SMALLEST_LIMIT: usize = 4 << 10;
/// Bytes read at once from a [`Backing`], 1 MiB: the memory that an upload from disk uses.
pub const READ_AHEAD: usize = 1 << 20;

/// Bytes that are not in memory.
pub trait Backing: Send + Sync + fmt::Debug {
    /// Reads up to `most` bytes from `offset`, at least one unless the end is reached. Blocks.
    ///
    /// # Errors
    /// The disk's error; [`io::ErrorKind::InvalidData`] if the bytes are not those that were written.
    fn read_at(&self, offset: u64, most: usize) -> io::Result<Bytes>;
}

/// The bytes of an object. Cloning copies no bytes.
#[derive(Clone)]
pub struct Body {
    parts: Arc<[Part]>,
    len: u64,
}

#[derive(Clone, Debug)]
enum Part {
    /// Held in memory.
    Memory(Bytes),
    /// This many bytes from the start of a backing.
    Backed(Arc<dyn Backing>, u64),
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Self::Memory(piece) => piece.len() as u64,
            Self::Backed(_, len) => *len,
        }
    }
}

impl Body {
    fn new(parts: impl IntoIterator<Item = Part>) -> Self {
        // Without empty parts: reading one from a backing would fail as an early end.
        let parts: Arc<[Part]> = parts.into_iter().filter(|part| part.len() > 0).collect();
        let len = parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.len()));
        Self { parts, len }
    }

    /// Creates a body of these buffers in their order.
    #[must_use]
    pub fn from_pieces(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        Self::new(pieces.into_iter().map(Part::Memory))
    }

    /// Creates a body whose first `len` bytes come from `backing`; `rest` follows them.
    #[must_use]
    pub fn backed(backing: Arc<dyn Backing>, len: u64, rest: impl IntoIterator<Item = Bytes>) -> Self {
        Self::new(std::iter::once(Part::Backed(backing, len)).chain(rest.into_iter().map(Part::Memory)))
    }

    /// Returns the buffers if all bytes are in memory.
    #[must_use]
    pub fn pieces(&self) -> Option<Vec<Bytes>> {
        let piece = |part: &Part| match part {
            Part::Memory(piece) => Some(piece.clone()),
            Part::Backed(..) => None,
        };
        self.parts.iter().map(piece).collect()
    }

    /// Returns the length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether the body is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Computes the CRC32C of the bytes as they are now. Reads all of them and blocks. Only used to find out where damage arose.
    ///
    /// # Errors
    /// The disk's error.
    pub fn crc32c(&self) -> io::Result<u32> {
        let mut crc = 0;
        for part in self.parts.iter() {
            match part {
                Part::Memory(piece) => crc = crc32c::crc32c_append(crc, piece),
                Part::Backed(backing, len) => {
                    let mut at = 0;
                    while at < *len {
                        let block = read(&**backing, at, *len)?;
                        crc = crc32c::crc32c_append(crc, &block);
                        at = at.saturating_add(block.len() as u64);
                    }
                }
            }
        }
        Ok(crc)
    }

    /// Returns a reader at the start of the body.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader {
            body: self.clone(),
            index: 0,
            within: 0,
            ahead: Bytes::new(),
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
        write!(f, "Body({} bytes in {} parts)", self.len, self.parts.len())
    }
}

/// Reads one block of a backing of `len` bytes.
fn read(backing: &dyn Backing, at: u64, len: u64) -> io::Result<Bytes> {
    let most = usize::try_from(len.saturating_sub(at)).unwrap_or(usize::MAX).min(READ_AHEAD);
    let mut block = backing.read_at(at, most)?;
    if block.is_empty() {
        let what = format!("{at} bytes are there of {len}");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
    }
    block.truncate(most);
    Ok(block)
}

/// A read position in a [`Body`].
#[derive(Debug)]
pub struct Reader {
    body: Body,
    /// Index of the current part.
    index: usize,
    /// Bytes of that part that were taken.
    within: u64,
    /// Bytes read from a backing and not taken yet.
    ahead: Bytes,
}

impl Reader {
    /// Moves to `offset`. Returns `false` if that is beyond the end.
    pub(crate) fn seek(&mut self, offset: u64) -> bool {
        if offset > self.body.len() {
            return false;
        }
        self.ahead = Bytes::new();
        let mut left = offset;
        for (index, part) in self.body.parts.iter().enumerate() {
            if left < part.len() {
                (self.index, self.within) = (index, left);
                return true;
            }
            left = left.saturating_sub(part.len());
        }
        (self.index, self.within) = (self.body.parts.len(), 0);
        true
    }

    /// Returns the next piece of at most `limit` bytes (clamped to 4 KiB … [`MAX_PIECE`]), or `None` at the end.
    ///
    /// # Errors
    /// The disk's error.
    pub async fn next(&mut self, limit: usize) -> io::Result<Option<Bytes>> {
        let limit = limit.clamp(SMALLEST_LIMIT, MAX_PIECE);
        if let Some(Part::Backed(backing, len)) = self.body.parts.get(self.index) {
            if self.ahead.is_empty() {
                let (backing, at, len) = (Arc::clone(backing), self.within, *len);
                let block = tokio::task::spawn_blocking(move || read(&*backing, at, len)).await;
                self.ahead = block.map_err(io::Error::other)??;
            }
            return Ok(Some(self.take_ahead(limit)));
        }
        Ok(self.next_in_memory(limit))
    }

    fn take_ahead(&mut self, limit: usize) -> Bytes {
        let piece = self.ahead.split_to(limit.min(self.ahead.len()));
        self.within = self.within.saturating_add(piece.len() as u64);
        if self.body.parts.get(self.index).is_none_or(|part| self.within >= part.len()) {
            (self.index, self.within) = (self.index.saturating_add(1), 0);
            self.ahead = Bytes::new();
        }
        piece
    }

    fn next_in_memory(&mut self, limit: usize) -> Option<Bytes> {
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

    /// Returns whether the next buffer is small enough to be copied behind `held` bytes.
    fn joins(&self, held: usize, limit: usize) -> bool {
        self.rest()
            .is_some_and(|rest| rest < MIN_PIECE && held.saturating_add(rest) <= limit)
    }

    /// Returns the current buffer and the position in it; `None` at the end and inside a backing.
    fn buffer(&self) -> Option<(&Bytes, usize)> {
        match self.body.parts.get(self.index)? {
            Part::Memory(piece) => Some((piece, usize::try_from(self.within).ok()?)),
            Part::Backed(..) => None,
        }
    }

    /// Returns how many bytes of the current buffer are left.
    fn rest(&self) -> Option<usize> {
        self.buffer().map(|(piece, within)| piece.len().saturating_sub(within))
    }

    /// Returns a slice of the current buffer without a copy.
    fn take(&mut self, limit: usize) -> Option<Bytes> {
        let (piece, within) = self.buffer()?;
        let end = within.saturating_add(limit).min(piece.len());
        let (slice, is_last) = (piece.slice(within..end), end == piece.len());
        (self.index, self.within) = if is_last {
            (self.index.saturating_add(1), 0)
        } else {
            (self.index, end as u64)
        };
        Some(slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain_from(mut reader: Reader, limit: usize) -> Vec<Bytes> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut pieces = Vec::new();
            while let Some(piece) = reader.next(limit).await.unwrap() {
                pieces.push(piece);
            }
            pieces
        })
    }

    fn drain(body: &Body, limit: usize) -> Vec<Bytes> {
        drain_from(body.reader(), limit)
    }

    /// Returns slightly fewer bytes than requested.
    #[derive(Debug)]
    struct Disk(Bytes);

    impl Backing for Disk {
        fn read_at(&self, offset: u64, most: usize) -> io::Result<Bytes> {
            let from = usize::try_from(offset).unwrap().min(self.0.len());
            let most = (most - most / 7).max(1);
            Ok(self.0.slice(from..(from + most).min(self.0.len())))
        }
    }

    #[test]
    fn what_is_on_disk_and_what_is_in_memory_are_one_object() {
        let all = numbered(3_000_001);
        let body = Body::backed(Arc::new(Disk(all.slice(..2_500_000))), 2_500_000, [all.slice(2_500_000..)]);
        assert_eq!(body.len(), 3_000_001);
        assert_eq!(body.crc32c().unwrap(), crc32c::crc32c(&all));
        let pieces = drain(&body, MAX_PIECE);
        assert!(pieces.iter().all(|piece| piece.len() <= MAX_PIECE));
        assert!(pieces.len() < 40, "{} pieces", pieces.len());
        assert_eq!(pieces.concat(), all);
        for offset in [1, 999_999, 2_499_999, 2_500_000, 3_000_001] {
            let mut reader = body.reader();
            assert!(reader.seek(offset));
            let from = usize::try_from(offset).unwrap();
            assert_eq!(drain_from(reader, MAX_PIECE).concat(), all[from..]);
        }
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_is_an_error_and_not_a_short_object() {
        let body = Body::backed(Arc::new(Disk(numbered(100))), 200, []);
        let mut reader = body.reader();
        while let Ok(piece) = reader.next(MAX_PIECE).await {
            assert!(piece.is_some());
        }
        assert!(body.crc32c().is_err());
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
        assert_eq!(body.crc32c().unwrap(), crc32c::crc32c(&all));
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
            proptest::prop_assert!(!reader.seek(all.len() as u64 + 1));
            proptest::prop_assert_eq!(drain_from(reader, limit).concat(), &all[offset..]);
        }
    }
}
