//! The end of a recording as the queue sees it: remaining chunks are sent or moved to disk until a deadline, and then given up.
//!
//! The `wait_…` functions block on the queue's condition. A chunk that is given up is reported with its reason, and its bytes are
//! freed without the lock.

use std::sync::PoisonError;

use tokio::time::Instant;

use super::disk_state::{DiskState, Phase};
use super::health::Status;
use super::queue::{Drained, UploadQueue};
use super::report::Report;
use super::state::QueueState;
use super::ticket::Ticket;
use crate::flow::hold::Drain;
use crate::flow::pending::Pending;

impl UploadQueue {
    /// Ends the drain: data arrives again after an EOS.
    pub fn resume(&self) {
        let mut state = self.lock();
        state.health.resume();
        state.scheduler.set_draining(None);
        if let Some(disk) = &mut state.disk {
            disk.phase = Phase::Recording;
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Whether [`Self::abandon`] left chunks on disk and recording has not resumed since.
    pub fn is_left_on_disk(&self) -> bool {
        self.lock().disk.as_ref().is_some_and(|disk| disk.phase.abandoned().is_some())
    }

    /// Starts the drain at EOS or when the element leaves PAUSED: remaining chunks are sent now, until the deadline `until`. After a
    /// refusal that ends the recording nothing is sent: nobody waits for it, so it would be aborted, and might be stored all the
    /// same although it is reported as lost.
    pub fn ending(&self, status: Status, until: Instant) {
        let mut state = self.lock();
        state.health.ending(status);
        let drain = Drain {
            began: self.now(),
            until: self.ns(until),
        };
        // Not asked of the engine: the ERROR is on the bus, and may be answered, before the engine knows of it.
        if !state.health.has_ended_recording() {
            state.scheduler.set_draining(Some(drain));
        }
        state.poll(self.now());
        drop(state);
        self.publish();
        self.wake.notify_one();
    }

    /// Moves everything in memory to disk, while it is being sent.
    pub fn move_all(&self) {
        if let Some(disk) = &mut self.lock().disk {
            disk.phase.end();
        }
        self.disk_wake.notify_one();
    }

    /// Waits until everything recorded is stored or on disk; otherwise like [`UploadQueue::wait_drained`].
    pub fn wait_spooled(&self, until: Instant, heed_interrupt: bool, give_up: &dyn Fn() -> bool) -> Drained {
        self.wait(until, heed_interrupt, give_up, |state| {
            let is_writing = state.disk.as_ref().is_some_and(DiskState::is_writing);
            !is_writing && state.in_memory.is_empty()
        })
    }

    /// Waits while the disk accepts what is in memory; otherwise like [`UploadQueue::wait_drained`]. [`Drained::Yes`]: it accepts
    /// no more.
    pub fn wait_moved(&self, until: Instant, heed_interrupt: bool, give_up: &dyn Fn() -> bool) -> Drained {
        self.wait(until, heed_interrupt, give_up, |state| !state.disk_goes_on())
    }

    /// Waits until no chunk is left, `until` has passed, the element is interrupted (only with `heed_interrupt`), or `give_up`
    /// returns true. `give_up` is called with the lock held.
    pub fn wait_drained(&self, until: Instant, heed_interrupt: bool, give_up: &dyn Fn() -> bool) -> Drained {
        self.wait(until, heed_interrupt, give_up, QueueState::is_drained)
    }

    fn wait(
        &self,
        until: Instant,
        heed_interrupt: bool,
        give_up: &dyn Fn() -> bool,
        is_done: impl Fn(&QueueState) -> bool,
    ) -> Drained {
        let mut state = self.lock();
        while !is_done(&state) {
            let left = until.saturating_duration_since((self.clock().monotonic)());
            if give_up() {
                return Drained::GivenUp;
            }
            if heed_interrupt && state.interrupted {
                return Drained::Interrupted;
            }
            if left.is_zero() {
                return Drained::TimedOut;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Drained::Yes
    }

    /// Has [`UploadQueue::wait_drained`] check its condition again.
    pub fn notify(&self) {
        // Take the lock first: a waiter between its check and its wait would miss this wake.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Gives up all chunks that are neither stored nor on disk, and reports each of them. Returns what is lost, and what stays on
    /// disk. What stays is reported too, unless another sink stores it soon (`reports_left` is false).
    pub fn abandon(&self, reason: &'static str, reports_left: bool) -> (Pending, Pending) {
        let mut state = self.lock();
        // The End of one chunk may be being written at this moment; it is reported as lost only if that fails.
        let finishing = state.disk.as_ref().and_then(|d| d.in_hand.finishing);
        let lost: Vec<Ticket> = state.in_memory.iter().copied().filter(|&t| Some(t) != finishing).collect();
        let all = state.pending(self.now());
        let gone: Vec<_> = lost.iter().map(|&ticket| state.give_up(ticket, reason)).collect();
        // What is left now is on disk, or lacks only its End. Add the chunks of which only the beginning stays.
        let mut left = state.pending(self.now());
        let cut = gone.iter().filter(|(chunk, stays)| chunk.is_some() && *stays > 0);
        cut.for_each(|(_, stays)| (left.chunks, left.bytes) = (left.chunks + 1, left.bytes + stays));
        let lost = Pending {
            bytes: all.bytes - left.bytes,
            chunks: all.chunks - left.chunks,
            oldest: all.oldest,
        };
        if let Some(disk) = &mut state.disk {
            disk.phase = Phase::Abandoned(reason);
            // Report it once: not at EOS and again when the element stops.
            let is_new = reports_left && std::mem::replace(&mut disk.left_reported, left.chunks) != left.chunks;
            if is_new || lost.bytes > 0 {
                state.reports.push_back(Report::Left { left, lost });
            }
        }
        drop(state);
        drop(gone);
        // Wake the driver to abort the attempts: a chunk that is reported as lost must not arrive afterwards.
        self.wake.notify_one();
        self.disk_wake.notify_one();
        self.publish();
        self.changed.notify_all();
        (lost, left)
    }

    /// Ends the driver and aborts the attempts in flight.
    pub fn stop(&self) {
        let mut state = self.lock();
        // Set before the wakes below: each waiter checks it.
        state.stopped = true;
        state.health.ending(Status::Stopped);
        state.poll(self.now());
        drop(state);
        self.publish();
        self.wake.notify_one();
        self.disk_wake.notify_one();
        // `notify_waiters` leaves no permit for later waiters; `has_stopped` checks `stopped` after it has registered.
        self.stop_wake.notify_waiters();
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::upload::completion::Confirmed;
    use crate::upload::tests::{chunk, due, failed, limits};
    use gcstreamer_storage::Class;

    /// Refuses a chunk, ends the recording, and returns how many attempts are due then.
    fn attempts_after_a_refusal(class: Class, uploads: &UploadQueue) -> usize {
        uploads.queue(chunk(0, 10));
        uploads.finished(due(uploads)[0].0, failed(class), Confirmed::No);
        assert!(due(uploads).is_empty());
        uploads.ending(Status::Draining, Instant::now() + Duration::from_secs(30));
        due(uploads).len()
    }

    #[test]
    fn a_refusal_that_ends_the_recording_is_not_followed_by_an_attempt_that_nobody_waits_for() {
        let new = || UploadQueue::new(limits(1000, 1), 1, Box::new(|| {}));
        assert_eq!(attempts_after_a_refusal(Class::Permanent, &new()), 0);
        assert_eq!(attempts_after_a_refusal(Class::Auth, &new()), 0);
        // The end of a recording that continues in spite of refusals tries once more.
        assert_eq!(attempts_after_a_refusal(Class::Permanent, &new().outlasting_refusals()), 1);
    }
}
