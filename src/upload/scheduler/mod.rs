//! What to send next, when to try again, how many at once.
//!
//! PURE: time is an argument in ns on any monotonic scale, chance comes from a seed. Owns no bytes, only their [tickets](Ticket),
//! the oldest chunk's first.
//!
//! Rules:
//! 1. The newest chunk goes first, so that the bucket shows what happens now; then the backlog, oldest first.
//! 2. After a failure that is not the chunk's own fault nothing is sent to that [`Site`] for a while: exponential back-off with
//!    full jitter, at most 30 s, or as long as the server asked (`Retry-After`), see [`hold`](crate::flow::hold). Then one chunk
//!    at a time until one is stored.
//! 3. Concurrency is between 1 and the limit: halved when the server is overloaded or the link times out, one more after a
//!    round of successes.
//! 4. A chunk that fails again although others were stored meanwhile has a back-off of its own, and holds up no other.
//! 5. A chunk that is refused for good is tried again after 60 s, and holds up no other. While nothing but refusals comes, one
//!    of those that were refused is tried every 60 s, and each new chunk once. While the sink drains it is 5 s instead.
//! 6. What earlier sessions left for other sites has a link for each of them, one upload at a time for all. It gives way to this
//!    sink's own chunks, unless these fail and the sink does not drain. Among them a site that works goes before one in trouble.
//! 7. What is parked ([`Elsewhere::Parked`]) is tried once an hour for each destination, one upload at a time of all of them, and gives
//!    way to everything else. After a success the next one follows at once. It is not pending, does not age and never expires.

use std::collections::{BTreeMap, BTreeSet};

use self::index::{Index, Order};
use crate::flow::hold::{Drain, Hold};
use crate::spool::DestinationId;
use crate::upload::ticket::Ticket;
use gcstreamer_storage::Class;

mod index;
#[cfg(test)]
mod tests;

/// Longest pause between two attempts.
const MAX_BACKOFF: u64 = 30_000_000_000;
/// First pause, before jitter.
const FIRST_BACKOFF: u64 = 1_000_000_000;
/// Pause after a refusal that waits for the user: permission, bucket, credentials.
pub const REFUSED_PAUSE: u64 = 60_000_000_000;
/// The same at the end, where there is no time for that.
const LAST_PAUSE: u64 = 5_000_000_000;

/// Pause between two attempts at a destination that gets no credentials from this sink.
pub const PARKED_PAUSE: u64 = 3_600_000_000_000;

/// Where chunks go; `None` = where this sink's own go.
pub type Site = Option<Elsewhere>;

/// Where chunks go that earlier sessions left for another endpoint or bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Elsewhere {
    /// This sink stores there as it does its own chunks.
    Served(DestinationId),
    /// An endpoint that gets no credentials from this sink: most likely it takes nothing.
    Parked(DestinationId),
}

/// Whether chunks for it are parked.
fn is_parked(site: Site) -> bool {
    matches!(site, Some(Elsewhere::Parked(_)))
}

fn is_served(site: Site) -> bool {
    matches!(site, Some(Elsewhere::Served(_)))
}

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
#[derive(Clone, Debug)]
struct Waiting {
    site: Site,
    queued_at: u64,
    not_before: u64,
    in_flight: bool,
    attempts: u32,
    /// Which attempt of all it was that began last.
    started: u64,
    /// Its last attempt failed, when its link had this many successes.
    failed: Option<u64>,
    /// How often it failed again although others were stored since.
    strikes: u32,
    /// Its last attempt was refused for good.
    refused: bool,
}

impl Waiting {
    /// What its place among the others depends on.
    fn order(&self) -> Order {
        Order {
            in_flight: self.in_flight,
            refused: self.refused,
            not_before: self.not_before,
            started: self.started,
        }
    }
}

/// What is known of the way to a site.
#[derive(Debug)]
struct Link {
    concurrency: usize,
    /// Successes since the concurrency last changed.
    round: usize,
    in_flight: usize,
    /// The newest chunk that was ever sent: older ones are backlog. `None` until one was sent.
    newest_sent: Option<Ticket>,
    /// Failures of the link or the server in a row.
    failures: u32,
    /// Nothing is sent before.
    not_before: u64,
    /// Chunks stored so far.
    successes: u64,
    /// A chunk was refused, and none has been stored since.
    refusing: bool,
    /// When one of those that were refused may be tried.
    probe_at: u64,
    index: Index,
}

impl Link {
    fn new(concurrency: usize) -> Self {
        Self {
            concurrency,
            round: 0,
            in_flight: 0,
            newest_sent: None,
            failures: 0,
            not_before: 0,
            successes: 0,
            refusing: false,
            probe_at: 0,
            index: Index::default(),
        }
    }

    /// How many may be in flight.
    fn limit(&self) -> usize {
        if self.failures > 0 { 1 } else { self.concurrency }
    }

    /// The last attempts failed, or were refused.
    fn is_in_trouble(&self) -> bool {
        self.failures > 0 || self.refusing
    }

    /// Whether one that was refused may be tried.
    fn may_probe(&self, now: u64) -> bool {
        !self.refusing || self.probe_at <= now
    }

    /// When the first of its chunks that is not in flight may be sent.
    fn due(&self) -> Option<u64> {
        let [plain, refused] = self.index.due();
        let probe = if self.refusing { self.probe_at } else { 0 };
        let due = plain.into_iter().chain(refused.map(|at| at.max(probe))).min()?;
        Some(due.max(self.not_before))
    }
}

/// Decides what happens to closed chunks. See the module for the rules.
#[derive(Debug)]
pub struct Scheduler {
    chunks: BTreeMap<Ticket, Waiting>,
    links: BTreeMap<Site, Link>,
    /// When those that are not parked were queued, and which they are.
    ages: BTreeSet<(u64, Ticket)>,
    /// Those in flight.
    flying: BTreeSet<Ticket>,
    max_uploads: usize,
    /// Attempts so far.
    started: u64,
    /// Own chunks whose last attempt failed.
    failing: usize,
    /// Chunks that are parked.
    parked: usize,
    /// The end is near: pauses are short until the deadline.
    drain: Option<Drain>,
    seed: u64,
}

impl Scheduler {
    /// A scheduler with nothing to do; `seed` feeds the jitter.
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
            seed: seed | 1,
        }
    }

    /// Another limit from now on.
    pub fn set_max_uploads(&mut self, max_uploads: usize) {
        self.max_uploads = max_uploads.max(1);
        for link in self.links.values_mut() {
            link.concurrency = link.concurrency.min(self.max_uploads);
        }
    }

    /// A chunk was closed, or found.
    pub fn queue(&mut self, ticket: Ticket, site: Site, now: u64) {
        self.remove(ticket);
        let chunk = Waiting {
            site,
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
            .entry(site)
            .or_insert_with(|| Link::new(1))
            .index
            .add(ticket, chunk.order());
        if is_parked(site) {
            self.parked += 1;
        } else {
            self.ages.insert((now, ticket));
        }
        self.chunks.insert(ticket, chunk);
    }

    /// Changes a chunk and its link, and keeps their order.
    fn change<T>(&mut self, ticket: Ticket, change: impl FnOnce(&mut Waiting, &mut Link) -> T) -> Option<T> {
        let chunk = self.chunks.get_mut(&ticket)?;
        let link = self.links.get_mut(&chunk.site)?;
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

    /// The time is `now`: asked before any question about what is due.
    fn promote(&mut self, now: u64) {
        self.links.values_mut().for_each(|link| link.index.promote(now));
    }

    /// Another sink tried this destination recently: sends nothing to it for `wait` ns.
    pub fn leave_alone(&mut self, site: Site, wait: u64, now: u64) {
        if let Some(link) = self.links.get_mut(&site) {
            link.not_before = link.not_before.max(now.saturating_add(wait));
        }
    }

    /// The chunk to send now; it is in flight from here on. `None` where nothing is due.
    pub fn next(&mut self, now: u64) -> Option<Ticket> {
        if self.in_flight() >= self.max_uploads {
            return None;
        }
        self.promote(now);
        let pause = self.refused_pause(now);
        let ticket = self
            .peek(None, now)
            .or_else(|| self.peek_served(now))
            .or_else(|| self.peek_parked(now))?;
        self.started += 1;
        let started = self.started;
        self.change(ticket, |chunk, link| {
            chunk.in_flight = true;
            chunk.attempts += 1;
            chunk.started = started;
            link.in_flight += 1;
            link.newest_sent = link.newest_sent.max(Some(ticket));
            if chunk.refused && link.refusing {
                link.probe_at = now.saturating_add(pause);
            }
            if is_parked(chunk.site) {
                // Counted from the start of the attempt, so that one that is broken off is no reason to try again at once.
                link.not_before = now.saturating_add(PARKED_PAUSE);
            }
        })?;
        Some(ticket)
    }

    /// What would be sent to that site, if there is a place.
    fn peek(&self, site: Site, now: u64) -> Option<Ticket> {
        let link = self.links.get(&site)?;
        if link.in_flight >= link.limit() || now < link.not_before {
            return None;
        }
        let may_probe = link.may_probe(now);
        let newest = link.index.newest().filter(|&ticket| Some(ticket) >= link.newest_sent);
        newest
            .filter(|&ticket| link.index.is_ready(ticket, may_probe))
            .or_else(|| link.index.oldest_ready(may_probe))
    }

    /// What would be sent to another site: one at a time. A site in trouble may keep its place until a timeout: it comes last.
    fn peek_served(&self, now: u64) -> Option<Ticket> {
        if self.count_in_flight(is_served) > 0 {
            return None;
        }
        let served = self.links.iter().filter(|(site, _)| is_served(**site));
        let due = served.filter_map(|(site, link)| Some((link.is_in_trouble(), self.peek(*site, now)?)));
        due.min().map(|(_, ticket)| ticket)
    }

    /// What would be tried without credentials: one at a time of all destinations, and of each the chunk whose last attempt is the
    /// longest ago, so that one that is always refused keeps no other from being tried.
    fn peek_parked(&self, now: u64) -> Option<Ticket> {
        if self.parked == 0 || self.count_in_flight(is_parked) > 0 {
            return None;
        }
        let parked = self.links.iter().filter(|(site, _)| is_parked(**site));
        let due = parked.filter(|(_, link)| link.not_before <= now);
        due.filter_map(|(_, link)| link.index.least_tried())
            .min()
            .map(|(_, ticket)| ticket)
    }

    fn count_in_flight(&self, of: fn(Site) -> bool) -> usize {
        let links = self.links.iter().filter(|(site, _)| of(**site));
        links.map(|(_, link)| link.in_flight).sum()
    }

    /// The upload that has to be broken off, since one that comes before it wants its place: what is parked for any other, what goes
    /// to another site for one of this sink's own that would else have none.
    pub fn preempt(&mut self, now: u64) -> Option<Ticket> {
        let elsewhere = self.count_in_flight(|site| site.is_some());
        if elsewhere == 0 || self.in_flight() < self.max_uploads {
            return None;
        }
        self.promote(now);
        let first = |of: fn(Site) -> bool| {
            let site = |ticket: &Ticket| self.chunks.get(ticket).map(|chunk| chunk.site);
            self.flying.iter().copied().find(|ticket| site(ticket).is_some_and(of))
        };
        let own_waits = self.peek(None, now).is_some();
        let parked = first(is_parked).filter(|_| own_waits || self.peek_served(now).is_some());
        let ticket = parked.or_else(|| first(is_served).filter(|_| own_waits && self.own_goes_first(now)))?;
        self.recall(ticket).then_some(ticket)
    }

    /// Whether an upload to another site may be broken off for this sink's own chunks: they have no place, and do not fail
    /// themselves. Chunks that fail would break it off again and again, and the other site would never get its chunk.
    fn own_goes_first(&self, now: u64) -> bool {
        self.links
            .get(&None)
            .is_some_and(|own| own.in_flight == 0 && (!own.is_in_trouble() || self.is_draining(now)))
    }

    /// When [`Scheduler::next`] may have something, if not now; `None` where only an event can change that.
    pub fn wake_at(&mut self, now: u64) -> Option<u64> {
        self.promote(now);
        let is_full = self.in_flight() >= self.max_uploads;
        let (served, parked) = (self.count_in_flight(is_served), self.count_in_flight(is_parked));
        if is_full && served + parked == 0 {
            return None;
        }
        // Where all places are taken, what can break another one off: see `preempt`.
        let may_send = |site: Site, link: &Link| match site {
            None => link.in_flight < link.limit() && (!is_full || parked > 0 || self.own_goes_first(now)),
            Some(Elsewhere::Served(_)) => served == 0 && (!is_full || parked > 0),
            Some(Elsewhere::Parked(_)) => parked == 0 && !is_full,
        };
        let may = self.links.iter().filter(|(site, link)| may_send(**site, link));
        let due = may.filter_map(|(site, link)| match is_parked(*site) {
            true => link.index.least_tried().map(|_| link.not_before),
            false => link.due(),
        });
        Some(due.min()?.max(now))
    }

    /// An attempt has ended.
    pub fn done(&mut self, ticket: Ticket, outcome: Outcome, now: u64) {
        if !self.recall(ticket) {
            return;
        }
        let Some(chunk) = self.chunks.get(&ticket) else { return };
        let Some(link) = self.links.get_mut(&chunk.site) else { return };
        match outcome {
            Outcome::Stored => {
                link.successes += 1;
                link.failures = 0;
                link.not_before = 0;
                link.refusing = false;
                link.round += 1;
                let most = if chunk.site.is_none() { self.max_uploads } else { 1 };
                if link.round >= link.concurrency {
                    link.round = 0;
                    link.concurrency = (link.concurrency + 1).min(most);
                }
                self.remove(ticket);
            }
            // The pause runs since the attempt began; no answer of such a server changes it.
            Outcome::Failed { .. } if is_parked(chunk.site) => {}
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
        let pause = |failures: u32| chance % (FIRST_BACKOFF.saturating_mul(1 << failures.min(10)).min(most) + 1);
        let is_new = |chunk: &Waiting| chunk.failed.is_none() && chunk.site.is_none();
        self.failing += usize::from(self.chunks.get(&ticket).is_some_and(is_new));
        self.change(ticket, |chunk, link| {
            let is_its_own = chunk.failed.is_some_and(|successes| successes < link.successes);
            chunk.failed = Some(link.successes);
            chunk.refused = matches!(class, Class::Auth | Class::Permanent);
            match class {
                Class::Transient | Class::Throttled => {
                    if is_its_own {
                        chunk.strikes = chunk.strikes.saturating_add(1);
                        chunk.not_before = now.saturating_add(pause(chunk.strikes).max(FIRST_BACKOFF)).max(retry_at);
                    }
                    link.round = 0;
                    link.concurrency = (link.concurrency / 2).max(1);
                    // Twice while others were stored: it is this chunk, and not the link.
                    if chunk.strikes < 2 || retry_at > 0 {
                        link.not_before = link.not_before.max(now.saturating_add(pause(link.failures))).max(retry_at);
                        link.failures = link.failures.saturating_add(1);
                    }
                }
                Class::Auth | Class::Permanent => {
                    chunk.not_before = now.saturating_add(refused_pause).max(retry_at);
                    if !std::mem::replace(&mut link.refusing, true) {
                        link.probe_at = chunk.not_before;
                    }
                }
                Class::Conflict | Class::Local => chunk.not_before = now.saturating_add(refused_pause).max(retry_at),
            }
        });
    }

    fn refused_pause(&self, now: u64) -> u64 {
        if self.is_draining(now) { LAST_PAUSE } else { REFUSED_PAUSE }
    }

    /// Whether there is little time: after the deadline there is enough of it again.
    fn is_draining(&self, now: u64) -> bool {
        self.drain.is_some_and(|drain| now < drain.until)
    }

    /// The drain, if there is one.
    pub fn drain(&self) -> Option<Drain> {
        self.drain
    }

    /// Whether a chunk of this sink waits whose last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.failing > 0
    }

    /// Lets go of a chunk; whether it is being sent, so that the attempt has to be broken off.
    pub fn remove(&mut self, ticket: Ticket) -> bool {
        let Some(chunk) = self.chunks.remove(&ticket) else {
            return false;
        };
        self.failing -= usize::from(chunk.failed.is_some() && chunk.site.is_none());
        self.parked -= usize::from(is_parked(chunk.site));
        self.ages.remove(&(chunk.queued_at, ticket));
        self.flying.remove(&ticket);
        if let Some(link) = self.links.get_mut(&chunk.site) {
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

    /// The attempt is broken off for a reason of our own: it counts neither as a failure nor as a success, and the chunk may be
    /// sent again at once. Whether it was being sent.
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

    /// The chunk was not sent, since its site is held: it and all others that go there wait until that is over.
    pub fn held(&mut self, ticket: Ticket, hold: Hold) {
        if !self.recall(ticket) {
            return;
        }
        let ends = hold.ends(self.drain);
        let site = self.chunks.get(&ticket).and_then(|chunk| chunk.site);
        if let Some(link) = self.links.get_mut(&site) {
            link.not_before = link.not_before.max(ends);
        }
    }

    /// The chunk was not sent: its bytes cannot be had before `until`.
    pub fn put_off(&mut self, ticket: Ticket, until: u64) {
        if self.recall(ticket) {
            self.change(ticket, |chunk, _| {
                chunk.attempts = chunk.attempts.saturating_sub(1);
                chunk.not_before = chunk.not_before.max(until);
            });
        }
    }

    /// The oldest chunk.
    pub fn oldest(&self) -> Option<Ticket> {
        self.chunks.keys().next().copied()
    }

    /// The chunk to let go of for want of room: the oldest that is not being sent. Where all are, the oldest but the one
    /// whose upload began first: else none would ever arrive at a link that is slower than the stream.
    pub fn to_drop(&self) -> Option<Ticket> {
        let waiting = self.chunks.iter().find(|(_, w)| !w.in_flight).map(|(&ticket, _)| ticket);
        // All of them are in flight then, and those are few.
        let first = || self.chunks.iter().min_by_key(|(_, w)| w.started).map(|(&ticket, _)| ticket);
        let other = || self.chunks.keys().copied().find(|&ticket| Some(ticket) != first());
        waiting.or_else(other).or_else(|| self.oldest())
    }

    /// Uploads were aborted for want of room: the link is too slow for this many at once.
    pub fn reduce_concurrency(&mut self) {
        if let Some(own) = self.links.get_mut(&None) {
            (own.round, own.concurrency) = (0, 1);
        }
    }

    /// The chunk of these that would be sent last, if it is wanted: the newest of all goes first and then the oldest, so it is the
    /// newest of the backlog.
    pub fn sent_last(&self, of: &BTreeSet<Ticket>, wanted: impl Fn(Ticket) -> bool) -> Option<Ticket> {
        let newest = self.chunks.keys().next_back().copied()?;
        let is_next = self.links.get(&None).is_some_and(|own| Some(newest) >= own.newest_sent);
        let mut backlog = of.iter().rev().copied().filter(|&ticket| !is_next || ticket != newest);
        let last = || Some(newest).filter(|ticket| of.contains(ticket) && wanted(*ticket));
        backlog.find(|&ticket| wanted(ticket)).or_else(last)
    }

    /// The oldest chunk that has waited `timeout` ns or longer, whether it is being sent or not. What is parked waits for ever.
    pub fn expired(&self, timeout: u64, now: u64) -> Option<Ticket> {
        let &(queued_at, ticket) = self.ages.first()?;
        (now.saturating_sub(queued_at) >= timeout).then_some(ticket)
    }

    /// How often a chunk was sent.
    pub fn attempts(&self, ticket: Ticket) -> u32 {
        self.chunks.get(&ticket).map_or(0, |w| w.attempts)
    }

    /// Chunks that are not stored yet, without those that are parked.
    pub fn pending(&self) -> usize {
        self.chunks.len() - self.parked
    }

    /// Chunks that are parked.
    pub fn parked(&self) -> usize {
        self.parked
    }

    /// Chunks being sent, of all sites.
    pub fn in_flight(&self) -> usize {
        self.links.values().map(|link| link.in_flight).sum()
    }

    /// How long the oldest chunk has been waiting that is not parked, ns.
    pub fn oldest_age(&self, now: u64) -> Option<u64> {
        self.ages.first().map(|&(queued_at, _)| now.saturating_sub(queued_at))
    }

    /// The sink drains, or no longer: until the deadline the next attempt is due at once and pauses are short.
    /// Said again with the same deadline it changes nothing.
    pub fn set_draining(&mut self, drain: Option<Drain>) {
        let is_known = drain.map(|drain| drain.until) == self.drain.map(|drain| drain.until);
        if is_known {
            return;
        }
        self.drain = drain;
        if drain.is_none() {
            return;
        }
        for (_, link) in self.links.iter_mut().filter(|(site, _)| !is_parked(**site)) {
            (link.not_before, link.probe_at) = (0, 0);
        }
        let tickets: Vec<Ticket> = self.chunks.keys().copied().collect();
        for ticket in tickets {
            self.change(ticket, |chunk, _| chunk.not_before = 0);
        }
    }

    /// xorshift64*: jitter wants no better.
    fn chance(&mut self) -> u64 {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
