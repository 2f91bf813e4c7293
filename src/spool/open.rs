//! A chunk that is being written.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::disk::DiskFile;
use super::entry::ClosedEntry;
use super::error::SpoolError;
use super::folder::{END_ROOM, Folder};
use super::format::{DATA_FIELDS, DataFields, Kind, MARK_LEN, MAX_DATA, RECORD_HEADER, header, record, sent_payload};
use super::quota::Charge;
use super::reader::ChunkReader;
use super::records::{Records, to_u64};
use super::recovery::Summary;
use super::stored::Stored;

/// Maximum number of object bytes written between two syncs. A sync of more could take longer on a slow card than a disk call may
/// ([`PATIENCE`](super::lane::PATIENCE)).
const SYNC_STEP: usize = 8 << 20;

/// What may follow the last intact record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    Clean,
    /// A write failed, and so did truncating the file.
    Torn,
}

/// A chunk that is being written. If dropped, its file stays, and the next start treats it as half-written.
#[derive(Debug)]
pub struct OpenChunk {
    file: Arc<dyn DiskFile>,
    folder: Arc<Folder>,
    sequence: u64,
    charge: Charge,
    /// Bytes reserved to close it.
    room: u64,
    /// Bytes of the file in intact records.
    len: u64,
    /// Bytes of the object in intact records; shared with readers.
    data: Arc<AtomicU64>,
    /// Bytes of the file that are durable.
    synced: u64,
    /// Bytes of the object that are durable.
    synced_data: u64,
    /// The file's name is durable.
    named: bool,
    tail: Tail,
    /// A sync failed: the kernel has discarded what was not durable, so it must be written again.
    given_up: bool,
    /// The Attempted record is durable.
    attempted: bool,
    /// Marks of the Sent records at the end of the file.
    sent: Vec<u32>,
    /// Sent records are followed by other records: they stop counting once those are durable.
    buried: bool,
    closed: bool,
}

impl OpenChunk {
    /// Wraps a file that contains the magic and the Head, `len` bytes in all.
    pub(super) fn new(file: Arc<dyn DiskFile>, folder: Arc<Folder>, sequence: u64, charge: Charge, len: u64) -> Self {
        Self {
            file,
            folder,
            sequence,
            charge,
            // The End repeats the entry of the Head, with some more values.
            room: len.saturating_add(END_ROOM),
            len,
            data: Arc::new(AtomicU64::new(0)),
            synced: 0,
            synced_data: 0,
            named: false,
            tail: Tail::Clean,
            given_up: false,
            attempted: false,
            sent: Vec::new(),
            buried: false,
            closed: false,
        }
    }

    /// Returns the path of the chunk's file.
    pub fn path(&self) -> PathBuf {
        self.folder.path(self.sequence)
    }

    pub(super) fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    /// Returns the number of object bytes that are written, but may not be durable.
    pub fn len_on_file(&self) -> u64 {
        self.data.load(Ordering::Acquire)
    }

    /// Returns the number of object bytes that are durable.
    pub fn synced_len(&self) -> u64 {
        self.synced_data
    }

    /// Writes bytes of the object; `at` is the offset of the first one. Skips bytes that are already in the file, so a caller may
    /// pass them again. Syncs in between if there are more than 8 MiB.
    ///
    /// # Errors
    /// No room, or an error of the disk: the call may be repeated, and [`OpenChunk::len_on_file`] returns how much is written. Or
    /// `at` is behind the end of the file.
    pub fn append(&mut self, at: u64, parts: &[Bytes]) -> Result<(), SpoolError> {
        self.check_open()?;
        let data = self.len_on_file();
        let Some(skip) = data.checked_sub(at) else {
            let what = format!("bytes from {at} on were handed in, and the file has {data}");
            return Err(SpoolError::misuse(&self.path(), what));
        };
        let groups = group(parts, skip);
        for (i, groups) in groups.chunks(SYNC_STEP / MAX_DATA).enumerate() {
            if i > 0 {
                self.sync()?;
            }
            self.append_groups(groups)?;
        }
        Ok(())
    }

    fn append_groups(&mut self, groups: &[Vec<Bytes>]) -> Result<(), SpoolError> {
        let data = self.len_on_file();
        let fresh: u64 = groups.iter().map(|g| size(g)).sum();
        let overhead = to_u64(groups.len() * (RECORD_HEADER + DATA_FIELDS));
        self.clean_tail()?;
        let before = self.len;
        let after = before.saturating_add(fresh).saturating_add(overhead);
        // Charged before the write, so that the files never exceed the limit.
        self.folder
            .spool
            .charge(&self.folder.key, &mut self.charge, after, self.room)?;
        match self.write_data(groups, data) {
            Ok(()) => {
                self.len = after;
                self.bury();
                // Stored last: a reader on another thread then sees whole records only.
                self.data.store(data.saturating_add(fresh), Ordering::Release);
                Ok(())
            }
            Err(e) => self.cut_back("write", e, before),
        }
    }

    fn write_data(&self, groups: &[Vec<Bytes>], mut at: u64) -> io::Result<()> {
        let salt = self.folder.salt(self.sequence);
        let mut offset = self.len;
        for group in groups {
            let fields = DataFields { at, synced: self.synced }
                .encode()
                .ok_or(ErrorKind::FileTooLarge)?;
            // The first part is a placeholder for the header, whose CRC covers the other parts.
            let mut parts: Vec<&[u8]> = vec![&[], &fields];
            parts.extend(group.iter().map(|b| &**b));
            let head = header(Kind::Data, salt, &parts).ok_or(ErrorKind::InvalidInput)?;
            if let Some(first) = parts.first_mut() {
                *first = &head;
            }
            self.file.write_all_at(&parts, offset)?;
            let bytes = size(group);
            at = at.saturating_add(bytes);
            offset = offset.saturating_add(bytes).saturating_add(to_u64(head.len() + fields.len()));
        }
        Ok(())
    }

    /// Makes the file's content and name durable.
    ///
    /// # Errors
    /// An error of the disk. The call may be repeated: it first writes again what is not durable.
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        self.check_open()?;
        if self.synced == self.len && self.named {
            return Ok(());
        }
        self.clean_tail()?;
        self.rewrite()?;
        self.sync_all()?;
        self.synced = self.len;
        self.synced_data = self.len_on_file();
        Ok(())
    }

    /// Writes an Attempted record: a request is about to send the whole chunk, which is not closed because the rest of it is in
    /// memory. When this returns, the record, the file's name and all bytes in the file are durable.
    ///
    /// # Errors
    /// No room, or an error of the disk: the call may be repeated.
    pub fn mark_attempted(&mut self) -> Result<(), SpoolError> {
        if self.attempted {
            return Ok(());
        }
        let payload = self.len.to_le_bytes();
        self.append_mark(Kind::Attempted, &payload)?;
        self.bury();
        self.sync()?;
        // Set only after the sync, so that a call that failed can be repeated.
        self.attempted = true;
        Ok(())
    }

    /// Marks the whole chunk as sent under a name: the server may have it. Not synced, because a missing mark costs a second
    /// object at most.
    ///
    /// # Errors
    /// No room, or an error of the disk: the chunk is unchanged.
    pub fn mark_sent(&mut self, mark: u32) -> Result<(), SpoolError> {
        if self.sent.contains(&mark) {
            return Ok(());
        }
        self.append_mark(Kind::Sent, &sent_payload(mark))?;
        self.sent.push(mark);
        Ok(())
    }

    /// Removes a mark that is no longer true, durably.
    ///
    /// # Errors
    /// An error of the disk: the mark may reappear at the next start.
    pub fn unmark_sent(&mut self, mark: u32) -> Result<(), SpoolError> {
        self.check_open()?;
        // Marks in front of other records stop counting only when those are durable.
        if self.buried {
            self.sync()?;
            self.buried = false;
        }
        let Some(first) = self.sent.iter().position(|known| *known == mark) else {
            return Ok(());
        };
        let path = self.path();
        // Cuts off the later marks too: a missing mark costs a second object at most, never a chunk.
        let marks = to_u64(self.sent.len().saturating_sub(first)).saturating_mul(to_u64(MARK_LEN));
        let len = self.len.saturating_sub(marks);
        self.file.set_len(len).map_err(|e| SpoolError::io("cut", &path, e))?;
        self.sent.truncate(first);
        self.len = len;
        self.synced = self.synced.min(len);
        self.sync_all()
    }

    /// Notes that another record follows the Sent records.
    fn bury(&mut self) {
        self.buried |= !self.sent.is_empty();
        self.sent.clear();
    }

    fn append_mark(&mut self, kind: Kind, payload: &[u8]) -> Result<(), SpoolError> {
        self.check_open()?;
        let record = record(kind, self.folder.salt(self.sequence), payload);
        let record = record.ok_or_else(|| SpoolError::misuse(&self.path(), "a mark is too long"))?;
        self.clean_tail()?;
        let before = self.len;
        let after = before.saturating_add(to_u64(record.len()));
        // Charged to the room reserved for closing: marks are needed exactly when the disk is full.
        let slack = self.charge.slack_within(after, self.room);
        self.folder.spool.charge(&self.folder.key, &mut self.charge, after, slack)?;
        if let Err(e) = self.file.write_all_at(&[&record], before) {
            return self.cut_back("write", e, before);
        }
        self.len = after;
        Ok(())
    }

    /// Closes the chunk: writes the End, then syncs the file and its name. The result may be uploaded. Bytes in the file beyond
    /// the entry's size are not part of the object.
    ///
    /// # Errors
    /// No room, or an error of the disk: the chunk stays open, and the call may be repeated. Or the entry does not fit the chunk.
    pub fn finish(&mut self, closed: &ClosedEntry) -> Result<Stored, SpoolError> {
        self.check_open()?;
        let path = self.path();
        if closed.entry.sequence != self.sequence || closed.entry.session != self.folder.session {
            return Err(SpoolError::misuse(&path, "the closing entry is of another chunk"));
        }
        if closed.size > self.len_on_file() {
            let what = format!(
                "the closing entry has {} bytes and the file {}",
                closed.size,
                self.len_on_file()
            );
            return Err(SpoolError::misuse(&path, what));
        }
        let end = self.folder.end_record(closed)?;
        self.clean_tail()?;
        // Without this, the End could follow bytes that a failed sync has discarded.
        self.rewrite()?;
        let end_at = self.len;
        let tail = end_at.saturating_add(to_u64(end.len()));
        let slack = self.charge.slack_within(tail, self.room);
        self.folder.spool.charge(&self.folder.key, &mut self.charge, tail, slack)?;
        if let Err(e) = self.file.write_all_at(&[&end], end_at) {
            return self.cut_back("write", e, end_at);
        }
        if let Err(e) = self.sync_all() {
            // The chunk stays open and may get more Data, which must not follow an End.
            self.drop_tail(end_at);
            return Err(e);
        }
        // Durable from here on. The Footer only makes the next start faster.
        self.closed = true;
        let tail = self.folder.seal(&*self.file, self.sequence, end_at, tail);
        let mut charge = std::mem::take(&mut self.charge);
        // A refusal is ignored: the Footer is already written, usually within the reserved room.
        let slack = charge.slack_within(tail, self.room);
        let _ = self.folder.spool.quota.resize(&self.folder.key, &mut charge, tail, slack);
        Ok(Stored::new(self.folder.clone(), Summary::of(closed), end_at, tail, charge))
    }

    /// Returns a reader of the bytes in the file. Bytes appended later become visible to it.
    pub fn reader(&self) -> ChunkReader {
        let salt = self.folder.salt(self.sequence);
        ChunkReader::new(Records::new(self.file.clone(), salt), self.path(), self.data.clone())
    }

    /// Removes the chunk.
    ///
    /// # Errors
    /// An error of the disk: the file still exists.
    pub fn abandon(&mut self) -> Result<(), SpoolError> {
        self.check_open()?;
        let path = self.path();
        match self.folder.spool.disk.remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(SpoolError::io("remove", &path, e)),
            _ => {}
        }
        self.closed = true;
        self.folder.spool.quota.remove(&self.folder.key, &mut self.charge);
        Ok(())
    }

    /// Removes the chunk. If the disk does not answer, removes it when it does, before any later call. The sequence number can be
    /// used again at once.
    pub fn give_up(mut self) {
        if self.closed {
            return;
        }
        self.closed = true;
        self.folder.remove_unwanted(self.sequence);
        self.folder.spool.quota.remove(&self.folder.key, &mut self.charge);
    }

    /// Stops counting the file: somebody has removed it.
    pub(super) fn uncount(&mut self) {
        self.folder.spool.quota.remove(&self.folder.key, &mut self.charge);
    }

    /// Returns whether the chunk was closed or removed.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    fn check_open(&self) -> Result<(), SpoolError> {
        if self.closed {
            return Err(SpoolError::misuse(&self.path(), "the chunk is closed already"));
        }
        Ok(())
    }

    fn sync_all(&mut self) -> Result<(), SpoolError> {
        if let Err(e) = self.file.sync_data() {
            self.given_up = true;
            return Err(SpoolError::io("sync", &self.path(), e));
        }
        if !self.named {
            // Needed only once: the file is not renamed while it is open.
            self.folder.sync_names()?;
            self.named = true;
        }
        Ok(())
    }

    /// Truncates the file to `len` after a failed write, and returns the error of the write.
    fn cut_back<T>(&mut self, op: &'static str, e: io::Error, len: u64) -> Result<T, SpoolError> {
        self.drop_tail(len);
        Err(SpoolError::io(op, &self.path(), e))
    }

    fn drop_tail(&mut self, len: u64) {
        self.tail = if self.file.set_len(len).is_ok() {
            Tail::Clean
        } else {
            Tail::Torn
        };
        // Never refused, because the file shrinks.
        let _ = self
            .folder
            .spool
            .quota
            .resize(&self.folder.key, &mut self.charge, len, self.room);
    }

    fn clean_tail(&mut self) -> Result<(), SpoolError> {
        if self.tail == Tail::Torn {
            self.file
                .set_len(self.len)
                .map_err(|e| SpoolError::io("cut", &self.path(), e))?;
            self.tail = Tail::Clean;
        }
        Ok(())
    }

    /// Writes again what is not durable, after a failed sync.
    fn rewrite(&mut self) -> Result<(), SpoolError> {
        if self.given_up {
            self.folder.rewrite(&self.file, self.sequence, self.synced, self.len)?;
            self.given_up = false;
        }
        Ok(())
    }
}

impl Drop for OpenChunk {
    fn drop(&mut self) {
        self.folder.spool.quota.release(&mut self.charge);
    }
}

fn size(parts: &[Bytes]) -> u64 {
    parts.iter().map(|p| to_u64(p.len())).sum()
}

/// Returns the bytes of `parts` behind the first `skip` bytes, in groups of at most [`MAX_DATA`] bytes.
fn group(parts: &[Bytes], mut skip: u64) -> Vec<Vec<Bytes>> {
    let mut groups: Vec<Vec<Bytes>> = Vec::new();
    let mut room = 0;
    for part in parts {
        let drop = usize::try_from(skip).map_or(part.len(), |skip| skip.min(part.len()));
        skip -= to_u64(drop);
        let mut rest = part.slice(drop..);
        while !rest.is_empty() {
            if room == 0 {
                groups.push(Vec::new());
                room = MAX_DATA;
            }
            let piece = rest.split_to(room.min(rest.len()));
            room -= piece.len();
            if let Some(last) = groups.last_mut() {
                last.push(piece);
            }
        }
    }
    groups
}
