//! The part of one sink that its threads share: memory, queue, counters. The streaming thread adds chunks, and waits here when
//! the memory is full (`memory`) or for the end (`drain`); the driver takes them out (`completion`). One mutex, never held across
//! I/O or a wait on anything but its own condition.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::charges::Charges;
use super::chunk::{Chunk, Summary};
use super::disk_state::{DiskState, Mode};
use super::health::{Health, Status};
use super::held::HeldSessions;
use super::life::{Observer, Step, Unobserved};
use super::rate::Rate;
use super::report::{DAMAGED, Report, Snapshot, Stats};
use super::scheduler::Scheduler;
use super::shelf::Shelf;
use super::state::{QueueState, RATE_WINDOW, Warned, is_parked};
use super::ticket::Ticket;
use crate::base::clock::Clock;

/// Property `overflow-policy`, `auto` resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Wait for room.
    Block,
    /// Drop the oldest chunk whose removal makes room, see [`Scheduler::to_drop`].
    DropOldest,
    /// End the recording with an error.
    Error,
}

/// The queue of one sink, shared by its streaming thread, its driver and its spooler.
pub struct UploadQueue {
    state: Mutex<QueueState>,
    pub(super) changed: Condvar,
    pub(super) wake: Notify,
    /// Wakes the spooler: there is work for the disk.
    pub(super) disk_wake: Notify,
    /// Wakes the adopter: there is a place for another earlier session.
    pub(super) adopt_wake: Notify,
    /// Wakes all that wait for the end of the sink.
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
    /// The deadline has passed.
    TimedOut,
    /// The element is pausing or flushing.
    Interrupted,
    /// The caller's `give_up` returned true.
    GivenUp,
}

/// The result of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charged {
    /// The memory is charged.
    Yes,
    /// The memory is charged and nearly full: the open chunk should continue on disk.
    MoveOpen,
    /// The memory is not charged, for this reason.
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
    /// The settings have changed: read them again and repeat the charge.
    Again,
    /// No pending chunk will free memory: the open chunk occupies all of it.
    Nothing,
    /// The open chunk should continue on disk.
    MoveOpen,
    /// The open chunk should be cut and dropped: the only other chunk is being sent and would never arrive if it were dropped
    /// instead.
    CutOpen,
    /// Uploads are refused until the user acts, and the memory is full.
    Refused,
}

impl UploadQueue {
    /// Creates the queue of a new session. `wake_poster` is called when there are reports, from any thread and without a lock
    /// held.
    pub fn new(limits: UploadLimits, seed: u64, wake_poster: Box<dyn Fn() + Send + Sync>) -> Self {
        Self {
            state: Mutex::new(QueueState {
                scheduler: Scheduler::new(limits.max_uploads, seed),
                chunks: BTreeMap::new(),
                shelf: Shelf::default(),
                in_memory: BTreeSet::new(),
                movable: BTreeSet::new(),
                sent_on: BTreeMap::new(),
                pending_bytes: 0,
                parked_bytes: 0,
                adopted: 0,
                health: Health::new(limits.max_time),
                stats: Stats::default(),
                memory: Charges::with_limit(limits.max_memory),
                retry_timeout: limits.retry_timeout,
                aborts: Vec::new(),
                version: 0,
                interrupted: false,
                stopped: false,
                clock_off: None,
                reports: VecDeque::new(),
                life: Unobserved::default(),
                wall: Clock::SYSTEM.wall,
                recent: VecDeque::new(),
                input: Rate::default(),
                disk: None,
                leftovers: HeldSessions::default(),
                gave_place: false,
                warned: Warned::default(),
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

    /// Replaces the machine's clocks.
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

    /// Returns the clocks of this queue.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Returns the time since the session began, ns.
    pub fn now(&self) -> u64 {
        self.ns((self.clock.monotonic)())
    }

    /// Converts a time to the scale of [`UploadQueue::now`]; 0 before the session began.
    pub(super) fn ns(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Makes refused uploads a WARNING instead of an ERROR, even if nothing was stored in this session.
    #[must_use]
    pub fn outlasting_refusals(self) -> Self {
        self.lock().health.outlast_refusals();
        self
    }

    /// Lets chunks wait on disk too: every buffer as it arrives, or (`overflow`) whole chunks when the memory is full. The caller
    /// has to run the spooler and to call [`UploadQueue::adopt`].
    #[must_use]
    pub fn with_disk(self, overflow: bool) -> Self {
        let mode = match overflow {
            true => Mode::Overflow { open_on_disk: false },
            false => Mode::Always,
        };
        self.lock().disk = Some(DiskState::new(mode));
        self
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, QueueState> {
        // A panic elsewhere must not end the recording. Ignoring the poison is safe: every change under the lock leaves the state
        // consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the limits.
    pub fn set_limits(&self, limits: UploadLimits) {
        let mut state = self.lock();
        state.scheduler.set_max_uploads(limits.max_uploads);
        state.memory.limit = limits.max_memory;
        state.retry_timeout = limits.retry_timeout;
        state.version += 1;
        drop(state);
        // A waiting charge may fit now, or fall under another policy.
        self.changed.notify_all();
        self.wake.notify_one();
    }

    /// Returns the error text of the last failure.
    pub fn last_reason(&self) -> String {
        self.lock().health.reason().to_owned()
    }

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.lock().health.is_failing()
    }

    /// Counts dropped bytes, such as those before the first key unit.
    pub fn dropped(&self, bytes: u64) {
        self.lock().stats.bytes_dropped += bytes;
    }

    /// Reports a chunk of an earlier session that was found damaged and moved to the quarantine before it was queued.
    pub fn lost(&self, summary: Summary) {
        let mut state = self.lock();
        state.lose(summary, DAMAGED);
        drop(state);
        self.publish();
    }

    /// Counts a chunk that was opened. The caller publishes.
    pub fn created(&self, session: &Arc<str>, sequence: u64) {
        let mut state = self.lock();
        state.stats.created += 1;
        state.note(session, sequence, Step::Cut);
    }

    /// Notes that a chunk is complete, in memory or on disk. The caller publishes.
    pub fn closed(&self, summary: &Summary) {
        let step = Step::Closed(summary.size);
        self.lock().note(&summary.session, summary.sequence, step);
    }

    /// Queues a closed chunk of this session. The caller publishes.
    pub fn queue(&self, chunk: Chunk) {
        let ticket = Ticket::own(chunk.summary.sequence);
        let now = self.now();
        self.lock().insert(ticket, chunk, now);
        self.wake.notify_one();
    }

    /// Queues chunks that earlier sessions left on disk, oldest first. `last`: no more follow.
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
            self.report_leftovers();
        }
        self.publish();
        self.wake.notify_one();
        self.changed.notify_all();
    }

    /// Ends all waits for room (flush, pause), or allows them again.
    pub fn interrupt(&self, interrupted: bool) {
        self.lock().interrupted = interrupted;
        // Wake all waiters: `render`, an EOS and a stop wait for different conditions.
        self.changed.notify_all();
    }

    /// Queues a warning for the user.
    pub fn warn(&self, text: String) {
        self.lock().reports.push_back(Report::Warning(text));
        self.publish();
    }

    /// Takes the next report.
    pub fn take_report(&self) -> Option<Report> {
        self.lock().reports.pop_front()
    }

    /// Returns the current status.
    pub fn status(&self) -> Status {
        self.lock().health.status()
    }

    /// Sets whether a limit of the flow group makes the backlog grow.
    pub fn set_limited(&self, is_limited: bool) {
        let mut state = self.lock();
        state.health.set_limited(is_limited);
        state.poll(self.now());
        drop(state);
        self.publish();
    }

    /// Returns by how many seconds our clock differs from the server's (ours minus theirs); `None` up to a minute.
    pub fn clock_off(&self) -> Option<i64> {
        self.lock().clock_off
    }

    /// Returns all figures at this moment.
    pub fn snapshot(&self) -> Snapshot {
        let mut state = self.lock();
        let now = self.now();
        // Needed here too: while nothing is stored, no upload removes the old entries.
        state.forget_old_uploads(now);
        let bytes: u64 = state.recent.iter().map(|(_, b)| b).sum();
        Snapshot {
            stats: state.stats,
            memory: state.memory.used,
            pending: state.pending(now),
            parked: state.scheduler.parked() as u64,
            in_flight: state.scheduler.in_flight() as u64,
            input: state.input.per_second(now),
            rate: bytes as f64 / Duration::from_nanos(RATE_WINDOW).as_secs_f64(),
        }
    }

    /// Passes the noted steps of chunks to the observer, and wakes the poster if there are reports. Call it without a lock held:
    /// the observer belongs to the element and may take locks of its own.
    pub fn publish(&self) {
        // The block releases the lock before the wakes below: those that are woken take it.
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
        /// Ends the turn even if the observer panics, so that the next thread can continue.
        struct End<'a>(&'a UploadQueue);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.lock().life.end();
            }
        }
        loop {
            // Repeat until no event is left: other threads leave their events to the thread that is at it.
            // The guard is dropped at the end of this statement: the observer is called without the lock.
            let Some(events) = self.lock().life.begin() else { return };
            let _end = End(self);
            events.iter().for_each(|event| self.observer.observe(event));
        }
    }
}
