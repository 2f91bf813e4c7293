//! Chooses what to send next, which upload to abort for it, and when to ask again.
//!
//! PURE: rules 1, 6 and 7 of [`super`]. No function here iterates over all chunks: every link has an index, and few chunks are in
//! flight.

use super::link::Link;
use super::link_key::{Elsewhere, LinkKey, is_parked, is_served};
use super::{PARKED_PAUSE, Scheduler};
use crate::upload::ticket::Ticket;

impl Scheduler {
    /// Returns the chunk to send now, which is in flight from here on. `None` if nothing is due.
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
            if is_parked(chunk.link_key) {
                // Counted from the start of the attempt: aborting one must not allow another at once.
                link.not_before = now.saturating_add(PARKED_PAUSE);
            }
        })?;
        Some(ticket)
    }

    /// Returns what would be sent on that link if there is a place.
    fn peek(&self, link_key: LinkKey, now: u64) -> Option<Ticket> {
        let link = self.links.get(&link_key)?;
        if link.in_flight >= link.limit() || now < link.not_before {
            return None;
        }
        let may_probe = link.may_probe(now);
        // A chunk older than the newest one ever sent is backlog. Otherwise, with one upload at a time, the newest one left would
        // be chosen every time, and the backlog would be sent backwards.
        let newest = link.index.newest().filter(|&ticket| Some(ticket) >= link.newest_sent);
        newest
            .filter(|&ticket| link.index.is_ready(ticket, may_probe))
            .or_else(|| link.index.oldest_ready(may_probe))
    }

    /// Returns what would be sent to another destination, one upload at a time. A destination in trouble comes last, because it
    /// may occupy the place until a timeout.
    fn peek_served(&self, now: u64) -> Option<Ticket> {
        if self.count_in_flight(is_served) > 0 {
            return None;
        }
        let served = self.links.iter().filter(|(link_key, _)| is_served(**link_key));
        let due = served.filter_map(|(link_key, link)| Some((link.is_in_trouble(), self.peek(*link_key, now)?)));
        // `false` sorts first: a working destination precedes one in trouble.
        due.min().map(|(_, ticket)| ticket)
    }

    /// Returns what would be tried without credentials, one upload at a time for all destinations. Of each destination it is the
    /// chunk whose last attempt is the longest ago, so that a chunk which is always refused does not block the others.
    fn peek_parked(&self, now: u64) -> Option<Ticket> {
        if self.parked == 0 || self.count_in_flight(is_parked) > 0 {
            return None;
        }
        let parked = self.links.iter().filter(|(link_key, _)| is_parked(**link_key));
        let due = parked.filter(|(_, link)| link.not_before <= now);
        due.filter_map(|(_, link)| link.index.least_tried())
            .min()
            .map(|(_, ticket)| ticket)
    }

    fn count_in_flight(&self, of: fn(LinkKey) -> bool) -> usize {
        let links = self.links.iter().filter(|(link_key, _)| of(**link_key));
        links.map(|(_, link)| link.in_flight).sum()
    }

    /// Aborts an upload whose place a more important one needs, and returns it: a parked one for any other, and one to another
    /// destination for a chunk of this sink's own that would have no place otherwise.
    pub fn preempt(&mut self, now: u64) -> Option<Ticket> {
        let elsewhere = self.count_in_flight(|link_key| link_key.is_some());
        // While a place is free, no upload has to give way.
        if elsewhere == 0 || self.in_flight() < self.max_uploads {
            return None;
        }
        self.promote(now);
        let first = |of: fn(LinkKey) -> bool| {
            let link_key = |ticket: &Ticket| self.chunks.get(ticket).map(|chunk| chunk.link_key);
            self.flying.iter().copied().find(|ticket| link_key(ticket).is_some_and(of))
        };
        let own_waits = self.peek(None, now).is_some();
        let parked = first(is_parked).filter(|_| own_waits || self.peek_served(now).is_some());
        let ticket = parked.or_else(|| first(is_served).filter(|_| own_waits && self.own_goes_first(now)))?;
        self.recall(ticket).then_some(ticket)
    }

    /// Whether an upload to another destination may be aborted for this sink's own chunks: none of them is in flight, and they do
    /// not fail. Failing chunks would abort it again and again, and the other destination would never get its chunk.
    fn own_goes_first(&self, now: u64) -> bool {
        self.links
            .get(&None)
            .is_some_and(|own| own.in_flight == 0 && (!own.is_in_trouble() || self.is_draining(now)))
    }

    /// Returns when [`Scheduler::next`] may have a chunk, if not now; `None` if only an event can change that.
    pub fn wake_at(&mut self, now: u64) -> Option<u64> {
        self.promote(now);
        let is_full = self.in_flight() >= self.max_uploads;
        let (served, parked) = (self.count_in_flight(is_served), self.count_in_flight(is_parked));
        // Only the end of an own upload frees a place, and that is an event.
        if is_full && served + parked == 0 {
            return None;
        }
        // If all places are taken, only those count that may abort another upload, see `preempt`.
        let may_send = |link_key: LinkKey, link: &Link| match link_key {
            None => link.in_flight < link.limit() && (!is_full || parked > 0 || self.own_goes_first(now)),
            Some(Elsewhere::Served(_)) => served == 0 && (!is_full || parked > 0),
            Some(Elsewhere::Parked(_)) => parked == 0 && !is_full,
        };
        let may = self.links.iter().filter(|(link_key, link)| may_send(**link_key, link));
        let due = may.filter_map(|(link_key, link)| match is_parked(*link_key) {
            true => link.index.least_tried().map(|_| link.not_before),
            false => link.due(),
        });
        Some(due.min()?.max(now))
    }
}
