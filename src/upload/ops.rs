//! Work for the spool writer, and what it reports. Types only, shared by the queue, the task and its blocking side.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use gcstreamer_storage::ObjectRequest;

use super::chunk::NameFallback;
use super::chunk::{Chunk, SpooledChunk, Summary};
use super::ticket::Ticket;
use crate::spool::{Entry, SpoolError};

/// One operation of the spool writer.
#[derive(Debug)]
pub enum Op {
    /// A chunk begins.
    Begin {
        /// Its sequence number.
        sequence: u64,
        /// Its entry in the spool, as known at its beginning.
        entry: Box<Entry>,
    },
    /// Bytes of the chunk.
    Data {
        /// The chunk.
        sequence: u64,
        /// Offset in the object.
        at: u64,
        /// The bytes.
        bytes: Bytes,
        /// Bytes of memory that are refunded when this is written.
        charged: u64,
    },
    /// Bytes not yet assigned to a chunk; they follow again as [`Op::Data`]. Written so that a crash does not lose them.
    Ahead {
        /// The chunk.
        sequence: u64,
        /// Offset in the object, if they become part of this chunk.
        at: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// The chunk is complete.
    End(Box<Closing>),
}

/// The description of a chunk that ends.
#[derive(Debug)]
pub struct Closing {
    /// Its entry in the spool.
    pub entry: Box<Entry>,
    /// The object to store, without its bytes.
    pub request: ObjectRequest,
    /// How to rename it if its name is taken.
    pub naming: NameFallback,
    /// The fields of its messages.
    pub summary: Summary,
    /// When it was closed, ns on the sink's scale.
    pub closed_at: u64,
}

/// Which calls to the disk are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Touch {
    /// All.
    #[default]
    Free,
    /// First a probe; if the disk answers, all.
    Probe,
    /// Nothing.
    No,
}

/// One batch of work for the blocking side.
#[derive(Default)]
pub(super) struct Work {
    pub(super) ops: Vec<Op>,
    pub(super) discards: Vec<Arc<dyn SpooledChunk>>,
    pub(super) confirms: Vec<Arc<dyn SpooledChunk>>,
    pub(super) moves: Vec<(Ticket, Arc<Chunk>)>,
    /// Which calls to the disk are allowed.
    pub(super) touch: Touch,
}

/// The result of the operations of one batch.
#[derive(Default)]
pub(super) struct Written {
    /// Bytes of memory to refund.
    pub(super) released: u64,
    /// Chunks that have ended.
    pub(super) ended: Vec<Chunk>,
    /// The disk's last error.
    pub(super) trouble: Option<SpoolError>,
}

/// Receives the reports of the blocking side. Each step is reported at once, because a slow disk takes seconds for a whole
/// memory.
pub(super) trait Progress {
    /// The operations on open chunks were carried out, as far as the disk accepted them.
    fn wrote(&self, written: Written);
    /// Returns the closed chunks on disk that are not being sent, with their tickets.
    fn on_disk(&self) -> Vec<(Ticket, Arc<dyn SpooledChunk>)>;
    /// Somebody has removed these folders, and with them the files of these chunks.
    fn removed(&self, folders: &[PathBuf], lost: &[Ticket]);
    /// Returns whether the End of a chunk that is being moved to disk may be written: false if it was stored or dropped
    /// meanwhile.
    fn may_finish(&self, ticket: Ticket) -> bool;
    /// A chunk was moved to disk, or `None` if that failed. Returns the file if it is not wanted on disk any more.
    fn moved(&self, ticket: Ticket, spooled: Option<Arc<dyn SpooledChunk>>) -> Option<Arc<dyn SpooledChunk>>;
}

/// Returns the bytes of memory that these operations are charged with.
pub(super) fn charges(ops: &[Op]) -> u64 {
    let charge = |op: &Op| if let Op::Data { charged, .. } = op { *charged } else { 0 };
    ops.iter().map(charge).sum()
}
