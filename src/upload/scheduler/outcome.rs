//! What the end of an attempt means for its chunk and for the link to its destination.
//!
//! PURE: rules 2 to 5 of [`super`].

use gcstreamer_storage::Class;

use super::link::Waiting;
use super::link_key::is_parked;
use super::{FIRST_BACKOFF, MAX_BACKOFF, Outcome, Scheduler};
use crate::flow::hold::Hold;
use crate::upload::ticket::Ticket;

impl Scheduler {
    /// Records the outcome of an attempt.
    pub fn done(&mut self, ticket: Ticket, outcome: Outcome, now: u64) {
        // Ignore the outcome if the attempt was aborted or its chunk dropped before.
        if !self.recall(ticket) {
            return;
        }
        let Some(chunk) = self.chunks.get(&ticket) else { return };
        let Some(link) = self.links.get_mut(&chunk.link_key) else {
            return;
        };
        match outcome {
            Outcome::Stored => {
                link.successes += 1;
                link.failures = 0;
                link.not_before = 0;
                link.refusing = false;
                link.round += 1;
                let most = if chunk.link_key.is_none() { self.max_uploads } else { 1 };
                if link.round >= link.concurrency {
                    link.round = 0;
                    link.concurrency = (link.concurrency + 1).min(most);
                }
                self.remove(ticket);
            }
            // The pause counts from the start of the attempt; no answer of such a server changes it.
            Outcome::Failed { .. } if is_parked(chunk.link_key) => {}
            Outcome::Failed { class, retry_after } => {
                let retry_at = retry_after.map_or(0, |asked| Hold::new(now, asked).ends(self.drain));
                self.failed(ticket, class, retry_at, now);
            }
        }
    }

    fn failed(&mut self, ticket: Ticket, class: Class, retry_at: u64, now: u64) {
        let chance = self.chance();
        let most = if self.is_draining(now) { FIRST_BACKOFF } else { MAX_BACKOFF };
        let refused_pause = self.refused_pause(now);
        // Full jitter: sinks that failed together must not try together again.
        // 2^10 s exceeds every limit; an unbounded shift would overflow.
        let pause = |failures: u32| chance % (FIRST_BACKOFF.saturating_mul(1 << failures.min(10)).min(most) + 1);
        let is_new = |chunk: &Waiting| chunk.failed.is_none() && chunk.link_key.is_none();
        self.failing += usize::from(self.chunks.get(&ticket).is_some_and(is_new));
        self.change(ticket, |chunk, link| {
            let is_its_own = chunk.failed.is_some_and(|successes| successes < link.successes);
            chunk.failed = Some(link.successes);
            chunk.refused = matches!(class, Class::Auth | Class::Permanent);
            match class {
                Class::Transient | Class::Throttled => {
                    if is_its_own {
                        chunk.strikes = chunk.strikes.saturating_add(1);
                        // Never at once: it is the oldest chunk and would be chosen again immediately.
                        chunk.not_before = now.saturating_add(pause(chunk.strikes).max(FIRST_BACKOFF)).max(retry_at);
                    }
                    link.round = 0;
                    // Too many uploads at once make a slow link time out: halve them (rule 3).
                    link.concurrency = (link.concurrency / 2).max(1);
                    // After two strikes the chunk is at fault, not the link: the link gets no back-off.
                    if chunk.strikes < 2 || retry_at > 0 {
                        link.not_before = link.not_before.max(now.saturating_add(pause(link.failures))).max(retry_at);
                        link.failures = link.failures.saturating_add(1);
                    }
                }
                Class::Auth | Class::Permanent => {
                    chunk.not_before = now.saturating_add(refused_pause).max(retry_at);
                    // Set by the first refusal only: otherwise each new chunk that is refused would postpone the probe.
                    if !std::mem::replace(&mut link.refusing, true) {
                        link.probe_at = chunk.not_before;
                    }
                }
                Class::Conflict | Class::Local => chunk.not_before = now.saturating_add(refused_pause).max(retry_at),
            }
        });
    }

    /// Aborts an attempt for a reason of our own: it counts neither as a failure nor as a success, and the chunk may be sent
    /// again at once. Returns whether the chunk was in flight.
    pub fn recall(&mut self, ticket: Ticket) -> bool {
        if !self.is_in_flight(ticket) {
            return false;
        }
        let recalled = self.change(ticket, |chunk, link| {
            chunk.in_flight = false;
            link.in_flight = link.in_flight.saturating_sub(1);
        });
        recalled.is_some()
    }

    /// Records that a chunk was not sent because its destination is held. All chunks for that destination wait until the hold is
    /// over.
    pub fn held(&mut self, ticket: Ticket, hold: Hold) {
        if !self.recall(ticket) {
            return;
        }
        let ends = hold.ends(self.drain);
        let link_key = self.chunks.get(&ticket).and_then(|chunk| chunk.link_key);
        if let Some(link) = self.links.get_mut(&link_key) {
            link.not_before = link.not_before.max(ends);
        }
    }

    /// Records that a chunk was not sent because its bytes cannot be read before `until`.
    pub fn put_off(&mut self, ticket: Ticket, until: u64) {
        if self.recall(ticket) {
            self.change(ticket, |chunk, _| {
                // Nothing was sent, so it does not count as an attempt.
                chunk.attempts = chunk.attempts.saturating_sub(1);
                chunk.not_before = chunk.not_before.max(until);
            });
        }
    }
}
