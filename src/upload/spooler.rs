//! The task of one sink that writes chunks to disk.
//!
//! The streaming thread only queues operations ([`Op`]). This task carries them out on tokio's threads for blocking work, for a
//! limited number of the sinks that share a spool folder at once. What the disk does not accept stays in memory, charged there,
//! and is tried again when something has changed: a chunk was stored or dropped, or a second has passed. A chunk that ends
//! meanwhile is sent partly from disk and partly from memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior};

use super::chunk::{Chunk, Place, SpooledChunk, Summary};
use super::disk_state::{Mode, Phase};
use super::life::Step;
use super::ops::{Op, Progress, Touch, Work, Written, charges};
use super::queue::UploadQueue;
use super::report::{DAMAGED, DEFECT, Report};
use super::spool_writer::SpoolWriter;
use super::spooled_chunk::Times;
use super::state::QueueState;
use super::ticket::Ticket;
use crate::base::registry::Registry;
use crate::flow::pending::Pending;
use crate::spool::SpoolError;
use crate::spool::lane::Lane;
use gcstreamer_schema::units;

/// Most sinks that write to one folder at once: more make a disk slower, not faster.
const JOBS: usize = 2;
/// The same while a sink ends. Its deadline matters more than throughput, and a file system combines several syncs into one
/// commit.
const LAST_JOBS: usize = 8;
/// The permits by folder: a disk that hangs must not stop the sinks on another disk.
static PERMITS: Registry<PathBuf, Jobs> = Registry::new();

/// The permits of one folder.
pub struct Jobs {
    usual: Semaphore,
    last: Semaphore,
    lane: Lane,
    adopting: Arc<AsyncMutex<()>>,
}

impl Jobs {
    /// Returns the permits of a folder, shared by all sinks that use it.
    pub fn of(folder: &Path, lane: Lane) -> Arc<Self> {
        let new = || {
            Arc::new(Self {
                usual: Semaphore::new(JOBS),
                last: Semaphore::new(LAST_JOBS),
                lane,
                adopting: Arc::default(),
            })
        };
        PERMITS.get_or(folder.to_owned(), new)
    }

    /// Takes the turn to adopt what earlier sessions left; `None` if another sink has it.
    pub(super) fn try_adopting(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.adopting).try_lock_owned().ok()
    }

    /// Waits for the turn to adopt.
    pub(super) async fn adopting(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.adopting).lock_owned().await
    }
}

/// Interval between retries while the disk accepts nothing.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Interval between checks of an idle disk with chunks on it: somebody may have removed them.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// Longest wait at the end of a session for its folders to be released.
const RELEASE: Duration = Duration::from_millis(500);

/// Runs until the uploads have stopped and nothing is left to write. `interval` is the property `spool-sync-interval`. `ahead`
/// asks the recorder to queue the bytes that it has not assigned to a chunk yet.
pub async fn run(
    uploads: Arc<UploadQueue>,
    writer: SpoolWriter,
    jobs: Arc<Jobs>,
    interval: Duration,
    ahead: Box<dyn Fn() + Send + Sync>,
) {
    let perform = |writer, work, sync| perform(&uploads, &jobs, writer, work, sync);
    // Four writes an interval, a sync at every third: what arrives just after a sync is synced within one interval. The lower
    // bound avoids a zero period, for which `tokio::time::interval` panics.
    let mut ticks = tokio::time::interval((interval / 4).max(Duration::from_millis(5)));
    // Without `Delay` the ticks that were missed during a slow write would all fire at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut checks = tokio::time::interval(CHECK_EVERY);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut writer = Some(writer);
    let (mut tick, mut tried_at, mut is_idle, mut is_blocked) = (0u64, Instant::now(), true, false);
    loop {
        let mut sync = false;
        tokio::select! {
            () = uploads.disk_woken() => {}
            _ = ticks.tick(), if !is_idle || is_blocked || uploads.is_disk_hung() => {
                tick += 1;
                sync = tick % 3 == 0;
                ahead();
            }
            _ = checks.tick(), if is_idle => {
                if uploads.wants_check() {
                    (writer, is_idle, is_blocked) = perform(writer, uploads.no_work(), false).await;
                }
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
                (writer, is_idle, is_blocked) = perform(writer, uploads.no_work(), true).await;
                break;
            };
            (writer, is_idle, is_blocked) = perform(writer, work, sync).await;
            tried_at = Instant::now();
            // The sync that was due was part of this work.
            sync = false;
        }
    }
}

async fn perform(
    uploads: &Arc<UploadQueue>,
    jobs: &Jobs,
    writer: Option<SpoolWriter>,
    work: Work,
    sync: bool,
) -> (Option<SpoolWriter>, bool, bool) {
    // `None`: the writer was lost when its thread panicked.
    let Some(mut writer) = writer else {
        uploads.disk_gone();
        return (None, true, false);
    };
    let is_last = uploads.is_near_the_end();
    let permits = if is_last { &jobs.last } else { &jobs.usual };
    // Acquired here: waiting for the permit on a blocking thread would occupy that thread.
    let permit = permits.acquire().await;
    let draining = is_last.then(|| jobs.lane.draining());
    let touch = work.touch;
    let progress = Arc::clone(uploads);
    let done = spawn_blocking(move || {
        let trouble = writer.work(work, sync, &*progress);
        (writer, trouble)
    })
    .await;
    // Before `disk_done`, whose observer may block: other sinks of this folder wait for the permit.
    drop((permit, draining));
    match done {
        Ok((writer, trouble)) => {
            let (is_idle, is_blocked) = (writer.is_idle(), trouble.is_some());
            uploads.disk_done(touch, trouble);
            (Some(writer), is_idle, is_blocked)
        }
        Err(panic) => {
            uploads.broken(&format!("writing to spool-dir: {panic}"));
            uploads.disk_gone();
            (None, true, false)
        }
    }
}

impl UploadQueue {
    /// Returns the time source of the spool: the machine's clocks, unless the server has shown that they are wrong.
    pub fn times(self: &Arc<Self>) -> Arc<Times> {
        // Weak, against a cycle of references: the queue owns the chunks, and the chunks own the times.
        let uploads = Arc::downgrade(self);
        let is_off = move || uploads.upgrade().is_some_and(|u| u.clock_off().is_some());
        Arc::new(Times::new(self.clock(), Box::new(is_off)))
    }

    /// Queues operations for the spooler and wakes it.
    pub fn spool(&self, ops: impl IntoIterator<Item = Op>) {
        if let Some(disk) = &mut self.lock().disk {
            disk.ops.extend(ops);
        }
        self.disk_wake.notify_one();
    }

    /// Sets whether the open chunk is written to disk while it is recorded (`overflow` only).
    pub fn open_on_disk(&self, is_on_disk: bool) {
        if let Some(disk) = &mut self.lock().disk
            && let Mode::Overflow { open_on_disk } = &mut disk.mode
        {
            *open_on_disk = is_on_disk;
        }
    }

    async fn disk_woken(&self) {
        self.disk_wake.notified().await;
    }

    fn try_disk_again(&self) {
        if let Some(disk) = &mut self.lock().disk {
            disk.health.retry();
        }
    }

    /// Whether an idle disk has to be checked: chunks lie on it, or it was in trouble.
    fn wants_check(&self) -> bool {
        let state = self.lock();
        let was_in_trouble = state.disk.as_ref().is_some_and(|d| d.health.trouble_at().is_some());
        !state.stopped && (state.chunks.len() > state.in_memory.len() || was_in_trouble)
    }

    /// Notes that the disk did not answer, and puts its chunks off.
    pub(super) fn disk_hangs(&self, why: &SpoolError) {
        let mut state = self.lock();
        let now = self.now();
        state.disk_hangs(&why.to_string(), now);
        state.poll(now);
        drop(state);
        self.publish();
    }

    fn is_disk_hung(&self) -> bool {
        self.lock().is_disk_hung()
    }

    /// Returns work without new operations: it checks the disk and continues the writes of open chunks.
    fn no_work(&self) -> Work {
        let mut state = self.lock();
        let touch = state.touch(self.now());
        Work {
            touch,
            ..Work::default()
        }
    }

    fn is_near_the_end(&self) -> bool {
        self.lock().disk.as_ref().is_some_and(|d| d.phase.is_ending())
    }

    /// Takes what is to be done now. The second value is whether the session has ended.
    pub(super) fn take_disk_work(&self) -> (Option<Work>, bool) {
        let mut state = self.lock();
        let stopped = state.stopped;
        let touch = state.touch(self.now());
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
            touch,
        };
        let retry = disk.health.take_retry() || touch == Touch::Probe;
        let leaving = !work.discards.is_empty() || !work.confirms.is_empty();
        if work.ops.is_empty() && !leaving && work.moves.is_empty() && !retry {
            return (None, stopped);
        }
        disk.in_hand.working = true;
        disk.in_hand.taken += charges(&work.ops);
        let ends = work.ops.iter().filter_map(|op| match op {
            Op::End(closing) => Some((closing.summary.sequence, closing.summary.clone())),
            _ => None,
        });
        disk.in_hand.ends.extend(ends);
        (Some(work), stopped)
    }

    /// The writer is lost. Reports what it had not written as lost and refunds its memory.
    fn disk_gone(&self) {
        let mut state = self.lock();
        let Some(disk) = &mut state.disk else { return };
        let in_hand = std::mem::take(&mut disk.in_hand);
        disk.health.block();
        disk.is_full = false;
        state.memory.refund(in_hand.taken);
        // The next start stores what the disk has of them.
        for summary in in_hand.ends.into_values() {
            state.lose(summary, DEFECT);
        }
        drop(state);
        self.publish();
        self.changed.notify_all();
    }

    pub(super) fn disk_done(&self, touch: Touch, trouble: Option<SpoolError>) {
        let mut state = self.lock();
        let now = self.now();
        match &trouble {
            Some(trouble) if trouble.is_hung() => {
                state.disk_hangs(&trouble.to_string(), now);
            }
            // An error counts as an answer too: the disk no longer hangs.
            _ if touch == Touch::Probe => state.disk_answers(),
            _ => {}
        }
        let is_hung = state.is_disk_hung();
        let Some(disk) = &mut state.disk else { return };
        disk.in_hand.working = false;
        if !is_hung {
            state.disk_answered(trouble, now);
        }
        drop(state);
        self.publish();
        self.wake.notify_one();
        self.changed.notify_all();
    }

    /// Drops everything at the end of the session; chunks on disk wait there for the next start. Reports the bytes of ended
    /// chunks that a hanging disk has not accepted as lost, for `reason`, and returns their number. A write that has not returned
    /// may have stored more than it has reported; the next start stores that too.
    pub fn forget(&self, reason: &'static str) -> Pending {
        let mut state = self.lock();
        let chunks = (std::mem::take(&mut state.chunks), std::mem::take(&mut state.shelf));
        state.in_memory.clear();
        state.movable.clear();
        let sent_on = std::mem::take(&mut state.sent_on);
        let Some(disk) = &mut state.disk else {
            return Pending::default();
        };
        disk.phase = Phase::Forgotten;
        let ops = std::mem::take(&mut disk.ops);
        let (in_hand, taken) = (std::mem::take(&mut disk.in_hand.ends), disk.in_hand.taken);
        let lost = state.unwritten(&ops, in_hand, taken, reason);
        drop(state);
        release((chunks, sent_on, ops));
        lost
    }
}

/// Drops `held` on a thread of its own and waits at most [`RELEASE`] for it. Releasing a folder of the spool asks the disk first,
/// which takes long for many folders on a slow disk, and the caller has a deadline.
fn release(held: impl Send + 'static) {
    // Nothing is sent: the end of `done` wakes the caller, also if releasing panics.
    let (done, is_done) = channel::<()>();
    let thread = std::thread::Builder::new().name("gcs-release".to_owned());
    let begun = thread.spawn(move || {
        drop(held);
        drop(done);
    });
    // If the thread could not be started, `spawn` has dropped the closure and with it `held`.
    if begun.is_ok() {
        let _ = is_done.recv_timeout(RELEASE);
    }
}

impl QueueState {
    /// Reports the bytes of ended chunks that are not on disk: chunks that end in `ops`, and `ends`, whose end the writer has
    /// taken together with `taken` bytes that it has not written yet.
    fn unwritten(
        &mut self,
        ops: &VecDeque<Op>,
        mut ends: BTreeMap<u64, Summary>,
        mut taken: u64,
        reason: &'static str,
    ) -> Pending {
        let (mut begins, mut waiting) = (BTreeSet::new(), BTreeMap::<u64, u64>::new());
        for op in ops {
            match op {
                Op::Begin { sequence, .. } => {
                    begins.insert(*sequence);
                }
                Op::Data { sequence, bytes, .. } => *waiting.entry(*sequence).or_default() += bytes.len() as u64,
                Op::Ahead { .. } => {}
                Op::End(closing) => {
                    ends.insert(closing.summary.sequence, closing.summary.clone());
                }
            }
        }
        let mut lost = Pending::default();
        for (sequence, summary) in ends {
            let mut bytes = waiting.get(&sequence).copied().unwrap_or(0);
            // While its beginning is still queued, the writer has nothing of the chunk.
            if !begins.contains(&sequence) {
                // `taken` is not known by chunk: assign it to the oldest chunks first.
                let in_hand = taken.min(summary.size.saturating_sub(bytes));
                taken -= in_hand;
                bytes += in_hand;
            }
            let bytes = bytes.min(summary.size);
            if bytes == 0 {
                // Only its End is missing on disk, as after a kill: the next start stores it.
                continue;
            }
            (lost.chunks, lost.bytes) = (lost.chunks + 1, lost.bytes + bytes);
            if bytes < summary.size {
                let stays = summary.size - bytes;
                self.cut(summary, stays, reason);
            } else {
                self.lose(summary, reason);
            }
        }
        lost
    }
}

/// Returns the warning about folders that somebody has removed.
fn removed_text(folders: &[PathBuf], chunks: u64, bytes: u64) -> String {
    let first = folders.first().map(|f| f.display().to_string()).unwrap_or_default();
    let more = match folders.len() {
        0 | 1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    let lost = match chunks {
        0 => "no closed chunk was in it".to_owned(),
        n => format!("lost with it: {} of {}", units::chunks(n), units::bytes(bytes)),
    };
    format!(
        "somebody has removed {first}{more} in spool-dir: {lost}; recording goes on in a new folder. Only gcssink may remove what lies below spool-dir"
    )
}

impl Progress for UploadQueue {
    fn wrote(&self, written: Written) {
        let mut state = self.lock();
        let now = self.now();
        state.memory.refund(written.released);
        if let Some(disk) = &mut state.disk {
            // Chunks that ended in memory stay charged for what was not written.
            let ended: u64 = written.ended.iter().map(Chunk::charged).sum();
            for chunk in &written.ended {
                disk.in_hand.ends.remove(&chunk.summary.sequence);
            }
            let taken = &mut disk.in_hand.taken;
            *taken = taken.saturating_sub(written.released + ended);
        }
        let abandoned = state.disk.as_ref().and_then(|d| d.phase.abandoned());
        let mut gone = Vec::new();
        for chunk in written.ended {
            let ticket = Ticket::own(chunk.summary.sequence);
            let is_on_disk = chunk.is_on_disk();
            if is_on_disk {
                state.note(&chunk.summary.session, chunk.summary.sequence, Step::Spooled);
            }
            state.insert(ticket, chunk, now);
            // The chunks that were in memory when the deadline passed were given up then; this one arrives later.
            if let (false, Some(reason)) = (is_on_disk, abandoned) {
                gone.push(state.give_up(ticket, reason));
            }
        }
        drop(state);
        // Freed without the lock, which `render` takes for each buffer.
        drop(gone);
        self.publish();
        self.wake.notify_one();
        self.changed.notify_all();
    }

    fn on_disk(&self) -> Vec<(Ticket, Arc<dyn SpooledChunk>)> {
        let mut state = self.lock();
        // Shelved chunks lie in the same folders and are lost with them.
        state.unshelve_all();
        let waiting = state.chunks.iter().filter(|(t, _)| !state.scheduler.is_in_flight(**t));
        let on_disk = waiting.filter_map(|(&ticket, chunk)| match &chunk.place {
            Place::Disk(spooled) => Some((ticket, Arc::clone(spooled))),
            Place::Memory(_) => None,
        });
        on_disk.collect()
    }

    fn removed(&self, folders: &[PathBuf], lost: &[Ticket]) {
        let mut state = self.lock();
        let before = state.stats;
        // Skip chunks whose attempt has begun since: the attempt reads the open file, or finds that the chunk is lost.
        let lost: Vec<Ticket> = lost.iter().copied().filter(|&t| !state.scheduler.is_in_flight(t)).collect();
        let gone: Vec<_> = lost.iter().map(|&ticket| state.drop_chunk(ticket, DAMAGED)).collect();
        let (chunks, bytes) = (
            state.stats.dropped - before.dropped,
            state.stats.bytes_dropped - before.bytes_dropped,
        );
        state.reports.push_back(Report::Warning(removed_text(folders, chunks, bytes)));
        drop(state);
        drop(gone);
        self.publish();
        self.wake.notify_one();
        self.disk_wake.notify_one();
        self.changed.notify_all();
    }

    fn may_finish(&self, ticket: Ticket) -> bool {
        let mut state = self.lock();
        let is_wanted = state.chunks.contains_key(&ticket);
        if let Some(disk) = &mut state.disk {
            disk.in_hand.finishing = is_wanted.then_some(ticket);
        }
        is_wanted
    }

    fn moved(&self, ticket: Ticket, spooled: Option<Arc<dyn SpooledChunk>>) -> Option<Arc<dyn SpooledChunk>> {
        let mut state = self.lock();
        let is_moved = spooled.is_some();
        let unwanted = state.moved(ticket, spooled);
        // All others were reported as lost at the deadline; this one was being moved and may have been saved at the last moment.
        let abandoned = state.disk.as_ref().and_then(|d| d.phase.abandoned()).filter(|_| !is_moved);
        let gone = abandoned.map(|reason| state.give_up(ticket, reason));
        drop(state);
        drop(gone);
        self.publish();
        self.wake.notify_one();
        self.changed.notify_all();
        unwanted
    }
}
