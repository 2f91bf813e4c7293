//! A closed chunk on its way, wherever its bytes are.
//!
//! Types alone. Memory or disk is a [`Place`]; what a disk has to be able to do is [`SpooledChunk`], whose calls block and are made
//! on tokio's threads for blocking work.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use bytes::Bytes;

use super::scheduler::LinkKey;
use crate::base::lock::lock;
use crate::spool::{ClosedEntry, DestinationId, Entry, Session, ShelvedFile, SpoolError, Stored, name_mark};
use gcstreamer_storage::ObjectRequest;

/// Fields of a chunk's messages. Small: tens of thousands may wait on disk.
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

/// How the chunk may be called if its name is taken.
#[derive(Clone, Debug)]
pub struct NameFallback {
    /// Property `session-id`.
    pub session: String,
    /// Sequence number.
    pub sequence: u64,
    /// The name holds both: an object of that name can only be ours.
    pub own: bool,
    /// Its end was lost in a crash and made again, and a request for it had been made before: what stands there under a name of
    /// our own may be longer.
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
    /// Where it goes, if not where this sink's own chunks go.
    pub link_key: LinkKey,
    /// The name to store it under where its own is taken.
    pub renamed: Option<String>,
    /// When it was closed, ns on the sink's scale.
    pub closed_at: u64,
}

/// Where chunks wait until they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// In memory alone.
    Memory,
    /// In memory, and on disk when that is full.
    Overflow,
    /// On disk, every buffer as it comes.
    Always,
}

/// Where the bytes of a chunk are.
#[derive(Clone, Debug)]
pub enum Place {
    /// In memory, or too little of it on disk to count.
    Memory(Arc<MemoryChunk>),
    /// On disk, durable.
    Disk(Arc<dyn SpooledChunk>),
}

/// A chunk in memory.
#[derive(Debug)]
pub struct MemoryChunk {
    /// The object it becomes.
    pub request: ObjectRequest,
    /// What it may be called.
    pub naming: NameFallback,
    /// Under which names it was sent whole.
    pub sent: Arc<SentNames>,
    /// Bytes that the memory is charged with, without `head`.
    pub charged: u64,
    /// Its header, which other chunks have too: charged once, see [`UploadQueue::begin_in_memory`](super::queue::UploadQueue).
    pub head: Bytes,
    /// What it is on disk; `None` where it cannot be moved there.
    pub entry: Option<Box<crate::spool::Entry>>,
    /// The part of it on disk, which has no end mark: removed when the chunk is stored or dropped by policy.
    pub part: Option<Part>,
}

/// What the disk took of a chunk before it refused.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its file.
    pub spooled: Arc<dyn SpooledPart>,
    /// Bytes of the object in it, from the first on.
    pub len: u64,
    /// The bytes behind them.
    pub rest: Vec<Bytes>,
}

/// A chunk as it was read back from disk.
#[derive(Debug)]
pub struct Loaded {
    /// The object it becomes.
    pub request: ObjectRequest,
    /// What it may be called.
    pub naming: NameFallback,
    /// Under which names it was sent whole.
    pub sent: Arc<SentNames>,
    /// Where it belongs; `None` = Google.
    pub endpoint: Option<String>,
    /// That endpoint gets no credentials.
    pub anonymous: bool,
    /// Capture start, ns since the Unix epoch.
    pub start: u64,
}

/// Why a chunk could not be read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unloaded {
    /// The bytes on disk are not what was written, or somebody has removed them: it belongs into the quarantine.
    Damaged(String),
    /// The disk, or a limit of the process: it is where it was, and may be read another time.
    Unreadable(String),
    /// The disk does not answer.
    Hung(String),
    /// It was stored: an attempt was broken off after the server had said so.
    Stored(StoredAs),
}

/// What is known of a chunk that the server has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAs {
    /// The object's name.
    pub name: String,
    /// Property `device-id` of the sink that recorded it.
    pub device: String,
    /// `None` where the server may not be asked.
    pub generation: Option<i64>,
    /// Bytes.
    pub size: u64,
    /// CRC32C of its bytes.
    pub crc32c: u32,
    /// Capture start, ns since the Unix epoch.
    pub start: u64,
}

/// A chunk that is kept on disk. All calls block.
pub trait SpooledChunk: Send + Sync + fmt::Debug {
    /// Reads what the object is. Its time is set right first, where the clock could not be when it was taken.
    ///
    /// # Errors
    /// Why it cannot be read, for the user, and whether it ever can.
    fn load(self: Arc<Self>) -> Result<Loaded, Unloaded>;
    /// A request for it is about to be made: durable where the disk takes it. A closed chunk needs no such mark.
    fn mark_attempted(&self);
    /// It was sent whole under this name. Not synced: it may be missing after a power cut, and is never there untruly.
    fn mark_sent(&self, name: &str);
    /// The request under this name has stored nothing, or something damaged: takes the mark back, durably.
    fn unmark_sent(&self, name: &str);
    /// The server has said that it has it. Whatever becomes of the attempt from here on, it is not sent again.
    fn set_stored(&self, _stored: StoredAs) {}
    /// The server has it: it is marked, and removed. Returns whether that is done; else it is to be asked again.
    fn confirm(&self) -> bool;
    /// It is dropped by policy: removed. Returns the same.
    fn discard(&self) -> bool;
    /// Whether the disk did not answer while its bytes were read. Asking takes the answer back.
    fn take_hung(&self) -> bool {
        false
    }
    /// What is enough to make it again, which goes on in its place; `None` if more is known of it than that, or it goes elsewhere.
    fn shelve(&self, _wanted: Option<DestinationId>) -> Option<(ShelvedFile, DestinationId, Arc<dyn Reopen>)> {
        None
    }
    /// Whether somebody has removed its file. An open file can be read all the same.
    fn is_removed(&self) -> bool {
        false
    }
    /// Why the bytes on disk are not those that were written; `None` while no damage was found.
    fn damage(&self) -> Option<String>;
    /// Damaged: put where it blocks nothing. Says where that is.
    fn set_aside(&self, why: &str) -> String;
}

/// Makes chunks again that were shelved.
pub trait Reopen: Send + Sync {
    /// From the spool. Does not block.
    fn reopen(self: Arc<Self>, stored: Stored) -> Arc<dyn SpooledChunk>;
}

/// A chunk without an end on disk. All calls block.
pub trait SpooledPart: SpooledChunk {
    /// Moves it to the session's folder if somebody has removed the one that it is in: its bytes can still be read.
    ///
    /// # Errors
    /// The disk: it is as it was.
    fn rescue(&self, session: &Session, entry: &Entry) -> Result<(), SpoolError>;

    /// Writes the bytes that are missing and the end, durably. `None`: `is_wanted` said no before the end was written.
    ///
    /// # Errors
    /// The disk: what was there before stays, and the call may be made again.
    fn complete(&self, part: &Part, closed: &ClosedEntry, is_wanted: &dyn Fn() -> bool) -> Result<Option<Stored>, SpoolError>;
}

/// The names under which one chunk was sent whole, in memory. [`super::marks`] keeps them.
#[derive(Debug, Default)]
pub struct SentNames {
    names: Mutex<Names>,
    /// Where the chunk was moved to while it may have been sent from memory.
    moved: OnceLock<Weak<dyn SpooledChunk>>,
}

#[derive(Debug, Default)]
struct Names {
    sent: Vec<u32>,
    /// A damaged object stood there: in this process the name proves nothing any more.
    void: Vec<u32>,
}

impl SentNames {
    /// Names that were written down, see [`name_mark`].
    pub fn known(sent: Vec<u32>) -> Self {
        let void = Vec::new();
        Self {
            names: Mutex::new(Names { sent, void }),
            moved: OnceLock::new(),
        }
    }

    /// Whether it was sent whole under this name.
    pub fn has(&self, name: &str) -> bool {
        lock(&self.names).sent.contains(&name_mark(name))
    }

    /// The chunk is on disk now: what is still being sent from memory marks it there.
    pub(super) fn moved_to(&self, spooled: Weak<dyn SpooledChunk>) {
        let _ = self.moved.set(spooled);
    }

    /// Where the chunk was moved to, while it is still there.
    pub(super) fn moved(&self) -> Option<Arc<dyn SpooledChunk>> {
        self.moved.get()?.upgrade()
    }

    /// All of them.
    pub fn all(&self) -> Vec<u32> {
        lock(&self.names).sent.clone()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        lock(&self.names).sent.is_empty()
    }

    /// How many damaged objects stood in its place, under any name.
    pub(super) fn damaged_objects(&self) -> usize {
        lock(&self.names).void.len()
    }

    /// It was sent whole under this name. `false`: that is known, or proves nothing.
    pub(super) fn insert(&self, name: &str) -> bool {
        let (mut names, mark) = (lock(&self.names), name_mark(name));
        let is_new = !names.void.contains(&mark) && !names.sent.contains(&mark);
        if is_new {
            names.sent.push(mark);
        }
        is_new
    }

    /// The request under this name stored nothing; `for_good`: what it stored is damaged, and the name proves nothing any more.
    pub(super) fn remove(&self, name: &str, for_good: bool) {
        let (mut names, mark) = (lock(&self.names), name_mark(name));
        names.sent.retain(|&known| known != mark);
        if for_good {
            names.void.push(mark);
        }
    }
}

impl Chunk {
    /// Whether its bytes are on disk, durable.
    pub fn is_on_disk(&self) -> bool {
        matches!(self.place, Place::Disk(_))
    }

    /// Bytes of memory that it is charged with.
    pub fn charged(&self) -> u64 {
        match &self.place {
            Place::Memory(held) => held.charged,
            Place::Disk(_) => 0,
        }
    }

    /// Whether it could be moved to disk.
    pub fn is_movable(&self) -> bool {
        matches!(&self.place, Place::Memory(held) if held.entry.is_some())
    }

    /// What the disk took of it before it refused; `None` where that is nothing, or all of it.
    pub fn part(&self) -> Option<&Part> {
        match &self.place {
            Place::Memory(held) => held.part.as_ref(),
            Place::Disk(_) => None,
        }
    }
}
