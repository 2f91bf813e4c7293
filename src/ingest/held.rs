//! Measures how long the stream stalls because the recording has no room.
//!
//! Atomic values only; the clock is an argument. Times are ns on the queue's scale. One thread waits; others read.

use std::sync::atomic::{AtomicU64, Ordering};

/// The waits of the streaming thread.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Sum of all waits.
    total: AtomicU64,
    /// When the last one ended; `u64::MAX` during one.
    until: AtomicU64,
}

impl Waits {
    /// Returns the sum of all waits.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Returns until when the stream last stalled because of us; `u64::MAX` if it still does.
    pub(super) fn until(&self) -> u64 {
        self.until.load(Ordering::Relaxed)
    }

    /// Counts the time that `ask` takes, by the clock `now`.
    pub(super) fn during<T>(&self, now: impl Fn() -> u64, ask: impl FnOnce() -> T) -> T {
        let began = now();
        self.until.store(u64::MAX, Ordering::Relaxed);
        let answer = ask();
        let ended = now();
        self.total.fetch_add(ended.saturating_sub(began), Ordering::Relaxed);
        self.until.store(ended, Ordering::Relaxed);
        answer
    }
}
