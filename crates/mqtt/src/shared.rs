//! What the callers of a link and its task share: an inbox that is bounded, and a report.
//!
//! The locks are held for a move of a few words, never while waiting and never while calling out.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;

use super::link::MAX_EVENTS;
use super::{LinkStats, Wanted};

/// Takes a lock; a panic of another holder does not close it, because every change leaves the state whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was said to the link since its task last looked.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) wanted: Wanted,
    pub(super) events: VecDeque<(Instant, &'static str, Bytes)>,
    /// Events that found no place.
    pub(super) dropped: u64,
    pub(super) close: Option<(Wanted, Instant)>,
}

/// What the link says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Report {
    pub(super) up: bool,
    /// Nothing that was wanted waits or is on its way.
    pub(super) settled: bool,
    pub(super) stats: LinkStats,
    /// The task has ended; whether the last state was acknowledged.
    pub(super) finished: Option<bool>,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    woken: Notify,
    report: Mutex<Report>,
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

    /// Waits until the task has ended, at the latest until `until`.
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

    /// What was said since the last call.
    pub(super) fn take(&self) -> Inbox {
        let mut inbox = lock(&self.inbox);
        if inbox.wanted != Wanted::default() {
            lock(&self.report).settled = false;
        }
        std::mem::take(&mut *inbox)
    }

    /// Whether the broker has acknowledged all that was wanted until now.
    pub(super) fn is_settled(&self) -> bool {
        let inbox = lock(&self.inbox);
        inbox.wanted == Wanted::default() && lock(&self.report).settled
    }

    /// Ends at the next call of `want`, `event` or `close`, or at once after one that was missed.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    pub(super) fn report(&self) -> Report {
        *lock(&self.report)
    }

    pub(super) fn told(&self, up: bool, settled: bool, stats: LinkStats) {
        let mut report = lock(&self.report);
        report.up = up;
        report.settled = settled;
        report.stats = stats;
    }

    /// The task ends. The first answer counts.
    pub(super) fn finish(&self, acknowledged: bool) {
        let mut report = lock(&self.report);
        report.up = false;
        report.finished.get_or_insert(acknowledged);
        drop(report);
        self.finished.notify_all();
    }
}
