//! The state of one sink's uploads. Plain data under the one mutex of [`super::queue::UploadQueue`]: nothing here waits, and
//! nothing does I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::charges::Charges;
use super::chunk::{Chunk, Place, Summary};
use super::disk_state::DiskState;
use super::health::Health;
use super::held::HeldSessions;
use super::life::{LifeEvent, Recall, Step, Unobserved};
use super::parked;
use super::rate::Rate;
use super::report::{Report, Stats};
use super::scheduler::{Elsewhere, Scheduler};
use super::shelf::Shelf;
use super::ticket::Ticket;
use crate::flow::pending::Pending;

/// Window over which `upload-rate` is measured, ns.
pub(super) const RATE_WINDOW: u64 = 10_000_000_000;
/// Largest difference between our clock and the server's that is not reported, s.
const MAX_CLOCK_OFF: i64 = 60;

/// The warnings that were given; each is given once.
#[derive(Debug, Default)]
pub(super) struct Warned {
    /// Our clock differs from the server's.
    pub(super) clock_off: bool,
    /// Chunks of earlier sessions cannot be stored.
    pub(super) recovered: bool,
    /// `retry-timeout` drops chunks.
    pub(super) expiry: bool,
}

pub(super) struct QueueState {
    pub(super) scheduler: Scheduler,
    pub(super) chunks: BTreeMap<Ticket, Arc<Chunk>>,
    /// Pending chunks that are not in `chunks`.
    pub(super) shelf: Shelf,
    /// Chunks of `chunks` that are in memory.
    pub(super) in_memory: BTreeSet<Ticket>,
    /// Chunks of `in_memory` that can be moved to disk and are not being moved.
    pub(super) movable: BTreeSet<Ticket>,
    /// Chunks that are on disk by now while an attempt still sends them from memory. They stay charged until that attempt ends.
    pub(super) sent_on: BTreeMap<Ticket, Arc<Chunk>>,
    pub(super) pending_bytes: u64,
    /// The part of `pending_bytes` that belongs to parked chunks.
    pub(super) parked_bytes: u64,
    /// Chunks of earlier sessions adopted so far: numbers the next one's ticket.
    pub(super) adopted: u64,
    pub(super) health: Health,
    pub(super) stats: Stats,
    pub(super) memory: Charges,
    pub(super) retry_timeout: Option<u64>,
    /// Attempts to abort: their chunks were dropped or are to be sent from disk, or another chunk takes their place.
    pub(super) aborts: Vec<Ticket>,
    /// Number of changes of the settings.
    pub(super) version: u64,
    /// Waits end at once.
    pub(super) interrupted: bool,
    pub(super) stopped: bool,
    pub(super) clock_off: Option<i64>,
    pub(super) reports: VecDeque<Report>,
    /// Steps of chunks that the observer has not received yet.
    pub(super) life: Unobserved,
    /// The wall clock.
    pub(super) wall: fn() -> u64,
    /// Uploads within [`RATE_WINDOW`], oldest first: when each was stored, and its bytes.
    pub(super) recent: VecDeque<(u64, u64)>,
    /// Rate at which bytes are received.
    pub(super) input: Rate,
    pub(super) disk: Option<DiskState>,
    /// Sessions that earlier processes left.
    pub(super) leftovers: HeldSessions,
    /// The last chunk of such a session has left the queue: the adopter must be woken.
    pub(super) gave_place: bool,
    pub(super) warned: Warned,
}

/// Whether a chunk is parked: this sink sends no credentials to its endpoint. A parked chunk counts neither as pending nor for
/// the status nor for the drain.
pub(super) fn is_parked(chunk: &Chunk) -> bool {
    matches!(chunk.link_key, Some(Elsewhere::Parked(_)))
}

impl QueueState {
    /// Returns what waits to be stored, without parked chunks.
    pub(super) fn pending(&self, now: u64) -> Pending {
        let rest = self.leftovers.rest(now);
        let chunks = ((self.chunks.len() + self.shelf.len()) as u64).saturating_sub(self.scheduler.parked() as u64);
        Pending {
            bytes: self
                .pending_bytes
                .saturating_sub(self.parked_bytes)
                .saturating_add(rest.bytes),
            chunks: chunks + rest.chunks,
            oldest: self.scheduler.oldest_age(now).unwrap_or(0).max(rest.oldest),
        }
    }

    /// Notes a step of a chunk; the observer receives it without the lock.
    pub(super) fn note(&mut self, session: &Arc<str>, sequence: u64, step: Step) {
        self.life.push(LifeEvent {
            session: Arc::clone(session),
            sequence,
            step,
        });
    }

    /// Notes that the attempt at a chunk was aborted.
    pub(super) fn note_recall(&mut self, ticket: Ticket, why: Recall) {
        if let Some(chunk) = self.chunks.get(&ticket) {
            let (session, sequence) = (Arc::clone(&chunk.summary.session), chunk.summary.sequence);
            self.note(&session, sequence, Step::Recalled(why));
        }
    }

    pub(super) fn insert(&mut self, ticket: Ticket, chunk: Chunk, now: u64) {
        self.pending_bytes += chunk.summary.size;
        if is_parked(&chunk) {
            self.parked_bytes += chunk.summary.size;
        }
        self.note(&chunk.summary.session, chunk.summary.sequence, Step::Queued);
        self.scheduler.queue(ticket, chunk.link_key, now);
        if let Some(Elsewhere::Parked(destination)) = chunk.link_key {
            self.scheduler.leave_alone(chunk.link_key, parked::wait(destination), now);
        }
        if !chunk.is_on_disk() {
            self.in_memory.insert(ticket);
        }
        if chunk.is_movable() {
            self.movable.insert(ticket);
        }
        if let Some(before) = self.chunks.insert(ticket, Arc::new(chunk)) {
            self.uncount(&before);
            self.refund(&before);
        }
        self.shelve(ticket);
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Arc<Chunk>> {
        let chunk = self.chunks.remove(&ticket)?;
        if ticket.is_recovered() {
            self.gave_place |= self.leftovers.remove(&chunk, ticket);
        }
        self.in_memory.remove(&ticket);
        self.movable.remove(&ticket);
        self.uncount(&chunk);
        self.refund(&chunk);
        self.unshelve();
        Some(chunk)
    }

    /// Forgets the uploads that `upload-rate` no longer counts.
    pub(super) fn forget_old_uploads(&mut self, now: u64) {
        let is_old = |(at, _): &(u64, u64)| now.saturating_sub(*at) >= RATE_WINDOW;
        while self.recent.front().is_some_and(is_old) {
            self.recent.pop_front();
        }
    }

    /// Counts a received buffer and charges the memory for it.
    pub(super) fn received(&mut self, bytes: u64, now: u64) {
        self.memory.charge(bytes);
        self.stats.bytes_received += bytes;
        self.input.add(bytes, now);
    }

    /// Refunds what a chunk in memory is charged with.
    pub(super) fn refund(&mut self, chunk: &Chunk) {
        self.memory.refund(chunk.charged());
        if let Place::Memory(held) = &chunk.place {
            self.memory.drop_head(&held.head);
        }
    }

    fn uncount(&mut self, chunk: &Chunk) {
        self.pending_bytes -= chunk.summary.size;
        if is_parked(chunk) {
            self.parked_bytes -= chunk.summary.size;
        }
    }

    pub(super) fn poll(&mut self, now: u64) -> Option<u64> {
        let mut words = Vec::new();
        let rest = self.leftovers.rest(now);
        // Counted as one: the status depends only on whether any chunk waits.
        let waiting = self.scheduler.pending() + usize::from(rest.chunks > 0);
        let oldest = self.scheduler.oldest_age(now).max((rest.chunks > 0).then_some(rest.oldest));
        let again = self.health.poll(waiting, oldest, now, &mut words);
        let pending = self.pending(now);
        self.reports
            .extend(words.into_iter().map(|w| Report::HealthEvent(w, pending)));
        again
    }

    /// Reports a chunk as lost and leaves its file, if it has one, in place. The caller frees the returned chunk after it has
    /// released the lock.
    #[must_use = "its memory is freed here, under the lock"]
    pub(super) fn lose_chunk(&mut self, ticket: Ticket, reason: &'static str) -> Option<Arc<Chunk>> {
        // Abort its attempt: a chunk that is reported as lost must not arrive afterwards.
        if self.scheduler.remove(ticket) {
            self.aborts.push(ticket);
        }
        let chunk = self.remove(ticket)?;
        self.lose(chunk.summary.clone(), reason);
        Some(chunk)
    }

    /// Drops a chunk and has its file removed. The caller frees the returned chunk after it has released the lock.
    #[must_use = "its memory is freed here, under the lock"]
    pub(super) fn drop_chunk(&mut self, ticket: Ticket, reason: &'static str) -> Option<Arc<Chunk>> {
        let chunk = self.lose_chunk(ticket, reason)?;
        let on_disk = match &chunk.place {
            Place::Disk(spooled) => Some(Arc::clone(spooled)),
            Place::Memory(held) => held.part.as_ref().map(|part| Arc::clone(&part.spooled) as _),
        };
        if let (Some(disk), Some(spooled)) = (&mut self.disk, on_disk) {
            disk.discards.push(spooled);
            // The removal makes room, so the disk is tried again.
            disk.health.unblock();
        }
        Some(chunk)
    }

    /// Gives up a chunk that is not wholly on disk at the deadline. What the disk has of it stays there for the next start, as
    /// after a kill: either everything but its End, and then nothing is lost, or its beginning, and then only the rest is lost.
    /// Returns the chunk, which the caller frees after it has released the lock, and the number of bytes that stay on disk.
    #[must_use = "its memory is freed here, under the lock"]
    pub(super) fn give_up(&mut self, ticket: Ticket, reason: &'static str) -> (Option<Arc<Chunk>>, u64) {
        let Some(chunk) = self.chunks.get(&ticket) else {
            return (None, 0);
        };
        let summary = chunk.summary.clone();
        let stays = chunk.part().map_or(0, |part| part.len.min(summary.size));
        if stays == 0 {
            return (self.drop_chunk(ticket, reason), 0);
        }
        // Only its End is missing. The next start closes the chunk, so nothing is lost.
        if stays == summary.size {
            return (None, stays);
        }
        if self.scheduler.remove(ticket) {
            self.aborts.push(ticket);
        }
        let gone = self.remove(ticket);
        self.cut(summary, stays, reason);
        (gone, stays)
    }

    /// Reports a chunk as lost, and counts it.
    pub(super) fn lose(&mut self, summary: Summary, reason: &'static str) {
        self.note(&summary.session, summary.sequence, Step::Dropped(reason));
        self.stats.dropped += 1;
        self.stats.bytes_dropped += summary.size;
        self.reports.push_back(Report::Dropped { summary, reason });
    }

    /// Reports the end of a chunk as lost. The first `stays` bytes are on disk: at least one byte, and not all.
    pub(super) fn cut(&mut self, summary: Summary, stays: u64, reason: &'static str) {
        let rest = summary.size.saturating_sub(stays);
        self.note(&summary.session, summary.sequence, Step::Dropped(reason));
        self.stats.bytes_dropped += rest;
        // An estimate in proportion to the bytes: the exact time of the cut would require reading the container.
        let share = u128::from(summary.duration) * u128::from(stays) / u128::from(summary.size.max(1));
        let recorded = u64::try_from(share).unwrap_or(summary.duration);
        self.reports.push_back(Report::Cut {
            summary: Summary {
                start: summary.start.saturating_add(recorded),
                duration: summary.duration.saturating_sub(recorded),
                size: rest,
                ..summary
            },
            reason,
        });
    }

    pub(super) fn rename(&mut self, ticket: Ticket, name: String) {
        if let Some(chunk) = self.chunks.get_mut(&ticket)
            && chunk.renamed.as_ref() != Some(&name)
        {
            // Replaced, not changed in place: an attempt may hold the old `Arc`.
            *chunk = Arc::new(Chunk {
                renamed: Some(name),
                summary: chunk.summary.clone(),
                place: chunk.place.clone(),
                ..**chunk
            });
        }
    }

    pub(super) fn compare_clock(&mut self, server: SystemTime) {
        let ours = UNIX_EPOCH + Duration::from_nanos((self.wall)());
        let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        let off = match ours.duration_since(server) {
            Ok(ahead) => seconds(ahead),
            Err(behind) => -seconds(behind.duration()),
        };
        self.clock_off = (off.abs() > MAX_CLOCK_OFF).then_some(off);
        if let (Some(off), false) = (self.clock_off, self.warned.clock_off) {
            self.warned.clock_off = true;
            self.reports.push_back(Report::ClockOff(off));
        }
    }

    /// Whether nothing is pending: all chunks were stored or dropped, or are parked, and the disk is idle.
    pub(super) fn is_drained(&self) -> bool {
        self.scheduler.pending() == 0 && self.disk.as_ref().is_none_or(|d| !d.is_busy())
    }

    /// Whether the disk is full and parked chunks take up room on it.
    pub(super) fn is_parked_in_the_way(&self) -> bool {
        self.scheduler.parked() > 0 && self.disk.as_ref().is_some_and(DiskState::drops_make_room)
    }

    /// Returns the chunk to drop when the memory is full. A chunk on disk is charged with no memory: dropping it helps only if
    /// the disk can then accept what is in memory, and not if the disk fails or does not answer.
    pub(super) fn to_drop(&self) -> Option<Ticket> {
        if self.disk.as_ref().is_none_or(DiskState::drops_make_room) {
            return self.scheduler.to_drop();
        }
        let is_charged = |ticket: &Ticket| self.chunks.get(ticket).is_some_and(|chunk| chunk.charged() > 0);
        self.scheduler.to_drop_of(self.in_memory.iter().copied().filter(is_charged))
    }

    /// Returns the bytes of the chunks that are wholly on disk.
    pub(super) fn bytes_on_disk(&self) -> u64 {
        let in_memory = self.in_memory.iter().filter_map(|ticket| self.chunks.get(ticket));
        let in_memory: u64 = in_memory.map(|chunk| chunk.summary.size).sum();
        self.pending_bytes.saturating_sub(in_memory)
    }
}
