//! The driver's side of [`UploadQueue`]: takes what is to be sent now, and records the results of attempts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::Attempted;
use super::chunk::{Chunk, Place, SpooledChunk, Summary};
use super::health::HealthEvent;
use super::life::{Recall, Step};
use super::parked;
use super::queue::UploadQueue;
use super::report::{DAMAGED, Report};
use super::scheduler::{Elsewhere, Outcome};
use super::state::{QueueState, is_parked};
use super::ticket::Ticket;
use crate::flow::bucket_endpoint::{Deadline, RetryAfter};
use crate::flow::hold::Hold;
use gcstreamer_storage::{Class, Stored, WriteError};

/// What the driver is to do.
pub(super) enum Due {
    /// Abort the attempts at `aborts`, send `chunks`, and ask again at `wake`.
    Send {
        chunks: Vec<(Ticket, Arc<Chunk>)>,
        aborts: Vec<Ticket>,
        wake: Option<Instant>,
        /// The sink drains.
        drain: Option<Deadline>,
    },
    /// Nothing more.
    Stop,
}

/// Which file of a stored chunk the attempt has marked and removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confirmed {
    /// None: it failed, or there is no file.
    No,
    /// The file of the whole chunk.
    File,
    /// The file with the part of the chunk that the disk accepted.
    Part,
}

/// Most chunks put off in one call of `due`: while the disk hangs, all of a backlog on disk is due, and the lock must not be held
/// for all of it.
const PUT_OFF: usize = 64;

/// The object that an attempt has stored.
struct Sent {
    object: String,
    device: String,
    /// Generation; 0 if reading the object is not permitted.
    generation: i64,
    crc32c: u32,
    /// Corrected capture start; `None` if the known one is right.
    start: Option<u64>,
    confirmed: Confirmed,
}

impl UploadQueue {
    /// Returns the chunks to send now, and when to ask again.
    pub(super) fn due(&self) -> Due {
        let mut state = self.lock();
        let now = self.now();
        if state.stopped {
            return Due::Stop;
        }
        // Dropped at the end, without the lock: they may be megabytes.
        let mut expired = Vec::new();
        if let Some(timeout) = state.retry_timeout {
            // In flight or not: `retry-timeout` applies to a chunk whose attempt does not end, too.
            while let Some(ticket) = state.scheduler.expired(timeout, now) {
                expired.push(state.expire(ticket, timeout));
            }
        }
        // Before `next`: this frees the place that `next` fills.
        if let Some(ticket) = state.scheduler.preempt(now) {
            state.aborts.push(ticket);
            state.note_recall(ticket, Recall::MakesWay);
        }
        let (mut chunks, mut put_off) = (Vec::new(), 0);
        while let Some(ticket) = state.scheduler.next(now) {
            if let Some(chunk) = state.chunks.get(&ticket).cloned() {
                if let Some(again) = state.unread_until(&chunk, now) {
                    state.scheduler.put_off(ticket, again);
                    put_off += 1;
                    if put_off == PUT_OFF {
                        break;
                    }
                    continue;
                }
                if let Some(Elsewhere::Parked(destination)) = chunk.link_key {
                    // Noted before the attempt, so that other sinks with chunks for this destination do not try it too.
                    parked::tried(destination);
                }
                let attempt = Step::Attempt(state.scheduler.attempts(ticket));
                state.note(&chunk.summary.session, chunk.summary.sequence, attempt);
                chunks.push((ticket, chunk));
            }
        }
        let poll_at = state.poll(now);
        let expiry = state
            .retry_timeout
            .and_then(|t| Some(now.saturating_add(t.saturating_sub(state.scheduler.oldest_age(now)?))));
        let wake = [state.scheduler.wake_at(now), poll_at, expiry.filter(|&e| e > now)]
            .into_iter()
            .flatten()
            .min();
        let aborts = std::mem::take(&mut state.aborts);
        let gone: Vec<_> = aborts.iter().filter_map(|&ticket| state.sent_no_more(ticket)).collect();
        let drain = state.scheduler.drain();
        // Before `publish`, which calls the observer: it may block.
        drop(state);
        self.publish();
        if !expired.is_empty() || !gone.is_empty() {
            self.changed.notify_all();
            self.disk_wake.notify_one();
        }
        let at = |ns| self.epoch.checked_add(Duration::from_nanos(ns));
        Due::Send {
            chunks,
            aborts,
            wake: wake.and_then(at),
            drain: drain.and_then(|drain| {
                Some(Deadline {
                    began: at(drain.began)?,
                    until: at(drain.until)?,
                })
            }),
        }
    }

    /// Converts a hold to the sink's time scale.
    fn hold(&self, held: RetryAfter) -> Hold {
        Hold {
            since: self.ns(held.since),
            until: self.ns(held.until),
        }
    }

    /// Waits for something to do.
    pub(super) async fn woken(&self) {
        // `notify_one` leaves a permit: a wake before this wait is not missed.
        self.wake.notified().await;
    }

    /// Records the result of an attempt. `confirmed`: the file that the attempt has removed.
    pub(super) fn finished(&self, ticket: Ticket, attempted: Attempted, confirmed: Confirmed) {
        let mut state = self.lock();
        // Also for a chunk that was dropped meanwhile: its bytes stay charged until its attempt ends.
        let sent = state.sent_no_more(ticket);
        if !state.chunks.contains_key(&ticket) {
            // Dropped while it was being sent.
            drop(state);
            return;
        }
        let now = self.now();
        let mut words = Vec::new();
        // Dropped after the lock is released: it may be megabytes, and `render` takes the lock for each buffer.
        let mut gone = None;
        // Of a parked chunk only the fact that it is parked is reported.
        let is_reported = !state.chunks.get(&ticket).is_some_and(|c| is_parked(c));
        match attempted {
            Attempted::Stored {
                stored,
                name,
                device,
                crc32c,
                start,
                warning,
            } => {
                state.reports.extend(warning.map(Report::Warning));
                // No generation without permission to read the object: the answer to the upload was lost, and the look at the
                // object is refused.
                let generation = stored.as_ref().map_or(0, |s| s.generation);
                state.stored(ticket, stored.as_ref(), now, &mut words);
                let sent = Sent {
                    object: name,
                    device,
                    generation,
                    crc32c,
                    start,
                    confirmed,
                };
                gone = state.uploaded(ticket, sent, now);
            }
            Attempted::Failed { error, name, warning } => {
                state.reports.extend(warning.filter(|_| is_reported).map(Report::Warning));
                state.failed(ticket, &error, name, now, &mut words);
            }
            Attempted::Held { held, name, warning } => {
                state.reports.extend(warning.filter(|_| is_reported).map(Report::Warning));
                if let Some(name) = name {
                    state.rename(ticket, name);
                }
                state.scheduler.held(ticket, self.hold(held));
                state.note_recall(ticket, Recall::Held);
            }
            Attempted::Unread { why } => {
                let again = state.disk_hangs(&why, now);
                state.scheduler.put_off(ticket, again);
            }
            Attempted::Damaged { why } => {
                state.reports.push_back(Report::Warning(why));
                // The file stays in the quarantine, or where it was: only the user removes damaged bytes.
                gone = state.lose_chunk(ticket, DAMAGED);
            }
        }
        let pending = state.pending(now);
        state
            .reports
            .extend(words.into_iter().map(|w| Report::HealthEvent(w, pending)));
        state.poll(now);
        if let Some(disk) = &mut state.disk {
            // A stored chunk leaves the disk, so there may be room again.
            disk.health.unblock();
        }
        let spools = state.disk.is_some();
        drop(state);
        // They may be megabytes: freed without the lock, which `render` takes for each buffer.
        drop((gone, sent));
        if spools {
            self.disk_wake.notify_one();
        }
        self.publish();
        self.changed.notify_all();
    }

    /// The driver has panicked: reports that as an ERROR.
    pub fn broken(&self, why: &str) {
        let mut state = self.lock();
        let pending = state.pending(self.now());
        let reason = format!("the uploads have stopped by a defect of this element ({why}); restart the pipeline and report it");
        state.reports.push_back(Report::HealthEvent(
            HealthEvent::Fatal {
                // With a status: an error without one is reported as one about credentials.
                http_status: Some(500),
                reason,
            },
            pending,
        ));
        drop(state);
        self.publish();
    }
}

impl QueueState {
    /// Drops a chunk that has waited for `retry-timeout`. The caller frees the returned chunk after it has released the lock.
    fn expire(&mut self, ticket: Ticket, timeout: u64) -> Option<Arc<Chunk>> {
        if let Some(chunk) = self.chunks.get(&ticket)
            && !std::mem::replace(&mut self.warned.expiry, true)
        {
            let (summary, why) = (chunk.summary.clone(), self.health.reason().to_owned());
            self.reports.push_back(Report::GivenUp { summary, timeout, why });
        }
        self.drop_chunk(ticket, "retry-timeout")
    }

    fn stored(&mut self, ticket: Ticket, stored: Option<&Stored>, now: u64, words: &mut Vec<HealthEvent>) {
        // First: `is_failing` below must not count this chunk any more.
        self.scheduler.done(ticket, Outcome::Stored, now);
        match self.chunks.get(&ticket).map(|c| c.link_key) {
            Some(None) => self.health.stored(self.scheduler.is_failing(), now, words),
            Some(Some(Elsewhere::Parked(destination))) => parked::works(destination),
            // Another destination's answer says nothing about ours.
            Some(Some(Elsewhere::Served(_))) | None => {}
        }
        if let Some(created) = stored.and_then(|s| s.created) {
            self.compare_clock(created);
        }
    }

    /// Removes and reports a stored chunk. The caller frees the returned chunk after it has released the lock.
    fn uploaded(&mut self, ticket: Ticket, sent: Sent, now: u64) -> Option<Arc<Chunk>> {
        let chunk = self.remove(ticket)?;
        // The file that is still to be confirmed: the chunk was moved to disk while it was sent from memory, or the disk did not
        // answer when the attempt confirmed it.
        let file: Option<Arc<dyn SpooledChunk>> = match (&chunk.place, sent.confirmed) {
            (Place::Disk(_), Confirmed::File) | (Place::Memory(_), Confirmed::Part) => None,
            (Place::Disk(spooled), _) => Some(Arc::clone(spooled)),
            (Place::Memory(held), _) => held.part.as_ref().map(|part| Arc::clone(&part.spooled) as _),
        };
        if let (Some(file), Some(disk)) = (file, &mut self.disk) {
            disk.confirms.push(file);
        }
        let summary = chunk.summary.clone();
        self.note(&summary.session, summary.sequence, Step::Stored(sent.object.clone()));
        self.stats.uploaded += 1;
        self.stats.bytes_uploaded += summary.size;
        self.recent.push_back((now, summary.size));
        self.forget_old_uploads(now);
        self.reports.push_back(Report::Uploaded {
            summary: Summary {
                start: sent.start.unwrap_or(summary.start),
                ..summary
            },
            object: sent.object,
            device: sent.device,
            generation: sent.generation,
            crc32c: sent.crc32c,
            latency: now.saturating_sub(chunk.closed_at),
        });
        Some(chunk)
    }

    fn failed(&mut self, ticket: Ticket, error: &WriteError, name: Option<String>, now: u64, words: &mut Vec<HealthEvent>) {
        let retry_after = error.retry_after.map(|d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
        let outcome = Outcome::Failed {
            class: error.class,
            retry_after,
        };
        self.scheduler.done(ticket, outcome, now);
        self.stats.retries += 1;
        if let Some(date) = error.server_date {
            self.compare_clock(date);
        }
        if let Some(name) = name {
            self.rename(ticket, name);
        }
        // A missing bucket of an earlier session must not end this recording.
        let is_refused = matches!(error.class, Class::Permanent | Class::Auth | Class::Conflict);
        let chunk = self.chunks.get(&ticket).cloned();
        if let Some(Summary { session, sequence, .. }) = chunk.as_ref().map(|c| &c.summary) {
            self.note(session, *sequence, Step::Retry(error.message.clone()));
        }
        if chunk.as_ref().is_some_and(|c| is_parked(c)) {
            // The sorter reported the destination when the chunk was found.
            return;
        }
        let of_another = chunk.is_some_and(|c| c.link_key.is_some() || (c.recovered && is_refused));
        if of_another {
            if !std::mem::replace(&mut self.warned.recovered, true) {
                let what = if is_refused {
                    "a chunk of an earlier session is refused"
                } else {
                    "a chunk of an earlier session cannot be stored"
                };
                self.reports.push_back(Report::Warning(format!(
                    "{what}: {}; it stays in the spool and is tried again automatically",
                    error.message
                )));
            }
            return;
        }
        self.health.failed(error.class, error.http_status, &error.message, now, words);
    }
}
