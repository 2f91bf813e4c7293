//! What earlier sessions left, as the queue counts it: few sessions are held at once, and their places are given on.
//!
//! May take [`UploadQueue`]'s lock and wait for its wakes. Time is an argument in ns. A session is held from the moment its chunks are adopted until the
//! last of them is stored or dropped. One that does not move, because its bucket is gone or its endpoint gets no credentials, gives
//! its place to the next and waits for another turn; its chunks stay on disk.

use std::sync::Arc;

use super::chunk::Chunk;
use super::held::{GaveWay, MAX_HELD};
use super::queue::UploadQueue;
use super::report::Report;
use super::scheduler::REFUSED_PAUSE;
use super::state::{QueueState, is_parked};
use crate::flow::pending::Pending;
use crate::spool::Leftover;

/// A session of which nothing was stored for this long may have to give way, ns: each of its chunks was tried.
const PATIENCE: u64 = 2 * REFUSED_PAUSE;

impl QueueState {
    /// The session that has to give way: it does not move though others do, or cannot.
    fn stuck(&mut self, now: u64) -> Option<(Arc<str>, GaveWay)> {
        for held in self.leftovers.held.values_mut() {
            // Dated here: whoever removes a chunk has no time at hand.
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
            // What is parked is tried once an hour, whoever holds it: it counts neither for the status nor for the drain, and must keep
            // no other session from being looked at.
            let has_waited = is_parked || now.saturating_sub(held.moved_at) >= PATIENCE;
            let gives_way = has_waited && (is_parked || works || is_refused()) && !is_flying();
            let left = held.left.clone().filter(|_| gives_way)?;
            Some((Arc::clone(session), GaveWay { left, is_parked }))
        })
    }

    /// Lets go of a session without a word: its chunks stay on disk for another turn.
    fn put_back(&mut self, session: &Arc<str>) -> Vec<Arc<Chunk>> {
        let Some(held) = self.leftovers.held.remove(session) else {
            return Vec::new();
        };
        let mut gone = Vec::new();
        for ticket in held.tickets {
            self.scheduler.remove(ticket);
            gone.extend(self.remove(ticket));
        }
        // They count again when they are adopted again.
        self.stats.recovered = self.stats.recovered.saturating_sub(gone.len() as u64);
        gone
    }
}

impl UploadQueue {
    /// Whether there is a place for another session. Returns the one that gave way for it, if one had to.
    ///
    /// `None`: there is none.
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
        // Without the lock: the last chunk of a session releases its folder, which asks the disk.
        drop(state);
        drop(gone);
        Some(Some(gave_way))
    }

    /// Whether any chunk that a session has left is held and will be stored. What is parked may stay for ever.
    pub(super) fn awaits_leftovers_of(&self, session: &str) -> bool {
        let state = self.lock();
        let held = state.leftovers.held.get(session).into_iter().flat_map(|held| &held.tickets);
        held.filter_map(|ticket| state.chunks.get(ticket))
            .any(|chunk| !is_parked(chunk))
    }

    /// How to put the session back that was just adopted, if anything of it is still held.
    pub(super) fn hold_leftover(&self, left: Leftover) {
        if let Some(held) = self.lock().leftovers.held.get_mut(left.session.as_str()) {
            held.left = Some(left);
        }
    }

    /// Waits until a session is held no more, or the sink stops.
    pub(super) async fn place_is_free(&self) {
        self.adopt_wake.notified().await;
    }

    /// Waits until the sink has ended.
    pub(super) async fn has_stopped(&self) {
        loop {
            let woken = self.stop_wake.notified();
            tokio::pin!(woken);
            // From here on no wake is missed.
            woken.as_mut().enable();
            if self.lock().stopped {
                return;
            }
            woken.await;
        }
    }

    /// Leftovers are being looked for, or no more: an EOS waits for them.
    pub(super) fn set_adopting(&self, is_adopting: bool) {
        let mut state = self.lock();
        if let Some(disk) = &mut state.disk {
            disk.adopting = is_adopting;
        }
        drop(state);
        self.wake.notify_one();
        self.changed.notify_all();
    }

    /// So many chunks and bytes wait for their turn.
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

    /// Called when the first leftover chunk is being stored: reports once how many there are.
    pub(super) fn report_leftovers(&self) {
        let mut state = self.lock();
        if state.leftovers.is_served && !std::mem::replace(&mut state.leftovers.told, true) {
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
