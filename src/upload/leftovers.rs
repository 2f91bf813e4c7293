//! Chunks of earlier sessions, as the queue counts them. Only a few sessions are held at once, and each place is reused.
//!
//! The functions of [`UploadQueue`] take its lock and wait for its wakes. Time is an argument in ns. A session is held from the
//! moment its chunks are adopted until the last of them is stored or dropped. A session without progress, because its bucket is
//! gone or its endpoint gets no credentials, gives its place to the next one and waits for another turn; its chunks stay on disk.

use std::sync::Arc;

use super::chunk::Chunk;
use super::held::{GaveWay, MAX_HELD};
use super::queue::UploadQueue;
use super::report::Report;
use super::scheduler::REFUSED_PAUSE;
use super::state::{QueueState, is_parked};
use crate::flow::pending::Pending;
use crate::spool::Leftover;

/// A held session without a stored chunk for this long may lose its place, ns. Two pauses: each of its chunks was tried by then.
const PATIENCE: u64 = 2 * REFUSED_PAUSE;

impl QueueState {
    /// Returns the session that has to give way: it makes no progress although others do, or cannot make any.
    fn stuck(&mut self, now: u64) -> Option<(Arc<str>, GaveWay)> {
        for held in self.leftovers.held.values_mut() {
            // Dated here: the code that removes a chunk does not know the time.
            if std::mem::take(&mut held.has_moved) {
                held.moved_at = now;
            }
        }
        let works = self.health.has_stored_within(now, PATIENCE);
        self.leftovers.held.iter().find_map(|(session, held)| {
            let mut chunks = held.tickets.iter().filter_map(|t| self.chunks.get(t));
            let is_parked = chunks.all(|chunk| is_parked(chunk));
            let is_refused = || held.tickets.first().is_some_and(|&t| self.scheduler.is_refused(t));
            let is_flying = || held.tickets.iter().any(|&t| self.scheduler.is_in_flight(t));
            // A parked session gives way at once. It is tried only once an hour, by whichever sink holds it, and counts neither
            // for the status nor for the drain, so it must not keep other sessions from their turn.
            let has_waited = is_parked || now.saturating_sub(held.moved_at) >= PATIENCE;
            let gives_way = has_waited && (is_parked || works || is_refused()) && !is_flying();
            let left = held.left.clone().filter(|_| gives_way)?;
            Some((Arc::clone(session), GaveWay { left, is_parked }))
        })
    }

    /// Releases a session without reporting its chunks: they stay on disk for another turn.
    fn put_back(&mut self, session: &Arc<str>) -> Vec<Arc<Chunk>> {
        let Some(held) = self.leftovers.held.remove(session) else {
            return Vec::new();
        };
        let mut gone = Vec::new();
        for ticket in held.tickets {
            self.scheduler.remove(ticket);
            gone.extend(self.remove(ticket));
        }
        // They are counted again at their next adoption.
        self.stats.recovered = self.stats.recovered.saturating_sub(gone.len() as u64);
        gone
    }
}

impl UploadQueue {
    /// Makes a place for another session. Returns the session that gave way for it, if one had to.
    ///
    /// `None`: there is no place.
    pub(super) fn place_for_leftovers(&self) -> Option<Option<GaveWay>> {
        let mut state = self.lock();
        if state.stopped {
            return None;
        }
        if state.leftovers.held.len() < MAX_HELD {
            return Some(None);
        }
        let (session, gave_way) = state.stuck(self.now())?;
        let gone = state.put_back(&session);
        // Freed without the lock: dropping the last chunk of a session releases its folder, which asks the disk.
        drop(state);
        drop(gone);
        Some(Some(gave_way))
    }

    /// Whether any chunk of a session is held and will be stored. Parked chunks do not count: they may stay for ever.
    pub(super) fn awaits_leftovers_of(&self, session: &str) -> bool {
        let state = self.lock();
        let held = state.leftovers.held.get(session).into_iter().flat_map(|held| &held.tickets);
        held.filter_map(|ticket| state.chunks.get(ticket))
            .any(|chunk| !is_parked(chunk))
    }

    /// Stores how to put back the session that was just adopted, if any of its chunks is still held.
    pub(super) fn hold_leftover(&self, left: Leftover) {
        if let Some(held) = self.lock().leftovers.held.get_mut(left.session.as_str()) {
            held.left = Some(left);
        }
    }

    /// Waits until a session has left its place, or the sink stops.
    pub(super) async fn place_is_free(&self) {
        self.adopt_wake.notified().await;
    }

    /// Waits until the sink has ended.
    pub(super) async fn has_stopped(&self) {
        loop {
            let woken = self.stop_wake.notified();
            tokio::pin!(woken);
            // Register first, then check: a wake after this is not missed.
            woken.as_mut().enable();
            if self.lock().stopped {
                return;
            }
            woken.await;
        }
    }

    /// Sets whether leftovers are still being looked for; an EOS waits until they are not.
    pub(super) fn set_adopting(&self, is_adopting: bool) {
        let mut state = self.lock();
        if let Some(disk) = &mut state.disk {
            disk.adopting = is_adopting;
        }
        drop(state);
        self.wake.notify_one();
        self.changed.notify_all();
    }

    /// Sets how many chunks and bytes wait for their turn.
    pub(super) fn set_rest(&self, (chunks, bytes): (u64, u64)) {
        let mut state = self.lock();
        let now = self.now();
        let leftovers = &mut state.leftovers;
        if leftovers.rest.chunks == 0 {
            leftovers.since = now;
        }
        leftovers.rest = Pending {
            chunks,
            bytes,
            oldest: 0,
        };
        drop(state);
        self.wake.notify_one();
        self.changed.notify_all();
    }

    /// Reports the number of leftovers, once, after the first of them was adopted that is not parked.
    pub(super) fn report_leftovers(&self) {
        let mut state = self.lock();
        if state.leftovers.is_served && !std::mem::replace(&mut state.leftovers.reported, true) {
            let held = state.leftovers.held.values().flat_map(|held| &held.tickets);
            let chunks = held.filter_map(|ticket| state.chunks.get(ticket)).filter(|c| !is_parked(c));
            let pending = chunks.fold(state.leftovers.rest(0), |sum, chunk| Pending {
                bytes: sum.bytes + chunk.summary.size,
                chunks: sum.chunks + 1,
                ..sum
            });
            state.reports.push_back(Report::Recovered(pending));
        }
        drop(state);
        self.publish();
    }
}
