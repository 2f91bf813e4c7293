//! Chunks that wait on disk: closed ones, which may be uploaded, and half-written ones of an earlier process.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::destination::DestinationId;
use super::disk::DiskFile;
use super::entry::{ClosedEntry, Entry, name_mark};
use super::error::SpoolError;
use super::folder::{END_ROOM, Folder};
use super::format::{Header, Kind, MARK_LEN, MAX_PAYLOAD, RECORD_HEADER, record};
use super::quota::Charge;
use super::reader::ChunkReader;
use super::records::{Records, read_some, to_u64};
use super::recovery::{Scan, Summary};

/// Bytes read for an End record at first; most are shorter.
const END_READ: usize = 16 << 10;

/// A closed chunk that is durable, and so may be uploaded. It takes little memory: entry and bytes are read from disk for the
/// upload. If dropped, its file stays for the next start.
#[derive(Debug)]
pub struct Stored {
    folder: Arc<Folder>,
    summary: Summary,
    /// Offset of the End record in the file.
    end_at: u64,
    /// Length of the file.
    tail: u64,
    /// Marks of the names under which it was sent whole, in the order of the file; see [`name_mark`].
    sent: Vec<u32>,
    charge: Charge,
    gone: bool,
}

impl Stored {
    pub(super) fn new(folder: Arc<Folder>, summary: Summary, end_at: u64, tail: u64, charge: Charge) -> Self {
        Self {
            folder,
            summary,
            end_at,
            tail,
            sent: Vec::new(),
            charge,
            gone: false,
        }
    }

    pub(super) fn with_sent(mut self, sent: Vec<u32>) -> Self {
        self.sent = sent;
        self
    }

    /// Returns the path of the chunk's file.
    pub fn path(&self) -> PathBuf {
        self.folder.path(self.summary.sequence)
    }

    /// Returns the marks of the names under which it was sent whole.
    pub fn sent(&self) -> &[u32] {
        &self.sent
    }

    /// Returns the size of the object in bytes.
    pub fn size(&self) -> u64 {
        self.summary.size
    }

    /// Returns the part of the entry that is in memory.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// Returns the id of the session that recorded it.
    pub fn session(&self) -> &str {
        &self.folder.session
    }

    /// Returns whether somebody has removed the file, alone or with its folder. An unmounted file system does not count as
    /// removal.
    pub fn is_removed(&self) -> bool {
        let disk = &self.folder.spool.disk;
        match disk.open(&self.path()) {
            // `NotFound` alone proves nothing: an unmounted file system gives it as well. The folder must exist, or be known as
            // removed.
            Err(e) if e.kind() == ErrorKind::NotFound => self.folder.is_removed() || disk.list(&self.folder.dir).is_ok(),
            _ => false,
        }
    }

    /// Reads the entry.
    ///
    /// # Errors
    /// An error of the disk. [`SpoolError::Damaged`]: move the chunk to the quarantine.
    pub fn load(&self) -> Result<ClosedEntry, SpoolError> {
        let file = self.open()?;
        let path = self.path();
        let read = |len| read_some(&*file, self.end_at, len).map_err(|e| SpoolError::io("read", &path, e));
        let mut bytes = read(END_READ)?;
        let header = Header::parse(&bytes);
        if header.is_some_and(|h| h.record_len() > bytes.len()) {
            bytes = read(RECORD_HEADER + MAX_PAYLOAD)?;
        }
        let salt = self.folder.salt(self.summary.sequence);
        let entry = header.filter(|h| h.kind == Kind::End).and_then(|h| {
            let payload = bytes.get(RECORD_HEADER..h.record_len())?;
            h.verifies(salt, payload)
                .then(|| ClosedEntry::from_json(payload).ok())
                .flatten()
        });
        entry.ok_or_else(|| SpoolError::Damaged {
            path: path.clone(),
            offset: self.end_at,
        })
    }

    /// Returns a reader of the object.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn reader(&self) -> Result<ChunkReader, SpoolError> {
        // Limited to the size in the entry: bytes of the next chunk, written ahead of the cut, may follow.
        let records = Records::new(self.open()?, self.folder.salt(self.summary.sequence));
        Ok(ChunkReader::new(
            records,
            self.path(),
            Arc::new(AtomicU64::new(self.summary.size)),
        ))
    }

    /// Replaces the chunk's entry durably, for another name or corrected timestamps. Size and CRC32C must be the same.
    ///
    /// # Errors
    /// No room, or an error of the disk: the old entry stays valid. Or the entry is of another chunk.
    pub fn amend(&mut self, closed: &ClosedEntry) -> Result<(), SpoolError> {
        let path = self.path();
        let same = (closed.size, closed.crc32c, closed.entry.sequence);
        if same != (self.summary.size, self.summary.crc32c, self.summary.sequence) || closed.entry.session != self.folder.session
        {
            return Err(SpoolError::misuse(&path, "the new entry is of another chunk"));
        }
        let end = self.folder.end_record(closed)?;
        let file = self.open()?;
        let (end_at, tail) = (self.tail, self.tail.saturating_add(to_u64(end.len())));
        self.charge_to(tail)?;
        // The Footer and the marks behind it may not be durable: they are not synced, or their sync failed. After a crash, a hole
        // there would hide the new End.
        self.folder.rewrite(&file, self.summary.sequence, self.end_at, end_at)?;
        let written = file.write_all_at(&[&end], end_at).and_then(|()| file.sync_data());
        if let Err(e) = written {
            let _ = file.set_len(end_at);
            // Never refused, because the file shrinks.
            let _ = self.charge_to(end_at);
            // After a failed sync the kernel may have discarded the Footer in front: without it the next start walks the whole
            // file.
            self.folder.rewrite(&file, self.summary.sequence, self.end_at, end_at)?;
            return Err(SpoolError::io("write", &path, e));
        }
        self.end_at = end_at;
        // Marks in front of the last End do not count: they are of the old name.
        self.sent.clear();
        self.tail = self.folder.seal(&*file, self.summary.sequence, end_at, tail);
        self.summary = Summary::of(closed);
        // A refusal is ignored: the Footer is written already.
        let _ = self.charge_to(self.tail);
        Ok(())
    }

    /// Marks the object as sent whole under a name: the server may have it. Not synced, because a missing mark costs a second
    /// object at most.
    ///
    /// # Errors
    /// No room, or an error of the disk: the file is unchanged.
    pub fn mark_sent(&mut self, mark: u32) -> Result<(), SpoolError> {
        if self.gone || self.sent.contains(&mark) {
            return Ok(());
        }
        let file = self.open()?;
        let (from, to) = (self.tail, self.tail.saturating_add(to_u64(MARK_LEN)));
        self.charge_to(to)?;
        if let Err(e) = self.folder.write_sent(&*file, self.summary.sequence, mark, from) {
            // A torn mark at the end would hide the Footer: the next start would have to walk the whole file.
            let _ = file.set_len(from);
            let _ = self.charge_to(from);
            return Err(e);
        }
        self.tail = to;
        self.sent.push(mark);
        Ok(())
    }

    /// Removes a mark that is no longer true, durably. Needs no room.
    ///
    /// # Errors
    /// An error of the disk: the mark may reappear at the next start.
    pub fn unmark_sent(&mut self, mark: u32) -> Result<(), SpoolError> {
        let Some(first) = self.sent.iter().position(|known| *known == mark).filter(|_| !self.gone) else {
            return Ok(());
        };
        // Cuts off the later marks too: a missing mark costs a second object at most, never a chunk.
        let marks = to_u64(self.sent.len().saturating_sub(first)).saturating_mul(to_u64(MARK_LEN));
        let tail = self.tail.saturating_sub(marks);
        let file = self.open()?;
        let path = self.path();
        file.set_len(tail).map_err(|e| SpoolError::io("cut", &path, e))?;
        // Updated even if the sync fails below: the file is shorter, and the next record must follow its last byte.
        self.sent.truncate(first);
        self.tail = tail;
        // Never refused, because the file shrinks.
        let _ = self.charge_to(tail);
        file.sync_data().map_err(|e| SpoolError::io("sync", &path, e))
    }

    /// Marks the chunk as stored by the server, durably, and removes the file. May be called again after an error.
    ///
    /// # Errors
    /// An error of the disk: the file may reappear at the next start and be sent again.
    pub fn confirm(&mut self) -> Result<(), SpoolError> {
        if self.gone {
            return Ok(());
        }
        let marked = self.mark_confirmed();
        // Also if the mark failed: a full disk has no room for it, and the removal frees some.
        self.discard()?;
        if marked.is_err() {
            // No mark protects from a second upload after a crash, so the removal itself must be durable.
            self.folder.sync_names()?;
        }
        Ok(())
    }

    fn mark_confirmed(&self) -> io::Result<()> {
        let sequence = self.summary.sequence;
        // Not charged to the quota: the file is removed in the next step.
        let mark = record(Kind::Confirmed, self.folder.salt(sequence), &self.tail.to_le_bytes());
        let mark = mark.ok_or(ErrorKind::InvalidData)?;
        let file = self.folder.spool.disk.open(&self.path())?;
        file.write_all_at(&[&mark], self.tail)?;
        file.sync_data()
    }

    /// Removes the chunk although the server does not have it.
    ///
    /// # Errors
    /// An error of the disk: the file still exists.
    pub fn discard(&mut self) -> Result<(), SpoolError> {
        if self.gone {
            return Ok(());
        }
        // Not synced: after a power cut the file may reappear, and is then uploaded.
        remove(&self.folder, &self.path())?;
        self.gone = true;
        self.folder.spool.quota.remove(&self.folder.key, &mut self.charge);
        Ok(())
    }

    /// Moves an unusable chunk to the quarantine. Returns its new path.
    ///
    /// # Errors
    /// An error of the disk: the file is not moved.
    pub fn quarantine(&mut self) -> Result<PathBuf, SpoolError> {
        let to = self.folder.quarantine(self.summary.sequence, &mut self.charge)?;
        self.gone = true;
        Ok(to)
    }

    /// Converts the chunk to a [`ShelvedFile`], which takes less memory; after that this value owns no file. Returns `None` and
    /// changes nothing if the chunk has marks, its file was removed, or its values do not fit.
    pub fn shelve(&mut self) -> Option<ShelvedFile> {
        if self.gone || !self.sent.is_empty() {
            // A `ShelvedFile` has no place for marks.
            return None;
        }
        let slack = self.charge.slack_behind(self.tail)?;
        let shelved = ShelvedFile {
            folder: Arc::clone(&self.folder),
            sequence: self.summary.sequence,
            size: self.summary.size,
            start: self.summary.start,
            duration: self.summary.duration,
            tail: self.tail,
            end_len: u32::try_from(self.tail.checked_sub(self.end_at)?).ok()?,
            slack: u32::try_from(slack).ok()?,
            crc32c: self.summary.crc32c,
            suspect: self.summary.suspect,
        };
        // The returned value owns file and charge now: dropping this one must not release them.
        self.gone = true;
        self.charge = Charge::default();
        Some(shelved)
    }

    fn open(&self) -> Result<Arc<dyn DiskFile>, SpoolError> {
        self.folder.open(self.summary.sequence)
    }

    fn charge_to(&mut self, len: u64) -> Result<(), SpoolError> {
        let slack = self.charge.slack_within(len, END_ROOM);
        self.folder.spool.charge(&self.folder.key, &mut self.charge, len, slack)
    }
}

/// A [`Stored`] that was never sent whole, in as little memory as possible: a long outage leaves hundreds of thousands. If
/// dropped, its file stays for the next start.
#[derive(Debug)]
pub struct ShelvedFile {
    folder: Arc<Folder>,
    sequence: u64,
    size: u64,
    start: u64,
    duration: u64,
    tail: u64,
    /// Bytes from the beginning of the End record to the end of the file.
    end_len: u32,
    slack: u32,
    crc32c: u32,
    suspect: bool,
}

impl ShelvedFile {
    /// Returns the summary of the chunk. `destination` is not stored here, the caller supplies it.
    pub fn summary(&self, destination: DestinationId) -> Summary {
        Summary {
            sequence: self.sequence,
            size: self.size,
            crc32c: self.crc32c,
            start: self.start,
            duration: self.duration,
            suspect: self.suspect,
            destination,
        }
    }

    /// Returns the sequence number.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Converts it back to a [`Stored`]. `destination` is not stored here, the caller supplies it.
    pub fn into_stored(mut self, destination: DestinationId) -> Stored {
        let (folder, summary) = (Arc::clone(&self.folder), self.summary(destination));
        Stored::new(
            folder,
            summary,
            self.tail - u64::from(self.end_len),
            self.tail,
            self.take_charge(),
        )
    }

    fn take_charge(&mut self) -> Charge {
        Charge::with_slack(self.tail, std::mem::take(&mut self.slack).into())
    }
}

impl Drop for ShelvedFile {
    fn drop(&mut self) {
        let mut charge = self.take_charge();
        self.folder.spool.quota.release(&mut charge);
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.folder.spool.quota.release(&mut self.charge);
    }
}

/// A half-written chunk of an earlier process. The caller cuts it to its last whole unit and closes it. If dropped, its file
/// stays as it is.
#[derive(Debug)]
pub struct Partial {
    folder: Arc<Folder>,
    entry: Box<Entry>,
    len: u64,
    complete: bool,
    /// Bytes of the file that are known to be durable.
    durable: u64,
    /// End of the last intact record.
    tail: u64,
    attempted: bool,
    sent: Vec<u32>,
    charge: Charge,
    gone: bool,
}

impl Partial {
    pub(super) fn new(folder: Arc<Folder>, entry: Box<Entry>, (len, complete): (u64, bool), scan: &Scan, charge: Charge) -> Self {
        Self {
            folder,
            entry,
            len,
            complete,
            durable: scan.watermark.min(scan.tail),
            tail: scan.tail,
            attempted: scan.attempted,
            sent: scan.sent.clone(),
            charge,
            gone: false,
        }
    }

    /// Returns the path of the chunk's file.
    pub fn path(&self) -> PathBuf {
        self.folder.path(self.entry.sequence)
    }

    /// Returns the entry as written when the chunk began.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Returns the number of intact bytes of the object, header included.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether no byte is intact.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns whether the payload is known to be whole: then nothing must be cut off.
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// Returns whether the process that recorded it has sent, or was about to send, a request for the whole chunk.
    pub fn attempted(&self) -> bool {
        self.attempted
    }

    /// Returns whether that process has sent the whole chunk under this name.
    pub fn was_sent(&self, name: &str) -> bool {
        self.sent.contains(&name_mark(name))
    }

    /// Returns a reader of the intact bytes.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn reader(&self) -> Result<ChunkReader, SpoolError> {
        let records = Records::new(self.folder.open(self.entry.sequence)?, self.folder.salt(self.entry.sequence));
        Ok(ChunkReader::new(records, self.path(), Arc::new(AtomicU64::new(self.len))))
    }

    /// Closes the chunk as [`super::OpenChunk::finish`] does, with the bytes that are intact.
    ///
    /// # Errors
    /// No room, or an error of the disk: the call may be repeated. Or the entry is of another chunk, or longer than the intact
    /// bytes.
    pub fn refinish(&mut self, closed: &ClosedEntry) -> Result<Stored, SpoolError> {
        let (path, sequence) = (self.path(), self.entry.sequence);
        if self.gone || closed.entry.sequence != sequence || closed.entry.session != self.folder.session {
            return Err(SpoolError::misuse(&path, "the closing entry is of another chunk"));
        }
        if closed.size > self.len {
            let what = format!("the closing entry has {} bytes and the file {}", closed.size, self.len);
            return Err(SpoolError::misuse(&path, what));
        }
        let end = self.folder.end_record(closed)?;
        let file = self.folder.open(sequence)?;
        let (end_at, tail) = (self.tail, self.tail.saturating_add(to_u64(end.len())));
        let slack = self.charge.slack_within(tail, END_ROOM);
        self.folder.spool.charge(&self.folder.key, &mut self.charge, tail, slack)?;
        // A sync may have failed in this process or in the one that wrote the file, and the kernel reports that only once.
        self.folder.rewrite(&file, sequence, self.durable, end_at)?;
        // Cuts off torn bytes behind the last intact record.
        let written = file.set_len(end_at).and_then(|()| file.write_all_at(&[&end], end_at));
        written.map_err(|e| SpoolError::io("write", &path, e))?;
        self.folder.sync(&*file, sequence)?;
        let tail = self.folder.seal(&*file, sequence, end_at, tail);
        self.gone = true;
        let mut charge = std::mem::take(&mut self.charge);
        let slack = charge.slack_within(tail, END_ROOM);
        // As in `OpenChunk::finish`: the Footer is written already.
        let _ = self.folder.spool.quota.resize(&self.folder.key, &mut charge, tail, slack);
        Ok(Stored::new(self.folder.clone(), Summary::of(closed), end_at, tail, charge))
    }

    /// Removes the chunk without storing it.
    ///
    /// # Errors
    /// An error of the disk: the file still exists.
    pub fn discard(&mut self) -> Result<(), SpoolError> {
        if self.gone {
            return Ok(());
        }
        remove(&self.folder, &self.path())?;
        self.gone = true;
        self.folder.spool.quota.remove(&self.folder.key, &mut self.charge);
        Ok(())
    }

    /// Moves an unusable chunk to the quarantine. Returns its new path.
    ///
    /// # Errors
    /// An error of the disk: the file is not moved.
    pub fn quarantine(&mut self) -> Result<PathBuf, SpoolError> {
        let to = self.folder.quarantine(self.entry.sequence, &mut self.charge)?;
        self.gone = true;
        Ok(to)
    }
}

/// Removes a file. A file that does not exist is no error: somebody else has removed it.
fn remove(folder: &Folder, path: &Path) -> Result<(), SpoolError> {
    match folder.spool.disk.remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(SpoolError::io("remove", path, e)),
        _ => Ok(()),
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.folder.spool.quota.release(&mut self.charge);
    }
}
