//! Runs file system calls on threads of their own: a caller waits at most [`PATIENCE`] without progress.
//!
//! A call into a file system that does not answer (an NFS server that is unreachable, a failing card) cannot be cancelled. So it
//! runs on a thread of the lane, and the caller gets `TimedOut` when nothing has moved for too long. While that call is stuck,
//! all others fail at once and start no thread: a hung disk costs one thread for each spool folder (during
//! [draining](Lane::draining), as many as were running), not one for each call. A call that timed out may still take effect when
//! the disk returns, but always before any later call.
//!
//! Calls run one at a time, reads and writes alternately. Several run at once only while somebody [drains](Lane::draining): a
//! file system then combines several syncs into one commit. No GStreamer, no tokio.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::base::lock::lock;
use crate::base::registry::Registry;

/// A call that takes longer is stuck.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Idle time after which a thread ends.
const IDLE: Duration = Duration::from_secs(10);
/// Calls at once while somebody drains.
const HURRIED: usize = 8;
/// A call that takes longer than [`PATIENCE`] divided by this is slow.
const SLOW: u32 = 5;

/// What a call does to the disk. Reads have a queue of their own, so that they do not wait behind many syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Changes nothing.
    Read,
    /// Changes files or folders.
    Write,
}

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct LaneState {
    reads: VecDeque<Job>,
    writes: VecDeque<Job>,
    /// The job that was started last was a read.
    was_read: bool,
    /// The running calls: number of the thread and start of the call.
    busy: Vec<(u64, Instant)>,
    workers: usize,
    idle: usize,
    next_worker: u64,
    draining: usize,
}

struct Shared {
    state: Mutex<LaneState>,
    /// Signalled when a job is queued.
    work: Condvar,
    patience: Duration,
}

/// The threads of one spool folder that make its file system calls. Clones share one lane.
#[derive(Clone)]
pub struct Lane(Arc<Shared>);

thread_local! {
    /// Set on the threads of a lane. A call made there is part of the running job and must not be queued.
    static IN_LANE: Cell<bool> = const { Cell::new(false) };
}

/// The lanes of the process by their folder. A stuck thread holds a reference to its lane, so the next user of the folder gets
/// the same one.
static LANES: Registry<PathBuf, Shared> = Registry::new();

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").finish_non_exhaustive()
    }
}

/// While this exists, several calls run at once.
pub struct InParallel(Lane);

impl Drop for InParallel {
    fn drop(&mut self) {
        self.0.lock().draining -= 1;
    }
}

/// The state of a call, shared by its thread and its caller.
enum CallState<T> {
    Waiting,
    Done(io::Result<T>),
    /// The caller has timed out.
    GivenUp,
}

struct Slot<T> {
    outcome: Mutex<CallState<T>>,
    done: Condvar,
}

impl Lane {
    /// Returns the lane of a folder; all its users share it.
    pub fn of(folder: &Path) -> Self {
        // Not `canonicalize`: that asks the disk, which may hang.
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        Self(LANES.get_or(folder, || Self::new(PATIENCE).0))
    }

    /// Creates a lane that is not shared by a folder.
    pub fn new(patience: Duration) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            patience,
        }))
    }

    /// Allows several calls at once until the result is dropped.
    pub fn draining(&self) -> InParallel {
        self.lock().draining += 1;
        InParallel(self.clone())
    }

    /// Returns whether a call is stuck.
    pub fn is_stuck(&self) -> bool {
        self.lock().is_stuck(self.0.patience, Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, LaneState> {
        lock(&self.0.state)
    }

    /// Runs `call` on a thread of the lane and waits for its result.
    ///
    /// # Errors
    /// The call's own. `TimedOut`: this call, or the one before it, is stuck.
    pub(super) fn run<T: Send + 'static>(
        &self,
        kind: Kind,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.run_or_undo(kind, None, call, |_| {})
    }

    /// As [`Lane::run`], with at most `at_most` to wait. If the caller has timed out and the call succeeds later, `undo` gets its
    /// result and reverts it.
    pub(super) fn run_or_undo<T: Send + 'static>(
        &self,
        kind: Kind,
        at_most: Option<Duration>,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
        undo: impl FnOnce(T) + Send + 'static,
    ) -> io::Result<T> {
        // A job that waited for its own thread would never end.
        if IN_LANE.get() {
            return call();
        }
        let slot = Arc::new(Slot {
            outcome: Mutex::new(CallState::Waiting),
            done: Condvar::new(),
        });
        let reported = Arc::clone(&slot);
        let job = move || {
            // The caller has timed out before the job was started: skip it.
            if reported.is_given_up() {
                return;
            }
            let result = call();
            // On this thread, so that the effect is reverted before any later call can see it.
            if let Some(Ok(unwanted)) = reported.finish(result) {
                undo(unwanted);
            }
        };
        if !self.begin(kind, Box::new(job)) {
            return Err(self.timed_out());
        }
        self.wait(&slot, at_most)
    }

    /// Queues `call` and waits at most `at_most` for it; does not wait at all if a running call already takes longer. In both
    /// cases `call` runs later.
    pub(super) fn last(&self, at_most: Duration, call: impl FnOnce() + Send + 'static) {
        // Inside a job of the lane: done before the jobs behind it, which rely on that order.
        if IN_LANE.get() {
            return call();
        }
        // `push`, not `begin`: a stuck lane must not refuse this job, because it has to run in the end.
        let is_slow = self.lock().oldest(Instant::now()) > at_most;
        if is_slow {
            self.push(Kind::Write, Box::new(call));
            return;
        }
        // Nothing is sent: the end of `done` wakes the caller, also if `call` panics.
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        self.push(
            Kind::Write,
            Box::new(move || {
                call();
                drop(done);
            }),
        );
        let _ = is_done.recv_timeout(at_most);
    }

    fn timed_out(&self) -> io::Error {
        let seconds = self.0.patience.as_secs();
        io::Error::new(ErrorKind::TimedOut, format!("the disk has not answered for {seconds} s"))
    }

    /// Queues a job and returns true; returns false if the lane is stuck.
    fn begin(&self, kind: Kind, job: Job) -> bool {
        if self.is_stuck() {
            return false;
        }
        self.push(kind, job);
        true
    }

    fn push(&self, kind: Kind, job: Job) {
        let mut state = self.lock();
        match kind {
            Kind::Read => state.reads.push_back(job),
            Kind::Write => state.writes.push_back(job),
        }
        let waiting = state.reads.len() + state.writes.len();
        // No more threads for a slow disk: if it is about to hang, each of them would get stuck.
        let is_slow = state.oldest(Instant::now()) >= self.0.patience / SLOW;
        let most = if state.draining > 0 && !is_slow { HURRIED } else { 1 };
        if state.idle < waiting && state.workers < most {
            let id = state.next_worker;
            state.next_worker += 1;
            let shared = Arc::clone(&self.0);
            let worker = thread::Builder::new().name("gcs-spool".to_owned());
            // If no thread can be started, the callers time out, see `wait`.
            if worker.spawn(move || work(&Self(shared), id)).is_ok() {
                state.workers += 1;
            }
        }
        drop(state);
        self.0.work.notify_one();
    }

    /// Waits for the end of a job while the lane makes progress.
    fn wait<T>(&self, slot: &Slot<T>, at_most: Option<Duration>) -> io::Result<T> {
        let began = Instant::now();
        let mut outcome = slot.lock();
        loop {
            match std::mem::replace(&mut *outcome, CallState::Waiting) {
                CallState::Done(result) => return result,
                CallState::Waiting | CallState::GivenUp => {}
            }
            let (now, patience) = (Instant::now(), self.0.patience);
            // Lock order: slot, then lane. No code locks them in the other order.
            let (oldest, nobody) = {
                let state = self.lock();
                (state.oldest(now), state.workers == 0)
            };
            // Without a worker (the system refused a thread) no call is running that could become too old.
            let is_over = oldest >= patience || (nobody && began.elapsed() >= patience);
            if is_over || at_most.is_some_and(|most| began.elapsed() >= most) {
                *outcome = CallState::GivenUp;
                return Err(self.timed_out());
            }
            // Only the running call has an age: a long queue that makes progress is no hang.
            let left = patience.saturating_sub(oldest);
            let left = at_most.map_or(left, |most| left.min(most.saturating_sub(began.elapsed())));
            // A wait of 0 would make this a busy loop.
            let left = left.max(Duration::from_millis(1));
            outcome = slot
                .done
                .wait_timeout(outcome, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl LaneState {
    /// Returns the age of the oldest running call.
    fn oldest(&self, now: Instant) -> Duration {
        let ages = self.busy.iter().map(|(_, since)| now.saturating_duration_since(*since));
        ages.max().unwrap_or_default()
    }

    fn is_stuck(&self, patience: Duration, now: Instant) -> bool {
        self.oldest(now) >= patience
    }

    /// Takes the next job. Reads and writes alternate, so that neither queue starves the other.
    fn next(&mut self) -> Option<Job> {
        let read_first = !self.was_read || self.writes.is_empty();
        let job = match read_first {
            true => self.reads.pop_front().map(|job| (true, job)),
            false => None,
        };
        let job = job.or_else(|| self.writes.pop_front().map(|job| (false, job)));
        let (is_read, job) = job.or_else(|| self.reads.pop_front().map(|job| (true, job)))?;
        self.was_read = is_read;
        Some(job)
    }
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, CallState<T>> {
        lock(&self.outcome)
    }

    fn is_given_up(&self) -> bool {
        matches!(*self.lock(), CallState::GivenUp)
    }

    /// Returns the result if no caller waits for it.
    fn finish(&self, result: io::Result<T>) -> Option<io::Result<T>> {
        let mut outcome = self.lock();
        if matches!(*outcome, CallState::GivenUp) {
            return Some(result);
        }
        *outcome = CallState::Done(result);
        drop(outcome);
        self.done.notify_one();
        None
    }
}

/// The main function of a lane's thread.
fn work(lane: &Lane, id: u64) {
    IN_LANE.set(true);
    let mut state = lane.lock();
    loop {
        if let Some(job) = state.next() {
            state.busy.push((id, Instant::now()));
            // Without the lock: a job runs for as long as the disk hangs.
            drop(state);
            // A panic must not end the worker: `workers` and `busy` would stay wrong for ever. The caller of that job times out.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            state = lane.lock();
            state.busy.retain(|(worker, _)| *worker != id);
            continue;
        }
        // The extra threads of a drain end with it; one stays.
        if state.workers > 1 && state.draining == 0 {
            break;
        }
        state.idle += 1;
        let (woken, timeout) = lane.0.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
        state = woken;
        state.idle -= 1;
        // A job may have been queued at the moment of the timeout. Without this check it would wait for the next `push`.
        if timeout.timed_out() && state.reads.is_empty() && state.writes.is_empty() {
            break;
        }
    }
    state.workers -= 1;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    /// A call that is stuck until the sender is dropped.
    fn stuck(lane: &Lane) -> mpsc::Sender<()> {
        let (release, held) = mpsc::channel::<()>();
        let error = lane.run(Kind::Write, move || {
            let _ = held.recv();
            Ok(())
        });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::TimedOut);
        release
    }

    fn threads(lane: &Lane) -> usize {
        lane.lock().workers
    }

    #[test]
    fn a_disk_that_hangs_costs_one_thread_however_many_ask() {
        let lane = Lane::new(SHORT);
        let release = stuck(&lane);
        let asked = Arc::new(AtomicUsize::new(0));
        for kind in [Kind::Read, Kind::Write, Kind::Read] {
            let asked = Arc::clone(&asked);
            let error = lane.run(kind, move || {
                asked.fetch_add(1, Ordering::Relaxed);
                Ok(())
            });
            assert_eq!(error.unwrap_err().kind(), ErrorKind::TimedOut);
        }
        assert_eq!((threads(&lane), asked.load(Ordering::Relaxed)), (1, 0), "nobody reached it");
        drop(release);
        while lane.is_stuck() {
            thread::yield_now();
        }
        assert_eq!(lane.run(Kind::Read, || Ok(7)).unwrap(), 7, "it answers again");
    }

    #[test]
    fn what_was_asked_in_vain_happens_before_what_is_asked_next_and_can_be_undone() {
        let lane = Lane::new(SHORT);
        let order = Arc::new(Mutex::new(Vec::new()));
        let (release, held) = mpsc::channel::<()>();
        let (made, undone) = (Arc::clone(&order), Arc::clone(&order));
        let error = lane.run_or_undo(
            Kind::Write,
            None,
            move || {
                let _ = held.recv();
                made.lock().unwrap().push("made");
                Ok("file")
            },
            move |file| {
                assert_eq!(file, "file");
                undone.lock().unwrap().push("undone");
            },
        );
        assert!(error.is_err());
        drop(release);
        while lane.is_stuck() {
            thread::yield_now();
        }
        let next = Arc::clone(&order);
        lane.run(Kind::Write, move || {
            next.lock().unwrap().push("next");
            Ok(())
        })
        .unwrap();
        assert_eq!(*order.lock().unwrap(), ["made", "undone", "next"]);
    }

    #[test]
    fn a_last_job_is_not_waited_for_where_the_disk_hangs_and_is_done_all_the_same() {
        let lane = Lane::new(SHORT);
        let release = stuck(&lane);
        let (done, is_done) = mpsc::channel();
        lane.last(Duration::from_millis(1), move || done.send(()).unwrap());
        assert!(is_done.try_recv().is_err());
        drop(release);
        is_done.recv().unwrap();
    }

    #[test]
    fn a_last_job_within_a_slow_one_is_done_before_what_waits_behind_that() {
        let lane = Lane::new(Duration::from_secs(60));
        let order = Arc::new(Mutex::new(Vec::new()));
        let (release, held) = mpsc::channel::<()>();
        let (outer, inner) = (lane.clone(), Arc::clone(&order));
        lane.push(
            Kind::Write,
            Box::new(move || {
                let _ = held.recv();
                outer.last(Duration::ZERO, move || inner.lock().unwrap().push("last"));
            }),
        );
        let next = Arc::clone(&order);
        lane.push(Kind::Write, Box::new(move || next.lock().unwrap().push("next")));
        drop(release);
        lane.run(Kind::Write, || Ok(())).unwrap();
        assert_eq!(*order.lock().unwrap(), ["last", "next"]);
    }

    #[test]
    fn whoever_hurries_gets_several_calls_at_once_and_one_thread_stays() {
        let lane = Lane::new(Duration::from_secs(60));
        let draining = lane.draining();
        // Each ends only when the other has begun.
        let barrier = Arc::new(std::sync::Barrier::new(2));
        thread::scope(|scope| {
            for _ in 0..2 {
                let (lane, barrier) = (lane.clone(), Arc::clone(&barrier));
                scope.spawn(move || {
                    lane.run(Kind::Write, move || {
                        barrier.wait();
                        Ok(())
                    })
                    .unwrap();
                });
            }
        });
        drop(draining);
        lane.0.work.notify_all();
        while threads(&lane) > 1 {
            thread::yield_now();
        }
        lane.run(Kind::Read, || Ok(())).unwrap();
    }

    #[test]
    fn a_disk_that_hangs_while_somebody_hurries_gets_no_more_threads() {
        let lane = Lane::new(SHORT);
        let _draining = lane.draining();
        let release = stuck(&lane);
        for _ in 0..20 {
            lane.last(Duration::from_millis(1), || {});
            assert!(lane.run(Kind::Read, || Ok(())).is_err());
        }
        assert_eq!(threads(&lane), 1);
        drop(release);
    }

    #[test]
    fn reads_and_writes_take_turns() {
        let mut state = LaneState::default();
        let order = Arc::new(Mutex::new(String::new()));
        for _ in 0..3 {
            for kind in ['w', 'r'] {
                let order = Arc::clone(&order);
                let job: Job = Box::new(move || order.lock().unwrap().push(kind));
                match kind {
                    'r' => state.reads.push_back(job),
                    _ => state.writes.push_back(job),
                }
            }
        }
        while let Some(job) = state.next() {
            job();
        }
        assert_eq!(*order.lock().unwrap(), "rwrwrw");
    }

    #[test]
    fn a_job_of_the_lane_may_ask_the_lane() {
        let lane = Lane::new(SHORT);
        let again = lane.clone();
        assert_eq!(lane.run(Kind::Write, move || again.run(Kind::Read, || Ok(1))).unwrap(), 1);
    }
}
