//! What the spool writer has to do, and what it reports. Types alone, shared by the queue, the task and its blocking side.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use gcstreamer_storage::ObjectRequest;

use super::chunk::NameFallback;
use super::chunk::{Chunk, SpooledChunk, Summary};
use super::ticket::Ticket;
use crate::spool::{Entry, SpoolError};

/// Something to be written.
#[derive(Debug)]
pub enum Op {
    /// A chunk begins.
    Begin {
        /// Its sequence number.
        sequence: u64,
        /// What is known of it.
        entry: Box<Entry>,
    },
    /// Bytes of it.
    Data {
        /// The chunk.
        sequence: u64,
        /// Offset in the object.
        at: u64,
        /// The bytes.
        bytes: Bytes,
        /// Bytes of memory to be given back when they are written.
        charged: u64,
    },
    /// Bytes that are not decided about and come again as [`Op::Data`].
    Ahead {
        /// The chunk.
        sequence: u64,
        /// Offset in the object, if it is the chunk's.
        at: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// It is complete.
    End(Box<Closing>),
}

/// What is known of a chunk when it ends.
#[derive(Debug)]
pub struct Closing {
    /// For the spool.
    pub entry: Box<Entry>,
    /// The object it becomes, without its bytes.
    pub request: ObjectRequest,
    /// What it may be called.
    pub naming: NameFallback,
    /// For messages.
    pub summary: Summary,
    /// When it was closed, ns on the sink's scale.
    pub closed_at: u64,
}

/// What may be asked of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Touch {
    /// All.
    #[default]
    Free,
    /// Whether it answers; if it does, all.
    Probe,
    /// Nothing.
    No,
}

/// What the spooler is to do.
#[derive(Default)]
pub(super) struct Work {
    pub(super) ops: Vec<Op>,
    pub(super) discards: Vec<Arc<dyn SpooledChunk>>,
    pub(super) confirms: Vec<Arc<dyn SpooledChunk>>,
    pub(super) moves: Vec<(Ticket, Arc<Chunk>)>,
    /// What may be asked of the disk.
    pub(super) touch: Touch,
}

/// What came of what was written as it came.
#[derive(Default)]
pub(super) struct Written {
    /// Bytes of memory given back.
    pub(super) released: u64,
    /// Chunks that have ended.
    pub(super) ended: Vec<Chunk>,
    /// What the disk said.
    pub(super) trouble: Option<SpoolError>,
}

/// What the blocking side reports, as soon as it is so: a slow disk takes seconds for a whole memory.
pub(super) trait Progress {
    /// What came to the open chunks is written, as far as the disk took it.
    fn wrote(&self, written: Written);
    /// The closed chunks on disk that are not being sent, with their tickets.
    fn on_disk(&self) -> Vec<(Ticket, Arc<dyn SpooledChunk>)>;
    /// Somebody has removed these folders, and with them the files of these chunks.
    fn removed(&self, folders: &[PathBuf], lost: &[Ticket]);
    /// Whether the end of a chunk that is being moved to disk may be written: it was neither stored nor dropped meanwhile.
    fn may_finish(&self, ticket: Ticket) -> bool;
    /// A chunk was moved to disk, or could not be. Returns what is on disk and not wanted there.
    fn moved(&self, ticket: Ticket, spooled: Option<Arc<dyn SpooledChunk>>) -> Option<Arc<dyn SpooledChunk>>;
}

/// Bytes of memory that wait with these.
pub(super) fn charges(ops: &[Op]) -> u64 {
    let charge = |op: &Op| if let Op::Data { charged, .. } = op { *charged } else { 0 };
    ops.iter().map(charge).sum()
}
