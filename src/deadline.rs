//! One deadline for the process: when Ctrl-C stops a pipeline of many of our elements, they are stopped one after the other,
//! and all of them together wait no longer than one would.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When the elements of this process began to leave PAUSED, and when the last of them was done.
static STOPPING: Mutex<Option<Stopping>> = Mutex::new(None);

/// A stop that begins so long after another has ended is one of its own.
const APART: Duration = Duration::from_secs(1);

/// No stop is believed to last longer: pipelines that an application stops one by one, all day, are not one stop.
const LONGEST: Duration = Duration::from_secs(60);

/// See [`Stop::grace`].
const GRACE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
struct Stopping {
    began: Instant,
    waiting: usize,
    ended: Instant,
}

/// An element that is stopping.
#[derive(Debug)]
pub(crate) struct Stop {
    began: Instant,
}

impl Stop {
    /// An element leaves PAUSED.
    pub(crate) fn begin() -> Self {
        let now = Instant::now();
        let mut stopping = STOPPING.lock().unwrap_or_else(PoisonError::into_inner);
        let current = match *stopping {
            Some(s) if (s.waiting > 0 || now.duration_since(s.ended) < APART) && now.duration_since(s.began) < LONGEST => {
                Stopping {
                    waiting: s.waiting + 1,
                    ..s
                }
            }
            _ => Stopping {
                began: now,
                waiting: 1,
                ended: now,
            },
        };
        *stopping = Some(current);
        Self { began: current.began }
    }

    /// The end of the grace after that deadline, for what a moment is enough for: one for all elements that stop together, not
    /// one for each of them.
    pub(crate) fn grace(&self, timeout: Duration) -> Instant {
        self.until(timeout.saturating_add(GRACE))
    }

    /// When an element that may wait for `timeout` has to be done.
    pub(crate) fn until(&self, timeout: Duration) -> Instant {
        self.began.checked_add(timeout).unwrap_or(self.began)
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        if let Some(stopping) = STOPPING.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            stopping.waiting = stopping.waiting.saturating_sub(1);
            stopping.ended = Instant::now();
        }
    }
}
