//! The shared side of one sink: memory, queue, counters. The streaming thread gives chunks in and waits here when the memory
//! is full; the driver takes them out. One mutex, never held across I/O or a wait on anything but its own condition.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::attempt::{Attempted, Naming};
use super::health::{Health, Status, Word};
use super::scheduler::{Outcome, Scheduler};
use crate::chunk::ChunkInfo;
use crate::gcs::{Class, ObjectRequest};

/// A closed chunk on its way.
#[derive(Debug)]
pub struct Chunk {
    /// What is known of it.
    pub info: ChunkInfo,
    /// The object it becomes.
    pub request: ObjectRequest,
    /// What it may be called.
    pub naming: Naming,
    /// Payload bytes that the memory is charged with.
    pub charged: u64,
    /// When it was closed, ns on the sink's scale.
    pub closed_at: u64,
}

/// Property `overflow-policy`, `auto` resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Wait for room.
    Block,
    /// Let go of the oldest chunk that is not being sent.
    DropOldest,
    /// End the recording with an error.
    Error,
}

/// Something for the application; the shell turns it into messages.
#[derive(Clone, Debug)]
pub enum Report {
    /// The server has confirmed a chunk.
    Uploaded {
        /// The chunk.
        info: ChunkInfo,
        /// The session it belongs to.
        session: String,
        /// Object name.
        object: String,
        /// Generation; 0 where the server may not be asked.
        generation: i64,
        /// CRC32C.
        crc32c: u32,
        /// From closing to confirmation, ns.
        latency: u64,
    },
    /// A chunk was let go of.
    Dropped {
        /// The chunk.
        info: ChunkInfo,
        /// `overflow`, `retry-timeout`, `drain-timeout`, `shutdown-timeout`.
        reason: &'static str,
    },
    /// The status or an outage.
    Word(Word, Pending),
    /// Something the user should know.
    Warning(String),
    /// The server's clock differs from ours by so many seconds (ours minus the server's).
    ClockOff(i64),
}

/// What waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pending {
    /// Bytes of closed chunks.
    pub bytes: u64,
    /// Closed chunks.
    pub chunks: u64,
    /// Age of the oldest, ns.
    pub oldest: u64,
}

/// The counters of the property `stats`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Chunks opened.
    pub created: u64,
    /// Chunks the server has confirmed.
    pub uploaded: u64,
    /// Chunks let go of.
    pub dropped: u64,
    /// Bytes that came in.
    pub bytes_received: u64,
    /// Bytes of confirmed objects.
    pub bytes_uploaded: u64,
    /// Bytes let go of.
    pub bytes_dropped: u64,
    /// Failed attempts.
    pub retries: u64,
}

struct State {
    scheduler: Scheduler,
    chunks: BTreeMap<u64, Arc<Chunk>>,
    health: Health,
    stats: Stats,
    memory: u64,
    max_memory: u64,
    retry_timeout: Option<u64>,
    /// Attempts to break off: their chunks were let go of.
    aborts: Vec<u64>,
    /// Counts changes of the settings.
    version: u64,
    /// Waits end at once.
    interrupted: bool,
    stopped: bool,
    clock_off_told: bool,
    clock_off: Option<i64>,
    reports: VecDeque<Report>,
    recent: VecDeque<(u64, u64)>,
}

/// See the module.
pub struct Uploads {
    state: Mutex<State>,
    changed: Condvar,
    wake: Notify,
    epoch: Instant,
    kick: Box<dyn Fn() + Send + Sync>,
}

/// What the settings say.
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

/// Why a wait for room ended without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The element is flushing or pausing.
    Interrupted,
    /// The policy says so.
    Full,
    /// The settings have changed: ask again.
    Again,
    /// Nothing is on its way: all memory is held by the open chunk.
    Nothing,
    /// Uploads are refused until the user acts, and the memory is full now.
    Refused,
}

impl Uploads {
    /// For a new session. `kick` is called, from any thread and without a lock held, when there are reports.
    pub fn new(limits: UploadLimits, seed: u64, kick: Box<dyn Fn() + Send + Sync>) -> Self {
        Self {
            state: Mutex::new(State {
                scheduler: Scheduler::new(limits.max_uploads, seed),
                chunks: BTreeMap::new(),
                health: Health::new(limits.max_time),
                stats: Stats::default(),
                memory: 0,
                max_memory: limits.max_memory,
                retry_timeout: limits.retry_timeout,
                aborts: Vec::new(),
                version: 0,
                interrupted: false,
                stopped: false,
                clock_off_told: false,
                clock_off: None,
                reports: VecDeque::new(),
                recent: VecDeque::new(),
            }),
            changed: Condvar::new(),
            wake: Notify::new(),
            epoch: Instant::now(),
            kick,
        }
    }

    /// ns since the session began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
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

    /// Makes room for a buffer of `bytes` and charges the memory with it.
    ///
    /// # Errors
    /// [`NoRoom`] where it has to wait and may not, or the policy is [`Overflow::Error`].
    pub fn charge(&self, bytes: u64, overflow: Overflow) -> Result<(), NoRoom> {
        let mut state = self.lock();
        let version = state.version;
        loop {
            // A buffer that is larger than all memory is let in when nothing else is there.
            if state.memory == 0 || state.memory + bytes <= state.max_memory {
                state.memory += bytes;
                state.stats.bytes_received += bytes;
                return Ok(());
            }
            if state.interrupted {
                return Err(NoRoom::Interrupted);
            }
            if state.version != version {
                return Err(NoRoom::Again);
            }
            if state.health.is_refused() && state.health.confirmed() {
                return Err(NoRoom::Refused);
            }
            if state.scheduler.pending() == 0 {
                return Err(NoRoom::Nothing);
            }
            match overflow {
                Overflow::Error => return Err(NoRoom::Full),
                Overflow::DropOldest => {
                    if let Some(sequence) = state.scheduler.oldest_waiting().or_else(|| state.scheduler.oldest()) {
                        state.let_go(sequence, "overflow");
                        drop(state);
                        (self.kick)();
                        self.wake.notify_one();
                        state = self.lock();
                        continue;
                    }
                }
                Overflow::Block => {}
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Charges the memory whatever is there: nothing could be done to make room.
    pub fn charge_anyway(&self, bytes: u64) {
        let mut state = self.lock();
        state.memory += bytes;
        state.stats.bytes_received += bytes;
    }

    /// What the last failure said.
    pub fn last_reason(&self) -> String {
        self.lock().health.reason().to_owned()
    }

    /// Data comes again after an EOS.
    pub fn resume(&self) {
        let mut state = self.lock();
        state.health.resume();
        state.scheduler.hurry(false);
        drop(state);
        self.wake.notify_one();
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

    /// A chunk was opened.
    pub fn created(&self) {
        self.lock().stats.created += 1;
    }

    /// A chunk was closed: from here on it is the scheduler's.
    pub fn queue(&self, chunk: Chunk) {
        let sequence = chunk.info.sequence;
        let mut state = self.lock();
        state.chunks.insert(sequence, Arc::new(chunk));
        let now = self.now();
        state.scheduler.queue(sequence, now);
        drop(state);
        self.wake.notify_one();
    }

    /// Ends all waits for room (flush, pause), or allows them again.
    pub fn interrupt(&self, interrupted: bool) {
        self.lock().interrupted = interrupted;
        self.changed.notify_all();
    }

    /// EOS, or the end of PLAYING: what is left is sent now. [`Status::Stopped`] is only told.
    pub fn ending(&self, status: Status) {
        let mut state = self.lock();
        state.health.ending(status);
        state.scheduler.hurry(true);
        state.look(self.now());
        drop(state);
        self.tell();
        self.wake.notify_one();
    }

    /// Waits until no chunk is left, `until` has passed, the element is interrupted, or `give_up` says so.
    pub fn wait_drained(&self, until: Instant, heed_interrupt: bool, give_up: &dyn Fn() -> bool) -> Drained {
        let mut state = self.lock();
        while state.scheduler.pending() > 0 {
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

    /// Wakes [`Uploads::wait_drained`], to look at its condition.
    pub fn nudge(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Lets go of all chunks that are not stored, with a report for each; returns how many.
    pub fn abandon(&self, reason: &'static str) -> u64 {
        let mut state = self.lock();
        let all: Vec<u64> = state.chunks.keys().copied().collect();
        for &sequence in &all {
            state.let_go(sequence, reason);
        }
        drop(state);
        // What is told as lost must not arrive after all.
        self.wake.notify_one();
        self.tell();
        self.changed.notify_all();
        all.len() as u64
    }

    /// Ends the driver; attempts in flight are given up.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.health.ending(Status::Stopped);
        state.look(self.now());
        drop(state);
        self.tell();
        self.wake.notify_one();
        self.changed.notify_all();
    }

    /// Takes the next report.
    pub fn take_report(&self) -> Option<Report> {
        self.lock().reports.pop_front()
    }

    /// The status now.
    pub fn status(&self) -> Status {
        self.lock().health.status()
    }

    /// By how many seconds our clock differs from the server's (ours minus theirs), where that is over a minute.
    pub fn clock_off(&self) -> Option<i64> {
        self.lock().clock_off
    }

    /// The counters, bytes in memory, what waits, uploads in flight, and bytes per second over the last ten seconds.
    pub fn snapshot(&self) -> (Stats, u64, Pending, u64, f64) {
        let mut state = self.lock();
        let now = self.now();
        state.recent.retain(|(t, _)| now.saturating_sub(*t) < RATE_WINDOW);
        let bytes: u64 = state.recent.iter().map(|(_, b)| b).sum();
        let rate = bytes as f64 / Duration::from_nanos(RATE_WINDOW).as_secs_f64();
        (
            state.stats,
            state.memory,
            state.pending(now),
            state.scheduler.in_flight() as u64,
            rate,
        )
    }

    // The driver's side.

    /// Chunks to send now, and when to look again.
    pub(super) fn due(&self) -> Due {
        let mut state = self.lock();
        let now = self.now();
        if state.stopped {
            return Due::Stop;
        }
        let mut expired = false;
        if let Some(timeout) = state.retry_timeout {
            while let Some(sequence) = state.scheduler.expired(timeout, now) {
                state.let_go(sequence, "retry-timeout");
                expired = true;
            }
        }
        let mut chunks = Vec::new();
        while let Some(sequence) = state.scheduler.next(now) {
            if let Some(chunk) = state.chunks.get(&sequence) {
                chunks.push(Arc::clone(chunk));
            }
        }
        let look = state.look(now);
        let expiry = state
            .retry_timeout
            .and_then(|t| Some(now.saturating_add(t.saturating_sub(state.scheduler.oldest_age(now)?))));
        let wake = [state.scheduler.wake_at(now), look, expiry.filter(|&e| e > now)]
            .into_iter()
            .flatten()
            .min();
        let aborts = std::mem::take(&mut state.aborts);
        drop(state);
        if expired {
            self.changed.notify_all();
        }
        self.tell();
        Due::Send {
            chunks,
            aborts,
            wake: wake.and_then(|ns| self.epoch.checked_add(Duration::from_nanos(ns))),
        }
    }

    /// Waits for something to do.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// An attempt has ended.
    pub(super) fn finished(&self, sequence: u64, attempted: Attempted) {
        let mut state = self.lock();
        let now = self.now();
        let mut words = Vec::new();
        if !state.chunks.contains_key(&sequence) {
            // Let go of while it was being sent.
            return;
        }
        match attempted {
            Attempted::Stored { stored, name, warning } => {
                state.scheduler.done(sequence, Outcome::Stored, now);
                state.reports.extend(warning.map(Report::Warning));
                state.health.stored(now, &mut words);
                if let Some(created) = stored.as_ref().and_then(|s| s.created) {
                    state.compare_clock(created);
                }
                if let Some(chunk) = state.chunks.remove(&sequence) {
                    state.memory = state.memory.saturating_sub(chunk.charged);
                    state.stats.uploaded += 1;
                    state.stats.bytes_uploaded += chunk.request.size;
                    state.recent.push_back((now, chunk.request.size));
                    state.reports.push_back(Report::Uploaded {
                        info: chunk.info.clone(),
                        session: chunk.naming.session.clone(),
                        object: name,
                        generation: stored.map_or(0, |s| s.generation),
                        crc32c: chunk.request.crc32c,
                        latency: now.saturating_sub(chunk.closed_at),
                    });
                }
            }
            Attempted::Failed { error, name, warning } => {
                let retry_after = error.retry_after.map(|d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
                state.scheduler.done(
                    sequence,
                    Outcome::Failed {
                        class: error.class,
                        retry_after,
                    },
                    now,
                );
                state.stats.retries += 1;
                state.reports.extend(warning.map(Report::Warning));
                if let Some(date) = error.server_date {
                    state.compare_clock(date);
                }
                state.rename(sequence, name);
                let class = if error.class == Class::Local {
                    Class::Permanent
                } else {
                    error.class
                };
                state.health.failed(class, error.http_status, &error.message, now, &mut words);
            }
        }
        let pending = state.pending(now);
        state.reports.extend(words.into_iter().map(|w| Report::Word(w, pending)));
        state.look(now);
        drop(state);
        self.tell();
        self.changed.notify_all();
    }

    /// The driver has died of a defect: the user has to hear of it.
    pub fn broken(&self, why: &str) {
        let mut state = self.lock();
        let pending = state.pending(self.now());
        let reason = format!("the uploads have stopped by a defect of this element ({why}); restart the pipeline and report it");
        state.reports.push_back(Report::Word(
            Word::Fatal {
                http_status: Some(500),
                reason,
            },
            pending,
        ));
        drop(state);
        self.tell();
    }

    fn tell(&self) {
        let waiting = !self.lock().reports.is_empty();
        if waiting {
            (self.kick)();
        }
    }
}

/// What the driver is to do.
pub(super) enum Due {
    /// Break these off, send those, and look again at that time.
    Send {
        chunks: Vec<Arc<Chunk>>,
        aborts: Vec<u64>,
        wake: Option<Instant>,
    },
    /// Nothing more.
    Stop,
}

const RATE_WINDOW: u64 = 10_000_000_000;
/// A difference between our clock and the server's that is worth a word.
const MAX_CLOCK_OFF: i64 = 60;

impl State {
    fn pending(&self, now: u64) -> Pending {
        Pending {
            bytes: self.chunks.values().map(|c| c.request.size).sum(),
            chunks: self.chunks.len() as u64,
            oldest: self.scheduler.oldest_age(now).unwrap_or(0),
        }
    }

    fn look(&mut self, now: u64) -> Option<u64> {
        let mut words = Vec::new();
        let again = self
            .health
            .look(self.scheduler.pending(), self.scheduler.oldest_age(now), now, &mut words);
        let pending = self.pending(now);
        self.reports.extend(words.into_iter().map(|w| Report::Word(w, pending)));
        again
    }

    fn let_go(&mut self, sequence: u64, reason: &'static str) {
        if self.scheduler.remove(sequence) {
            self.aborts.push(sequence);
        }
        if let Some(chunk) = self.chunks.remove(&sequence) {
            self.memory = self.memory.saturating_sub(chunk.charged);
            self.stats.dropped += 1;
            self.stats.bytes_dropped += chunk.request.size;
            self.reports.push_back(Report::Dropped {
                info: chunk.info.clone(),
                reason,
            });
        }
    }

    fn rename(&mut self, sequence: u64, name: String) {
        if let Some(chunk) = self.chunks.get_mut(&sequence)
            && chunk.request.name != name
        {
            let request = ObjectRequest {
                name,
                ..chunk.request.clone()
            };
            let naming = chunk.naming.clone();
            *chunk = Arc::new(Chunk {
                info: chunk.info.clone(),
                request,
                naming,
                ..**chunk
            });
        }
    }

    fn compare_clock(&mut self, server: std::time::SystemTime) {
        let ours = std::time::SystemTime::now();
        let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        let off = match ours.duration_since(server) {
            Ok(ahead) => seconds(ahead),
            Err(behind) => -seconds(behind.duration()),
        };
        self.clock_off = (off.abs() > MAX_CLOCK_OFF).then_some(off);
        if let (Some(off), false) = (self.clock_off, self.clock_off_told) {
            self.clock_off_told = true;
            self.reports.push_back(Report::ClockOff(off));
        }
    }
}
