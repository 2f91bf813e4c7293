//! The task of one sink that writes chunks to disk.
//!
//! The streaming thread only leaves word ([`Op`]); the work is done here, on tokio's threads for blocking work and by at most
//! two sinks of the process at once. What the disk does not take stays in memory, charged there, and is tried again when
//! something has changed: a chunk was stored or dropped, or a second has passed. A chunk that ends meanwhile is sent from
//! both.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior};

use super::attempt::Naming;
use super::chunk::{Chunk, Held, Kept, Place, Summary};
use super::kept::{Part, SpoolChunk, Times};
use super::report::Report;
use super::uploads::Uploads;
use crate::gcs::{Body, ObjectRequest};
use crate::spool::{ClosedEntry, Entry, OpenChunk, Session, SpoolError};

/// How many sinks of the process write at once: more make a disk slower, not faster.
static DISK_JOBS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(2));
/// The disk works again when it has for so long, ns.
const QUIET: u64 = 60_000_000_000;
/// How often a disk that takes nothing is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

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
    pub naming: Naming,
    /// For messages.
    pub summary: Summary,
    /// When it was closed, ns on the sink's scale.
    pub closed_at: u64,
}

/// What the spooler is to do.
#[derive(Default)]
pub(super) struct Work {
    pub(super) ops: Vec<Op>,
    pub(super) discards: Vec<Arc<dyn Kept>>,
    pub(super) confirms: Vec<Arc<dyn Kept>>,
    pub(super) moves: Vec<(u64, Arc<Chunk>)>,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Written {
    /// Bytes of memory given back.
    pub(super) released: u64,
    /// Chunks that have ended.
    pub(super) ended: Vec<Chunk>,
    /// Chunks that were moved, or could not be.
    pub(super) moved: Vec<(u64, Option<Arc<dyn Kept>>)>,
    /// What the disk said.
    pub(super) trouble: Option<SpoolError>,
}

/// The blocking side: files that are open.
pub struct Desk {
    session: Session,
    times: Arc<Times>,
    open: BTreeMap<u64, Writing>,
}

/// A chunk that is being written.
struct Writing {
    entry: Box<Entry>,
    file: Option<OpenChunk>,
    /// What is not written yet: offset, bytes, charge.
    waiting: Vec<(u64, Bytes, u64)>,
    ahead: Vec<(u64, Bytes)>,
}

impl Desk {
    /// For the chunks of this session.
    pub fn new(session: Session, times: Arc<Times>) -> Self {
        Self {
            session,
            times,
            open: BTreeMap::new(),
        }
    }

    fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    fn work(&mut self, work: Work, sync: bool) -> Written {
        let mut written = Written::default();
        // First what makes room.
        work.discards.iter().for_each(|chunk| chunk.discard());
        work.confirms.iter().for_each(|chunk| chunk.confirm());
        for op in work.ops {
            match op {
                Op::Begin { sequence, entry } => {
                    let writing = Writing {
                        entry,
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
                Op::End(closing) => self.end(*closing, &mut written),
            }
        }
        for writing in self.open.values_mut() {
            writing.write(&self.session, sync, &mut written);
        }
        for (ticket, chunk) in work.moves {
            let moved = self.put_away(&chunk).map_err(|e| written.trouble = Some(e)).ok();
            written.moved.push((ticket, moved));
        }
        written
    }

    fn end(&mut self, closing: Closing, written: &mut Written) {
        let Some(mut writing) = self.open.remove(&closing.summary.sequence) else {
            return;
        };
        // What was written ahead beyond the end is no part of the chunk.
        writing.ahead.clear();
        writing.write(&self.session, false, written);
        let closed = ClosedEntry {
            entry: (*closing.entry).clone(),
            size: closing.request.size,
            crc32c: closing.request.crc32c,
        };
        let mut place = None;
        if writing.waiting.is_empty()
            && let Some(file) = &mut writing.file
        {
            match file.finish(&closed) {
                Ok(stored) => place = Some(Place::Disk(SpoolChunk::new(stored, Arc::clone(&self.times)))),
                Err(e) => written.trouble = Some(e),
            }
        }
        written.ended.push(Chunk {
            summary: closing.summary,
            place: place.unwrap_or_else(|| writing.in_memory(closing.request, closing.naming)),
            recovered: false,
            site: None,
            renamed: None,
            closed_at: closing.closed_at,
        });
    }

    /// A closed chunk goes from memory to disk.
    fn put_away(&self, chunk: &Chunk) -> Result<Arc<dyn Kept>, SpoolError> {
        let Place::Memory(held) = &chunk.place else {
            unreachable!("only what is in memory is moved")
        };
        let (Some(entry), Some(pieces)) = (&held.entry, held.request.body.pieces()) else {
            unreachable!("only what can be moved is moved")
        };
        let mut file = self.session.create(entry)?;
        let closed = ClosedEntry {
            entry: (**entry).clone(),
            size: held.request.size,
            crc32c: held.request.crc32c,
        };
        match file.append(0, &pieces).and_then(|()| file.finish(&closed)) {
            Ok(stored) => Ok(SpoolChunk::new(stored, Arc::clone(&self.times))),
            Err(e) => {
                let _ = file.abandon();
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
            written.released += self.waiting.drain(..).map(|(.., charged)| charged).sum::<u64>();
        }
        if let Some(&(at, _)) = ahead.first().filter(|(at, _)| *at <= file.len_on_file()) {
            let parts: Vec<Bytes> = ahead.into_iter().map(|(_, bytes)| bytes).collect();
            file.append(at, &parts)?;
        }
        if sync { file.sync() } else { Ok(()) }
    }

    /// The chunk has ended, and the disk did not take all of it.
    fn in_memory(self, mut request: ObjectRequest, naming: Naming) -> Place {
        let charged = self.waiting.iter().map(|(.., charged)| charged).sum();
        let part = self.file.map(Part::new);
        let on_file = part.as_ref().map_or(0, |p| p.len()).min(request.size);
        // What is on the file already is not taken from memory a second time.
        let rest = self.waiting.into_iter().filter_map(|(at, bytes, _)| {
            let known = usize::try_from(on_file.saturating_sub(at)).unwrap_or(usize::MAX);
            (known < bytes.len()).then(|| bytes.slice(known..))
        });
        request.body = match &part {
            Some(part) => Body::backed(Arc::<Part>::clone(part), on_file, rest),
            None => Body::from_pieces(rest),
        };
        Place::Memory(Arc::new(Held {
            request,
            naming,
            charged,
            entry: None,
            part: part.map(|part| part as Arc<dyn Kept>),
        }))
    }
}

/// Runs until the uploads have stopped and nothing is left to be written. `interval`: property `spool-sync-interval`;
/// `ahead` has the recorder leave word of what it has not decided about.
pub async fn run(uploads: Arc<Uploads>, desk: Desk, interval: Duration, ahead: Box<dyn Fn() + Send + Sync>) {
    // Written four times an interval and synced three ticks apart: what came in just after a sync is synced within one.
    let mut ticks = tokio::time::interval((interval / 4).max(Duration::from_millis(5)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut desk = Some(desk);
    let (mut tick, mut tried_at, mut is_idle, mut is_blocked) = (0u64, Instant::now(), true, false);
    loop {
        let mut sync = false;
        tokio::select! {
            () = uploads.disk_woken() => {}
            _ = ticks.tick(), if !is_idle => {
                tick += 1;
                sync = tick % 3 == 0;
                ahead();
            }
        }
        if is_blocked && tried_at.elapsed() >= TRY_AGAIN {
            uploads.try_disk_again();
        }
        loop {
            let (work, stopped) = uploads.take_disk_work();
            let Some(work) = work else {
                if stopped {
                    return;
                }
                if !sync {
                    break;
                }
                (desk, is_idle, is_blocked) = carry_out(&uploads, desk, Work::default(), true).await;
                break;
            };
            (desk, is_idle, is_blocked) = carry_out(&uploads, desk, work, sync).await;
            tried_at = Instant::now();
            sync = false;
        }
    }
}

async fn carry_out(uploads: &Uploads, desk: Option<Desk>, work: Work, sync: bool) -> (Option<Desk>, bool, bool) {
    let Some(mut desk) = desk else {
        uploads.disk_done(Written::default());
        return (None, true, false);
    };
    let permit = DISK_JOBS.acquire().await;
    let moving: Vec<u64> = work.moves.iter().map(|(ticket, _)| *ticket).collect();
    let done = spawn_blocking(move || {
        let written = desk.work(work, sync);
        (desk, written)
    })
    .await;
    drop(permit);
    match done {
        Ok((desk, written)) => {
            let is_blocked = written.trouble.is_some();
            let is_idle = desk.is_idle();
            uploads.disk_done(written);
            (Some(desk), is_idle, is_blocked)
        }
        Err(panic) => {
            uploads.broken(&format!("writing to spool-dir: {panic}"));
            uploads.disk_done(Written {
                moved: moving.into_iter().map(|ticket| (ticket, None)).collect(),
                ..Written::default()
            });
            (None, true, false)
        }
    }
}

impl Uploads {
    /// Leaves word for the spooler.
    pub fn spool(&self, ops: impl IntoIterator<Item = Op>) {
        if let Some(disk) = &mut self.lock().disk {
            disk.ops.extend(ops);
        }
        self.disk_wake.notify_one();
    }

    /// Whether the chunk that is being recorded goes to disk as it comes.
    pub fn open_on_disk(&self, is_on_disk: bool) {
        if let Some(disk) = &mut self.lock().disk {
            disk.open_on_disk = is_on_disk;
        }
    }

    async fn disk_woken(&self) {
        self.disk_wake.notified().await;
    }

    fn try_disk_again(&self) {
        if let Some(disk) = &mut self.lock().disk {
            disk.blocked = false;
            disk.retry = true;
        }
    }

    /// What is to be done now, and whether the session has ended.
    fn take_disk_work(&self) -> (Option<Work>, bool) {
        let mut state = self.lock();
        let stopped = state.stopped;
        let mut moves = Vec::new();
        while let Some(next) = state.take_move() {
            moves.push(next);
        }
        let Some(disk) = &mut state.disk else { return (None, true) };
        let work = Work {
            ops: disk.ops.drain(..).collect(),
            discards: std::mem::take(&mut disk.discards),
            confirms: std::mem::take(&mut disk.confirms),
            moves,
        };
        let retry = std::mem::take(&mut disk.retry);
        let leaving = !work.discards.is_empty() || !work.confirms.is_empty();
        if work.ops.is_empty() && !leaving && work.moves.is_empty() && !retry {
            return (None, stopped);
        }
        disk.working = true;
        (Some(work), stopped)
    }

    fn disk_done(&self, written: Written) {
        let mut state = self.lock();
        let now = self.now();
        state.memory = state.memory.saturating_sub(written.released);
        for chunk in written.ended {
            let ticket = super::state::own_ticket(chunk.summary.sequence);
            state.insert(ticket, chunk, now);
        }
        let mut gone = Vec::new();
        for (ticket, kept) in written.moved {
            gone.extend(state.moved(ticket, kept));
        }
        let Some(disk) = &mut state.disk else { return };
        disk.working = false;
        // Stored or let go of while they were being moved.
        disk.confirms.extend(gone);
        disk.blocked = written.trouble.is_some();
        match (written.trouble, disk.trouble_at) {
            (Some(trouble), told) => {
                disk.trouble_at = Some(now);
                if told.is_none() {
                    let full = trouble.is_full();
                    let text = trouble.to_string();
                    state.reports.push_back(Report::Disk { full, text });
                }
            }
            // A full disk takes a bit again and again, whenever a chunk leaves it: that is no news.
            (None, Some(at)) if now.saturating_sub(at) >= QUIET => {
                disk.trouble_at = None;
                state.reports.push_back(Report::DiskWorks);
            }
            (None, _) => {}
        }
        drop(state);
        self.tell();
        self.wake.notify_one();
        self.changed.notify_all();
    }

    /// Lets go of everything: what is on disk waits there for the next start.
    pub fn forget(&self) {
        let mut state = self.lock();
        let chunks = std::mem::take(&mut state.chunks);
        let ops = state.disk.as_mut().map(|d| std::mem::take(&mut d.ops));
        drop(state);
        drop((chunks, ops));
    }
}
