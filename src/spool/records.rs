//! Reads the records of a chunk file in sequence, with few large reads.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::DiskFile;
use super::format::{Header, Kind, MAGIC, MAX_PAYLOAD, RECORD_HEADER, Salt, record};

/// Minimum number of bytes of a read.
const STEP: usize = 256 << 10;

/// An intact record.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) payload: Bytes,
    /// Offset of the next record.
    pub(super) next: u64,
}

/// Reads records and checks their CRCs.
#[derive(Debug)]
pub(super) struct Records {
    file: Arc<dyn DiskFile>,
    salt: Salt,
    window: Bytes,
    window_at: u64,
    /// Bytes to read at once: the length of the last record, because records of one file have similar lengths.
    step: usize,
}

impl Records {
    pub(super) fn new(file: Arc<dyn DiskFile>, salt: Salt) -> Self {
        Self {
            file,
            salt,
            window: Bytes::new(),
            window_at: 0,
            step: STEP,
        }
    }

    /// Reads the record at `offset` of the file; `None` if there is no intact one.
    pub(super) fn read(&mut self, offset: u64) -> io::Result<Option<Record>> {
        // The window is only used for an intact record: it may have been read before the record was written.
        if let Some(record) = self.parse(offset) {
            return Ok(Some(record));
        }
        self.fill(offset, self.step)?;
        if let Some(header) = Header::parse(&self.window)
            && header.record_len() > self.window.len()
            && self.window.len() >= STEP
        {
            // A window below a step ends with the file: reading again would find no more.
            self.fill(offset, header.record_len())?;
        }
        let record = self.parse(offset);
        if let Some(record) = &record {
            self.step = (RECORD_HEADER + record.payload.len()).max(STEP);
        }
        Ok(record)
    }

    /// Finds the next intact record at or behind `offset`. Subtracts the bytes of failed checksums from `budget`. Returns `None`
    /// if there is no such record, or if `budget` is 0.
    pub(super) fn find(&mut self, mut offset: u64, budget: &mut u64) -> io::Result<Option<(u64, Record)>> {
        loop {
            if self.rest(offset).len() < RECORD_HEADER {
                self.fill(offset, STEP)?;
            }
            let rest = self.rest(offset);
            if rest.len() < RECORD_HEADER {
                return Ok(None);
            }
            let Some(at) = super::format::find_marker(rest) else {
                // The last two bytes may be the beginning of a marker.
                offset = offset.saturating_add(to_u64(rest.len() - 2));
                self.fill(offset, STEP)?;
                if self.window.len() < RECORD_HEADER {
                    return Ok(None);
                }
                continue;
            };
            offset = offset.saturating_add(to_u64(at));
            if let Some(record) = self.read(offset)? {
                return Ok(Some((offset, record)));
            }
            let tried = Header::parse(self.rest(offset)).map_or(0, |h| to_u64(h.record_len()));
            *budget = budget.saturating_sub(tried);
            if *budget == 0 {
                return Ok(None);
            }
            offset = offset.saturating_add(1);
        }
    }

    fn rest(&self, offset: u64) -> &[u8] {
        let skip = offset.checked_sub(self.window_at).and_then(|n| usize::try_from(n).ok());
        skip.and_then(|skip| self.window.get(skip..)).unwrap_or_default()
    }

    fn parse(&self, offset: u64) -> Option<Record> {
        let rest = self.rest(offset);
        let header = Header::parse(rest)?;
        let payload = rest.get(RECORD_HEADER..header.record_len())?;
        header.verifies(self.salt, payload).then(|| Record {
            kind: header.kind,
            payload: self.window.slice_ref(payload),
            next: offset.saturating_add(to_u64(header.record_len())),
        })
    }

    fn fill(&mut self, offset: u64, len: usize) -> io::Result<()> {
        // Cleared first: if the read fails, the old bytes must not be taken for those at the new offset.
        self.window = Bytes::new();
        self.window_at = offset;
        self.window = read_some(&*self.file, offset, len.min(RECORD_HEADER + MAX_PAYLOAD))?;
        Ok(())
    }
}

/// Writes the records between two offsets again, with the bytes that the kernel still returns. Needed after a failed sync: the
/// kernel has marked those pages clean, and another sync would report success without writing them. Returns the offset of a
/// damaged record if it finds one.
pub(super) fn rewrite(file: &Arc<dyn DiskFile>, salt: Salt, from: u64, to: u64) -> io::Result<Option<u64>> {
    let mut records = Records::new(file.clone(), salt);
    let mut offset = from;
    if offset == 0 {
        file.write_all_at(&[&MAGIC], 0)?;
        offset = to_u64(MAGIC.len());
    }
    while offset < to {
        let sound = records.read(offset)?;
        let again = sound.and_then(|r| Some((record(r.kind, salt, &r.payload)?, r.next)));
        let Some((bytes, next)) = again else {
            return Ok(Some(offset));
        };
        file.write_all_at(&[&bytes], offset)?;
        offset = next;
    }
    Ok(None)
}

/// Reads `len` bytes at `offset`; fewer at the end of the file.
pub(super) fn read_some(file: &dyn DiskFile, mut offset: u64, len: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; len];
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let n = file.read_at(rest, offset)?;
        if n == 0 {
            break;
        }
        filled += n;
        offset = offset.saturating_add(to_u64(n));
    }
    buffer.truncate(filled);
    Ok(buffer.into())
}

/// Converts a length in memory, which always fits.
pub(super) fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
