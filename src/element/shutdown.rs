//! One shutdown deadline for the process. Ctrl-C stops the elements of a pipeline one after the other; sharing a deadline, all of
//! them together wait no longer than one would. An application that stops its pipelines concurrently, each in a thread of its
//! own, uses one deadline per pipeline instead ([`separate_pipelines`]): the pipeline is then the scope.
//!
//! Work without network use shares a short grace period that starts at the deadline, not at the stop of each element.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::base::lock::lock;

/// The current or last stop of each scope: when its elements began to leave PAUSED, and when the last one finished.
static STOPPING: Mutex<BTreeMap<Scope, Stopping>> = Mutex::new(BTreeMap::new());

/// Whether each pipeline has its own deadline.
static SEPARATE: AtomicBool = AtomicBool::new(false);

/// Elements that share a deadline: those of the process, or those of one pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope(usize);

impl Scope {
    /// Returns the scope of an element in the pipeline at this address.
    pub(crate) fn of_pipeline(address: usize) -> Self {
        Self(if SEPARATE.load(Ordering::Relaxed) { address } else { 0 })
    }
}

/// Gives each pipeline a shutdown deadline of its own from now on; by default the process has one. For programs that embed the
/// elements and stop pipelines concurrently.
pub fn separate_pipelines() {
    SEPARATE.store(true, Ordering::Relaxed);
}

/// A stop that begins this long after the end of another is a new one. The elements of one pipeline follow each other within
/// milliseconds. An application that stops its pipelines one by one, 0.7 s apart, had the later ones find the time used up and
/// lose their open chunk.
const APART: Duration = Duration::from_millis(250);

/// Maximum duration of one stop: an application that stops pipelines one by one all day must not extend a single stop.
const LONGEST: Duration = Duration::from_secs(60);

/// Time after the deadline during which data may still be written to disk.
const DISK: Duration = Duration::from_millis(800);

/// Time after the deadline when everything that does not wait for a disk is over, for any number of elements. Without this limit
/// ten elements took 4.5 s.
const GRACE: Duration = Duration::from_millis(500);

// Below the second after the deadline that is promised for all that needs no network.
/// Time after the deadline when everything is over, for any number of elements. Without this limit forty sinks took four seconds.
const LATEST: Duration = Duration::from_millis(950);

#[derive(Clone, Copy, Debug)]
struct Stopping {
    began: Instant,
    waiting: usize,
    ended: Instant,
}

/// Adds an element that stops at `now`.
fn join(before: Option<Stopping>, now: Instant) -> Stopping {
    match before {
        Some(s) if (s.waiting > 0 || now.duration_since(s.ended) < APART) && now.duration_since(s.began) < LONGEST => Stopping {
            waiting: s.waiting + 1,
            ..s
        },
        _ => Stopping {
            began: now,
            waiting: 1,
            ended: now,
        },
    }
}

/// An element that is stopping.
#[derive(Debug)]
pub(crate) struct Stop {
    scope: Scope,
    began: Instant,
}

impl Stop {
    /// Starts the stop of an element that leaves PAUSED.
    pub(crate) fn begin(scope: Scope) -> Self {
        let now = Instant::now();
        let mut stopping = lock(&STOPPING);
        // Forget stops that are over: a scope is the address of a pipeline, and an application may create any number of them.
        stopping.retain(|_, s| s.waiting > 0 || now.duration_since(s.ended) < APART);
        let current = join(stopping.get(&scope).copied(), now);
        stopping.insert(scope, current);
        Self {
            scope,
            began: current.began,
        }
    }

    /// Returns when an element that may wait for `timeout` must be done.
    pub(crate) fn until(&self, timeout: Duration) -> Instant {
        self.began.checked_add(timeout).unwrap_or(self.began)
    }

    /// Returns until when data in memory may be written to disk.
    pub(crate) fn disk_until(&self, timeout: Duration) -> Instant {
        self.until(timeout) + DISK
    }

    /// Returns until when an element may wait for something that usually takes at most `moment`. Granted even if other elements
    /// have used up the deadline, within a limit for all of them together.
    pub(crate) fn moment(&self, timeout: Duration, moment: Duration) -> Instant {
        self.until_or(timeout, moment, LATEST)
    }

    /// As [`Stop::moment`], for work that does not wait for a disk.
    pub(crate) fn quick_moment(&self, timeout: Duration, moment: Duration) -> Instant {
        self.until_or(timeout, moment, GRACE)
    }

    fn until_or(&self, timeout: Duration, moment: Duration, latest: Duration) -> Instant {
        let until = self.until(timeout);
        until.max((Instant::now() + moment).min(until + latest))
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        if let Some(stopping) = lock(&STOPPING).get_mut(&self.scope) {
            stopping.waiting = stopping.waiting.saturating_sub(1);
            stopping.ended = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn elements_that_stop_together_have_one_deadline_and_pipelines_stopped_one_by_one_have_their_own() {
        let now = Instant::now();
        let first = join(None, now);
        let second = join(Some(first), now + 4000 * MS);
        assert_eq!((second.began, second.waiting), (now, 2), "the first has not ended");
        let ended = Stopping {
            waiting: 0,
            ended: now + 5000 * MS,
            ..second
        };
        assert_eq!(join(Some(ended), now + 5010 * MS).began, now, "the next sink of the pipeline");
        let next = now + 5700 * MS;
        assert_eq!(join(Some(ended), next).began, next, "the next pipeline, 0.7 s later");
        let day = now + LONGEST;
        assert_eq!(join(Some(second), day).began, day, "no stop lasts so long");
    }

    #[test]
    fn pipelines_that_stop_side_by_side_have_their_own_deadlines_where_the_application_asks_for_it() {
        // Ten pipelines are still stopping; each began at a different time.
        let scopes: Vec<Stop> = (1..=10).map(|address| Stop::begin(Scope(address))).collect();
        let first = scopes[0].until(5000 * MS);
        let late = Stop::begin(Scope(11));
        assert_ne!(late.until(5000 * MS), first);
        assert_eq!(
            Stop::begin(Scope(1)).until(5000 * MS),
            first,
            "the next sink of the first pipeline"
        );
        assert_eq!(
            Scope::of_pipeline(77),
            Scope::default(),
            "one for the process unless asked for"
        );
    }

    #[test]
    fn the_moments_after_the_deadline_are_shared_by_all_elements() {
        let long_ago = Stop {
            scope: Scope::default(),
            began: Instant::now().checked_sub(5500 * MS).unwrap(),
        };
        let timeout = 5000 * MS;
        let deadline = long_ago.until(timeout);
        assert_eq!(long_ago.disk_until(timeout), deadline + DISK);
        assert!(long_ago.moment(timeout, 100 * MS) > deadline + 500 * MS);
        assert_eq!(long_ago.moment(timeout, 10_000 * MS), deadline + LATEST);
        assert_eq!(long_ago.quick_moment(timeout, 300 * MS), deadline + GRACE);
        assert_eq!(
            long_ago.moment(timeout * 2, 100 * MS),
            long_ago.until(timeout * 2),
            "there is time"
        );
    }
}
