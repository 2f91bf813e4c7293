//! Chunks of the spool as objects to store: their bytes are read from their files.
//!
//! Blocks on the disk. Errors while marking or removing a file are not logged and lose nothing: the next start finds the chunk
//! again, and its upload meets its own object.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::chunk::NameFallback;
use super::chunk::SentNames;
use super::chunk::{Loaded, Part, Reopen, SpooledChunk, SpooledPart, StoredAs, Unloaded};
use super::redate::redate;
use crate::base::boot;
use crate::base::clock::Clock;
use crate::base::lock::lock;
use crate::spool::{
    Boots, ChunkReader, ClosedEntry, DestinationId, Entry, OpenChunk, Session, ShelvedFile, SpoolError, Stored, name_mark,
};
use gcstreamer_storage::{Backing, Body, ObjectRequest};

/// The present time if the clock can be trusted, and what is known of the times of other boots.
pub struct Times {
    boots: Mutex<Boots>,
    boot_id: String,
    clock: Clock,
    /// Whether this machine's wall clock is known to be wrong.
    is_off: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Times {
    /// Creates the times; nothing is known of other boots yet. `is_off` returns whether the wall clock is known to be wrong.
    pub fn new(clock: Clock, is_off: Box<dyn Fn() -> bool + Send + Sync>) -> Self {
        Self {
            boots: Mutex::default(),
            boot_id: boot::boot_id().unwrap_or_default(),
            clock,
            is_off,
        }
    }

    /// Merges the facts that spool entries hold about boots.
    pub fn learn(&self, boots: &Boots) {
        lock(&self.boots).merge(boots);
    }

    fn now(&self) -> Boots {
        let mut boots = Boots::default();
        let wall = (self.clock.wall)();
        // Learn the current boot before merging the others: the first value for a boot is kept.
        if !(self.is_off)() && wall >= gcstreamer_media::chunk::clock::EARLIEST_PLAUSIBLE {
            boots.learn(&self.boot_id, wall, (self.clock.boot)());
        }
        boots.merge(&lock(&self.boots));
        boots
    }
}

impl fmt::Debug for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Times")
            .field("boots", &self.boots)
            .field("boot_id", &self.boot_id)
            .finish_non_exhaustive()
    }
}

impl Reopen for Times {
    fn reopen(self: Arc<Self>, stored: Stored) -> Arc<dyn SpooledChunk> {
        ChunkFile::new(stored, self)
    }
}

/// A closed chunk on disk.
pub struct ChunkFile {
    stored: Mutex<Stored>,
    /// The names under which it was sent whole, including those that the disk did not accept.
    sent: Arc<SentNames>,
    times: Arc<Times>,
    damage: OnceLock<String>,
    /// The disk did not answer while its bytes were read.
    is_hung: AtomicBool,
    /// Set once the server has confirmed it.
    stored_as: OnceLock<StoredAs>,
}

impl ChunkFile {
    /// Creates the chunk of a closed file.
    pub fn new(stored: Stored, times: Arc<Times>) -> Arc<Self> {
        let sent = Arc::new(SentNames::known(stored.sent().to_vec()));
        Arc::new(Self {
            stored: Mutex::new(stored),
            sent,
            times,
            damage: OnceLock::new(),
            is_hung: AtomicBool::new(false),
            stored_as: OnceLock::new(),
        })
    }

    /// Creates the chunk of a file that was just moved from memory. It may have been sent from there, so its marks are written to
    /// disk too.
    pub fn moved(stored: Stored, sent: Arc<SentNames>, times: Arc<Times>) -> Arc<Self> {
        let chunk = Arc::new(Self {
            stored: Mutex::new(stored),
            sent,
            times,
            damage: OnceLock::new(),
            is_hung: AtomicBool::new(false),
            stored_as: OnceLock::new(),
        });
        let spooled: Arc<dyn SpooledChunk> = Arc::<Self>::clone(&chunk);
        // First the link, then the loop: a name that is added meanwhile is marked either by its request or by the loop below.
        chunk.sent.moved_to(Arc::downgrade(&spooled));
        for mark in chunk.sent.all() {
            // An error is ignored: a missing mark costs a second object at most.
            let _ = lock(&chunk.stored).mark_sent(mark);
        }
        chunk
    }

    fn read_entry(&self) -> Result<ClosedEntry, SpoolError> {
        let mut stored = lock(&self.stored);
        let closed = stored.load()?;
        // It may be in the bucket under its present name. Under a corrected name it would be stored twice.
        if !self.sent.is_empty() || closed.entry.sent {
            return Ok(closed);
        }
        let Some(entry) = redate(&closed.entry, &self.times.now()) else {
            return Ok(closed);
        };
        // Written before the first attempt, durably: after a crash it is tried under the same name.
        let redated = ClosedEntry { entry, ..closed.clone() };
        match stored.amend(&redated) {
            Ok(()) => Ok(redated),
            // Better stored with its old date than waiting for a disk without room: sending it makes room.
            Err(e) if e.takes_nothing() => Ok(closed),
            Err(e) => Err(e),
        }
    }
}

impl fmt::Debug for ChunkFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkFile({})", lock(&self.stored).path().display())
    }
}

impl SpooledChunk for ChunkFile {
    fn load(self: Arc<Self>) -> Result<Loaded, Unloaded> {
        if let Some(stored) = self.stored_as.get() {
            return Err(Unloaded::Stored(stored.clone()));
        }
        let closed = self.read_entry().map_err(|e| {
            // A removed file does not come back: report a gap instead of retrying.
            let is_lost = matches!(e, SpoolError::Damaged { .. }) || lock(&self.stored).is_removed();
            let kind = match (is_lost, e.is_hung()) {
                (true, _) => Unloaded::Damaged,
                (false, true) => Unloaded::Hung,
                (false, false) => Unloaded::Unreadable,
            };
            kind(e.to_string())
        })?;
        let body = Body::backed(
            Arc::new(FileBody {
                chunk: Arc::clone(&self),
                reader: Mutex::new(None),
            }),
            closed.size,
            [],
        );
        let sent = Arc::clone(&self.sent);
        // A mark from before the chunk was rebuilt. The new End follows the old marks in the file, so they no longer count; the
        // entry records them.
        if closed.entry.sent {
            sent.insert(&closed.entry.name);
        }
        Ok(loaded(closed, body, sent))
    }

    fn mark_attempted(&self) {
        // Nothing to do: the End of a closed chunk implies that there may have been requests.
    }

    fn mark_sent(&self, name: &str) {
        // An error is ignored, as in `moved`.
        let _ = lock(&self.stored).mark_sent(name_mark(name));
    }

    fn unmark_sent(&self, name: &str) {
        let mut stored = lock(&self.stored);
        // An error is ignored: the marks in memory decide, and this one can reappear only at the next start.
        let _ = stored.unmark_sent(name_mark(name));
        // The entry may also record a mark from before the chunk was rebuilt.
        if let Ok(closed) = stored.load()
            && closed.entry.sent
        {
            let entry = Entry {
                sent: false,
                ..closed.entry.clone()
            };
            let _ = stored.amend(&ClosedEntry { entry, ..closed });
        }
    }

    fn set_stored(&self, stored: StoredAs) {
        let _ = self.stored_as.set(stored);
    }

    fn confirm(&self) -> bool {
        lock(&self.stored).confirm().is_ok()
    }

    fn discard(&self) -> bool {
        lock(&self.stored).discard().is_ok()
    }

    fn take_hung(&self) -> bool {
        self.is_hung.swap(false, Ordering::Relaxed)
    }

    fn shelve(&self, wanted: Option<DestinationId>) -> Option<(ShelvedFile, DestinationId, Arc<dyn Reopen>)> {
        let has_story = self.damage.get().is_some() || self.stored_as.get().is_some() || !self.sent.is_empty();
        // An attempt that began in memory shares the names and may still add one.
        if has_story || Arc::strong_count(&self.sent) != 1 {
            return None;
        }
        let mut stored = lock(&self.stored);
        let destination = stored.summary().destination;
        if wanted.is_some_and(|wanted| wanted != destination) {
            return None;
        }
        Some((stored.shelve()?, destination, Arc::<Times>::clone(&self.times)))
    }

    fn is_removed(&self) -> bool {
        lock(&self.stored).is_removed()
    }

    fn damage(&self) -> Option<String> {
        self.damage.get().cloned()
    }

    fn set_aside(&self, why: &str) -> String {
        let mut stored = lock(&self.stored);
        if stored.is_removed() {
            // The file is gone already: this gives back its room in the quota.
            let _ = stored.discard();
            return format!(
                "somebody has removed {} in spool-dir: the chunk is lost",
                stored.path().display()
            );
        }
        match stored.quarantine() {
            Ok(path) => format!(
                "a chunk of the spool cannot be used and was set aside as {}: {why}",
                path.display()
            ),
            Err(e) => format!("a chunk of the spool cannot be used ({why}), nor set aside: {e}"),
        }
    }
}

/// Converts an entry to the object to store.
fn loaded(closed: ClosedEntry, body: Body, sent: Arc<SentNames>) -> Loaded {
    let ClosedEntry { entry, size, crc32c } = closed;
    let custom_time = entry
        .custom_time
        .and_then(|ns| SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(ns)));
    Loaded {
        request: ObjectRequest {
            bucket: entry.bucket,
            name: entry.name,
            content_type: entry.content_type.unwrap_or_else(|| "application/octet-stream".to_owned()),
            cache_control: entry.cache_control,
            storage_class: entry.storage_class,
            kms_key: entry.kms_key,
            metadata: entry.metadata,
            custom_time,
            crc32c,
            size,
            body,
        },
        naming: NameFallback {
            session: entry.session,
            sequence: entry.sequence,
            own: entry.own_name,
            // If no request was made before the crash, a longer object of that name is another chunk's.
            rebuilt: entry.rebuilt && entry.attempted,
        },
        sent,
        endpoint: entry.endpoint,
        anonymous: entry.anonymous,
        start: entry.start,
    }
}

/// The bytes of a closed chunk. Its file is open only while an attempt reads it.
struct FileBody {
    chunk: Arc<ChunkFile>,
    reader: Mutex<Option<ChunkReader>>,
}

impl fmt::Debug for FileBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chunk.fmt(f)
    }
}

impl Backing for FileBody {
    fn read_at(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        let mut reader = lock(&self.reader);
        // Opened at the first read: an attempt that waits for a limit holds no file descriptor.
        if reader.is_none() {
            let opened = lock(&self.chunk.stored).reader().map_err(|e| {
                self.chunk.is_hung.fetch_or(e.is_hung(), Ordering::Relaxed);
                io::Error::other(e)
            });
            *reader = Some(opened?);
        }
        let Some(reader) = reader.as_mut() else {
            return Ok(Bytes::new());
        };
        reader.read_at(offset, most).inspect_err(|e| match e.kind() {
            io::ErrorKind::InvalidData => drop(self.chunk.damage.set(e.to_string())),
            io::ErrorKind::TimedOut => self.chunk.is_hung.store(true, Ordering::Relaxed),
            _ => {}
        })
    }
}

/// The part of a chunk that the disk accepted before it refused. It has no end mark, and is sent together with the rest in
/// memory. After a crash the next start finds it and stores its whole units.
#[derive(Debug)]
pub struct PartialFile {
    open: Mutex<OpenChunk>,
    reader: Mutex<ChunkReader>,
    /// The disk did not answer while its bytes were read.
    is_hung: AtomicBool,
}

impl PartialFile {
    /// Creates the part of a file without an end.
    pub fn new(open: OpenChunk) -> Arc<Self> {
        let reader = Mutex::new(open.reader());
        Arc::new(Self {
            open: Mutex::new(open),
            reader,
            is_hung: AtomicBool::new(false),
        })
    }

    /// Removes the file, unless it has become a whole chunk. Returns whether that is done.
    fn remove(&self) -> bool {
        let mut open = lock(&self.open);
        open.is_closed() || open.abandon().is_ok()
    }

    /// Returns the bytes of the object in it.
    pub fn len(&self) -> u64 {
        lock(&self.open).len_on_file()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Backing for PartialFile {
    fn read_at(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        lock(&self.reader).read_at(offset, most).inspect_err(|e| {
            if e.kind() == io::ErrorKind::TimedOut {
                self.is_hung.store(true, Ordering::Relaxed);
            }
        })
    }
}

impl SpooledPart for PartialFile {
    fn rescue(&self, session: &Session, entry: &Entry) -> Result<(), SpoolError> {
        let mut open = lock(&self.open);
        // Stored meanwhile: there is nothing to move or to finish.
        if open.is_closed() {
            return Ok(());
        }
        if session.rescue(&mut open, entry)? {
            *lock(&self.reader) = open.reader();
        }
        Ok(())
    }

    fn complete(&self, part: &Part, closed: &ClosedEntry, is_wanted: &dyn Fn() -> bool) -> Result<Option<Stored>, SpoolError> {
        let mut open = lock(&self.open);
        if open.is_closed() {
            return Ok(None);
        }
        open.append(part.len, &part.rest)?;
        is_wanted().then(|| open.finish(closed)).transpose()
    }
}

impl SpooledChunk for PartialFile {
    fn load(self: Arc<Self>) -> Result<Loaded, Unloaded> {
        Err(Unloaded::Damaged("it has no end mark".to_owned()))
    }

    fn mark_attempted(&self) {
        // As far as the disk accepts it: the chunk is in memory and is sent all the same.
        let _ = lock(&self.open).mark_attempted();
    }

    fn mark_sent(&self, name: &str) {
        let _ = lock(&self.open).mark_sent(name_mark(name));
    }

    fn unmark_sent(&self, name: &str) {
        let _ = lock(&self.open).unmark_sent(name_mark(name));
    }

    fn confirm(&self) -> bool {
        self.remove()
    }

    fn discard(&self) -> bool {
        self.remove()
    }

    fn take_hung(&self) -> bool {
        self.is_hung.swap(false, Ordering::Relaxed)
    }

    fn damage(&self) -> Option<String> {
        None
    }

    fn set_aside(&self, why: &str) -> String {
        why.to_owned()
    }
}
