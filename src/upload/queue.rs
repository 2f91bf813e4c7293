//! The shared side of one sink: memory, queue, counters. The streaming thread gives chunks in and waits here when the memory
//! is full; the driver takes them out. One mutex, never held across I/O or a wait on anything but its own condition.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::chunk::{Chunk, Summary};
use super::health::{Health, Status};
use super::held::Leftovers;
use super::life::{Observer, Step, Unobserved};
use super::rate::Rate;
use super::report::{DAMAGED, Pending, Report, Snapshot, Stats};
use super::scheduler::Scheduler;
use super::state::{Disk, Mode, Phase, RATE_WINDOW, State, is_parked};
use super::ticket::Ticket;
use crate::base::clock::Clock;
use crate::flow::hold::Drain;

/// Property `overflow-policy`, `auto` resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Wait for room.
    Block,
    /// Let go of the oldest chunk, see [`Scheduler::to_drop`].
    DropOldest,
    /// End the recording with an error.
    Error,
}

/// See the module.
pub struct UploadQueue {
    state: Mutex<State>,
    pub(super) changed: Condvar,
    pub(super) wake: Notify,
    /// The spooler has something to do.
    pub(super) disk_wake: Notify,
    /// A session of an earlier process is held no more.
    pub(super) adopt_wake: Notify,
    /// The sink has ended: wakes all that wait for it.
    pub(super) stop_wake: Notify,
    pub(super) epoch: Instant,
    clock: Clock,
    wake_poster: Box<dyn Fn() + Send + Sync>,
    observer: Arc<dyn Observer>,
}

/// Limits from the settings.
#[derive(Clone, Copy, Debug)]
pub struct UploadLimits {
    /// Property `max-uploads`.
    pub max_uploads: usize,
    /// Property `max-memory-bytes`.
    pub max_memory: u64,
    /// Property `max-size-time`, ns.
    pub max_time: u64,
    /// Property `retry-timeout`, ns; `None` = for ever.
    pub retry_timeout: Option<u64>,
}

/// How a wait for the last chunk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Nothing is left.
    Yes,
    /// The time is up.
    TimedOut,
    /// The element is pausing or flushing.
    Interrupted,
    /// Whoever waits no longer wants to.
    GivenUp,
}

/// What came of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charged {
    /// The memory is charged.
    Yes,
    /// The memory is charged and fills up: the open chunk should continue on disk.
    MoveOpen,
    /// It is not charged.
    No(NoRoom),
}

impl Charged {
    /// Whether the memory is charged.
    pub fn is_taken(self) -> bool {
        !matches!(self, Self::No(_))
    }
}

/// Why a wait for room ended without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The element is flushing or pausing.
    Interrupted,
    /// The policy is [`Overflow::Error`].
    Full,
    /// The settings have changed: ask again.
    Again,
    /// Nothing is on its way: all memory is held by the open chunk.
    Nothing,
    /// The open chunk is to continue on disk.
    MoveOpen,
    /// The open chunk is to be cut and let go of: the only other one is on its way, and would never arrive if it gave way.
    CutOpen,
    /// Uploads are refused until the user acts, and the memory is full now.
    Refused,
}

impl UploadQueue {
    /// For a new session. `wake_poster` is called, from any thread and without a lock held, when there are reports.
    pub fn new(limits: UploadLimits, seed: u64, wake_poster: Box<dyn Fn() + Send + Sync>) -> Self {
        Self {
            state: Mutex::new(State {
                scheduler: Scheduler::new(limits.max_uploads, seed),
                chunks: BTreeMap::new(),
                in_memory: BTreeSet::new(),
                movable: BTreeSet::new(),
                pending_bytes: 0,
                parked_bytes: 0,
                adopted: 0,
                health: Health::new(limits.max_time),
                stats: Stats::default(),
                memory: 0,
                max_memory: limits.max_memory,
                headroom: 0,
                heads: HashMap::new(),
                retry_timeout: limits.retry_timeout,
                aborts: Vec::new(),
                version: 0,
                interrupted: false,
                stopped: false,
                clock_off_told: false,
                clock_off: None,
                reports: VecDeque::new(),
                life: Unobserved::default(),
                wall: Clock::SYSTEM.wall,
                recent: VecDeque::new(),
                input: Rate::default(),
                disk: None,
                recovered_told: false,
                leftovers: Leftovers::default(),
                gave_place: false,
                expiry_told: false,
                need: 0,
            }),
            changed: Condvar::new(),
            wake: Notify::new(),
            disk_wake: Notify::new(),
            adopt_wake: Notify::new(),
            stop_wake: Notify::new(),
            epoch: Instant::now(),
            clock: Clock::SYSTEM,
            wake_poster,
            observer: Arc::new(()),
        }
    }

    /// Reads these clocks instead of the machine's.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        self.lock().wall = clock.wall;
        Self {
            epoch: (clock.monotonic)(),
            clock,
            ..self
        }
    }

    /// Reports every step of every chunk to `observer`.
    #[must_use]
    pub fn with_observer(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    /// The clocks that it reads.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// ns since the session began.
    pub fn now(&self) -> u64 {
        self.ns((self.clock.monotonic)())
    }

    /// A time on the scale of [`UploadQueue::now`]; 0 before the session began.
    pub(super) fn ns(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Chunks may wait on disk too: every buffer as it comes, or (`overflow`) whole chunks when the memory is full. Somebody
    /// has to run the spooler, and to call [`UploadQueue::adopt`].
    #[must_use]
    pub fn with_disk(self, overflow: bool) -> Self {
        let mode = match overflow {
            true => Mode::Overflow { open_on_disk: false },
            false => Mode::Always,
        };
        self.lock().disk = Some(Disk::new(mode));
        self
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not take the recording with it: every change below leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other limits from now on.
    pub fn set_limits(&self, limits: UploadLimits) {
        let mut state = self.lock();
        state.scheduler.set_max_uploads(limits.max_uploads);
        state.max_memory = limits.max_memory;
        state.retry_timeout = limits.retry_timeout;
        state.version += 1;
        drop(state);
        self.changed.notify_all();
        self.wake.notify_one();
    }

    /// Makes room for a buffer of `bytes` and charges the memory with it. Waits if it has to and may.
    pub fn charge(&self, bytes: u64, overflow: Overflow) -> Charged {
        let mut state = self.lock();
        let version = state.version;
        loop {
            // A buffer that is larger than all memory is let in when nothing else is there.
            if state.memory == 0 || state.memory.saturating_add(bytes) <= state.max_memory.saturating_sub(state.headroom) {
                state.received(bytes, self.now());
                state.need = 0;
                if state.disk.is_none() {
                    return Charged::Yes;
                }
                if state.wants_move() {
                    self.disk_wake.notify_one();
                }
                return match state.wants_open_on_disk(false) {
                    true => Charged::MoveOpen,
                    false => Charged::Yes,
                };
            }
            if state.interrupted {
                return Charged::No(NoRoom::Interrupted);
            }
            if state.version != version {
                return Charged::No(NoRoom::Again);
            }
            state.need = bytes;
            if state.disk_makes_room() {
                self.disk_wake.notify_one();
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if state.wants_open_on_disk(true) {
                return Charged::No(NoRoom::MoveOpen);
            }
            if state.health.is_refused() && state.health.confirmed() {
                return Charged::No(NoRoom::Refused);
            }
            // On a disk that is full, what is parked is the oldest, and gives way as any other does.
            let may_drop_parked = overflow == Overflow::DropOldest && state.is_parked_in_the_way();
            if state.scheduler.pending() == 0 && !may_drop_parked {
                return Charged::No(NoRoom::Nothing);
            }
            match overflow {
                Overflow::Error => return Charged::No(NoRoom::Full),
                Overflow::DropOldest => {
                    let is_only = state.scheduler.pending() == 1 && state.scheduler.in_flight() == 1;
                    if is_only && state.disk.is_none() {
                        return Charged::No(NoRoom::CutOpen);
                    }
                    state = self.drop_oldest(state);
                    continue;
                }
                Overflow::Block => {}
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets go of the chunk that [`Scheduler::to_drop`] names.
    fn drop_oldest<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let Some(ticket) = state.scheduler.to_drop() else {
            return state;
        };
        if state.scheduler.is_in_flight(ticket) {
            state.scheduler.reduce_concurrency();
        }
        let gone = state.drop_chunk(ticket, "overflow");
        drop(state);
        drop(gone);
        self.publish();
        self.wake.notify_one();
        self.disk_wake.notify_one();
        self.lock()
    }

    /// The open chunk could not be cut: the one that is being sent has to go after all.
    pub fn drop_sent(&self) {
        drop(self.drop_oldest(self.lock()));
    }

    /// Charges the memory whatever is there: nothing could be done to make room.
    pub fn force_charge(&self, bytes: u64) {
        self.lock().received(bytes, self.now());
    }

    /// Leaves room for one chunk more at every charge, so that the memory keeps its bound when a buffer begins one.
    pub fn set_headroom(&self, bytes: u64) {
        let mut state = self.lock();
        state.headroom = bytes.min(state.max_memory / 16);
    }

    /// A chunk begins in memory: charges `overhead` bytes for what is kept of it beside its payload, and its header where no
    /// other chunk has the same. Returns the one copy of the header.
    pub fn begin_in_memory(&self, head: Bytes, overhead: u64) -> Bytes {
        let mut state = self.lock();
        state.memory += overhead;
        state.hold_head(head)
    }

    /// A chunk begins that is written to disk as it comes: charges `bytes` until they are written.
    pub fn begin_on_disk(&self, bytes: u64) {
        self.lock().memory += bytes;
    }

    /// The open chunk leaves the memory for the disk: its header is charged on its own from here on.
    pub fn leaves_memory(&self, head: &Bytes) {
        let mut state = self.lock();
        state.memory += head.len() as u64;
        state.drop_head(head);
    }

    /// Whether more is charged than fits, as after a buffer that began many chunks.
    pub fn is_over(&self) -> bool {
        let state = self.lock();
        state.memory > state.max_memory
    }

    /// What the last failure said.
    pub fn last_reason(&self) -> String {
        self.lock().health.reason().to_owned()
    }

    /// Data comes again after an EOS.
    pub fn resume(&self) {
        let mut state = self.lock();
        state.health.resume();
        state.scheduler.set_draining(None);
        if let Some(disk) = &mut state.disk {
            disk.phase = Phase::Recording;
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Whether what is on disk was left there by [`Self::abandon`], and nothing has come since.
    pub fn is_left_on_disk(&self) -> bool {
        self.lock().disk.as_ref().is_some_and(|disk| disk.phase.abandoned().is_some())
    }

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.lock().health.is_failing()
    }

    /// Takes a charge back: the buffer is not taken after all.
    pub fn refund(&self, bytes: u64) {
        let mut state = self.lock();
        state.memory = state.memory.saturating_sub(bytes);
        state.stats.bytes_received = state.stats.bytes_received.saturating_sub(bytes);
        state.input.take_back(bytes);
        drop(state);
        self.changed.notify_all();
    }

    /// Gives back what was charged for bytes that are in no chunk.
    pub fn release(&self, bytes: u64) {
        let mut state = self.lock();
        state.memory = state.memory.saturating_sub(bytes);
        drop(state);
        self.changed.notify_all();
    }

    /// Bytes before the first key unit were let go of.
    pub fn dropped(&self, bytes: u64) {
        self.lock().stats.bytes_dropped += bytes;
    }

    /// A chunk that an earlier session left was found damaged, and set aside before it was ever ours.
    pub fn lost(&self, summary: Summary) {
        let mut state = self.lock();
        state.stats.dropped += 1;
        state.stats.bytes_dropped += summary.size;
        let reason = DAMAGED;
        state.note(&summary.session, summary.sequence, Step::Dropped(reason));
        state.reports.push_back(Report::Dropped { summary, reason });
        drop(state);
        self.publish();
    }

    /// A chunk was opened. The caller publishes.
    pub fn created(&self, session: &Arc<str>, sequence: u64) {
        let mut state = self.lock();
        state.stats.created += 1;
        state.note(session, sequence, Step::Cut);
    }

    /// A chunk is complete, wherever its bytes are. The caller publishes.
    pub fn closed(&self, summary: &Summary) {
        let step = Step::Closed(summary.size);
        self.lock().note(&summary.session, summary.sequence, step);
    }

    /// A chunk of this session was closed: from here on it is the scheduler's. The caller publishes.
    pub fn queue(&self, chunk: Chunk) {
        let ticket = Ticket::own(chunk.summary.sequence);
        let now = self.now();
        self.lock().insert(ticket, chunk, now);
        self.wake.notify_one();
    }

    /// Chunks that earlier sessions left on disk, oldest first. `last`: there are no more.
    pub fn adopt(&self, chunks: Vec<Chunk>, last: bool) {
        let mut state = self.lock();
        let now = self.now();
        for chunk in chunks {
            let ticket = Ticket::recovered(state.adopted);
            state.adopted += 1;
            state.stats.recovered += 1;
            state.leftovers.add(&chunk, ticket, is_parked(&chunk), now);
            state.note(&chunk.summary.session, chunk.summary.sequence, Step::Found);
            state.insert(ticket, chunk, now);
        }
        if let (true, Some(disk)) = (last, &mut state.disk) {
            disk.adopting = false;
        }
        drop(state);
        if last {
            self.tell_leftovers();
        }
        self.publish();
        self.wake.notify_one();
        self.changed.notify_all();
    }

    /// Ends all waits for room (flush, pause), or allows them again.
    pub fn interrupt(&self, interrupted: bool) {
        self.lock().interrupted = interrupted;
        self.changed.notify_all();
    }

    /// EOS, or the end of PLAYING: what is left is sent now, and has `until` to arrive.
    pub fn ending(&self, status: Status, until: Instant) {
        let mut state = self.lock();
        state.health.ending(status);
        let drain = Drain {
            began: self.now(),
            until: self.ns(until),
        };
        state.scheduler.set_draining(Some(drain));
        state.poll(self.now());
        drop(state);
        self.publish();
        self.wake.notify_one();
    }

    /// Nothing may stay in memory alone: what is there is moved to disk while it is being sent.
    pub fn move_all(&self) {
        if let Some(disk) = &mut self.lock().disk {
            disk.phase.end();
        }
        self.disk_wake.notify_one();
    }

    /// Waits until all that was recorded is on disk, as [`UploadQueue::wait_drained`].
    pub fn wait_spooled(&self, until: Instant, heed_interrupt: bool, give_up: &dyn Fn() -> bool) -> Drained {
        self.wait(until, heed_interrupt, give_up, |state| {
            let is_writing = state.disk.as_ref().is_some_and(Disk::is_writing);
            !is_writing && state.in_memory.is_empty()
        })
    }

    /// Waits as long as the disk takes what is in memory, as [`UploadQueue::wait_drained`]. [`Drained::Yes`]: it takes no more.
    pub fn wait_moved(&self, until: Instant, heed_interrupt: bool, give_up: &dyn Fn() -> bool) -> Drained {
        self.wait(until, heed_interrupt, give_up, |state| !state.disk_goes_on())
    }

    /// Waits until no chunk is left, `until` has passed, the element is interrupted, or `give_up` returns true.
    pub fn wait_drained(&self, until: Instant, heed_interrupt: bool, give_up: &dyn Fn() -> bool) -> Drained {
        self.wait(until, heed_interrupt, give_up, State::is_drained)
    }

    fn wait(
        &self,
        until: Instant,
        heed_interrupt: bool,
        give_up: &dyn Fn() -> bool,
        is_done: impl Fn(&State) -> bool,
    ) -> Drained {
        let mut state = self.lock();
        while !is_done(&state) {
            let left = until.saturating_duration_since(Instant::now());
            if give_up() {
                return Drained::GivenUp;
            }
            if heed_interrupt && state.interrupted {
                return Drained::Interrupted;
            }
            if left.is_zero() {
                return Drained::TimedOut;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Drained::Yes
    }

    /// Wakes [`UploadQueue::wait_drained`], to look at its condition.
    pub fn notify(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Lets go of all chunks that are neither stored nor on disk, with a report for each. What that was, and what stays on
    /// disk, which is reported too unless another sink stores it soon (`tells_left`).
    pub fn abandon(&self, reason: &'static str, tells_left: bool) -> (Pending, Pending) {
        let mut state = self.lock();
        // The end of one may be being written at this moment: it is reported as lost only if that fails.
        let finishing = state.disk.as_ref().and_then(|d| d.in_hand.finishing);
        let lost: Vec<Ticket> = state.in_memory.iter().copied().filter(|&t| Some(t) != finishing).collect();
        let all = state.pending(self.now());
        let gone: Vec<_> = lost.iter().map(|&ticket| state.give_up(ticket, reason)).collect();
        // All that is left is on disk, or as good as; of some chunks that is their beginning alone.
        let mut left = state.pending(self.now());
        let cut = gone.iter().filter(|(chunk, stays)| chunk.is_some() && *stays > 0);
        cut.for_each(|(_, stays)| (left.chunks, left.bytes) = (left.chunks + 1, left.bytes + stays));
        let lost = Pending {
            bytes: all.bytes - left.bytes,
            chunks: all.chunks - left.chunks,
            oldest: all.oldest,
        };
        if let Some(disk) = &mut state.disk {
            disk.phase = Phase::Abandoned(reason);
            // Not at EOS and again when the element stops.
            let is_news = tells_left && std::mem::replace(&mut disk.left_told, left.chunks) != left.chunks;
            if is_news || lost.bytes > 0 {
                state.reports.push_back(Report::Left { left, lost });
            }
        }
        drop(state);
        drop(gone);
        // A chunk that is reported as lost must not arrive afterwards.
        self.wake.notify_one();
        self.disk_wake.notify_one();
        self.publish();
        self.changed.notify_all();
        (lost, left)
    }

    /// Ends the driver; attempts in flight are given up.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.health.ending(Status::Stopped);
        state.poll(self.now());
        drop(state);
        self.publish();
        self.wake.notify_one();
        self.disk_wake.notify_one();
        self.stop_wake.notify_waiters();
        self.changed.notify_all();
    }

    /// Something the user should know.
    pub fn warn(&self, text: String) {
        self.lock().reports.push_back(Report::Warning(text));
        self.publish();
    }

    /// Takes the next report.
    pub fn take_report(&self) -> Option<Report> {
        self.lock().reports.pop_front()
    }

    /// The status now.
    pub fn status(&self) -> Status {
        self.lock().health.status()
    }

    /// A limit of the flow group lets the backlog grow, or does so no more.
    pub fn set_limited(&self, is_limited: bool) {
        let mut state = self.lock();
        state.health.set_limited(is_limited);
        state.poll(self.now());
        drop(state);
        self.publish();
    }

    /// By how many seconds our clock differs from the server's (ours minus theirs), where that is over a minute.
    pub fn clock_off(&self) -> Option<i64> {
        self.lock().clock_off
    }

    /// Everything at this moment.
    pub fn snapshot(&self) -> Snapshot {
        let mut state = self.lock();
        let now = self.now();
        state.forget_old_uploads(now);
        let bytes: u64 = state.recent.iter().map(|(_, b)| b).sum();
        Snapshot {
            stats: state.stats,
            memory: state.memory,
            pending: state.pending(now),
            parked: state.scheduler.parked() as u64,
            in_flight: state.scheduler.in_flight() as u64,
            input: state.input.per_second(now),
            rate: bytes as f64 / Duration::from_nanos(RATE_WINDOW).as_secs_f64(),
        }
    }

    /// Reports what has happened: the steps of chunks to the observer, and that there are reports. Call it without a lock: the
    /// observer is the element's.
    pub fn publish(&self) {
        let (has_reports, gave_place) = {
            let mut state = self.lock();
            let gave_place = std::mem::take(&mut state.gave_place);
            (!state.reports.is_empty(), gave_place)
        };
        if gave_place {
            self.adopt_wake.notify_one();
        }
        self.hand_over_steps();
        if has_reports {
            (self.wake_poster)();
        }
    }

    fn hand_over_steps(&self) {
        /// Also where the observer panics: the next thread goes on.
        struct End<'a>(&'a UploadQueue);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.lock().life.end();
            }
        }
        loop {
            let Some(events) = self.lock().life.begin() else { return };
            let _end = End(self);
            events.iter().for_each(|event| self.observer.observe(event));
        }
    }
}
