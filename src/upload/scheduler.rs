//! What to send next, when to try again, how many at once.
//!
//! PURE: time is an argument in ns on any monotonic scale, chance comes from a seed. Owns no bytes, only tickets: numbers that
//! rise with the time of capture, those of earlier sessions below those of this one.
//!
//! Rules:
//! 1. The newest chunk goes first, so that the bucket shows what happens now; then the backlog, oldest first.
//! 2. After a failure that is not the chunk's own fault nothing is sent for a while: exponential back-off with full jitter,
//!    at most 30 s, or as long as the server asked (`Retry-After`). Then one chunk at a time until one is stored.
//! 3. Concurrency is between 1 and the limit: halved when the server is overloaded or the link times out, one more after a
//!    round of successes.
//! 4. A chunk that is refused for good is tried again after 60 s, and holds up no other.

use std::collections::BTreeMap;

use crate::gcs::Class;

/// Longest pause between two attempts.
const MAX_BACKOFF: u64 = 30_000_000_000;
/// First pause, before jitter.
const FIRST_BACKOFF: u64 = 1_000_000_000;
/// Pause after a refusal that waits for the user: permission, bucket, credentials.
pub const REFUSED_PAUSE: u64 = 60_000_000_000;

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has it.
    Stored,
    /// It has not.
    Failed {
        /// Whose fault it was.
        class: Class,
        /// The server's wish, ns.
        retry_after: Option<u64>,
    },
}

/// What the scheduler knows of a chunk.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    queued_at: u64,
    not_before: u64,
    in_flight: bool,
    attempts: u32,
}

/// Decides what happens to closed chunks. See the module for the rules.
#[derive(Debug)]
pub struct Scheduler {
    chunks: BTreeMap<u64, Waiting>,
    max_uploads: usize,
    concurrency: usize,
    /// Successes since the concurrency last changed.
    round: usize,
    in_flight: usize,
    /// The newest chunk that was ever sent: those below are backlog.
    newest_sent: u64,
    /// Failures of the link or the server in a row.
    failures: u32,
    /// Nothing is sent before.
    not_before: u64,
    /// The end is near: pauses are short.
    hurry: bool,
    seed: u64,
}

impl Scheduler {
    /// A scheduler with nothing to do; `seed` feeds the jitter.
    pub fn new(max_uploads: usize, seed: u64) -> Self {
        let max_uploads = max_uploads.max(1);
        Self {
            chunks: BTreeMap::new(),
            max_uploads,
            concurrency: max_uploads,
            round: 0,
            in_flight: 0,
            newest_sent: 0,
            failures: 0,
            not_before: 0,
            hurry: false,
            seed: seed | 1,
        }
    }

    /// Another limit from now on.
    pub fn set_max_uploads(&mut self, max_uploads: usize) {
        self.max_uploads = max_uploads.max(1);
        self.concurrency = self.concurrency.min(self.max_uploads);
    }

    /// A chunk was closed.
    pub fn queue(&mut self, sequence: u64, now: u64) {
        self.chunks.insert(
            sequence,
            Waiting {
                queued_at: now,
                not_before: 0,
                in_flight: false,
                attempts: 0,
            },
        );
    }

    /// The chunk to send now; it is in flight from here on. `None` where nothing is due.
    pub fn next(&mut self, now: u64) -> Option<u64> {
        let limit = if self.failures > 0 { 1 } else { self.concurrency };
        if self.in_flight >= limit || now < self.not_before {
            return None;
        }
        let is_due = |w: &Waiting| !w.in_flight && w.not_before <= now;
        let newest = self.chunks.iter().next_back();
        let newest = newest.filter(|(s, w)| **s >= self.newest_sent && is_due(w)).map(|(&s, _)| s);
        let sequence = newest.or_else(|| self.chunks.iter().find(|(_, w)| is_due(w)).map(|(&s, _)| s))?;
        if let Some(waiting) = self.chunks.get_mut(&sequence) {
            waiting.in_flight = true;
            waiting.attempts += 1;
        }
        self.in_flight += 1;
        self.newest_sent = self.newest_sent.max(sequence);
        Some(sequence)
    }

    /// When [`Scheduler::next`] may have something, if not now; `None` where only an event can change that.
    pub fn wake_at(&self, now: u64) -> Option<u64> {
        let limit = if self.failures > 0 { 1 } else { self.concurrency };
        if self.in_flight >= limit {
            return None;
        }
        let due = self
            .chunks
            .values()
            .filter(|w| !w.in_flight)
            .map(|w| w.not_before.max(self.not_before))
            .min()?;
        Some(due.max(now))
    }

    /// An attempt has ended.
    pub fn done(&mut self, sequence: u64, outcome: Outcome, now: u64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match outcome {
            Outcome::Stored => {
                self.chunks.remove(&sequence);
                self.failures = 0;
                self.not_before = 0;
                self.round += 1;
                if self.round >= self.concurrency {
                    self.round = 0;
                    self.concurrency = (self.concurrency + 1).min(self.max_uploads);
                }
            }
            Outcome::Failed { class, retry_after } => {
                if let Some(waiting) = self.chunks.get_mut(&sequence) {
                    waiting.in_flight = false;
                }
                self.failed(sequence, class, retry_after, now);
            }
        }
    }

    fn failed(&mut self, sequence: u64, class: Class, retry_after: Option<u64>, now: u64) {
        match class {
            Class::Transient | Class::Throttled => {
                self.round = 0;
                self.concurrency = (self.concurrency / 2).max(1);
                let most = if self.hurry { FIRST_BACKOFF } else { MAX_BACKOFF };
                let ceiling = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(10)).min(most);
                let pause = self.chance() % (ceiling + 1);
                self.failures = self.failures.saturating_add(1);
                self.not_before = self.not_before.max(now.saturating_add(pause.max(retry_after.unwrap_or(0))));
            }
            Class::Auth | Class::Permanent | Class::Conflict | Class::Local => {
                if let Some(waiting) = self.chunks.get_mut(&sequence) {
                    waiting.not_before = now.saturating_add(REFUSED_PAUSE.max(retry_after.unwrap_or(0)));
                }
            }
        }
    }

    /// Lets go of a chunk; whether it is being sent, so that the attempt has to be broken off.
    pub fn remove(&mut self, sequence: u64) -> bool {
        let in_flight = self.chunks.remove(&sequence).is_some_and(|w| w.in_flight);
        self.in_flight -= usize::from(in_flight);
        in_flight
    }

    /// Whether a chunk is being sent.
    pub fn is_in_flight(&self, sequence: u64) -> bool {
        self.chunks.get(&sequence).is_some_and(|w| w.in_flight)
    }

    /// The attempt is broken off for a reason of our own: it counts neither as a failure nor as a success, and the chunk may be
    /// sent again at once. Whether it was being sent.
    pub fn recall(&mut self, sequence: u64) -> bool {
        let Some(waiting) = self.chunks.get_mut(&sequence).filter(|w| w.in_flight) else {
            return false;
        };
        waiting.in_flight = false;
        self.in_flight = self.in_flight.saturating_sub(1);
        true
    }

    /// The oldest chunk.
    pub fn oldest(&self) -> Option<u64> {
        self.chunks.keys().next().copied()
    }

    /// The oldest chunk that is not in flight.
    pub fn oldest_waiting(&self) -> Option<u64> {
        self.chunks.iter().find(|(_, w)| !w.in_flight).map(|(&s, _)| s)
    }

    /// The chunk that would be sent last, of those that are wanted: the newest goes first and then the oldest, so it is the
    /// newest of the backlog.
    pub fn sent_last(&self, wanted: impl Fn(u64) -> bool) -> Option<u64> {
        let newest = self.chunks.keys().next_back().copied()?;
        let is_next = newest >= self.newest_sent;
        let mut backlog = self.chunks.keys().rev().copied().skip(usize::from(is_next));
        backlog.find(|&s| wanted(s)).or_else(|| Some(newest).filter(|&s| wanted(s)))
    }

    /// The oldest chunk that has waited `timeout` ns or longer and is not in flight.
    pub fn expired(&self, timeout: u64, now: u64) -> Option<u64> {
        self.chunks
            .iter()
            .find(|(_, w)| !w.in_flight && now.saturating_sub(w.queued_at) >= timeout)
            .map(|(&s, _)| s)
    }

    /// How often a chunk was sent.
    pub fn attempts(&self, sequence: u64) -> u32 {
        self.chunks.get(&sequence).map_or(0, |w| w.attempts)
    }

    /// Chunks that are not stored yet.
    pub fn pending(&self) -> usize {
        self.chunks.len()
    }

    /// Chunks being sent.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How long the oldest chunk has been waiting, ns.
    pub fn oldest_age(&self, now: u64) -> Option<u64> {
        self.chunks.values().map(|w| now.saturating_sub(w.queued_at)).max()
    }

    /// The sink drains, or no longer: there is little time, so the next attempt is due at once and pauses are short.
    pub fn hurry(&mut self, hurry: bool) {
        self.hurry = hurry;
        if !hurry {
            return;
        }
        self.not_before = 0;
        self.chunks.values_mut().for_each(|w| w.not_before = 0);
    }

    /// xorshift64*: jitter wants no better.
    fn chance(&mut self) -> u64 {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000_000;
    const REFUSED: Outcome = Outcome::Failed {
        class: Class::Permanent,
        retry_after: None,
    };
    const BROKEN: Outcome = Outcome::Failed {
        class: Class::Transient,
        retry_after: None,
    };

    fn with(n: u64) -> Scheduler {
        let mut s = Scheduler::new(4, 7);
        (0..n).for_each(|i| s.queue(i, 0));
        s
    }

    #[test]
    fn the_newest_goes_first_then_the_backlog_from_its_oldest() {
        let mut s = with(6);
        let order: Vec<u64> = std::iter::from_fn(|| s.next(0)).collect();
        assert_eq!(order, [5, 0, 1, 2]);
        s.queue(6, 0);
        s.done(5, Outcome::Stored, 0);
        assert_eq!(s.next(0), Some(6));
    }

    #[test]
    fn an_outage_is_probed_by_one_attempt_at_a_time_at_most_thirty_seconds_apart() {
        let mut s = with(6);
        let mut now = 0;
        while let Some(i) = s.next(now) {
            s.done(i, BROKEN, now);
        }
        for _ in 0..40 {
            let wake = s.wake_at(now).unwrap();
            assert!(wake - now <= 30 * S, "{}", wake - now);
            now = wake;
            let i = s.next(now).unwrap();
            assert_eq!(s.next(now), None);
            s.done(i, BROKEN, now);
        }
        now = s.wake_at(now).unwrap();
        let i = s.next(now).unwrap();
        s.done(i, Outcome::Stored, now);
        assert!(s.next(now).is_some(), "after a success the backlog follows at once");
    }

    #[test]
    fn one_at_a_time_it_is_the_same_order() {
        let mut s = Scheduler::new(1, 7);
        (0..5).for_each(|i| s.queue(i, 0));
        let mut order = Vec::new();
        while let Some(i) = s.next(0) {
            order.push(i);
            s.done(i, Outcome::Stored, 0);
            if i == 1 {
                s.queue(5, 0);
                assert_eq!(s.sent_last(|_| true), Some(3));
            }
        }
        assert_eq!(order, [4, 0, 1, 5, 2, 3]);
    }

    #[test]
    fn the_chunk_to_put_away_is_the_one_that_would_be_sent_last() {
        let s = with(4);
        assert_eq!(s.sent_last(|_| true), Some(2));
        assert_eq!(s.sent_last(|i| i != 2), Some(1));
        assert_eq!(s.sent_last(|i| i == 3), Some(3));
        assert_eq!(s.sent_last(|_| false), None);
    }

    #[test]
    fn retry_after_is_obeyed() {
        let mut s = with(2);
        let i = s.next(0).unwrap();
        s.done(
            i,
            Outcome::Failed {
                class: Class::Throttled,
                retry_after: Some(17 * S),
            },
            0,
        );
        assert_eq!(s.next(17 * S - 1), None);
        assert!(s.next(17 * S).is_some());
    }

    #[test]
    fn a_refused_chunk_waits_a_minute_and_holds_up_no_other() {
        let mut s = with(2);
        assert_eq!(s.next(0), Some(1));
        s.done(1, REFUSED, 0);
        assert_eq!(s.next(0), Some(0));
        s.done(0, Outcome::Stored, 0);
        assert_eq!(s.next(60 * S - 1), None);
        assert_eq!(s.wake_at(0), Some(60 * S));
        assert_eq!(s.next(60 * S), Some(1));
    }

    #[test]
    fn concurrency_is_halved_by_trouble_and_grows_by_one_a_round() {
        let mut s = with(50);
        let batch = |s: &mut Scheduler, now| std::iter::from_fn(|| s.next(now)).collect::<Vec<u64>>();
        let first = batch(&mut s, 0);
        assert_eq!(first.len(), 4);
        s.done(first[0], BROKEN, 0);
        first[1..].iter().for_each(|&i| s.done(i, Outcome::Stored, 0));
        let mut sizes = Vec::new();
        for _ in 0..3 {
            let now = 60 * S;
            let b = batch(&mut s, now);
            sizes.push(b.len());
            b.iter().for_each(|&i| s.done(i, Outcome::Stored, now));
        }
        assert_eq!(sizes, [3, 4, 4]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_chunk_is_sent_until_stored_and_never_twice_at_once(steps in prop::collection::vec((0u8..8, 0u64..40), 1..200)) {
            let mut s = Scheduler::new(3, 99);
            let (mut now, mut next_seq, mut flying, mut open) = (0u64, 0u64, Vec::new(), BTreeSet::new());
            for (what, dt) in steps {
                now += dt * S / 4;
                match what {
                    0..=2 => { s.queue(next_seq, now); open.insert(next_seq); next_seq += 1; }
                    3..=4 => while let Some(i) = s.next(now) {
                        prop_assert!(open.contains(&i) && !flying.contains(&i));
                        flying.push(i);
                        prop_assert!(flying.len() <= 3);
                    },
                    _ => if let Some(i) = flying.pop() {
                        let outcome = [Outcome::Stored, BROKEN, REFUSED][usize::from(what) - 5];
                        if outcome == Outcome::Stored { open.remove(&i); }
                        s.done(i, outcome, now);
                    },
                }
                prop_assert_eq!(s.pending(), open.len());
            }
            // Whatever happened, it ends: with a server that works every chunk is stored.
            for i in flying.drain(..) { s.done(i, BROKEN, now); }
            let mut guard = 0;
            while s.pending() > 0 {
                guard += 1;
                prop_assert!(guard < 10_000);
                match s.next(now) {
                    Some(i) => s.done(i, Outcome::Stored, now),
                    None => now = s.wake_at(now).unwrap().max(now + 1),
                }
            }
        }
    }
}
