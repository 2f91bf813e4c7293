//! How long the stream stands still because the recording has no room.
//!
//! Atomic figures alone; the clock is an argument. Times are ns on the queue's scale. One thread waits; others read.

use std::sync::atomic::{AtomicU64, Ordering};

/// The waits of the streaming thread.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// All waits together.
    total: AtomicU64,
    /// When the last one ended; `u64::MAX` during one.
    until: AtomicU64,
}

impl Waits {
    /// Returns all waits together.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Until when the stream has stood still because of us, as far as is known; `u64::MAX` if it does.
    pub(super) fn until(&self) -> u64 {
        self.until.load(Ordering::Relaxed)
    }

    /// Counts what `ask` takes, by the clock `now`.
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
