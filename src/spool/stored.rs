//! Chunks that wait: closed ones, which may be uploaded, and half-written ones of an earlier process.

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

/// Most End records are shorter.
const END_READ: usize = 16 << 10;

/// A closed chunk that is durable, and so may be uploaded. It is small: its entry and its bytes are read when it is its
/// turn. Dropped, it stays for the next start.
#[derive(Debug)]
pub struct Stored {
    folder: Arc<Folder>,
    summary: Summary,
    /// Where the End record is.
    end_at: u64,
    /// Where the file ends.
    tail: u64,
    /// Names under which it was sent whole, as they stand in the file; see [`name_mark`](super::entry::name_mark).
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

    /// Its file.
    pub fn path(&self) -> PathBuf {
        self.folder.path(self.summary.sequence)
    }

    /// Marks of the names under which it was sent whole.
    pub fn sent(&self) -> &[u32] {
        &self.sent
    }

    /// Bytes of the object.
    pub fn size(&self) -> u64 {
        self.summary.size
    }

    /// What is kept of the entry in memory.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// The session it was taken in.
    pub fn session(&self) -> &str {
        &self.folder.session
    }

    /// Whether somebody has removed the file, alone or with its folder. A file system that is away does not count.
    pub fn is_removed(&self) -> bool {
        let disk = &self.folder.spool.disk;
        match disk.open(&self.path()) {
            // The folder has to be there, or known to be removed: on an unmounted file system nothing is found either.
            Err(e) if e.kind() == ErrorKind::NotFound => self.folder.is_removed() || disk.list(&self.folder.dir).is_ok(),
            _ => false,
        }
    }

    /// Reads the entry.
    ///
    /// # Errors
    /// The disk; [`SpoolError::Damaged`]: it belongs into the quarantine.
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

    /// Reads the object.
    ///
    /// # Errors
    /// The disk.
    pub fn reader(&self) -> Result<ChunkReader, SpoolError> {
        // Up to the size of the entry: bytes that were written ahead of the cut may follow.
        let records = Records::new(self.open()?, self.folder.salt(self.summary.sequence));
        Ok(ChunkReader::new(
            records,
            self.path(),
            Arc::new(AtomicU64::new(self.summary.size)),
        ))
    }

    /// Gives the chunk other values, a name or a time, durably. Size and CRC32C stay.
    ///
    /// # Errors
    /// No room, or the disk: the old values count then. The entry is of another chunk.
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
        // The Footer and the marks behind it were never synced, or by a process whose sync failed: a hole there would hide the new
        // End.
        self.folder.write_anew(&file, self.summary.sequence, self.end_at, end_at)?;
        let written = file.write_all_at(&[&end], end_at).and_then(|()| file.sync_data());
        if let Err(e) = written {
            let _ = file.set_len(end_at);
            let _ = self.charge_to(end_at);
            // The Footer in front may be among what the kernel has given up.
            self.folder.write_anew(&file, self.summary.sequence, self.end_at, end_at)?;
            return Err(SpoolError::io("write", &path, e));
        }
        self.end_at = end_at;
        // Marks count only behind the last End.
        self.sent.clear();
        self.tail = self.folder.seal(&*file, self.summary.sequence, end_at, tail);
        self.summary = Summary::of(closed);
        let _ = self.charge_to(self.tail);
        Ok(())
    }

    /// The object was sent whole under a name: the server may have it. Not synced; without room there is no mark.
    ///
    /// # Errors
    /// No room, or the disk: the file is as it was.
    pub fn mark_sent(&mut self, mark: u32) -> Result<(), SpoolError> {
        if self.gone || self.sent.contains(&mark) {
            return Ok(());
        }
        let file = self.open()?;
        let (from, to) = (self.tail, self.tail.saturating_add(to_u64(MARK_LEN)));
        self.charge_to(to)?;
        if let Err(e) = self.folder.write_sent(&*file, self.summary.sequence, mark, from) {
            // What is left of a mark would cost the next start a walk through the whole file.
            let _ = file.set_len(from);
            let _ = self.charge_to(from);
            return Err(e);
        }
        self.tail = to;
        self.sent.push(mark);
        Ok(())
    }

    /// That mark is not true any more: takes it off the file, durably. Needs no room.
    ///
    /// # Errors
    /// The disk: the mark may come back at the next start.
    pub fn unmark_sent(&mut self, mark: u32) -> Result<(), SpoolError> {
        let Some(first) = self.sent.iter().position(|known| *known == mark).filter(|_| !self.gone) else {
            return Ok(());
        };
        // Those behind it go as well: they are only ever missed.
        let marks = to_u64(self.sent.len().saturating_sub(first)).saturating_mul(to_u64(MARK_LEN));
        let tail = self.tail.saturating_sub(marks);
        let file = self.open()?;
        let path = self.path();
        file.set_len(tail).map_err(|e| SpoolError::io("cut", &path, e))?;
        // Even if the sync fails: the next record has to follow the bytes that are left.
        self.sent.truncate(first);
        self.tail = tail;
        let _ = self.charge_to(tail);
        file.sync_data().map_err(|e| SpoolError::io("sync", &path, e))
    }

    /// The server has the chunk: marks the file durably and removes it. May be called again after an error.
    ///
    /// # Errors
    /// The disk: the file may come back at the next start then, and be sent again.
    pub fn confirm(&mut self) -> Result<(), SpoolError> {
        if self.gone {
            return Ok(());
        }
        let marked = self.mark_confirmed();
        // Also without the mark: a full disk has no room for it, and this makes some.
        self.discard()?;
        if marked.is_err() {
            // Without the mark the file must not come back.
            self.folder.sync_names()?;
        }
        Ok(())
    }

    fn mark_confirmed(&self) -> io::Result<()> {
        let sequence = self.summary.sequence;
        // Not counted: the file is removed in the next step.
        let mark = record(Kind::Confirmed, self.folder.salt(sequence), &self.tail.to_le_bytes());
        let mark = mark.ok_or(ErrorKind::InvalidData)?;
        let file = self.folder.spool.disk.open(&self.path())?;
        file.write_all_at(&[&mark], self.tail)?;
        file.sync_data()
    }

    /// Removes the chunk without its being stored.
    ///
    /// # Errors
    /// The disk: the file is still there then.
    pub fn discard(&mut self) -> Result<(), SpoolError> {
        if self.gone {
            return Ok(());
        }
        // Not synced: a power cut may bring it back, and then it is stored after all.
        remove(&self.folder, &self.path())?;
        self.gone = true;
        self.folder.spool.quota.remove(&self.folder.key, &mut self.charge);
        Ok(())
    }

    /// Sets the chunk aside: it cannot be used. Where it is now.
    ///
    /// # Errors
    /// The disk: it is where it was then.
    pub fn quarantine(&mut self) -> Result<PathBuf, SpoolError> {
        let to = self.folder.quarantine(self.summary.sequence, &mut self.charge)?;
        self.gone = true;
        Ok(to)
    }

    /// Goes on as what is returned: this one has no file any more. `None`: it was sent, or its file is gone.
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
        // File and charge belong to what is returned: this one must not release them.
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

/// A [`Stored`] that nobody has sent yet, as small as it can be: hundreds of thousands may wait. Dropped, it stays for the next start
/// too.
#[derive(Debug)]
pub struct ShelvedFile {
    folder: Arc<Folder>,
    sequence: u64,
    size: u64,
    start: u64,
    duration: u64,
    tail: u64,
    /// From the End record to the tail.
    end_len: u32,
    slack: u32,
    crc32c: u32,
    suspect: bool,
}

impl ShelvedFile {
    /// What is known of the chunk, which goes there.
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

    /// Its sequence number.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The chunk, which goes there.
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

/// A half-written chunk of an earlier process: to be cut to its last whole unit and closed. Dropped, it stays as it is.
#[derive(Debug)]
pub struct Partial {
    folder: Arc<Folder>,
    entry: Box<Entry>,
    len: u64,
    complete: bool,
    /// Bytes of the file that are known to be durable.
    durable: u64,
    /// Where its last sound record ends.
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

    /// Its file.
    pub fn path(&self) -> PathBuf {
        self.folder.path(self.entry.sequence)
    }

    /// What was known when it began.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Sound bytes of the object, header included.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing of it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the payload is known to be whole: then nothing is to be cut off.
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// Whether a request for the whole chunk was made, or was about to be, by the process that recorded it.
    pub fn attempted(&self) -> bool {
        self.attempted
    }

    /// Whether that process sent the whole chunk under this name.
    pub fn was_sent(&self, name: &str) -> bool {
        self.sent.contains(&name_mark(name))
    }

    /// Reads its sound bytes.
    ///
    /// # Errors
    /// The disk.
    pub fn reader(&self) -> Result<ChunkReader, SpoolError> {
        let records = Records::new(self.folder.open(self.entry.sequence)?, self.folder.salt(self.entry.sequence));
        Ok(ChunkReader::new(records, self.path(), Arc::new(AtomicU64::new(self.len))))
    }

    /// Closes it as [`super::OpenChunk::finish`] does, with what is found of it.
    ///
    /// # Errors
    /// No room, or the disk: the call may be made again. The entry is of another chunk, or longer than what there is.
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
        // A sync may have failed before, in this process or in the one that wrote it.
        self.folder.write_anew(&file, sequence, self.durable, end_at)?;
        // What a crash tore lies behind the tail.
        let written = file.set_len(end_at).and_then(|()| file.write_all_at(&[&end], end_at));
        written.map_err(|e| SpoolError::io("write", &path, e))?;
        self.folder.sync(&*file, sequence)?;
        let tail = self.folder.seal(&*file, sequence, end_at, tail);
        self.gone = true;
        let mut charge = std::mem::take(&mut self.charge);
        let slack = charge.slack_within(tail, END_ROOM);
        let _ = self.folder.spool.quota.resize(&self.folder.key, &mut charge, tail, slack);
        Ok(Stored::new(self.folder.clone(), Summary::of(closed), end_at, tail, charge))
    }

    /// Removes it without its being stored.
    ///
    /// # Errors
    /// The disk: the file is still there then.
    pub fn discard(&mut self) -> Result<(), SpoolError> {
        if self.gone {
            return Ok(());
        }
        remove(&self.folder, &self.path())?;
        self.gone = true;
        self.folder.spool.quota.remove(&self.folder.key, &mut self.charge);
        Ok(())
    }

    /// Sets it aside: it cannot be used. Where it is now.
    ///
    /// # Errors
    /// The disk: it is where it was then.
    pub fn quarantine(&mut self) -> Result<PathBuf, SpoolError> {
        let to = self.folder.quarantine(self.entry.sequence, &mut self.charge)?;
        self.gone = true;
        Ok(to)
    }
}

/// Removes a file; one that somebody else has removed is gone as well.
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
