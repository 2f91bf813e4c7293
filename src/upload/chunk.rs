//! A closed chunk on its way, wherever its bytes are.
//!
//! Types alone. Memory or disk is a [`Place`]; what a disk has to be able to do is [`Kept`], whose calls block and are made
//! on tokio's threads for blocking work.

use std::fmt;
use std::sync::Arc;

use super::attempt::Naming;
use super::scheduler::Site;
use gcstreamer_storage::ObjectRequest;

/// What messages say of a chunk. Small: tens of thousands may wait on disk.
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

/// A closed chunk.
#[derive(Debug)]
pub struct Chunk {
    /// What messages say of it.
    pub summary: Summary,
    /// Where its bytes are.
    pub place: Place,
    /// It was recorded by a session that ended before it was stored.
    pub recovered: bool,
    /// Where it goes, if not where this sink's own chunks go.
    pub site: Site,
    /// The name to store it under where its own is taken.
    pub renamed: Option<String>,
    /// When it was closed, ns on the sink's scale.
    pub closed_at: u64,
}

/// Where the bytes of a chunk are.
#[derive(Clone, Debug)]
pub enum Place {
    /// In memory, or too little of it on disk to count.
    Memory(Arc<Held>),
    /// On disk, durable.
    Disk(Arc<dyn Kept>),
}

/// A chunk in memory.
#[derive(Debug)]
pub struct Held {
    /// The object it becomes.
    pub request: ObjectRequest,
    /// What it may be called.
    pub naming: Naming,
    /// Payload bytes that the memory is charged with.
    pub charged: u64,
    /// What it is on disk; `None` where it cannot be moved there.
    pub entry: Option<Box<crate::spool::Entry>>,
    /// The part of it on disk, which has no end mark: removed when the chunk is stored or let go of.
    pub part: Option<Arc<dyn Kept>>,
}

/// A chunk as it was read back from disk.
#[derive(Debug)]
pub struct Loaded {
    /// The object it becomes.
    pub request: ObjectRequest,
    /// What it may be called.
    pub naming: Naming,
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
}

/// A chunk that is kept on disk. All calls block.
pub trait Kept: Send + Sync + fmt::Debug {
    /// Reads what the object is. Its time is set right first, where the clock could not be when it was taken.
    ///
    /// # Errors
    /// Why it cannot be read, for the user, and whether it ever can.
    fn load(self: Arc<Self>) -> Result<Loaded, Unloaded>;
    /// The server has it: it is marked, and removed.
    fn confirm(&self);
    /// It is let go of by policy: removed.
    fn discard(&self);
    /// Why the bytes on disk are not those that were written; `None` while nobody has found them damaged.
    fn damage(&self) -> Option<String>;
    /// Damaged: put where it blocks nothing. Says where that is.
    fn set_aside(&self, why: &str) -> String;
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
        matches!(&self.place, Place::Memory(held) if held.entry.is_some() && held.part.is_none())
    }
}
