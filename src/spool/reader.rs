//! Reads a chunk's object from its file.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};

use super::error::SpoolError;
use super::format::{DATA_FIELDS, DataFields, Kind, MAGIC};
use super::records::{Record, Records, to_u64};

/// Distance in bytes between two remembered record positions, for seeking.
const LANDMARK: u64 = 4 << 20;
/// Small records are joined up to this size.
const JOIN: usize = 256 << 10;

/// The position of a record.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Offset of its first byte in the object.
    at: u64,
    /// Offset of the record in the file.
    offset: u64,
}

/// Reads the object of one chunk. Sequential reads are the fastest. The CRC of each record is checked when it is read.
#[derive(Debug)]
pub struct ChunkReader {
    records: Records,
    path: PathBuf,
    /// Number of bytes of the object that may be read.
    limit: Arc<AtomicU64>,
    /// The record that is read next.
    next: Mark,
    landmarks: Vec<Mark>,
    /// The record that was read last: offset of its first byte in the object, and its bytes.
    last: Option<(u64, Bytes)>,
}

impl ChunkReader {
    pub(super) fn new(records: Records, path: PathBuf, limit: Arc<AtomicU64>) -> Self {
        let first = Mark {
            at: 0,
            offset: to_u64(MAGIC.len()),
        };
        Self {
            records,
            path,
            limit,
            next: first,
            landmarks: vec![first],
            last: None,
        }
    }

    /// Returns the number of bytes of the object that can be read now.
    pub fn len(&self) -> u64 {
        // Pairs with the `Release` store of the writer, which may append at the same time.
        self.limit.load(Ordering::Acquire)
    }

    /// Returns whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Passes the first `len` bytes of the object to `take`, in pieces of at most 1 MiB. Stops early if the object is shorter.
    ///
    /// # Errors
    /// An error of the disk, or the error of `take`.
    pub fn for_each(&mut self, len: u64, mut take: impl FnMut(Bytes) -> Result<(), SpoolError>) -> Result<(), SpoolError> {
        const BLOCK: usize = 1 << 20;
        let mut at = 0;
        while at < len {
            let most = usize::try_from(len - at).unwrap_or(BLOCK).min(BLOCK);
            let bytes = self
                .read_at(at, most)
                .map_err(|e| SpoolError::reading(self.path.clone(), e))?;
            if bytes.is_empty() {
                break;
            }
            at += to_u64(bytes.len());
            take(bytes)?;
        }
        Ok(())
    }

    /// Returns bytes of the object from `offset` on: at least one and at most `max`; none at the end.
    ///
    /// # Errors
    /// An error of the disk. `InvalidData` with [`SpoolError::Damaged`] if the bytes are not what was written: move the chunk to
    /// the quarantine.
    pub fn read_at(&mut self, offset: u64, max: usize) -> io::Result<Bytes> {
        let limit = self.len();
        let left = usize::try_from(limit.saturating_sub(offset)).unwrap_or(usize::MAX);
        let want = max.min(left);
        if want == 0 {
            return Ok(Bytes::new());
        }
        let first = self.piece(offset, want)?;
        if first.len() >= want.min(JOIN) {
            return Ok(first);
        }
        // Joined, because each piece costs the request an HTTP chunk and a lock.
        let want = want.min(JOIN);
        let mut joined = BytesMut::with_capacity(want);
        joined.extend_from_slice(&first);
        while joined.len() < want {
            let at = offset.saturating_add(to_u64(joined.len()));
            let piece = self.piece(at, want - joined.len())?;
            joined.extend_from_slice(&piece);
        }
        Ok(joined.freeze())
    }

    /// Returns bytes of one record.
    fn piece(&mut self, offset: u64, max: usize) -> io::Result<Bytes> {
        loop {
            if let Some((at, bytes)) = &self.last
                && let Some(skip) = offset.checked_sub(*at).and_then(|n| usize::try_from(n).ok())
                && skip < bytes.len()
            {
                return Ok(bytes.slice(skip..bytes.len().min(skip.saturating_add(max))));
            }
            if offset < self.next.at || self.skips(offset) {
                self.jump(offset);
            }
            self.step()?;
        }
    }

    /// Returns whether a landmark is nearer to `offset` than the record that is read next.
    fn skips(&self, offset: u64) -> bool {
        self.landmarks
            .last()
            .is_some_and(|mark| mark.at > self.next.at && mark.at <= offset)
    }

    fn jump(&mut self, offset: u64) {
        let behind = self.landmarks.partition_point(|mark| mark.at <= offset);
        if let Some(mark) = behind.checked_sub(1).and_then(|i| self.landmarks.get(i)) {
            self.next = *mark;
            self.last = None;
        }
    }

    fn step(&mut self) -> io::Result<()> {
        let Mark { at, offset } = self.next;
        let record = self.records.read(offset)?.ok_or_else(|| self.damaged(offset))?;
        self.next.offset = record.next;
        match record.kind {
            Kind::Head if at == 0 => {}
            // A chunk that was sent before it was closed has these between its Data records.
            Kind::Attempted | Kind::Sent => {}
            Kind::Data => self.take(&record, at).ok_or_else(|| self.damaged(offset))?,
            _ => return Err(self.damaged(offset)),
        }
        Ok(())
    }

    fn take(&mut self, record: &Record, at: u64) -> Option<()> {
        let fields = DataFields::parse(&record.payload)?;
        // The record is intact, but does not continue the object: offsets must have no holes.
        if fields.at != at || record.payload.len() < DATA_FIELDS {
            return None;
        }
        let bytes = record.payload.slice(DATA_FIELDS..);
        self.next.at = at.checked_add(to_u64(bytes.len()))?;
        self.last = Some((at, bytes));
        if self
            .landmarks
            .last()
            .is_some_and(|mark| self.next.at >= mark.at.saturating_add(LANDMARK))
        {
            self.landmarks.push(self.next);
        }
        Some(())
    }

    fn damaged(&self, offset: u64) -> io::Error {
        let path = self.path.clone();
        io::Error::new(ErrorKind::InvalidData, SpoolError::Damaged { path, offset })
    }
}
