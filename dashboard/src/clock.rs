//! The wall clock, which tests replace.

use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

/// A wall clock.
pub trait Clock: Debug + Send + Sync {
    /// Returns the time, ns since the Unix epoch.
    fn now(&self) -> u64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}
