//! Finds out that the broker takes no packet of some size. PURE: time is an argument.
//!
//! MQTT 3.1.1 has no word for "too large", nor for "not allowed": the broker closes the connection (mosquitto's `max_packet_size`), and as
//! every connection publishes the same again, it would close all of them. A message in flight at [`LOSSES`] ends in a row, each soon after it
//! was sent, is taken for the cause if this broker has acknowledged others, and none as large. The limit found is forgotten after a while:
//! it was a guess. Other causes end connections, too (access rules, a second client, an outage of the broker's own), so nothing small is
//! suspected, and the state is never given up.

use std::time::Duration;

use super::publish_queue::PublishKind;

/// Ends of the connection in a row with the same kind of message in flight.
const LOSSES: u32 = 3;
/// After so many, what was acknowledged before counts no more: the limit was lowered.
const MANY_LOSSES: u32 = 10;
/// A connection that ends later than this after the message went out was not ended by it.
const SOON: Duration = Duration::from_secs(5);
/// How long a limit counts.
const COUNTS_FOR: Duration = Duration::from_secs(60 * 60);
/// No broker refuses payloads of fewer bytes for their size.
const LEAST: usize = 256;

/// What follows from the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Nothing,
    /// To be reported, and tried again all the same.
    Report,
    /// Nothing of that size is published for a while; `is_new`: to be reported.
    GiveUp {
        is_new: bool,
    },
}

/// What is known of one broker's limit. Sizes are of payloads, in bytes.
#[derive(Debug, Default)]
pub(super) struct BrokerLimit {
    /// The largest payload that was acknowledged.
    taken: Option<usize>,
    /// What was in flight at the last end of a connection, how many times in a row, and the smallest size of it.
    suspect: Option<(PublishKind, u32, usize)>,
    /// The largest size to publish, and until when this counts.
    limit: Option<(usize, Duration)>,
    reported: Vec<PublishKind>,
}

impl BrokerLimit {
    /// Returns the largest payload to publish.
    pub(super) fn at(&self, now: Duration) -> usize {
        self.limit
            .filter(|(_, until)| now < *until)
            .map_or(usize::MAX, |(limit, _)| limit)
    }

    pub(super) fn acknowledged(&mut self, what: PublishKind, size: usize) {
        self.taken = self.taken.max(Some(size));
        let is_cleared = |(kind, _, suspected): (PublishKind, u32, usize)| kind == what || size >= suspected;
        if self.suspect.is_some_and(is_cleared) {
            self.suspect = None;
        }
    }

    /// Takes the end of the connection, and what was in flight: its kind, its size, and since when.
    pub(super) fn lost(&mut self, now: Duration, in_flight: Option<(PublishKind, usize, Duration)>) -> Verdict {
        let is_meant = |(_, size, since): &(PublishKind, usize, Duration)| *size >= LEAST && now.saturating_sub(*since) < SOON;
        let Some((what, size, _)) = in_flight.filter(is_meant) else {
            self.suspect = None;
            return Verdict::Nothing;
        };
        let (times, smallest) = match self.suspect {
            Some((kind, times, smallest)) if kind == what => (times.saturating_add(1), smallest.min(size)),
            _ => (1, size),
        };
        self.suspect = Some((what, times, smallest));
        // A little more than what was taken is no more to the broker either: sizes of a status drift.
        let is_larger = |taken: usize| smallest > taken.saturating_add(taken / 8);
        let is_it = times >= LOSSES && (times >= MANY_LOSSES || self.taken.is_none_or(is_larger));
        if !is_it {
            return Verdict::Nothing;
        }
        let is_new = !self.reported.contains(&what);
        if is_new {
            self.reported.push(what);
        }
        if what == PublishKind::State || self.taken.is_none() {
            return if is_new { Verdict::Report } else { Verdict::Nothing };
        }
        (self.suspect, self.taken) = (None, self.taken.filter(|taken| *taken < smallest));
        self.limit = Some((smallest.saturating_sub(1), now.saturating_add(COUNTS_FOR)));
        Verdict::GiveUp { is_new }
    }

    /// Returns the text to report.
    pub(super) fn text(what: &str, topic: &str, size: usize, is_given_up: bool) -> String {
        let then = match is_given_up {
            true => "nothing of that size is published for an hour",
            false => "it is tried again",
        };
        format!(
            "the broker ends the connection each time right after the {what} of {size} bytes on {topic}: it forbids that topic (access rules), \
             or takes no message of that size (mosquitto: max_packet_size); {then}"
        )
    }
}
