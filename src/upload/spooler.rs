//! The task of one sink that writes chunks to disk.
//!
//! The streaming thread only leaves word ([`Op`]); the work is done here, on tokio's threads for blocking work and by few of the sinks
//! that share a spool folder at once. What the disk does not take stays in memory, charged there, and is tried again when something has
//! changed: a chunk was stored or dropped, or a second has passed. A chunk that ends meanwhile is sent from both.

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

/// How many sinks write to one folder at once: more make a disk slower, not faster.
const JOBS: usize = 2;
/// At an end it is time that counts: a file system makes one commit of several syncs.
const LAST_JOBS: usize = 8;
/// Who may write, by folder: a disk that hangs must not stop those on another.
static DESKS: Registry<PathBuf, Jobs> = Registry::new();

/// The permits of one folder.
pub struct Jobs {
    usual: Semaphore,
    last: Semaphore,
    lane: Lane,
    adopting: Arc<AsyncMutex<()>>,
}

impl Jobs {
    /// Those of a folder; all sinks that use it share them.
    pub fn of(folder: &Path, lane: Lane) -> Arc<Self> {
        let new = || {
            Arc::new(Self {
                usual: Semaphore::new(JOBS),
                last: Semaphore::new(LAST_JOBS),
                lane,
                adopting: Arc::default(),
            })
        };
        DESKS.get_or(folder.to_owned(), new)
    }

    /// The turn to take over what earlier sessions left, if it is free.
    pub(super) fn try_adopting(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.adopting).try_lock_owned().ok()
    }

    /// The same, when it is free.
    pub(super) async fn adopting(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.adopting).lock_owned().await
    }
}

/// How often a disk that takes nothing is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How often an idle disk with chunks on it is looked at: somebody may have removed them.
const LOOK: Duration = Duration::from_secs(5);
/// How long the end of a session waits for its folders to be released.
const RELEASE: Duration = Duration::from_millis(500);

/// Runs until the uploads have stopped and nothing is left to be written. `interval`: property `spool-sync-interval`;
/// `ahead` has the recorder leave word of what it has not decided about.
pub async fn run(
    uploads: Arc<UploadQueue>,
    writer: SpoolWriter,
    jobs: Arc<Jobs>,
    interval: Duration,
    ahead: Box<dyn Fn() + Send + Sync>,
) {
    let carry_out = |writer, work, sync| carry_out(&uploads, &jobs, writer, work, sync);
    // Written four times an interval and synced three ticks apart: what came in just after a sync is synced within one.
    // Not 0, of which an interval would panic.
    let mut ticks = tokio::time::interval((interval / 4).max(Duration::from_millis(5)));
    // After a slow write the missed ticks would come all at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
            _ = looks.tick(), if is_idle => {
                if uploads.wants_look() {
                    (writer, is_idle, is_blocked) = carry_out(writer, uploads.no_work(), false).await;
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
                (writer, is_idle, is_blocked) = carry_out(writer, uploads.no_work(), true).await;
                break;
            };
            (writer, is_idle, is_blocked) = carry_out(writer, work, sync).await;
            tried_at = Instant::now();
            // The sync that was due went with this work.
            sync = false;
        }
    }
}

async fn carry_out(
    uploads: &Arc<UploadQueue>,
    jobs: &Jobs,
    writer: Option<SpoolWriter>,
    work: Work,
    sync: bool,
) -> (Option<SpoolWriter>, bool, bool) {
    // Lost with a panic on its thread.
    let Some(mut writer) = writer else {
        uploads.disk_gone();
        return (None, true, false);
    };
    let is_last = uploads.is_near_the_end();
    let permits = if is_last { &jobs.last } else { &jobs.usual };
    // Here, since a wait for it on a blocking thread would keep that thread.
    let permit = permits.acquire().await;
    let draining = is_last.then(|| jobs.lane.draining());
    let touch = work.touch;
    let progress = Arc::clone(uploads);
    let done = spawn_blocking(move || {
        let trouble = writer.work(work, sync, &*progress);
        (writer, trouble)
    })
    .await;
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
    /// What the spool may believe of the time: the clocks, unless the server has shown that they are wrong.
    pub fn times(self: &Arc<Self>) -> Arc<Times> {
        // Weak: the queue holds the chunks, and these hold the times.
        let uploads = Arc::downgrade(self);
        let is_off = move || uploads.upgrade().is_some_and(|u| u.clock_off().is_some());
        Arc::new(Times::new(self.clock(), Box::new(is_off)))
    }

    /// Leaves word for the spooler.
    pub fn spool(&self, ops: impl IntoIterator<Item = Op>) {
        if let Some(disk) = &mut self.lock().disk {
            disk.ops.extend(ops);
        }
        self.disk_wake.notify_one();
    }

    /// Whether the chunk that is being recorded goes to disk as it comes.
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

    /// Whether an idle disk is worth a look: chunks lie on it, or it was in trouble.
    fn wants_look(&self) -> bool {
        let state = self.lock();
        let was_in_trouble = state.disk.as_ref().is_some_and(|d| d.health.trouble_at().is_some());
        !state.stopped && (state.chunks.len() > state.in_memory.len() || was_in_trouble)
    }

    /// The disk did not answer.
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

    /// A look at the disk alone, and at what is open there.
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

    /// What is to be done now, and whether the session has ended.
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

    /// Nobody writes any more: what was left to be written is lost, and its memory given back.
    fn disk_gone(&self) {
        let mut state = self.lock();
        let Some(disk) = &mut state.disk else { return };
        let in_hand = std::mem::take(&mut disk.in_hand);
        disk.health.block();
        disk.is_full = false;
        state.memory = state.memory.saturating_sub(in_hand.taken);
        // What the disk has of them is found by the next start.
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
            // An error is an answer as well.
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

    /// Lets go of everything: what is on disk waits there for the next start. What a disk that does not answer has not taken of chunks
    /// that have ended is reported as lost, for `reason`, and returned. Of what is in the hands of a call that does not return it may
    /// have taken more than it has said; the next start stores that.
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

/// Frees what holds folders of the spool, and waits only a moment for it: each of them asks the disk before it is released, a slow one
/// takes its time for many, and whoever ends a session has a deadline.
fn release(held: impl Send + 'static) {
    let (done, is_done) = channel::<()>();
    let thread = std::thread::Builder::new().name("gcs-release".to_owned());
    let begun = thread.spawn(move || {
        drop(held);
        drop(done);
    });
    // Without a thread they are freed by now.
    if begun.is_ok() {
        let _ = is_done.recv_timeout(RELEASE);
    }
}

impl QueueState {
    /// Reports what is not on disk of chunks that have ended: those of `ops`, and those whose end a writer has in hand, with `taken`
    /// bytes that are not written yet.
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
            // Where the beginning still waits, nothing of the chunk is in the writer's hands.
            if !begins.contains(&sequence) {
                // Which chunks the bytes in hand are of is not known: the oldest count first.
                let in_hand = taken.min(summary.size.saturating_sub(bytes));
                taken -= in_hand;
                bytes += in_hand;
            }
            let bytes = bytes.min(summary.size);
            if bytes == 0 {
                // All but its end is on disk, as after a kill.
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

/// What the user reads of folders that somebody has removed.
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
        state.memory = state.memory.saturating_sub(written.released);
        if let Some(disk) = &mut state.disk {
            // Those that ended keep the rest of their charge.
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
            // The others in memory were given up before.
            if let (false, Some(reason)) = (is_on_disk, abandoned) {
                gone.push(state.give_up(ticket, reason));
            }
        }
        drop(state);
        drop(gone);
        self.publish();
        self.wake.notify_one();
        self.changed.notify_all();
    }

    fn on_disk(&self) -> Vec<(Ticket, Arc<dyn SpooledChunk>)> {
        let mut state = self.lock();
        // Shelved chunks lie in the same folders, and are lost with them.
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
        // One whose attempt has begun since is read from its open file, or found to be lost by that attempt.
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
        // All others were reported as lost before; this one may have been saved at the last moment.
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
