//! State that the callers of a link share with its task: a bounded inbox and a report.
//!
//! The locks are held for moving a few values only, never while waiting and never while calling out.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;

use super::link::MAX_EVENTS;
use super::{LinkStats, Wanted};

/// Takes a lock, even if it is poisoned: every change leaves the state consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What callers passed in since the task last took it.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) wanted: Wanted,
    pub(super) discovery: Option<Bytes>,
    pub(super) events: VecDeque<(Instant, &'static str, Bytes)>,
    /// Events dropped because the inbox was full.
    pub(super) dropped: u64,
    pub(super) close: Option<(Wanted, Instant)>,
}

/// State of the link as of the last step of its task.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkReport {
    pub(super) up: bool,
    /// No wanted payload waits or is in flight.
    pub(super) settled: bool,
    pub(super) stats: LinkStats,
    /// The task has ended; whether the last state was acknowledged.
    pub(super) finished: Option<bool>,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    woken: Notify,
    report: Mutex<LinkReport>,
    finished: Condvar,
}

impl Shared {
    pub(super) fn want(&self, wanted: Wanted) {
        let mut inbox = lock(&self.inbox);
        if wanted.state.is_some() {
            inbox.wanted.state = wanted.state;
        }
        if wanted.status.is_some() {
            inbox.wanted.status = wanted.status;
        }
        drop(inbox);
        self.woken.notify_one();
    }

    pub(super) fn set_discovery(&self, payload: Bytes) {
        lock(&self.inbox).discovery = Some(payload);
        self.woken.notify_one();
    }

    pub(super) fn event(&self, kind: &'static str, payload: Bytes) {
        let mut inbox = lock(&self.inbox);
        if inbox.events.len() >= MAX_EVENTS {
            inbox.events.pop_front();
            inbox.dropped = inbox.dropped.saturating_add(1);
        }
        inbox.events.push_back((Instant::now(), kind, payload));
        drop(inbox);
        self.woken.notify_one();
    }

    /// Asks the task to publish `last` and to end, then waits for its end until `until` at the latest. Returns whether the
    /// final state was acknowledged. The arguments of a second call only limit its own wait.
    pub(super) fn close(&self, last: Wanted, until: Instant) -> bool {
        lock(&self.inbox).close.get_or_insert((last, until));
        self.woken.notify_one();
        let mut report = lock(&self.report);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match report.finished {
                Some(acknowledged) => return acknowledged,
                None if left.is_zero() => return false,
                None => {}
            }
            report = self
                .finished
                .wait_timeout(report, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Takes everything passed in since the last call.
    pub(super) fn take(&self) -> Inbox {
        let mut inbox = lock(&self.inbox);
        // Under the lock of the inbox: `is_settled` must not see an empty inbox together with a report from before these values.
        if inbox.wanted != Wanted::default() {
            lock(&self.report).settled = false;
        }
        std::mem::take(&mut *inbox)
    }

    /// Returns whether the broker has acknowledged everything wanted so far.
    pub(super) fn is_settled(&self) -> bool {
        let inbox = lock(&self.inbox);
        inbox.wanted == Wanted::default() && lock(&self.report).settled
    }

    /// Waits for the next call of `want`, `event` or `close`; returns at once if one was missed.
    pub(super) async fn wait_for_input(&self) {
        self.woken.notified().await;
    }

    pub(super) fn report(&self) -> LinkReport {
        *lock(&self.report)
    }

    pub(super) fn update(&self, up: bool, settled: bool, stats: LinkStats) {
        let mut report = lock(&self.report);
        report.up = up;
        report.settled = settled;
        report.stats = stats;
    }

    /// Marks the task as ended. The first call counts.
    pub(super) fn finish(&self, acknowledged: bool) {
        let mut report = lock(&self.report);
        report.up = false;
        report.finished.get_or_insert(acknowledged);
        drop(report);
        self.finished.notify_all();
    }
}
