//! What to send next, when to try again, how many at once.
//!
//! PURE: time is an argument in ns on any monotonic scale, randomness comes from a seed. Owns no bytes, only [`Ticket`]s: the
//! older a chunk, the smaller its ticket.
//!
//! Rules:
//! 1. The newest chunk is sent first, so that the bucket shows what happens now; then the backlog, oldest first.
//! 2. After a failure that is not the chunk's own fault nothing is sent to that [`LinkKey`] for a while: exponential back-off
//!    with full jitter, at most 30 s, or for as long as the server asked (`Retry-After`), see [`hold`](crate::flow::hold). Then
//!    one chunk at a time is sent until one is stored.
//! 3. Concurrency is between 1 and the limit: halved when the server is overloaded or the link times out, raised by one after a
//!    round of successes.
//! 4. A chunk that fails again although others were stored meanwhile gets a back-off of its own and does not delay the others.
//! 5. A chunk that is refused for good is tried again after 60 s and does not delay the others. While everything is refused, one
//!    of the refused chunks is tried every 60 s, and each new chunk once. While the sink drains the pause is 5 s.
//! 6. Chunks of earlier sessions for other destinations have a link for each destination, with one upload at a time for all of
//!    them. They give way to this sink's own chunks, unless these fail and the sink does not drain. A working destination
//!    precedes one in trouble.
//! 7. Parked chunks ([`Elsewhere::Parked`]) are tried once an hour for each destination, one upload at a time for all of them,
//!    and give way to everything else. After a success the next one follows at once. A parked chunk is not pending, does not age
//!    and never expires.
//!
//! Files: `link` and `link_key` are the records of a destination, `index` sorts its chunks, `choose` decides what is sent
//! next, `outcome` what the end of an attempt means.

use std::collections::{BTreeMap, BTreeSet};

use self::link::{Link, Waiting};
use self::link_key::is_parked;
pub use self::link_key::{Elsewhere, LinkKey};
use crate::flow::hold::Drain;
use crate::upload::ticket::Ticket;
use gcstreamer_storage::Class;

mod choose;
mod index;
mod link;
mod link_key;
mod outcome;
#[cfg(test)]
mod tests;

/// Longest pause between two attempts, ns.
const MAX_BACKOFF: u64 = 30_000_000_000;
/// First pause before jitter, ns.
const FIRST_BACKOFF: u64 = 1_000_000_000;
/// Pause after a refusal that only the user can resolve (permission, bucket, credentials), ns.
pub const REFUSED_PAUSE: u64 = 60_000_000_000;
/// The same while the sink drains and has a deadline, ns.
const LAST_PAUSE: u64 = 5_000_000_000;

/// Pause between two attempts at a destination that gets no credentials from this sink, ns.
pub const PARKED_PAUSE: u64 = 3_600_000_000_000;

/// The outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has it.
    Stored,
    /// The server has not stored it.
    Failed {
        /// The kind of failure, which says who is at fault.
        class: Class,
        /// The pause that the server asked for, ns.
        retry_after: Option<u64>,
    },
}

/// Decides which closed chunk is sent next, when one is tried again and how many are sent at once, by the [rules of the
/// module](self).
#[derive(Debug)]
pub struct Scheduler {
    chunks: BTreeMap<Ticket, Waiting>,
    links: BTreeMap<LinkKey, Link>,
    /// The chunks that are not parked, with the time at which each was queued.
    ages: BTreeSet<(u64, Ticket)>,
    /// Chunks in flight.
    flying: BTreeSet<Ticket>,
    max_uploads: usize,
    /// Number of attempts so far.
    started: u64,
    /// Number of this sink's own chunks whose last attempt failed.
    failing: usize,
    /// Number of parked chunks.
    parked: usize,
    /// Set while the sink drains: pauses are short until the deadline.
    drain: Option<Drain>,
    seed: u64,
}

impl Scheduler {
    /// Creates an idle scheduler; `seed` feeds the jitter.
    pub fn new(max_uploads: usize, seed: u64) -> Self {
        let max_uploads = max_uploads.max(1);
        Self {
            chunks: BTreeMap::new(),
            links: BTreeMap::from([(None, Link::new(max_uploads))]),
            ages: BTreeSet::new(),
            flying: BTreeSet::new(),
            max_uploads,
            started: 0,
            failing: 0,
            parked: 0,
            drain: None,
            // xorshift never leaves the state 0.
            seed: seed | 1,
        }
    }

    /// Changes the limit of uploads.
    pub fn set_max_uploads(&mut self, max_uploads: usize) {
        self.max_uploads = max_uploads.max(1);
        for link in self.links.values_mut() {
            // A higher limit is reached one step per round of successes: rule 3.
            link.concurrency = link.concurrency.min(self.max_uploads);
        }
    }

    /// Adds a chunk that was closed, or found in the spool.
    pub fn queue(&mut self, ticket: Ticket, link_key: LinkKey, now: u64) {
        self.remove(ticket);
        let chunk = Waiting {
            link_key,
            queued_at: now,
            not_before: 0,
            in_flight: false,
            attempts: 0,
            started: 0,
            failed: None,
            strikes: 0,
            refused: false,
        };
        self.links
            .entry(link_key)
            // A link to another destination has one upload at a time: rule 6.
            .or_insert_with(|| Link::new(1))
            .index
            .add(ticket, chunk.order());
        if is_parked(link_key) {
            self.parked += 1;
        } else {
            self.ages.insert((now, ticket));
        }
        self.chunks.insert(ticket, chunk);
    }

    /// Changes a chunk and its link, and keeps the index consistent.
    fn change<T>(&mut self, ticket: Ticket, change: impl FnOnce(&mut Waiting, &mut Link) -> T) -> Option<T> {
        let chunk = self.chunks.get_mut(&ticket)?;
        let link = self.links.get_mut(&chunk.link_key)?;
        // Its places in the index depend on values that `change` may set, so remove it by the old ones first.
        link.index.suspend(ticket, chunk.order());
        let outcome = change(chunk, link);
        link.index.add(ticket, chunk.order());
        if chunk.in_flight {
            self.flying.insert(ticket);
        } else {
            self.flying.remove(&ticket);
        }
        Some(outcome)
    }

    /// Advances the indexes to `now`; call it before any query about what is due.
    fn promote(&mut self, now: u64) {
        self.links.values_mut().for_each(|link| link.index.promote(now));
    }

    /// Sends nothing to a destination for `wait` ns, because another sink has tried it recently.
    pub fn leave_alone(&mut self, link_key: LinkKey, wait: u64, now: u64) {
        if let Some(link) = self.links.get_mut(&link_key) {
            link.not_before = link.not_before.max(now.saturating_add(wait));
        }
    }

    fn refused_pause(&self, now: u64) -> u64 {
        if self.is_draining(now) { LAST_PAUSE } else { REFUSED_PAUSE }
    }

    /// Whether the sink drains and its deadline has not passed. Afterwards nothing is urgent any more.
    fn is_draining(&self, now: u64) -> bool {
        self.drain.is_some_and(|drain| now < drain.until)
    }

    /// Returns the drain, if there is one.
    pub fn drain(&self) -> Option<Drain> {
        self.drain
    }

    /// Whether the last attempt at any waiting chunk of this sink's own failed.
    pub fn is_failing(&self) -> bool {
        self.failing > 0
    }

    /// Removes a chunk. Returns whether it is in flight, so that its attempt has to be aborted.
    pub fn remove(&mut self, ticket: Ticket) -> bool {
        let Some(chunk) = self.chunks.remove(&ticket) else {
            return false;
        };
        self.failing -= usize::from(chunk.failed.is_some() && chunk.link_key.is_none());
        self.parked -= usize::from(is_parked(chunk.link_key));
        self.ages.remove(&(chunk.queued_at, ticket));
        self.flying.remove(&ticket);
        if let Some(link) = self.links.get_mut(&chunk.link_key) {
            link.index.remove(ticket, chunk.order());
            link.in_flight = link.in_flight.saturating_sub(usize::from(chunk.in_flight));
        }
        chunk.in_flight
    }

    /// Whether its last attempt was refused for good.
    pub fn is_refused(&self, ticket: Ticket) -> bool {
        self.chunks.get(&ticket).is_some_and(|chunk| chunk.refused)
    }

    /// Whether a chunk is being sent.
    pub fn is_in_flight(&self, ticket: Ticket) -> bool {
        self.chunks.get(&ticket).is_some_and(|w| w.in_flight)
    }

    /// Returns the oldest chunk.
    pub fn oldest(&self) -> Option<Ticket> {
        self.chunks.keys().next().copied()
    }

    /// Returns the chunk to drop to make room: the oldest that is not in flight. If all are in flight, the oldest except the one
    /// whose upload began first: otherwise a link slower than the stream would never finish one.
    pub fn to_drop(&self) -> Option<Ticket> {
        self.to_drop_of(self.chunks.keys().copied())
    }

    /// The same among the chunks `of`, oldest first: those whose removal makes room where it is needed.
    pub fn to_drop_of(&self, of: impl Iterator<Item = Ticket> + Clone) -> Option<Ticket> {
        let known = of.filter_map(|ticket| Some((ticket, self.chunks.get(&ticket)?)));
        let waiting = known.clone().find(|(_, w)| !w.in_flight).map(|(ticket, _)| ticket);
        // Reached only if all of them are in flight, and those are few.
        let first = || known.clone().min_by_key(|(_, w)| w.started).map(|(ticket, _)| ticket);
        let other = || {
            known
                .clone()
                .map(|(ticket, _)| ticket)
                .find(|&ticket| Some(ticket) != first())
        };
        waiting.or_else(other).or_else(first)
    }

    /// Limits this sink's own uploads to one at a time: some were aborted to make room, so the link is too slow for more.
    pub fn reduce_concurrency(&mut self) {
        if let Some(own) = self.links.get_mut(&None) {
            (own.round, own.concurrency) = (0, 1);
        }
    }

    /// Returns the chunk among `of` that would be sent last and is `wanted`. The newest of all is sent first and then the oldest,
    /// so this is the newest of the backlog.
    pub fn sent_last(&self, of: &BTreeSet<Ticket>, wanted: impl Fn(Ticket) -> bool) -> Option<Ticket> {
        let newest = self.chunks.keys().next_back().copied()?;
        let is_next = self.links.get(&None).is_some_and(|own| Some(newest) >= own.newest_sent);
        let mut backlog = of.iter().rev().copied().filter(|&ticket| !is_next || ticket != newest);
        let last = || Some(newest).filter(|ticket| of.contains(ticket) && wanted(*ticket));
        backlog.find(|&ticket| wanted(ticket)).or_else(last)
    }

    /// Returns the oldest chunk that has waited `timeout` ns or longer, in flight or not. Parked chunks never expire.
    pub fn expired(&self, timeout: u64, now: u64) -> Option<Ticket> {
        let &(queued_at, ticket) = self.ages.first()?;
        (now.saturating_sub(queued_at) >= timeout).then_some(ticket)
    }

    /// Returns how often a chunk was sent.
    pub fn attempts(&self, ticket: Ticket) -> u32 {
        self.chunks.get(&ticket).map_or(0, |w| w.attempts)
    }

    /// Returns the number of chunks that are not stored yet, without parked ones.
    pub fn pending(&self) -> usize {
        self.chunks.len() - self.parked
    }

    /// Returns the number of parked chunks.
    pub fn parked(&self) -> usize {
        self.parked
    }

    /// Returns the number of chunks in flight, of all destinations.
    pub fn in_flight(&self) -> usize {
        self.links.values().map(|link| link.in_flight).sum()
    }

    /// Returns the age of the oldest chunk that is not parked, ns.
    pub fn oldest_age(&self, now: u64) -> Option<u64> {
        self.ages.first().map(|&(queued_at, _)| now.saturating_sub(queued_at))
    }

    /// Begins or ends a drain: until its deadline the next attempt is due at once and pauses are short. Does nothing if called
    /// again with the same deadline.
    pub fn set_draining(&mut self, drain: Option<Drain>) {
        // Compare the deadlines only: `began` differs at each call.
        let is_known = drain.map(|drain| drain.until) == self.drain.map(|drain| drain.until);
        if is_known {
            return;
        }
        self.drain = drain;
        if drain.is_none() {
            return;
        }
        // The drain does not wait for parked chunks, so it does not speed them up.
        for (_, link) in self.links.iter_mut().filter(|(link_key, _)| !is_parked(**link_key)) {
            // This does not bypass a `Retry-After`: the bucket still holds the attempt.
            (link.not_before, link.probe_at) = (0, 0);
        }
        let tickets: Vec<Ticket> = self.chunks.keys().copied().collect();
        for ticket in tickets {
            self.change(ticket, |chunk, _| chunk.not_before = 0);
        }
    }

    /// Returns a random number by xorshift64*, which is good enough for jitter.
    fn chance(&mut self) -> u64 {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
