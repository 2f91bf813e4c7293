//! Decides when the progress of an EOS is reported while it waits for uploads. Time is an argument.

use std::time::Duration;

use tokio::time::Instant;

use super::message::Draining;
use crate::flow::pending::Pending;

/// Interval between two reports.
const AGAIN: Duration = Duration::from_secs(1);

/// The reports of one EOS.
#[derive(Debug)]
pub(super) struct Progress {
    /// When to report next.
    next: Instant,
    has_begun: bool,
}

impl Progress {
    /// Starts the reports of an EOS. `is_usual`: the EOS ends a fragment and not the recording, and is reported only if it takes
    /// long.
    pub(super) fn new(now: Instant, is_usual: bool) -> Self {
        Self {
            next: if is_usual { now + AGAIN } else { now },
            has_begun: false,
        }
    }

    /// Returns when to call [`Progress::at`] next.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Returns what to report now, with `pending` left.
    pub(super) fn at(&mut self, pending: Pending, now: Instant) -> Option<Draining> {
        if now < self.next {
            return None;
        }
        self.next = now + AGAIN;
        match (pending.chunks, self.has_begun) {
            (0, _) => None,
            (_, true) => Some(Draining::GoesOn(pending)),
            (_, false) => {
                self.has_begun = true;
                Some(Draining::Begins(pending))
            }
        }
    }

    /// Returns the last report, which ends a progress that has begun.
    pub(super) fn end(self, pending: Pending) -> Option<Draining> {
        let last = match pending.chunks {
            0 => Draining::Stored,
            _ => Draining::Unfinished(pending),
        };
        self.has_begun.then_some(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(chunks: u64) -> Pending {
        Pending {
            chunks,
            ..Pending::default()
        }
    }

    #[test]
    fn what_is_left_is_reported_at_once_then_once_a_second_and_what_has_begun_is_ended() {
        let began = Instant::now();
        let mut progress = Progress::new(began, false);
        let mut reported = Vec::new();
        for ms in (0..3500).step_by(20) {
            reported.extend(progress.at(chunks(9 - ms / 500), began + Duration::from_millis(ms)));
        }
        assert!(matches!(reported[0], Draining::Begins(p) if p.chunks == 9), "{reported:?}");
        let left = reported[1..].iter().map(|step| match step {
            Draining::GoesOn(pending) => pending.chunks,
            other => panic!("{other:?}"),
        });
        assert_eq!(left.collect::<Vec<_>>(), [7, 5, 3]);
        assert!(matches!(progress.end(chunks(0)), Some(Draining::Stored)));
    }

    #[test]
    fn a_drain_with_nothing_to_do_and_a_fragment_that_ends_soon_say_nothing() {
        let began = Instant::now();
        let mut nothing = Progress::new(began, false);
        assert!(nothing.at(chunks(0), began).is_none() && nothing.end(chunks(0)).is_none());
        let mut fragment = Progress::new(began, true);
        assert!(fragment.at(chunks(1), began + Duration::from_millis(990)).is_none());
        assert!(fragment.at(chunks(1), began + AGAIN).is_some());
        assert!(matches!(fragment.end(chunks(1)), Some(Draining::Unfinished(_))));
    }
}
