//! The two ends of a session: EOS, which waits up to `drain-timeout`, and leaving PAUSED, which waits until the process's
//! shutdown deadline.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::engine::{Engine, LAST_WORD};
use super::message::{Message, Wait};
use super::progress::Progress;
use super::stream::Ingest;
use crate::base::lock::lock;
use crate::flow::pending::Pending;
use crate::upload::health::Status;
use crate::upload::queue::Drained;
use crate::upload::report::Report;

/// How the drain at EOS ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The EOS is passed on.
    Passes,
    /// The element is flushing: the EOS is dropped.
    Flushed,
}

/// Result of the end of a session.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The first sequence number of the next session.
    pub next_sequence: u64,
    /// Chunks that were not stored in time, if any.
    pub unfinished: Option<Unfinished>,
    /// Bytes received, if none of them is in a chunk and that is not reported yet.
    pub nothing_of: Option<u64>,
}

/// What a session could not store in time.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// Chunks that are lost.
    pub lost: Pending,
    /// Chunks on disk that wait for the next start; empty if reported at EOS or if another sink continues with them.
    pub left: Pending,
    /// Text of the last failure; empty if nothing has failed.
    pub why: String,
    /// The uploads were refused with an ERROR, so the end did not wait for them.
    pub is_refused: bool,
}

// One second was too little for a slow disk that has to take a full memory.
/// Further time after `drain-timeout` for a disk that is still accepting chunks.
const DISK_GOES_ON: Duration = Duration::from_secs(5);
/// Time for work that usually needs none, granted even if other elements have used up the deadline.
const MOMENT: Duration = Duration::from_millis(100);

/// What an EOS waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// All chunks are stored.
    Stored,
    /// All chunks are on disk.
    Spooled,
    /// The disk accepts no more chunks.
    Disk,
}

/// A stage of the drain. Stages follow each other until one reaches its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stage {
    goal: Goal,
    until: Instant,
    /// Chunks in memory are moved to disk meanwhile.
    moves: bool,
}

/// The role of the spool at an EOS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spooling {
    /// There is no spool.
    No,
    /// A chunk on disk is as good as a stored one.
    Enough,
    /// Accepts the chunks that are not stored in time. `failing`: the last upload attempt failed.
    Refuge { failing: bool },
}

/// Returns the stages of a drain. A disk is slow and may have to take all of the memory, so moving starts at once if uploads
/// fail, otherwise at half-time.
fn stages(began: Instant, timeout: Duration, spooling: Spooling) -> Vec<Stage> {
    let at = |after: Duration| began.checked_add(after).unwrap_or(began);
    let stage = |goal, until, moves| Stage { goal, until, moves };
    let stored = stage(Goal::Stored, at(timeout), true);
    let disk = stage(Goal::Disk, at(timeout.saturating_add(DISK_GOES_ON)), true);
    match spooling {
        Spooling::No => vec![Stage { moves: false, ..stored }],
        Spooling::Enough => vec![stage(Goal::Spooled, at(timeout), true), disk],
        Spooling::Refuge { failing: true } => vec![stored, disk],
        Spooling::Refuge { failing: false } => vec![stage(Goal::Stored, at(timeout / 2), false), stored, disk],
    }
}

impl Engine {
    /// Handles EOS: closes the open chunk and waits until everything is stored, at most `drain-timeout`. With `until_spooled` a
    /// chunk on disk suffices.
    pub fn drain(&self, shell: &impl Wait, timeout: Duration, until_spooled: bool) -> End {
        let began = (self.queue.clock().monotonic)();
        if let Err(fault) = self.with(Ingest::finish) {
            self.failure.fail();
            self.poster.post(Message::Fault(fault));
        }
        let spooling = match &self.spool {
            None => Spooling::No,
            Some(_) if until_spooled => Spooling::Enough,
            Some(_) => Spooling::Refuge {
                failing: self.queue.is_failing(),
            },
        };
        self.queue
            .ending(Status::Draining, began.checked_add(timeout).unwrap_or(began));
        let is_usual = self.flow.has_successor() || spooling == Spooling::Enough;
        let mut progress = Progress::new(began, is_usual);
        let (mut time_is_up, mut is_flushed) = (true, false);
        for stage in stages(began, timeout, spooling) {
            if stage.moves {
                self.queue.move_all();
            }
            match self.wait_for(shell, stage, &mut progress) {
                Drained::Interrupted => is_flushed = true,
                Drained::GivenUp => {
                    time_is_up = false;
                    // Drop the EOS of a flush: passed on, it would mean to the application that everything is stored.
                    is_flushed = self.stopping.is_flushing.load(Ordering::Relaxed);
                }
                // Reaching `Goal::Disk` stores nothing: the rest is given up all the same.
                Drained::Yes => time_is_up = stage.goal == Goal::Disk,
                Drained::TimedOut => continue,
            }
            break;
        }
        let last = progress.end(self.queue.snapshot().pending);
        last.into_iter().for_each(|step| self.poster.post(Message::Draining(step)));
        if is_flushed {
            return End::Flushed;
        }
        if time_is_up {
            self.give_up_drain(timeout);
        }
        // A recording that was stopped by command is expected to store nothing.
        let wants_more = self.with(|ingest| !ingest.chunker.has_begun() && !ingest.chunker.is_stopped());
        if wants_more && !self.is_failed() {
            self.report_nothing(self.queue.now());
        }
        // Reports about chunks, even about one dropped just now, must precede the end of the stream.
        self.queue.publish();
        self.poster.wait_posted(LAST_WORD);
        End::Passes
    }

    /// Waits for the goal of a stage. [`Drained::Interrupted`]: the element is flushing.
    fn wait_for(&self, shell: &impl Wait, stage: Stage, progress: &mut Progress) -> Drained {
        let give_up = || {
            let is_flushing = self.stopping.is_flushing.load(Ordering::Relaxed);
            self.is_stopping() || is_flushing || self.failure.is_refused()
        };
        loop {
            let step = progress.at(self.queue.snapshot().pending, (self.queue.clock().monotonic)());
            step.into_iter().for_each(|step| self.poster.post(Message::Draining(step)));
            let until = stage.until.min(progress.next());
            let drained = match stage.goal {
                Goal::Stored => self.queue.wait_drained(until, true, &give_up),
                Goal::Spooled => self.queue.wait_spooled(until, true, &give_up),
                Goal::Disk => self.queue.wait_moved(until, true, &give_up),
            };
            // Only a report of progress was due.
            if drained == Drained::TimedOut && until < stage.until {
                continue;
            }
            // The base class holds its preroll lock around us; a pause or a stop needs that lock.
            if drained != Drained::Interrupted || shell.wait_preroll().is_err() {
                return drained;
            }
        }
    }

    /// Gives up waiting at EOS: what is neither stored nor on disk is lost.
    fn give_up_drain(&self, timeout: Duration) {
        let (lost, _) = self.abandon("drain-timeout");
        // With a spool one WARNING reports what is lost and what is left, and the stream ends normally.
        if lost.chunks > 0 && self.spool.is_none() {
            self.poster.post(Message::NotDrained {
                lost,
                timeout: u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX),
            });
        }
    }

    /// Returns whether the element is leaving PAUSED.
    pub fn is_stopping(&self) -> bool {
        lock(&self.stopping.deadline).is_some()
    }

    /// Leaves the shared shutdown deadline: the session is over, and a later stop gets a deadline of its own.
    pub fn leave_deadline(&self) {
        drop(lock(&self.stopping.deadline).take());
    }

    /// Ends waits of the streaming thread because the element leaves PAUSED.
    pub fn stop_waiting(&self) {
        // Kept if it has begun: another sink of the pipeline may have been first.
        lock(&self.stopping.deadline).get_or_insert_with(|| self.stopping.begin());
        self.queue.notify();
    }

    /// Starts the shutdown deadline of the element, closes the open chunk, and sends all chunks to the bucket and to the disk.
    /// Idempotent.
    pub fn begin_to_end(&self, shutdown_timeout: Duration) {
        let until = lock(&self.stopping.deadline)
            .get_or_insert_with(|| self.stopping.begin())
            .until(shutdown_timeout);
        let closed = self.with(|ingest| {
            ingest.stopped = true;
            ingest.finish()
        });
        if let Err(fault) = closed {
            self.poster.post(Message::Fault(fault));
        }
        self.queue.ending(Status::Draining, until.into());
        self.queue.move_all();
    }

    /// Undoes [`Engine::begin_to_end`] if the element does not leave PAUSED after all: a state change of its pipeline failed.
    pub fn go_on(&self) {
        let was_stopped = self.with(|ingest| std::mem::take(&mut ingest.stopped));
        if was_stopped {
            drop(lock(&self.stopping.deadline).take());
        }
    }

    /// Ends the session at PAUSED→READY: waits for the open chunk and the queue until the process's shutdown deadline.
    pub fn end(&self, shutdown_timeout: Duration) -> Ended {
        if let Some(ticker) = lock(&self.tasks).ticker.take() {
            ticker.abort();
        }
        if let Some(spool) = &self.spool {
            // This stream no longer fills the spool, which others share.
            spool.set_input(0);
        }
        self.begin_to_end(shutdown_timeout);
        let next_sequence = self.with(|ingest| ingest.chunker.next_sequence());
        let (until, disk_until) = {
            let mut stop = lock(&self.stopping.deadline);
            let stop = stop.get_or_insert_with(|| self.stopping.begin());
            (stop.until(shutdown_timeout), stop.disk_until(shutdown_timeout))
        };
        // The EOS has already waited `drain-timeout` for the chunks on disk; do not wait again.
        let gave_up = self.queue.is_left_on_disk();
        let refused = || gave_up || self.failure.is_refused();
        let mut unfinished = None;
        if self.queue.wait_drained(until.into(), false, &refused) != Drained::Yes {
            // Writing to disk does not use the network, so it always gets a moment.
            if self.spool.is_some() {
                let _ = self.queue.wait_moved(disk_until.into(), false, &|| false);
            }
            let (lost, left) = self.abandon("shutdown-timeout");
            let is_known = gave_up || self.flow.has_successor();
            unfinished = Some(Unfinished {
                lost,
                left: if is_known { Pending::default() } else { left },
                why: self.queue.last_reason(),
                is_refused: self.failure.is_refused(),
            });
        }
        let nothing_of = self.nothing_of();
        self.queue.stop();
        let a_moment = || {
            lock(&self.stopping.deadline)
                .get_or_insert_with(|| self.stopping.begin())
                .moment(shutdown_timeout, MOMENT)
        };
        let forgotten = self.wait_for_tasks(a_moment());
        if forgotten.chunks > 0 {
            let unfinished = unfinished.get_or_insert_with(|| Unfinished {
                lost: Pending::default(),
                left: Pending::default(),
                why: self.queue.last_reason(),
                is_refused: self.failure.is_refused(),
            });
            unfinished.lost.chunks += forgotten.chunks;
            unfinished.lost.bytes += forgotten.bytes;
        }
        // The last messages wait only for the application.
        self.poster
            .wait_posted(a_moment().saturating_duration_since(std::time::Instant::now()));
        self.report_the_rest();
        Ended {
            next_sequence,
            unfinished,
            nothing_of,
        }
    }

    /// Returns the number of bytes received if no chunk holds any of them and that is not reported yet.
    fn nothing_of(&self) -> Option<u64> {
        let is_expected = self.with(|ingest| ingest.chunker.has_begun() || ingest.chunker.is_stopped());
        let received = self.queue.snapshot().stats.bytes_received;
        let is_new = !is_expected && received > 0 && !self.is_failed();
        (is_new && !self.reported.nothing_to_store.swap(true, Ordering::Relaxed)).then_some(received)
    }

    /// Posts the remaining reports of losses, even after the deadline: a loss must never go unreported.
    fn report_the_rest(&self) {
        while let Some(report) = self.queue.take_report() {
            if matches!(report, Report::Dropped { .. } | Report::Cut { .. } | Report::Left { .. }) {
                self.poster.post(Message::Report(report));
            }
        }
    }

    /// Drops all chunks that are neither stored nor on disk, with a report. Reports the chunks left on disk unless another sink
    /// continues with them.
    fn abandon(&self, reason: &'static str) -> (Pending, Pending) {
        self.queue.abandon(reason, !self.flow.has_successor())
    }

    /// Waits for the tasks, at most until `until`. The last one releases the session's lock on its folder: the next start must
    /// find it free. Returns what a disk that does not answer has not taken.
    fn wait_for_tasks(&self, until: std::time::Instant) -> Pending {
        if self.spool.is_none() {
            return Pending::default();
        }
        let jobs = std::mem::take(&mut lock(&self.tasks).jobs);
        let (done, all_done) = std::sync::mpsc::channel::<()>();
        self.runtime().spawn(async move {
            for job in jobs {
                // An error is ignored: `watched` reports a panic.
                let _ = job.await;
            }
            drop(done);
        });
        let _ = all_done.recv_timeout(until.saturating_duration_since(std::time::Instant::now()));
        self.queue.forget("shutdown-timeout")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_eos_the_disk_begins_at_once_where_uploads_fail_and_at_half_time_else_and_may_finish_what_it_began() {
        let began = Instant::now();
        let timeout = Duration::from_secs(30);
        let plan = |spooling| -> Vec<(Goal, u64, bool)> {
            let stages = stages(began, timeout, spooling);
            stages
                .iter()
                .map(|s| (s.goal, (s.until - began).as_secs(), s.moves))
                .collect()
        };
        assert_eq!(plan(Spooling::No), [(Goal::Stored, 30, false)]);
        assert_eq!(
            plan(Spooling::Refuge { failing: true }),
            [(Goal::Stored, 30, true), (Goal::Disk, 35, true)]
        );
        assert_eq!(
            plan(Spooling::Refuge { failing: false }),
            [(Goal::Stored, 15, false), (Goal::Stored, 30, true), (Goal::Disk, 35, true)]
        );
        assert_eq!(plan(Spooling::Enough), [(Goal::Spooled, 30, true), (Goal::Disk, 35, true)]);
    }
}
