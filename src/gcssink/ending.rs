//! The two ends of a session: EOS, which waits for `drain-timeout`, and leaving PAUSED, which waits for the process's one
//! deadline.

use std::sync::atomic::Ordering;
use std::time::Duration;

use gst_base::prelude::*;
use tokio::time::Instant;

use super::messages::Post;
use super::session::{LAST_WORD, Session};
use crate::deadline::Stop;
use crate::runtime::runtime;
use crate::sync::lock;
use crate::upload::health::Status;
use crate::upload::report::{Pending, Report};
use crate::upload::uploads::Drained;

/// How the drain at EOS ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The EOS goes on.
    Passes,
    /// Flushing: it is dropped.
    Flushed,
}

/// A disk that is still taking chunks when `drain-timeout` is over has so long to take the rest.
const DISK_GOES_ON: Duration = Duration::from_secs(5);
/// What usually takes no time at all has so long, though other elements have used the deadline up.
const MOMENT: Duration = Duration::from_millis(100);

/// What is waited for at EOS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// All chunks are stored.
    Stored,
    /// All chunks are on disk.
    Spooled,
    /// The disk takes no more.
    Disk,
}

/// One after the other, until one of them comes true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stage {
    wait: Wait,
    until: Instant,
    /// What is in memory is moved to disk meanwhile.
    moves: bool,
}

/// What the spool is to an EOS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spooling {
    /// There is none.
    No,
    /// A chunk on disk is enough.
    Enough,
    /// It is where chunks go when they are not stored in time. `failing`: the last attempt failed.
    Refuge { failing: bool },
}

/// A disk is slow and may have to take all the memory: it begins at once where uploads fail, else at half-time.
fn stages(began: Instant, timeout: Duration, spooling: Spooling) -> Vec<Stage> {
    let at = |after: Duration| began.checked_add(after).unwrap_or(began);
    let stage = |wait, until, moves| Stage { wait, until, moves };
    let stored = stage(Wait::Stored, at(timeout), true);
    let disk = stage(Wait::Disk, at(timeout.saturating_add(DISK_GOES_ON)), true);
    match spooling {
        Spooling::No => vec![Stage { moves: false, ..stored }],
        Spooling::Enough => vec![stage(Wait::Spooled, at(timeout), true), disk],
        Spooling::Refuge { failing: true } => vec![stored, disk],
        Spooling::Refuge { failing: false } => vec![stage(Wait::Stored, at(timeout / 2), false), stored, disk],
    }
}

impl Session {
    /// EOS: closes the open chunk and waits for everything to be stored, at most `drain-timeout`. Where a chunk on disk is
    /// enough (`until_spooled`), for that.
    pub(super) fn drain(&self, element: &super::GcsSink, timeout: Duration, until_spooled: bool) -> End {
        let began = Instant::now();
        if let Err(fault) = self.recorder().finish() {
            self.failed.store(true, Ordering::Relaxed);
            self.outbox.post(Post::Fault(fault));
        }
        let spooling = match &self.spool {
            None => Spooling::No,
            Some(_) if until_spooled => Spooling::Enough,
            Some(_) => Spooling::Refuge {
                failing: self.uploads.is_failing(),
            },
        };
        self.uploads
            .ending(Status::Draining, began.checked_add(timeout).unwrap_or(began));
        let mut time_is_up = true;
        for stage in stages(began, timeout, spooling) {
            if stage.moves {
                self.uploads.move_all();
            }
            match self.wait_for(element, stage) {
                Drained::Interrupted => return End::Flushed,
                Drained::GivenUp => time_is_up = false,
                Drained::Yes => time_is_up = stage.wait == Wait::Disk,
                Drained::TimedOut => continue,
            }
            break;
        }
        if time_is_up {
            self.give_up_drain(timeout);
        }
        let wants_more = {
            let recorder = self.recorder();
            !recorder.chunker.has_begun() && !recorder.chunker.is_stopped()
        };
        let nothing = wants_more && !self.failed.load(Ordering::Relaxed);
        if nothing && !self.nothing_told.swap(true, Ordering::Relaxed) {
            self.outbox.post(Post::NothingToStore(self.uploads.now()));
        }
        // What is said of the chunks comes before the end of the stream.
        self.outbox.wait_empty(std::time::Instant::now() + LAST_WORD);
        End::Passes
    }

    /// [`Drained::Interrupted`]: the element is flushing.
    fn wait_for(&self, element: &super::GcsSink, stage: Stage) -> Drained {
        let give_up = || self.is_stopping() || self.flushing.load(Ordering::Relaxed) || self.refused.load(Ordering::Relaxed);
        loop {
            let drained = match stage.wait {
                Wait::Stored => self.uploads.wait_drained(stage.until, true, &give_up),
                Wait::Spooled => self.uploads.wait_spooled(stage.until, true, &give_up),
                Wait::Disk => self.uploads.wait_moved(stage.until, true, &give_up),
            };
            // The base class holds its preroll lock around us; a pause or a stop needs it.
            if drained != Drained::Interrupted || element.wait_preroll().is_err() {
                return drained;
            }
        }
    }

    /// What is neither stored nor on disk is lost.
    fn give_up_drain(&self, timeout: Duration) {
        let (lost, _) = self.abandon("drain-timeout");
        if lost.chunks > 0 {
            self.outbox.post(Post::NotDrained {
                chunks: lost.chunks,
                bytes: lost.bytes,
                timeout: u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX),
            });
        }
    }

    /// The element leaves PAUSED: whatever waits in its streaming thread gives up.
    pub(super) fn stop_waiting(&self) {
        lock(&self.stop).get_or_insert_with(Stop::begin);
        self.uploads.nudge();
    }

    /// The element is about to leave PAUSED, and its time runs: the open chunk is closed, and all of it hurries to the bucket and
    /// to the disk. Again is the same as once.
    pub(super) fn begin_to_end(&self, shutdown_timeout: Duration) {
        let until = lock(&self.stop).get_or_insert_with(Stop::begin).until(shutdown_timeout);
        let closed = {
            let mut recorder = self.recorder();
            recorder.stopped = true;
            recorder.finish()
        };
        if let Err(fault) = closed {
            self.outbox.post(Post::Fault(fault));
        }
        self.uploads.ending(Status::Draining, until.into());
        self.uploads.move_all();
    }

    /// It does not leave PAUSED after all: a state change of its pipeline has failed.
    pub(super) fn go_on(&self) {
        let was_stopped = std::mem::take(&mut self.recorder().stopped);
        if was_stopped {
            drop(lock(&self.stop).take());
        }
    }

    /// PAUSED→READY: waits for the open chunk and the queue within the process's one deadline. The next sequence number.
    pub(super) fn end(&self, shutdown_timeout: Duration) -> u64 {
        if let Some(ticker) = lock(&self.ticker).take() {
            ticker.abort();
        }
        self.begin_to_end(shutdown_timeout);
        let next = self.recorder().chunker.next_sequence();
        let (until, disk_until) = {
            let mut stop = lock(&self.stop);
            let stop = stop.get_or_insert_with(Stop::begin);
            (stop.until(shutdown_timeout), stop.disk_until(shutdown_timeout))
        };
        // An EOS has waited its `drain-timeout` for what is on disk: that was its time.
        let gave_up = self.uploads.is_left_on_disk();
        let refused = || gave_up || self.refused.load(Ordering::Relaxed);
        if self.uploads.wait_drained(until.into(), false, &refused) != Drained::Yes {
            // Writing to disk is no use of the network: a moment for it is always there.
            if self.spool.is_some() {
                let _ = self.uploads.wait_moved(disk_until.into(), false, &|| false);
            }
            let (lost, left) = self.abandon("shutdown-timeout");
            gst::warning!(
                super::imp::CAT,
                "{} chunks were not stored within the shutdown-timeout, {} wait on disk",
                lost.chunks,
                left.chunks
            );
        }
        self.uploads.stop();
        let a_moment = || {
            lock(&self.stop)
                .get_or_insert_with(Stop::begin)
                .moment(shutdown_timeout, MOMENT)
        };
        self.wait_for_tasks(a_moment());
        // The last messages wait for nothing but the application.
        self.outbox.wait_empty(a_moment());
        self.say_the_rest();
        drop(lock(&self.identity).take());
        next
    }

    /// There was no time to say it: what was lost is said all the same.
    fn say_the_rest(&self) {
        while let Some(report) = self.uploads.take_report() {
            if matches!(report, Report::Dropped { .. } | Report::Left(_)) {
                self.outbox.post(Post::Report(report));
            }
        }
        self.outbox.attach(None);
    }

    /// What is lost, and what is left on disk: told unless another sink goes on with it.
    fn abandon(&self, reason: &'static str) -> (Pending, Pending) {
        self.uploads.abandon(reason, !self.flow.has_successor())
    }

    /// The session's lock on its folder is given back with the last of them: the next start must find it free.
    fn wait_for_tasks(&self, until: std::time::Instant) {
        if self.spool.is_none() {
            return;
        }
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        let (tell, told) = std::sync::mpsc::channel::<()>();
        if let Ok(runtime) = runtime() {
            runtime.spawn(async move {
                for task in tasks {
                    let _ = task.await;
                }
                drop(tell);
            });
            let _ = told.recv_timeout(until.saturating_duration_since(std::time::Instant::now()));
        }
        self.uploads.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_eos_the_disk_begins_at_once_where_uploads_fail_and_at_half_time_else_and_may_finish_what_it_began() {
        let began = Instant::now();
        let timeout = Duration::from_secs(30);
        let plan = |spooling| -> Vec<(Wait, u64, bool)> {
            let stages = stages(began, timeout, spooling);
            stages
                .iter()
                .map(|s| (s.wait, (s.until - began).as_secs(), s.moves))
                .collect()
        };
        assert_eq!(plan(Spooling::No), [(Wait::Stored, 30, false)]);
        assert_eq!(
            plan(Spooling::Refuge { failing: true }),
            [(Wait::Stored, 30, true), (Wait::Disk, 35, true)]
        );
        assert_eq!(
            plan(Spooling::Refuge { failing: false }),
            [(Wait::Stored, 15, false), (Wait::Stored, 30, true), (Wait::Disk, 35, true)]
        );
        assert_eq!(plan(Spooling::Enough), [(Wait::Spooled, 30, true), (Wait::Disk, 35, true)]);
    }
}
