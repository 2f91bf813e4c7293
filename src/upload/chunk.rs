//! A closed chunk, in memory or on disk.
//!
//! Types only. [`Place`] says whether a chunk is in memory or on disk. [`SpooledChunk`] is what a disk has to be able to do; its
//! calls block and are made on tokio's threads for blocking work.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use bytes::Bytes;

use super::scheduler::LinkKey;
use crate::base::lock::lock;
use crate::spool::{ClosedEntry, DestinationId, Entry, Session, ShelvedFile, SpoolError, Stored, name_mark};
use gcstreamer_storage::ObjectRequest;

/// Fields of a chunk's messages. Small, because tens of thousands may wait on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The session that recorded it.
    pub session: Arc<str>,
    /// Sequence number in that session.
    pub sequence: u64,
    /// Capture start, ns since the Unix epoch.
    pub start: u64,
    /// Length in ns.
    pub duration: u64,
    /// Running time of the first buffer in ns.
    pub running: Option<u64>,
    /// Bytes of the object.
    pub size: u64,
}

/// How a chunk is renamed if its name is taken.
#[derive(Clone, Debug)]
pub struct NameFallback {
    /// Property `session-id`.
    pub session: String,
    /// Sequence number.
    pub sequence: u64,
    /// The chunk's own name contains both, so an object of that name can only be this chunk.
    pub own: bool,
    /// The chunk lost its end in a crash and was closed again, and a request for it had been made before. An object stored under
    /// a name of its own may be longer.
    pub rebuilt: bool,
}

/// A closed chunk.
#[derive(Debug)]
pub struct Chunk {
    /// Fields of its messages.
    pub summary: Summary,
    /// Where its bytes are.
    pub place: Place,
    /// It was recorded by a session that ended before it was stored.
    pub recovered: bool,
    /// Its destination, if not that of this sink's own chunks.
    pub link_key: LinkKey,
    /// The name to store it under, if its own name was found taken.
    pub renamed: Option<String>,
    /// When it was closed, ns on the sink's scale.
    pub closed_at: u64,
}

/// Where chunks wait until they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// In memory only.
    Memory,
    /// In memory, and on disk when the memory is full.
    Overflow,
    /// On disk, every buffer as it arrives.
    Always,
}

/// Where the bytes of a chunk are.
#[derive(Clone, Debug)]
pub enum Place {
    /// In memory. Part of it may be on disk, without an end mark.
    Memory(Arc<MemoryChunk>),
    /// On disk, durable.
    Disk(Arc<dyn SpooledChunk>),
}

/// A chunk in memory.
#[derive(Debug)]
pub struct MemoryChunk {
    /// The object to store.
    pub request: ObjectRequest,
    /// How to rename it if its name is taken.
    pub naming: NameFallback,
    /// The names under which it was sent whole.
    pub sent: Arc<SentNames>,
    /// Bytes that the memory is charged with, without `head`.
    pub charged: u64,
    /// Its header, shared with other chunks and charged once, see [`UploadQueue::begin_in_memory`](super::queue::UploadQueue).
    pub head: Bytes,
    /// Its entry on disk; `None` if it cannot be moved there.
    pub entry: Option<Box<crate::spool::Entry>>,
    /// The part of it on disk, without an end mark. Removed when the chunk is stored or dropped by policy.
    pub part: Option<Part>,
}

/// What the disk accepted of a chunk before it refused.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its file.
    pub spooled: Arc<dyn SpooledPart>,
    /// Number of bytes of the object in it, from the start of the object.
    pub len: u64,
    /// The remaining bytes.
    pub rest: Vec<Bytes>,
}

/// A chunk read back from disk.
#[derive(Debug)]
pub struct Loaded {
    /// The object to store.
    pub request: ObjectRequest,
    /// How to rename it if its name is taken.
    pub naming: NameFallback,
    /// The names under which it was sent whole.
    pub sent: Arc<SentNames>,
    /// Its endpoint; `None` = Google.
    pub endpoint: Option<String>,
    /// That endpoint gets no credentials.
    pub anonymous: bool,
    /// Capture start, ns since the Unix epoch.
    pub start: u64,
}

/// Why a chunk could not be read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unloaded {
    /// The bytes on disk differ from what was written, or somebody has removed the file: it belongs in the quarantine.
    Damaged(String),
    /// The disk failed, or a limit of the process was reached. The chunk is unchanged and may be read another time.
    Unreadable(String),
    /// The disk does not answer.
    Hung(String),
    /// It is stored already: its attempt was aborted after the server had confirmed it.
    Stored(StoredAs),
}

/// A chunk that the server has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAs {
    /// The object's name.
    pub name: String,
    /// Property `device-id` of the sink that recorded it.
    pub device: String,
    /// `None` if reading the object is not permitted.
    pub generation: Option<i64>,
    /// Size, bytes.
    pub size: u64,
    /// CRC32C of its bytes.
    pub crc32c: u32,
    /// Capture start, ns since the Unix epoch.
    pub start: u64,
}

/// A closed chunk on disk. All calls block.
pub trait SpooledChunk: Send + Sync + fmt::Debug {
    /// Reads the description of the object. Corrects its time first, if it was recorded before the clock was set and the right
    /// time is known by now.
    ///
    /// # Errors
    /// Why it cannot be read, for the user, and whether it may be readable later.
    fn load(self: Arc<Self>) -> Result<Loaded, Unloaded>;
    /// Records that a request for it is about to be made, durably if the disk accepts it. A closed chunk needs no such mark.
    fn mark_attempted(&self);
    /// Records that it was sent whole under this name. Not synced: the mark may be missing after a power cut, but it is never
    /// there wrongly.
    fn mark_sent(&self, name: &str);
    /// Removes that mark durably: the request under this name stored nothing, or something damaged.
    fn unmark_sent(&self, name: &str);
    /// Records that the server has confirmed it. It is not sent again, even if the attempt is aborted afterwards.
    fn set_stored(&self, _stored: StoredAs) {}
    /// Marks a stored chunk as confirmed and removes its file. Returns whether that is done; otherwise the call has to be
    /// repeated.
    fn confirm(&self) -> bool;
    /// Removes the file of a chunk that was dropped by policy. Returns as [`Self::confirm`].
    fn discard(&self) -> bool;
    /// Returns whether the disk did not answer while its bytes were read, and clears that.
    fn take_hung(&self) -> bool {
        false
    }
    /// Returns a short form from which the chunk can be made again, its destination, and the factory for that. `None` if more is
    /// known of the chunk than the short form holds, or if its destination is not `wanted`.
    fn shelve(&self, _wanted: Option<DestinationId>) -> Option<(ShelvedFile, DestinationId, Arc<dyn Reopen>)> {
        None
    }
    /// Whether somebody has removed its file. If the file is open it can still be read.
    fn is_removed(&self) -> bool {
        false
    }
    /// Returns why the bytes on disk differ from what was written; `None` if no damage was found.
    fn damage(&self) -> Option<String>;
    /// Moves a damaged chunk to the quarantine, where it blocks nothing. Returns a text for the user with the new path.
    fn set_aside(&self, why: &str) -> String;
}

/// Makes shelved chunks again.
pub trait Reopen: Send + Sync {
    /// Makes the chunk of a file in the spool. Does not block.
    fn reopen(self: Arc<Self>, stored: Stored) -> Arc<dyn SpooledChunk>;
}

/// A part of a chunk on disk, without an end mark. All calls block.
pub trait SpooledPart: SpooledChunk {
    /// Moves it to the session's current folder if somebody has removed the folder that it is in: the open file can still be
    /// read.
    ///
    /// # Errors
    /// The disk refused; nothing has changed.
    fn rescue(&self, session: &Session, entry: &Entry) -> Result<(), SpoolError>;

    /// Writes the missing bytes and the End, durably. `None`: `is_wanted` returned false before the End was written.
    ///
    /// # Errors
    /// The disk refused. The bytes that were there stay, and the call may be repeated.
    fn complete(&self, part: &Part, closed: &ClosedEntry, is_wanted: &dyn Fn() -> bool) -> Result<Option<Stored>, SpoolError>;
}

/// The names under which one chunk was sent whole, in memory. [`super::marks`] maintains them.
#[derive(Debug, Default)]
pub struct SentNames {
    names: Mutex<Names>,
    /// The chunk on disk that this one was moved to while an attempt may have been sending it from memory.
    moved: OnceLock<Weak<dyn SpooledChunk>>,
}

#[derive(Debug, Default)]
struct Names {
    sent: Vec<u32>,
    /// Names under which a damaged object was stored: in this process they prove nothing any more.
    void: Vec<u32>,
}

impl SentNames {
    /// Creates the set from recorded names, see [`name_mark`].
    pub fn known(sent: Vec<u32>) -> Self {
        let void = Vec::new();
        Self {
            names: Mutex::new(Names { sent, void }),
            moved: OnceLock::new(),
        }
    }

    /// Whether the chunk was sent whole under this name.
    pub fn has(&self, name: &str) -> bool {
        lock(&self.names).sent.contains(&name_mark(name))
    }

    /// Records that the chunk is on disk now, so that an attempt which still sends it from memory sets its marks there.
    pub(super) fn moved_to(&self, spooled: Weak<dyn SpooledChunk>) {
        let _ = self.moved.set(spooled);
    }

    /// Returns the chunk on disk that this one was moved to, if it still exists.
    pub(super) fn moved(&self) -> Option<Arc<dyn SpooledChunk>> {
        self.moved.get()?.upgrade()
    }

    /// Returns the marks of all names.
    pub fn all(&self) -> Vec<u32> {
        lock(&self.names).sent.clone()
    }

    /// Whether there is no mark.
    pub fn is_empty(&self) -> bool {
        lock(&self.names).sent.is_empty()
    }

    /// Returns how many damaged objects were stored for the chunk, under any name.
    pub(super) fn damaged_objects(&self) -> usize {
        lock(&self.names).void.len()
    }

    /// Adds a name under which the chunk was sent whole. Returns false if the name is known, or proves nothing.
    pub(super) fn insert(&self, name: &str) -> bool {
        let (mut names, mark) = (lock(&self.names), name_mark(name));
        let is_new = !names.void.contains(&mark) && !names.sent.contains(&mark);
        if is_new {
            names.sent.push(mark);
        }
        is_new
    }

    /// Removes a name whose request stored nothing. `for_good`: it stored something damaged, and the name proves nothing any
    /// more.
    pub(super) fn remove(&self, name: &str, for_good: bool) {
        let (mut names, mark) = (lock(&self.names), name_mark(name));
        names.sent.retain(|&known| known != mark);
        if for_good {
            names.void.push(mark);
        }
    }
}

impl Chunk {
    /// Whether all its bytes are on disk, durably.
    pub fn is_on_disk(&self) -> bool {
        matches!(self.place, Place::Disk(_))
    }

    /// Returns the bytes of memory that it is charged with.
    pub fn charged(&self) -> u64 {
        match &self.place {
            Place::Memory(held) => held.charged,
            Place::Disk(_) => 0,
        }
    }

    /// Whether it can be moved to disk.
    pub fn is_movable(&self) -> bool {
        matches!(&self.place, Place::Memory(held) if held.entry.is_some())
    }

    /// Returns the part that the disk accepted before it refused; `None` if that is nothing, or all of it.
    pub fn part(&self) -> Option<&Part> {
        match &self.place {
            Place::Memory(held) => held.part.as_ref(),
            Place::Disk(_) => None,
        }
    }
}
