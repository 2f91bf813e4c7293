//! What to send next, when to try again, how many at once.
//!
//! PURE: time is an argument in ns on any monotonic scale, chance comes from a seed. Owns no bytes, only tickets: numbers that
//! rise with the time of capture, those of earlier sessions below those of this one.
//!
//! Rules:
//! 1. The newest chunk goes first, so that the bucket shows what happens now; then the backlog, oldest first.
//! 2. After a failure that is not the chunk's own fault nothing is sent to that [`Site`] for a while: exponential back-off with
//!    full jitter, at most 30 s, or as long as the server asked (`Retry-After`). Then one chunk at a time until one is stored.
//! 3. Concurrency is between 1 and the limit: halved when the server is overloaded or the link times out, one more after a
//!    round of successes.
//! 4. A chunk that fails again although others were stored meanwhile has a back-off of its own, and holds up no other.
//! 5. A chunk that is refused for good is tried again after 60 s, and holds up no other. While nothing but refusals comes, one
//!    of those that were refused is tried every 60 s, and each new chunk once. While the sink drains it is 5 s instead.
//! 6. What earlier sessions left for another site has a link of its own, one upload at a time, and gives way to this sink's.

use std::collections::BTreeMap;

use gcstreamer_storage::Class;

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

/// A number for where chunks go that earlier sessions left for another endpoint or bucket; `None` = where this sink's own go.
pub type Site = Option<u64>;

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

/// What is known of the way to a site.
#[derive(Debug)]
struct Link {
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
    /// Chunks stored so far.
    successes: u64,
    /// A chunk was refused, and none has been stored since.
    refusing: bool,
    /// When one of those that were refused may be tried.
    probe_at: u64,
}

impl Link {
    fn new(concurrency: usize) -> Self {
        Self {
            concurrency,
            round: 0,
            in_flight: 0,
            newest_sent: 0,
            failures: 0,
            not_before: 0,
            successes: 0,
            refusing: false,
            probe_at: 0,
        }
    }

    /// How many may be in flight.
    fn limit(&self) -> usize {
        if self.failures > 0 { 1 } else { self.concurrency }
    }

    /// When this chunk may be sent.
    fn due(&self, chunk: &Waiting) -> u64 {
        let probe = if chunk.refused && self.refusing { self.probe_at } else { 0 };
        chunk.not_before.max(self.not_before).max(probe)
    }
}

/// Decides what happens to closed chunks. See the module for the rules.
#[derive(Debug)]
pub struct Scheduler {
    chunks: BTreeMap<u64, Waiting>,
    links: BTreeMap<Site, Link>,
    max_uploads: usize,
    /// Attempts so far.
    started: u64,
    /// Own chunks whose last attempt failed.
    failing: usize,
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
            links: BTreeMap::from([(None, Link::new(max_uploads))]),
            max_uploads,
            started: 0,
            failing: 0,
            hurry: false,
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
    pub fn queue(&mut self, ticket: u64, site: Site, now: u64) {
        self.remove(ticket);
        self.links.entry(site).or_insert_with(|| Link::new(1));
        self.chunks.insert(
            ticket,
            Waiting {
                site,
                queued_at: now,
                not_before: 0,
                in_flight: false,
                attempts: 0,
                started: 0,
                failed: None,
                strikes: 0,
                refused: false,
            },
        );
    }

    /// The chunk to send now; it is in flight from here on. `None` where nothing is due.
    pub fn next(&mut self, now: u64) -> Option<u64> {
        let pause = self.refused_pause();
        let ticket = self.peek(None, now).or_else(|| self.peek_foreign(now))?;
        let chunk = self.chunks.get_mut(&ticket)?;
        self.started += 1;
        chunk.in_flight = true;
        chunk.attempts += 1;
        chunk.started = self.started;
        if let Some(link) = self.links.get_mut(&chunk.site) {
            link.in_flight += 1;
            link.newest_sent = link.newest_sent.max(ticket);
            if chunk.refused && link.refusing {
                link.probe_at = now.saturating_add(pause);
            }
        }
        Some(ticket)
    }

    /// What would be sent to that site.
    fn peek(&self, site: Site, now: u64) -> Option<u64> {
        let link = self.links.get(&site)?;
        if link.in_flight >= link.limit() || self.in_flight() >= self.max_uploads || now < link.not_before {
            return None;
        }
        let is_due = |chunk: &Waiting| !chunk.in_flight && link.due(chunk) <= now;
        let mut of_site = self.chunks.iter().filter(|(_, w)| w.site == site);
        let newest = of_site.next_back();
        if let Some((&ticket, chunk)) = newest
            && ticket >= link.newest_sent
            && is_due(chunk)
        {
            return Some(ticket);
        }
        of_site.chain(newest).find(|(_, w)| is_due(w)).map(|(&ticket, _)| ticket)
    }

    /// What would be sent to another site: one at a time.
    fn peek_foreign(&self, now: u64) -> Option<u64> {
        if self.foreign_in_flight() > 0 {
            return None;
        }
        self.foreign().filter_map(|(site, _)| self.peek(*site, now)).min()
    }

    fn foreign(&self) -> impl Iterator<Item = (&Site, &Link)> {
        self.links.iter().filter(|(site, _)| site.is_some())
    }

    fn foreign_in_flight(&self) -> usize {
        self.foreign().map(|(_, link)| link.in_flight).sum()
    }

    /// The upload to another site that has to be broken off, since one of this sink's own wants its place.
    pub fn preempt(&mut self, now: u64) -> Option<u64> {
        if self.foreign_in_flight() == 0 || self.in_flight() < self.max_uploads {
            return None;
        }
        let own = self.links.get(&None).filter(|own| own.in_flight == 0)?;
        let mut chunks = self.chunks.values();
        if !chunks.any(|w| w.site.is_none() && own.due(w) <= now) {
            return None;
        }
        let (&ticket, _) = self.chunks.iter().find(|(_, w)| w.in_flight && w.site.is_some())?;
        self.recall(ticket).then_some(ticket)
    }

    /// When [`Scheduler::next`] may have something, if not now; `None` where only an event can change that.
    pub fn wake_at(&self, now: u64) -> Option<u64> {
        if self.in_flight() >= self.max_uploads && self.foreign_in_flight() == 0 {
            return None;
        }
        let may_send = |site: Site, link: &Link| match site {
            None => link.in_flight < link.limit(),
            Some(_) => self.foreign_in_flight() == 0,
        };
        let due = self.chunks.values().filter(|w| !w.in_flight).filter_map(|w| {
            let link = self.links.get(&w.site)?;
            may_send(w.site, link).then(|| link.due(w))
        });
        Some(due.min()?.max(now))
    }

    /// An attempt has ended.
    pub fn done(&mut self, ticket: u64, outcome: Outcome, now: u64) {
        let Some(chunk) = self.chunks.get_mut(&ticket).filter(|w| w.in_flight) else {
            return;
        };
        chunk.in_flight = false;
        let Some(link) = self.links.get_mut(&chunk.site) else { return };
        link.in_flight = link.in_flight.saturating_sub(1);
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
            Outcome::Failed { class, retry_after } => self.failed(ticket, class, retry_after.unwrap_or(0), now),
        }
    }

    fn failed(&mut self, ticket: u64, class: Class, retry_after: u64, now: u64) {
        let chance = self.chance();
        let most = if self.hurry { FIRST_BACKOFF } else { MAX_BACKOFF };
        let refused_pause = self.refused_pause();
        let pause = |failures: u32| chance % (FIRST_BACKOFF.saturating_mul(1 << failures.min(10)).min(most) + 1);
        let Some(chunk) = self.chunks.get_mut(&ticket) else { return };
        let Some(link) = self.links.get_mut(&chunk.site) else { return };
        self.failing += usize::from(chunk.failed.is_none() && chunk.site.is_none());
        let is_its_own = chunk.failed.is_some_and(|successes| successes < link.successes);
        chunk.failed = Some(link.successes);
        chunk.refused = matches!(class, Class::Auth | Class::Permanent);
        match class {
            Class::Transient | Class::Throttled => {
                if is_its_own {
                    chunk.strikes = chunk.strikes.saturating_add(1);
                    chunk.not_before = now.saturating_add(pause(chunk.strikes).max(FIRST_BACKOFF).max(retry_after));
                }
                link.round = 0;
                link.concurrency = (link.concurrency / 2).max(1);
                // Twice while others were stored: it is this chunk, and not the link.
                if chunk.strikes < 2 || retry_after > 0 {
                    link.not_before = link.not_before.max(now.saturating_add(pause(link.failures).max(retry_after)));
                    link.failures = link.failures.saturating_add(1);
                }
            }
            Class::Auth | Class::Permanent => {
                chunk.not_before = now.saturating_add(refused_pause.max(retry_after));
                if !std::mem::replace(&mut link.refusing, true) {
                    link.probe_at = chunk.not_before;
                }
            }
            Class::Conflict | Class::Local => chunk.not_before = now.saturating_add(refused_pause.max(retry_after)),
        }
    }

    fn refused_pause(&self) -> u64 {
        if self.hurry { LAST_PAUSE } else { REFUSED_PAUSE }
    }

    /// Whether a chunk of this sink waits whose last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.failing > 0
    }

    /// Lets go of a chunk; whether it is being sent, so that the attempt has to be broken off.
    pub fn remove(&mut self, ticket: u64) -> bool {
        let Some(chunk) = self.chunks.remove(&ticket) else {
            return false;
        };
        self.failing -= usize::from(chunk.failed.is_some() && chunk.site.is_none());
        if let (true, Some(link)) = (chunk.in_flight, self.links.get_mut(&chunk.site)) {
            link.in_flight = link.in_flight.saturating_sub(1);
        }
        chunk.in_flight
    }

    /// Whether a chunk is being sent.
    pub fn is_in_flight(&self, sequence: u64) -> bool {
        self.chunks.get(&sequence).is_some_and(|w| w.in_flight)
    }

    /// The attempt is broken off for a reason of our own: it counts neither as a failure nor as a success, and the chunk may be
    /// sent again at once. Whether it was being sent.
    pub fn recall(&mut self, ticket: u64) -> bool {
        let Some(chunk) = self.chunks.get_mut(&ticket).filter(|w| w.in_flight) else {
            return false;
        };
        chunk.in_flight = false;
        if let Some(link) = self.links.get_mut(&chunk.site) {
            link.in_flight = link.in_flight.saturating_sub(1);
        }
        true
    }

    /// The oldest chunk.
    pub fn oldest(&self) -> Option<u64> {
        self.chunks.keys().next().copied()
    }

    /// The chunk to let go of for want of room: the oldest that is not being sent. Where all are, the oldest but the one
    /// whose upload began first: else none would ever arrive at a link that is slower than the stream.
    pub fn to_drop(&self) -> Option<u64> {
        let waiting = self.chunks.iter().find(|(_, w)| !w.in_flight).map(|(&ticket, _)| ticket);
        let first = || self.chunks.iter().min_by_key(|(_, w)| w.started).map(|(&ticket, _)| ticket);
        let other = || self.chunks.keys().copied().find(|&ticket| Some(ticket) != first());
        waiting.or_else(other).or_else(|| self.oldest())
    }

    /// Uploads were broken off for want of room: what they share is too little for so many at once.
    pub fn narrow(&mut self) {
        if let Some(own) = self.links.get_mut(&None) {
            (own.round, own.concurrency) = (0, 1);
        }
    }

    /// The chunk that would be sent last, of those that are wanted: the newest goes first and then the oldest, so it is the
    /// newest of the backlog.
    pub fn sent_last(&self, wanted: impl Fn(u64) -> bool) -> Option<u64> {
        let newest = self.chunks.keys().next_back().copied()?;
        let is_next = self.links.get(&None).is_some_and(|own| newest >= own.newest_sent);
        let mut backlog = self.chunks.keys().rev().copied().skip(usize::from(is_next));
        backlog.find(|&s| wanted(s)).or_else(|| Some(newest).filter(|&s| wanted(s)))
    }

    /// The oldest chunk that has waited `timeout` ns or longer, whether it is being sent or not.
    pub fn expired(&self, timeout: u64, now: u64) -> Option<u64> {
        let mut chunks = self.chunks.iter();
        chunks
            .find(|(_, w)| now.saturating_sub(w.queued_at) >= timeout)
            .map(|(&ticket, _)| ticket)
    }

    /// How often a chunk was sent.
    pub fn attempts(&self, sequence: u64) -> u32 {
        self.chunks.get(&sequence).map_or(0, |w| w.attempts)
    }

    /// Chunks that are not stored yet.
    pub fn pending(&self) -> usize {
        self.chunks.len()
    }

    /// Chunks being sent, of all sites.
    pub fn in_flight(&self) -> usize {
        self.links.values().map(|link| link.in_flight).sum()
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
        for link in self.links.values_mut() {
            (link.not_before, link.probe_at) = (0, 0);
        }
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
