//! From bytes to chunks: drives the chunker, assembles chunks, and enqueues closed chunks for upload, or writes their bytes to
//! the spool as they arrive.
//!
//! Shared by the streaming thread and the timers under [`super::Engine`]'s lock, which is never held across a wait or I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::message::{Message, Poster};
use super::object::ObjectBuilder;
use crate::base::clock::Clock;
use crate::upload::chunk::{Chunk, Keep, MemoryChunk, Place};
use crate::upload::ops::{Closing, Op};
use crate::upload::queue::UploadQueue;
use gcstreamer_media::chunk::assembler::{Assembler, Assembly, Piece};
use gcstreamer_media::chunk::clock::Stamp;
use gcstreamer_media::chunk::{ChunkInfo, Chunker, Event, Limits};
use gcstreamer_media::container::{Fault, Init};
use gcstreamer_storage::Body;

/// Delay of the report of the start if the first chunk is still open, ns. By then the chunk's rate is known.
const START_AFTER: u64 = 3_000_000_000;

/// Progress towards the report of the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// No chunk has begun.
    Nothing,
    /// The first one has.
    Begun {
        /// Its sequence number.
        sequence: u64,
        /// When it began, on the uploads' scale.
        at: u64,
    },
    /// The start was reported.
    Reported,
}

/// The streaming side of one session.
pub struct Ingest {
    /// Decides where to cut.
    pub chunker: Chunker,
    assembler: Assembler,
    builder: ObjectBuilder,
    uploads: Arc<UploadQueue>,
    poster: Arc<dyn Poster>,
    clock: Clock,
    /// The limits for messages: `max-size-time` and `max-memory-bytes`.
    limits: (u64, u64),
    events: Vec<Event>,
    pieces: Vec<Piece>,
    /// Memory charged for a chunk beside its payload and header.
    overhead: u64,
    /// Chunks assembled in memory: their header, which others may share, and their charge without header and payload.
    in_memory: BTreeMap<u64, (Bytes, u64)>,
    /// Where chunks wait until they are stored.
    keep: Keep,
    /// Chunks that are written to disk. The second set holds those whose entry the spool has not received yet.
    on_disk: BTreeSet<u64>,
    unreported: BTreeSet<u64>,
    next_sequence: u64,
    start: Start,
    /// When the last buffer arrived, on the uploads' scale.
    last_buffer: u64,
    /// Steps of chunks were recorded and are not published yet.
    unpublished: bool,
    pub(super) wants_key_unit: bool,
    /// Size of a single object that has grown too large.
    pub(super) too_large: Option<u64>,
    pub(super) eos: bool,
    /// The element is about to stop: no more data is accepted.
    pub(super) stopped: bool,
}

impl Ingest {
    pub(super) fn new(
        chunker: Chunker,
        builder: ObjectBuilder,
        keep: Keep,
        uploads: Arc<UploadQueue>,
        poster: Arc<dyn Poster>,
    ) -> Self {
        let (last_buffer, clock) = (uploads.now(), uploads.clock());
        let overhead = builder.overhead(keep);
        uploads.set_headroom(overhead);
        Self {
            chunker,
            assembler: Assembler::default(),
            builder,
            uploads,
            poster,
            clock,
            limits: (0, 0),
            events: Vec::new(),
            pieces: Vec::new(),
            overhead,
            in_memory: BTreeMap::new(),
            keep,
            on_disk: BTreeSet::new(),
            unreported: BTreeSet::new(),
            next_sequence: 0,
            start: Start::Nothing,
            last_buffer,
            unpublished: false,
            wants_key_unit: false,
            too_large: None,
            eos: false,
            stopped: false,
        }
    }

    /// Accepts a buffer whose bytes are charged to the memory.
    ///
    /// # Errors
    /// [`Fault`] if the stream cannot be cut.
    pub fn push(&mut self, data: &[u8], owned: impl FnOnce() -> Option<Bytes>, stamp: Stamp) -> Result<(), Fault> {
        self.last_buffer = self.uploads.now();
        // Data after an EOS resumes the recording, for example after a flush and a new segment.
        if std::mem::take(&mut self.eos) {
            self.uploads.resume();
        }
        let mut events = std::mem::take(&mut self.events);
        let outcome = self.chunker.push(data, owned, stamp, &mut events);
        self.work_off(&mut events);
        self.events = events;
        outcome
    }

    /// Applies changed limits.
    pub(super) fn set_limits(&mut self, limits: Limits, max_memory: u64) {
        self.limits = (limits.max_time, max_memory);
        self.uploads.set_headroom(self.overhead);
        self.chunker.set_limits(limits);
    }

    /// Returns whether there was anything to publish since the last call.
    pub(super) fn take_unpublished(&mut self) -> bool {
        std::mem::take(&mut self.unpublished)
    }

    /// Closes and enqueues the open chunk at the end of the stream or of the recording.
    ///
    /// # Errors
    /// [`Fault`] if the stream turns out to be one that cannot be cut.
    pub fn finish(&mut self) -> Result<(), Fault> {
        let mut events = Vec::new();
        // An EOS has closed the chunk already, and a stop calls this again.
        let outcome = if self.eos { Ok(()) } else { self.chunker.finish(&mut events) };
        self.eos = true;
        self.work_off(&mut events);
        outcome
    }

    /// Notes that a segment in bytes begins at `offset`.
    pub fn segment_begins(&mut self, offset: u64) {
        let mut events = Vec::new();
        self.chunker.goes_back(offset, &mut events);
        self.work_off(&mut events);
    }

    /// Stops or starts recording.
    pub fn record(&mut self, on: bool) {
        let mut events = Vec::new();
        self.chunker.record(on, &mut events);
        self.work_off(&mut events);
    }

    /// Closes the open chunk so that it can be sent: the memory is full and no upload is in flight.
    pub fn make_room(&mut self) {
        let mut events = Vec::new();
        self.chunker.make_room(&mut events);
        self.work_off(&mut events);
    }

    /// Closes the open chunk if no data arrived for `idle` ns. `waited_until`: until when the stream last waited for room; that
    /// wait is ours and does not count as idle.
    pub fn close_if_idle(&mut self, idle: u64, waited_until: u64) {
        let since = self.last_buffer.max(waited_until);
        if !self.eos && self.uploads.now().saturating_sub(since) >= idle {
            let mut events = Vec::new();
            self.chunker.close_idle(&mut events);
            self.work_off(&mut events);
        }
    }

    /// Warns if the input is a transport stream without PAT and PMT so far. Returns whether it is.
    pub fn report_no_program(&mut self) -> bool {
        let mut events = Vec::new();
        let lacks = self.chunker.report_no_program(&mut events);
        self.work_off(&mut events);
        lacks
    }

    /// Moves the open chunk to disk, where it continues: the memory fills up and nothing else can be moved.
    pub fn move_open_to_disk(&mut self) {
        let Some((sequence, ..)) = self.chunker.not_handed_over().filter(|_| self.keep != Keep::Memory) else {
            return;
        };
        if self.on_disk.insert(sequence) {
            self.unreported.insert(sequence);
            // Noted before the bytes are passed on: the queue must not ask for the same move again.
            self.uploads.open_on_disk(true);
            if let Some((head, _)) = self.in_memory.remove(&sequence) {
                self.uploads.leaves_memory(&head);
            }
            let mut pieces = std::mem::take(&mut self.pieces);
            self.assembler.move_out(sequence, &mut pieces);
            let mut ops = Vec::new();
            self.data(sequence, &mut pieces, &mut ops);
            self.pieces = pieces;
            self.spool(ops);
        }
    }

    /// Writes bytes to disk that the chunker has not assigned to a chunk yet, so that a crash costs only the last moment.
    pub fn write_ahead(&mut self) {
        let Some((sequence, offset, pieces)) = self.chunker.not_handed_over() else {
            return;
        };
        let Some(chunk) = self.assembler.get(sequence).filter(|_| self.on_disk.contains(&sequence)) else {
            return;
        };
        let mut at = chunk.init + offset;
        let mut ops = Vec::new();
        for bytes in pieces {
            let next = at + bytes.len() as u64;
            ops.push(Op::Ahead { sequence, at, bytes });
            at = next;
        }
        self.spool(ops);
    }

    /// Reports, once, where the recording goes. Waits until the first chunk has grown for a moment, so that its rate is known.
    pub fn report_start(&mut self) {
        if let Start::Begun { sequence, at } = self.start
            && self.uploads.now().saturating_sub(at) >= START_AFTER
            && let Some(info) = self.chunker.info_of(sequence)
        {
            self.post_start(&info);
        }
    }

    fn post_start(&mut self, first: &ChunkInfo) {
        self.start = Start::Reported;
        self.poster.post(Message::Started {
            object: self.builder.name(first),
            bucket: self.builder.bucket.clone(),
            endpoint: self.builder.endpoint.custom().map(str::to_owned),
        });
    }

    fn work_off(&mut self, events: &mut Vec<Event>) {
        let mut ops = Vec::new();
        let mut pieces = std::mem::take(&mut self.pieces);
        for event in events.drain(..) {
            match event {
                Event::Begin { sequence, at, mut init } => {
                    self.charge_begun(sequence, &mut init);
                    self.next_sequence = sequence + 1;
                    if self.start == Start::Nothing {
                        let at = self.uploads.now();
                        self.start = Start::Begun { sequence, at };
                    }
                    self.uploads.created(&self.builder.session, sequence);
                    self.unpublished = true;
                    let begun = Assembly {
                        elsewhere: self.keep == Keep::Always,
                        input_offset: at,
                        began: ((self.clock.boot)(), (self.clock.wall)()),
                        ..Assembly::default()
                    };
                    self.assembler.begin(sequence, init, begun, &mut pieces);
                    if self.keep == Keep::Always {
                        self.on_disk.insert(sequence);
                        self.unreported.insert(sequence);
                    } else if self.keep == Keep::Overflow {
                        // The move of the previous chunk does not bind this one: it begins in memory.
                        self.uploads.open_on_disk(false);
                    }
                    self.data(sequence, &mut pieces, &mut ops);
                }
                Event::Data { sequence, bytes } => {
                    self.assembler.data(sequence, bytes, &mut pieces);
                    self.data(sequence, &mut pieces, &mut ops);
                }
                Event::End(info) => {
                    if let Some(gathered) = self.assembler.end(info.sequence) {
                        self.end(*info, gathered, &mut ops);
                    }
                }
                Event::Gap {
                    reason,
                    start,
                    duration,
                    bytes,
                } => {
                    let first_sequence = self.next_sequence;
                    self.uploads.dropped(bytes);
                    self.poster.post(Message::Gap {
                        reason,
                        start,
                        duration,
                        bytes,
                        first_sequence,
                    });
                }
                Event::Discard(bytes) => self.uploads.release(bytes),
                Event::Warn(warning) => self.poster.post(Message::Warning {
                    warning,
                    max_time: self.limits.0,
                    max_memory: self.limits.1,
                }),
                Event::WantKeyUnit => self.wants_key_unit = true,
                Event::TooLarge(bytes) => self.too_large = Some(bytes),
            }
        }
        self.pieces = pieces;
        self.spool(ops);
    }

    /// Charges the memory for what a chunk needs beside its payload.
    fn charge_begun(&mut self, sequence: u64, init: &mut Init) {
        if self.keep == Keep::Always {
            self.uploads.begin_on_disk(self.overhead + init.len() as u64);
            return;
        }
        let charged = self.overhead + init.tail.len() as u64;
        init.head = self.uploads.begin_in_memory(std::mem::take(&mut init.head), charged);
        self.in_memory.insert(sequence, (init.head.clone(), charged));
    }

    /// Converts pieces of a chunk to spool operations. The memory was charged for all of them and for the chunk's overhead, which
    /// is refunded with the first piece.
    fn data(&self, sequence: u64, pieces: &mut Vec<Piece>, ops: &mut Vec<Op>) {
        ops.extend(pieces.drain(..).map(|(at, bytes)| {
            let besides = if at == 0 { self.overhead } else { 0 };
            let charged = bytes.len() as u64 + besides;
            Op::Data {
                sequence,
                at,
                bytes,
                charged,
            }
        }));
    }

    /// Passes operations to the spool. A chunk's entry precedes its bytes.
    fn spool(&mut self, ops: Vec<Op>) {
        if ops.is_empty() {
            return;
        }
        let mut heads = Vec::new();
        for sequence in std::mem::take(&mut self.unreported) {
            let (Some(info), Some(chunk)) = (self.chunker.info_of(sequence), self.assembler.get(sequence)) else {
                continue;
            };
            let request = self.builder.request(&info, self.uploads.clock_off().is_some());
            let entry = self.builder.entry(&info, &request, chunk.input_offset, chunk.began);
            let entry = Box::new(entry);
            heads.push(Op::Begin { sequence, entry });
        }
        self.uploads.spool(heads.into_iter().chain(ops));
    }

    fn end(&mut self, info: ChunkInfo, gathered: Assembly, ops: &mut Vec<Op>) {
        if matches!(self.start, Start::Begun { .. }) {
            self.post_start(&info);
        }
        let sequence = info.sequence;
        let summary = self.builder.summary(&info);
        let mut request = self.builder.request(&info, self.uploads.clock_off().is_some());
        (request.size, request.crc32c) = (gathered.size, gathered.crc32c);
        let naming = self.builder.naming(sequence);
        let entry = (self.keep != Keep::Memory)
            .then(|| Box::new(self.builder.entry(&info, &request, gathered.input_offset, gathered.began)));
        self.uploads.closed(&summary);
        self.unpublished = true;
        let closed_at = self.uploads.now();
        if let (true, Some(entry)) = (self.on_disk.remove(&sequence), &entry) {
            if gathered.size == 0 {
                // The overhead is refunded with the first piece, and an empty chunk has none.
                self.uploads.release(self.overhead);
            }
            // Not passed on yet, because the chunk began in the same call: its entry must precede its bytes.
            if self.unreported.remove(&sequence) {
                let entry = entry.clone();
                ops.insert(0, Op::Begin { sequence, entry });
            }
            ops.push(Op::End(Box::new(Closing {
                entry: entry.clone(),
                request,
                naming,
                summary,
                closed_at,
            })));
            return;
        }
        let (head, besides) = self.in_memory.remove(&sequence).unwrap_or_default();
        let charged = gathered.payload() + besides;
        request.body = Body::from_pieces(compact(gathered.pieces, head.len()));
        self.uploads.queue(Chunk {
            summary,
            place: Place::Memory(Arc::new(MemoryChunk {
                request,
                naming,
                sent: Arc::default(),
                charged,
                head,
                entry,
                part: None,
            })),
            recovered: false,
            link_key: None,
            renamed: None,
            closed_at,
        });
    }
}

/// Chunks with less payload are copied into one block.
const TINY: usize = 32 << 10;

/// Compacts the pieces of a closed chunk. A slice of a few bytes would keep its whole buffer in memory, long after the chunks
/// that share the buffer are gone. The header, `head` bytes, is shared with other chunks and stays as it is.
fn compact(mut pieces: Vec<Bytes>, head: usize) -> Vec<Bytes> {
    let from = usize::from(head > 0 && pieces.first().is_some_and(|first| first.len() == head));
    let rest = pieces.get(from..).unwrap_or_default();
    if rest.iter().map(Bytes::len).sum::<usize>() < TINY {
        let joined = Bytes::from(rest.concat());
        pieces.truncate(from);
        pieces.push(joined);
    }
    pieces
}
