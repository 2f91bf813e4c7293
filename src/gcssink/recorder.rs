//! One session's streaming side: chunker, gathering, and what becomes of a closed chunk. Shared by the streaming thread and
//! the timers; its lock is never held across a wait, I/O, or a call into GStreamer.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::messages::{Outbox, Post};
use super::object::Maker;
use crate::spool::boot;
use crate::upload::chunk::{Chunk, Held, Place};
use crate::upload::spooler::{Closing, Op};
use crate::upload::uploads::Uploads;
use crate::wall;
use gcstreamer_media::chunk::assembler::{Assembler, Assembly, Piece};
use gcstreamer_media::chunk::clock::Stamp;
use gcstreamer_media::chunk::{ChunkInfo, Chunker, Event};
use gcstreamer_media::container::Fault;
use gcstreamer_storage::Body;

/// See the module.
pub(super) struct Recorder {
    pub chunker: Chunker,
    assembler: Assembler,
    maker: Maker,
    uploads: Arc<Uploads>,
    outbox: Arc<Outbox>,
    events: Vec<Event>,
    pieces: Vec<Piece>,
    /// Every buffer goes to disk as it comes.
    always: bool,
    /// There is a disk.
    spools: bool,
    /// Chunks that are written to disk, and whether the spool has been told of them.
    on_disk: BTreeSet<u64>,
    untold: BTreeSet<u64>,
    next_sequence: u64,
    /// When the last buffer came, on the uploads' scale.
    last_buffer: u64,
    pub wants_key_unit: bool,
    /// The one object has grown too large.
    pub too_large: Option<u64>,
    pub eos: bool,
    /// The element is about to stop: nothing more is taken.
    pub stopped: bool,
}

/// Where chunks wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// In memory alone.
    Memory,
    /// In memory, and on disk when that is full.
    Overflow,
    /// On disk.
    Always,
}

impl Recorder {
    pub(super) fn new(chunker: Chunker, maker: Maker, keep: Keep, uploads: Arc<Uploads>, outbox: Arc<Outbox>) -> Self {
        let last_buffer = uploads.now();
        Self {
            chunker,
            assembler: Assembler::default(),
            maker,
            uploads,
            outbox,
            events: Vec::new(),
            pieces: Vec::new(),
            always: keep == Keep::Always,
            spools: keep != Keep::Memory,
            on_disk: BTreeSet::new(),
            untold: BTreeSet::new(),
            next_sequence: 0,
            last_buffer,
            wants_key_unit: false,
            too_large: None,
            eos: false,
            stopped: false,
        }
    }

    /// Takes a buffer whose bytes the memory was charged with.
    ///
    /// # Errors
    /// [`Fault`] where the stream cannot be cut.
    pub(super) fn push(&mut self, data: &[u8], owned: impl FnOnce() -> Option<Bytes>, stamp: Stamp) -> Result<(), Fault> {
        self.last_buffer = self.uploads.now();
        if std::mem::take(&mut self.eos) {
            self.uploads.resume();
        }
        let mut events = std::mem::take(&mut self.events);
        let outcome = self.chunker.push(data, owned, stamp, &mut events);
        self.work_off(&mut events);
        self.events = events;
        outcome
    }

    /// The stream has ended, or recording does: the open chunk is closed and queued.
    ///
    /// # Errors
    /// [`Fault`] where the stream turns out to be one that cannot be cut.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        let mut events = Vec::new();
        let outcome = if self.eos { Ok(()) } else { self.chunker.finish(&mut events) };
        self.eos = true;
        self.work_off(&mut events);
        outcome
    }

    /// A segment in bytes begins there.
    pub(super) fn segment_begins(&mut self, offset: u64) {
        let mut events = Vec::new();
        self.chunker.goes_back(offset, &mut events);
        self.work_off(&mut events);
    }

    /// Stops or starts recording.
    pub(super) fn record(&mut self, on: bool) {
        let mut events = Vec::new();
        self.chunker.record(on, &mut events);
        self.work_off(&mut events);
    }

    /// The memory is full and nothing is on its way: closes the open chunk, so that it can be sent.
    pub(super) fn make_room(&mut self) {
        let mut events = Vec::new();
        self.chunker.make_room(&mut events);
        self.work_off(&mut events);
    }

    /// Closes the open chunk when nothing has come for `idle` ns.
    pub(super) fn close_if_idle(&mut self, idle: u64) {
        if !self.eos && self.uploads.now().saturating_sub(self.last_buffer) >= idle {
            let mut events = Vec::new();
            self.chunker.close_idle(&mut events);
            self.work_off(&mut events);
        }
    }

    /// The memory fills up and nothing else can be moved to disk: the open chunk continues there.
    pub(super) fn move_open_to_disk(&mut self) {
        let Some((sequence, ..)) = self.chunker.not_handed_over().filter(|_| self.spools) else {
            return;
        };
        if self.on_disk.insert(sequence) {
            self.untold.insert(sequence);
            self.uploads.open_on_disk(true);
            let mut pieces = std::mem::take(&mut self.pieces);
            self.assembler.move_out(sequence, &mut pieces);
            let mut ops = Vec::new();
            self.data(sequence, &mut pieces, &mut ops);
            self.pieces = pieces;
            self.spool(ops);
        }
    }

    /// Bytes that wait to be decided about are written to disk ahead: a crash must not cost more than the last moment.
    pub(super) fn write_ahead(&mut self) {
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

    fn work_off(&mut self, events: &mut Vec<Event>) {
        let mut ops = Vec::new();
        let mut pieces = std::mem::take(&mut self.pieces);
        for event in events.drain(..) {
            match event {
                Event::Begin { sequence, at, init } => {
                    self.next_sequence = sequence + 1;
                    self.uploads.created();
                    let begun = Assembly {
                        elsewhere: self.always,
                        input_offset: at,
                        began: (boot::boot_ns(), wall::now()),
                        ..Assembly::default()
                    };
                    self.assembler.begin(sequence, init, begun, &mut pieces);
                    if self.always {
                        self.on_disk.insert(sequence);
                        self.untold.insert(sequence);
                    } else if self.spools {
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
                    self.outbox.post(Post::Gap {
                        reason,
                        start,
                        duration,
                        bytes,
                        first_sequence,
                    });
                }
                Event::Discard(bytes) => self.uploads.release(bytes),
                Event::Warn(warning) => self.outbox.post(Post::Warning(warning)),
                Event::WantKeyUnit => self.wants_key_unit = true,
                Event::TooLarge(bytes) => self.too_large = Some(bytes),
            }
        }
        self.pieces = pieces;
        self.spool(ops);
    }

    /// Hands pieces of a chunk to the spool. The memory was charged with the payload, not with the header.
    fn data(&self, sequence: u64, pieces: &mut Vec<Piece>, ops: &mut Vec<Op>) {
        let init = self.assembler.get(sequence).map_or(0, |chunk| chunk.init);
        ops.extend(pieces.drain(..).map(|(at, bytes)| {
            let charged = if at < init { 0 } else { bytes.len() as u64 };
            Op::Data {
                sequence,
                at,
                bytes,
                charged,
            }
        }));
    }

    /// Gives the spool what it has to do; what it has to know of a chunk goes before the chunk's bytes.
    fn spool(&mut self, ops: Vec<Op>) {
        let mut heads = Vec::new();
        if !ops.is_empty() {
            let untold = &mut self.untold;
            let (chunker, assembler, maker, uploads) = (&self.chunker, &self.assembler, &self.maker, &self.uploads);
            untold.retain(|&sequence| {
                let (Some(info), Some(chunk)) = (chunker.info_of(sequence), assembler.get(sequence)) else {
                    return false;
                };
                let request = maker.request(&info, uploads.clock_off().is_some());
                let entry = Box::new(maker.entry(&info, &request, chunk.input_offset, chunk.began));
                heads.push(Op::Begin { sequence, entry });
                false
            });
        }
        if !ops.is_empty() {
            self.uploads.spool(heads.into_iter().chain(ops));
        }
    }

    fn end(&mut self, info: ChunkInfo, gathered: Assembly, ops: &mut Vec<Op>) {
        let sequence = info.sequence;
        let summary = self.maker.summary(&info);
        let mut request = self.maker.request(&info, self.uploads.clock_off().is_some());
        (request.size, request.crc32c) = (gathered.size, gathered.crc32c);
        let naming = self.maker.naming(sequence);
        let entry = self
            .spools
            .then(|| Box::new(self.maker.entry(&info, &request, gathered.input_offset, gathered.began)));
        let closed_at = self.uploads.now();
        if let (true, Some(entry)) = (self.on_disk.remove(&sequence), &entry) {
            if self.untold.remove(&sequence) {
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
        let charged = gathered.payload();
        request.body = Body::from_pieces(gathered.pieces);
        self.uploads.queue(Chunk {
            summary,
            place: Place::Memory(Arc::new(Held {
                request,
                naming,
                charged,
                entry,
                part: None,
            })),
            recovered: false,
            site: None,
            renamed: None,
            closed_at,
        });
    }
}
