//! The blocking side of the spooler: the open files, and what is written to them. Every step is reported through [`Progress`].
//! While the disk does not answer, it only queues what is to be written, and returns chunks that end to memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::chunk::NameFallback;
use super::chunk::{Chunk, MemoryChunk, Part, Place, SpooledChunk};
use super::ops::{Closing, Op, Progress, Touch, Work, Written};
use super::spooled_chunk::{ChunkFile, PartialFile, Times};
use crate::spool::{ClosedEntry, Entry, OpenChunk, Session, SpoolError};
use gcstreamer_storage::{Body, ObjectRequest};

/// Interval between retries to remove files.
const REMOVE_AGAIN: Duration = Duration::from_secs(10);

/// Opens the session's folder; fails while the disk does not answer or is full.
pub type Opener = Box<dyn FnMut() -> Result<Session, SpoolError> + Send>;

/// Writes the chunks of one session to disk and removes their files. Blocks: call it on threads for blocking work.
pub struct SpoolWriter {
    session: Opened,
    times: Arc<Times>,
    open: BTreeMap<u64, Writing>,
    /// Files to be removed, and whether their chunks are stored (`true`) or dropped.
    leaving: Vec<(Arc<dyn SpooledChunk>, bool)>,
    /// When a removal last failed.
    stayed_at: Option<Instant>,
}

/// The session's folder.
enum Opened {
    Yes(Session),
    /// The folder could not be opened when the element started.
    NotYet(Opener),
}

/// A chunk that is being written.
struct Writing {
    entry: Box<Entry>,
    file: Option<OpenChunk>,
    /// Bytes that are not written yet: offset, bytes, charge.
    waiting: Vec<(u64, Bytes, u64)>,
    ahead: Vec<(u64, Bytes)>,
}

impl SpoolWriter {
    /// Creates the writer of a session.
    pub fn new(session: Session, times: Arc<Times>) -> Self {
        Self::with(Opened::Yes(session), times)
    }

    /// Creates the writer of a session whose folder cannot be opened yet.
    pub fn not_yet(opener: Opener, times: Arc<Times>) -> Self {
        Self::with(Opened::NotYet(opener), times)
    }

    fn with(session: Opened, times: Arc<Times>) -> Self {
        Self {
            session,
            times,
            open: BTreeMap::new(),
            leaving: Vec::new(),
            stayed_at: None,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty() && self.leaving.is_empty()
    }

    /// Does one batch of work and returns the disk's last error. Every step is reported as soon as it is done: a slow disk takes
    /// seconds for a whole memory, and what it has must not count as lost meanwhile.
    pub(super) fn work(&mut self, work: Work, sync: bool, progress: &dyn Progress) -> Option<SpoolError> {
        let mut written = Written::default();
        let mut answers = work.touch != Touch::No;
        if answers && let Err(e) = self.reach(work.touch) {
            written.trouble = Some(e);
            answers = false;
        }
        if answers {
            if let Opened::Yes(session) = &self.session {
                session.spool().share_usage();
            }
            // Before the writes: bytes written to a removed folder would be lost.
            self.find_removed(&mut written, progress);
        }
        // Remove files first: that makes room.
        self.leaving.extend(work.discards.into_iter().map(|chunk| (chunk, false)));
        self.leaving.extend(work.confirms.into_iter().map(|chunk| (chunk, true)));
        if answers {
            self.remove();
        }
        for op in work.ops {
            self.take(op, answers, &mut written);
        }
        for writing in self.open.values_mut() {
            match &self.session {
                Opened::Yes(session) if answers => writing.write(session, sync, &mut written),
                // These bytes follow again as [`Op::Data`].
                _ => writing.ahead.clear(),
            }
        }
        let mut trouble = written.trouble.take();
        // Before the moves: each of them may write a whole chunk, and what is written by now must not count as lost meanwhile.
        progress.wrote(written);
        for (ticket, chunk) in work.moves {
            let moved = self.put_away(&chunk, || progress.may_finish(ticket));
            let moved = moved.unwrap_or_else(|e| {
                trouble = Some(e);
                None
            });
            // Confirm it: it may be stored already, and then the next start must not send it again.
            if let Some(unwanted) = progress.moved(ticket, moved)
                && !unwanted.confirm()
            {
                self.leaving.push((unwanted, true));
            }
        }
        trouble
    }

    /// Queues an operation. `answers`: the disk answers, so a chunk that ends may be written.
    fn take(&mut self, op: Op, answers: bool, written: &mut Written) {
        match op {
            Op::Begin { sequence, entry } => {
                let writing = Writing {
                    entry,
                    // The file is created with its first bytes: the next start would only remove an empty one.
                    file: None,
                    waiting: Vec::new(),
                    ahead: Vec::new(),
                };
                self.open.insert(sequence, writing);
            }
            Op::Data {
                sequence,
                at,
                bytes,
                charged,
            } => match self.open.get_mut(&sequence) {
                Some(writing) => writing.waiting.push((at, bytes, charged)),
                None => written.released += charged,
            },
            Op::Ahead { sequence, at, bytes } => {
                if let Some(writing) = self.open.get_mut(&sequence) {
                    writing.ahead.push((at, bytes));
                }
            }
            Op::End(closing) => self.end(*closing, answers, written),
        }
    }

    /// Opens the folder if it is not open yet. Probes the disk if `touch` asks for that.
    fn reach(&mut self, touch: Touch) -> Result<(), SpoolError> {
        match &mut self.session {
            Opened::Yes(session) if touch == Touch::Probe => session.spool().probe(),
            Opened::Yes(_) => Ok(()),
            Opened::NotYet(open) => {
                self.session = Opened::Yes(open()?);
                Ok(())
            }
        }
    }

    /// Removes the files of stored and dropped chunks. Retries failed removals after [`REMOVE_AGAIN`].
    fn remove(&mut self) {
        if self.stayed_at.is_some_and(|at| at.elapsed() < REMOVE_AGAIN) {
            return;
        }
        let leave = |(chunk, is_stored): &(Arc<dyn SpooledChunk>, bool)| match is_stored {
            true => !chunk.confirm(),
            false => !chunk.discard(),
        };
        self.leaving.retain(leave);
        self.stayed_at = (!self.leaving.is_empty()).then(Instant::now);
    }

    /// Creates the session's folder again if somebody has removed it. Reports the chunks that were lost with it or with the
    /// folder of an earlier session. A chunk that is being written is rescued from its open file.
    fn find_removed(&mut self, written: &mut Written, progress: &dyn Progress) {
        let Opened::Yes(session) = &mut self.session else { return };
        let folders = session.spool().removed_folders();
        // The folder first: rescued chunks go into it.
        if let Err(e) = session.renew() {
            written.trouble = Some(e);
        }
        for writing in self.open.values_mut() {
            if let Some(file) = &mut writing.file
                && let Err(e) = session.rescue(file, &writing.entry)
            {
                written.trouble = Some(e);
            }
        }
        if !folders.is_empty() {
            let on_disk = progress.on_disk().into_iter();
            let lost: Vec<_> = on_disk.filter(|(_, c)| c.is_removed()).map(|(ticket, _)| ticket).collect();
            progress.removed(&folders, &lost);
        }
    }

    fn end(&mut self, closing: Closing, answers: bool, written: &mut Written) {
        let Some(mut writing) = self.open.remove(&closing.summary.sequence) else {
            return;
        };
        // Bytes written ahead beyond the end are not part of this chunk.
        writing.ahead.clear();
        if let Opened::Yes(session) = &self.session
            && answers
        {
            writing.write(session, false, written);
        }
        let closed = ClosedEntry {
            entry: (*closing.entry).clone(),
            size: closing.request.size,
            crc32c: closing.request.crc32c,
        };
        let mut place = None;
        if writing.waiting.is_empty()
            && answers
            && let Some(file) = &mut writing.file
        {
            match file.finish(&closed) {
                Ok(stored) => place = Some(Place::Disk(ChunkFile::new(stored, Arc::clone(&self.times)))),
                Err(e) => written.trouble = Some(e),
            }
        }
        written.ended.push(Chunk {
            summary: closing.summary,
            place: place.unwrap_or_else(|| writing.in_memory(closing.request, closing.naming, closing.entry)),
            recovered: false,
            link_key: None,
            renamed: None,
            closed_at: closing.closed_at,
        });
    }

    /// Moves a closed chunk from memory to disk. `None`: it is not wanted there any more.
    fn put_away(&self, chunk: &Chunk, is_wanted: impl Fn() -> bool) -> Result<Option<Arc<dyn SpooledChunk>>, SpoolError> {
        let Place::Memory(held) = &chunk.place else {
            unreachable!("only what is in memory is moved")
        };
        let Some(entry) = &held.entry else {
            unreachable!("only what can be moved is moved")
        };
        let closed = ClosedEntry {
            entry: (**entry).clone(),
            size: held.request.size,
            crc32c: held.request.crc32c,
        };
        if let Some(part) = &held.part {
            // Continue where the disk refused.
            if let Opened::Yes(session) = &self.session {
                part.spooled.rescue(session, entry)?;
            }
            let stored = part.spooled.complete(part, &closed, &is_wanted)?;
            return Ok(stored.map(|stored| ChunkFile::moved(stored, Arc::clone(&held.sent), Arc::clone(&self.times)) as _));
        }
        let Some(pieces) = held.request.body.pieces() else {
            unreachable!("all of it is in memory")
        };
        let Opened::Yes(session) = &self.session else {
            return Ok(None);
        };
        let mut file = session.create(entry)?;
        let finished = file
            .append(0, &pieces)
            // Ask immediately before the End: the next start sends every file that has one.
            .and_then(|()| is_wanted().then(|| file.finish(&closed)).transpose());
        match finished {
            Ok(Some(stored)) => {
                let sent = Arc::clone(&held.sent);
                Ok(Some(ChunkFile::moved(stored, sent, Arc::clone(&self.times))))
            }
            Ok(None) => {
                file.give_up();
                Ok(None)
            }
            Err(e) => {
                file.give_up();
                Err(e)
            }
        }
    }
}

impl Writing {
    fn write(&mut self, session: &Session, sync: bool, written: &mut Written) {
        if let Err(e) = self.try_write(session, sync, written) {
            written.trouble = Some(e);
        }
    }

    fn try_write(&mut self, session: &Session, sync: bool, written: &mut Written) -> Result<(), SpoolError> {
        let ahead = std::mem::take(&mut self.ahead);
        if self.waiting.is_empty() && ahead.is_empty() && self.file.is_none() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(session.create(&self.entry)?),
        };
        if let Some(&(at, ..)) = self.waiting.first() {
            let parts: Vec<Bytes> = self.waiting.iter().map(|(_, bytes, _)| bytes.clone()).collect();
            file.append(at, &parts)?;
            // Refund only after the write: what the disk refuses stays charged and is written at the next try.
            written.released += self.waiting.drain(..).map(|(.., charged)| charged).sum::<u64>();
        }
        // Skipped if the bytes before it are not written: a chunk file has no holes.
        if let Some(&(at, _)) = ahead.first().filter(|(at, _)| *at <= file.len_on_file()) {
            let parts: Vec<Bytes> = ahead.into_iter().map(|(_, bytes)| bytes).collect();
            file.append(at, &parts)?;
        }
        if sync { file.sync() } else { Ok(()) }
    }

    /// Returns the place of an ended chunk that the disk did not accept whole.
    fn in_memory(self, mut request: ObjectRequest, naming: NameFallback, entry: Box<Entry>) -> Place {
        let charged = self.waiting.iter().map(|(.., charged)| charged).sum();
        let part = self.file.map(PartialFile::new);
        let on_file = part.as_ref().map_or(0, |p| p.len()).min(request.size);
        // Skip what is in the file already.
        let rest = self.waiting.into_iter().filter_map(|(at, bytes, _)| {
            let known = usize::try_from(on_file.saturating_sub(at)).unwrap_or(usize::MAX);
            (known < bytes.len()).then(|| bytes.slice(known..))
        });
        let rest: Vec<Bytes> = rest.collect();
        request.body = match &part {
            Some(part) => Body::backed(Arc::<PartialFile>::clone(part), on_file, rest.iter().cloned()),
            None => Body::from_pieces(rest.iter().cloned()),
        };
        let part = part.map(|spooled| Part {
            spooled,
            len: on_file,
            rest,
        });
        Place::Memory(Arc::new(MemoryChunk {
            request,
            naming,
            sent: Arc::default(),
            charged,
            // Empty: the header is charged with the other bytes, because on disk every chunk has its own copy.
            head: Bytes::new(),
            entry: Some(entry),
            part,
        }))
    }
}
