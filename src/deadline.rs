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

/// What is over the deadline in all, see [`Stop::until_or`].
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

    /// As [`Stop::until`], but at least `moment` from now for what no more is needed for; all the moments of elements that stop
    /// together are within [`GRACE`] after the deadline.
    pub(crate) fn until_or(&self, timeout: Duration, moment: Duration) -> Instant {
        let end = self.until(timeout.saturating_add(GRACE));
        self.until(timeout).max(end.min(Instant::now() + moment))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moments_after_the_deadline_are_shared_by_all_who_stop_together() {
        let now = Instant::now();
        let long_ago = |ms: u64| Stop {
            began: now.checked_sub(Duration::from_millis(ms)).unwrap(),
        };
        let (timeout, moment) = (Duration::from_secs(5), Duration::from_millis(300));
        let left = |stop: &Stop| stop.until_or(timeout, moment).saturating_duration_since(now);
        assert_eq!(left(&long_ago(1000)), Duration::from_secs(4), "the deadline is far away");
        let late = left(&long_ago(5000));
        assert!(late >= moment && late < Duration::from_millis(500), "{late:?}");
        assert_eq!(left(&long_ago(5300)), Duration::from_millis(200), "what is left of the grace");
        assert_eq!(left(&long_ago(9000)), Duration::ZERO, "nothing is left");
    }
}
