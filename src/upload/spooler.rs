//! The task of one sink that writes chunks to disk.
//!
//! The streaming thread only leaves word ([`Op`]); the work is done here, on tokio's threads for blocking work and by few sinks
//! of the process at once. What the disk does not take stays in memory, charged there, and is tried again when something has
//! changed: a chunk was stored or dropped, or a second has passed. A chunk that ends meanwhile is sent from both.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior};

use super::attempt::Naming;
use super::chunk::{Chunk, Kept, Summary};
use super::desk::{Desk, Written};
use super::report::Report;
use super::uploads::Uploads;
use crate::spool::{Entry, SpoolError};
use gcstreamer_storage::ObjectRequest;

/// How many sinks of the process write at once: more make a disk slower, not faster.
static DISK_JOBS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(2));
/// At an end it is time that counts: a file system makes one commit of several syncs.
static LAST_JOBS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(8));
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

async fn carry_out(uploads: &Arc<Uploads>, desk: Option<Desk>, work: Work, sync: bool) -> (Option<Desk>, bool, bool) {
    let Some(mut desk) = desk else {
        uploads.disk_gone();
        return (None, true, false);
    };
    let jobs = if uploads.is_near_the_end() { &LAST_JOBS } else { &DISK_JOBS };
    let permit = jobs.acquire().await;
    let told = Arc::clone(uploads);
    let done = spawn_blocking(move || {
        let trouble = desk.work(work, sync, &told);
        (desk, trouble)
    })
    .await;
    drop(permit);
    match done {
        Ok((desk, trouble)) => {
            let (is_idle, is_blocked) = (desk.is_idle(), trouble.is_some());
            uploads.disk_done(trouble);
            (Some(desk), is_idle, is_blocked)
        }
        Err(panic) => {
            uploads.broken(&format!("writing to spool-dir: {panic}"));
            uploads.disk_gone();
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

    fn is_near_the_end(&self) -> bool {
        self.lock().disk.as_ref().is_some_and(|d| d.ending)
    }

    /// What is to be done now, and whether the session has ended.
    pub(super) fn take_disk_work(&self) -> (Option<Work>, bool) {
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
        disk.taken += charges(&work.ops);
        (Some(work), stopped)
    }

    /// What came to the open chunks is written, as far as the disk took it.
    pub(super) fn wrote(&self, written: Written) {
        let mut state = self.lock();
        let now = self.now();
        state.memory = state.memory.saturating_sub(written.released);
        if let Some(disk) = &mut state.disk {
            // Those that ended carry the rest of their charge on.
            let ended: u64 = written.ended.iter().map(Chunk::charged).sum();
            disk.taken = disk.taken.saturating_sub(written.released + ended);
        }
        for chunk in written.ended {
            let ticket = super::state::own_ticket(chunk.summary.sequence);
            state.insert(ticket, chunk, now);
        }
        drop(state);
        self.wake.notify_one();
        self.changed.notify_all();
    }

    /// Whether the end of a chunk that is being moved to disk may be written: it was neither stored nor let go of meanwhile.
    pub(super) fn may_finish(&self, ticket: u64) -> bool {
        let mut state = self.lock();
        let is_wanted = state.chunks.contains_key(&ticket);
        if let Some(disk) = &mut state.disk {
            disk.finishing = is_wanted.then_some(ticket);
        }
        is_wanted
    }

    /// A chunk was moved to disk, or could not be. What is on disk and not wanted there.
    pub(super) fn moved(&self, ticket: u64, kept: Option<Arc<dyn Kept>>) -> Option<Arc<dyn Kept>> {
        let mut state = self.lock();
        let is_moved = kept.is_some();
        let unwanted = state.moved(ticket, kept);
        // All others were told as lost before: this one could have been saved at the last moment.
        let abandoned = state.disk.as_ref().and_then(|d| d.abandoned).filter(|_| !is_moved);
        let gone = abandoned.and_then(|reason| state.let_go(ticket, reason));
        drop(state);
        drop(gone);
        self.tell();
        self.wake.notify_one();
        self.changed.notify_all();
        unwanted
    }

    /// Nobody writes any more: what was left to be written is lost, and its memory given back.
    fn disk_gone(&self) {
        let mut state = self.lock();
        let Some(disk) = &mut state.disk else { return };
        let taken = std::mem::take(&mut disk.taken);
        disk.moving.clear();
        disk.finishing = None;
        disk.working = false;
        disk.blocked = true;
        state.memory = state.memory.saturating_sub(taken);
        drop(state);
        self.changed.notify_all();
    }

    fn disk_done(&self, trouble: Option<SpoolError>) {
        let mut state = self.lock();
        let now = self.now();
        let Some(disk) = &mut state.disk else { return };
        disk.working = false;
        disk.blocked = trouble.is_some();
        match (trouble, disk.trouble_at) {
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
        let ops = state.disk.as_mut().map(|disk| {
            disk.forgotten = true;
            std::mem::take(&mut disk.ops)
        });
        drop(state);
        drop((chunks, ops));
    }
}

/// Bytes of memory that wait with these.
fn charges(ops: &[Op]) -> u64 {
    let charge = |op: &Op| if let Op::Data { charged, .. } = op { *charged } else { 0 };
    ops.iter().map(charge).sum()
}
