//! Detects that the broker accepts no message above some size. PURE: time is an argument.
//!
//! MQTT 3.1.1 has no error code for "too large" or "not allowed": the broker closes the connection (mosquitto's
//! `max_packet_size`). Every new connection publishes the same message again and would be closed as well. A kind of message
//! counts as the cause if it was in flight at [`LOSSES`] ends in a row, each within [`SOON`] after it was sent, and if this
//! broker has acknowledged other messages but none as large. The limit found is a guess, so it expires after [`COUNTS_FOR`].
//! Connections also end for other reasons (access rules, a second client, an outage of the broker), so small messages are never
//! suspected and the state is never given up.

use std::time::Duration;

use super::publish_queue::PublishKind;

/// Number of losses in a row, with the same kind of message in flight, after which that message is suspected.
const LOSSES: u32 = 3;
/// After this many losses, earlier acknowledgements of such a size do not count any more: the broker's limit was lowered.
const MANY_LOSSES: u32 = 10;
/// A connection that ends more than this after the message was sent was not closed because of it.
const SOON: Duration = Duration::from_secs(5);
/// How long a limit applies.
const COUNTS_FOR: Duration = Duration::from_secs(60 * 60);
/// Payloads of fewer bytes are never suspected: no broker refuses them for their size.
const LEAST: usize = 256;

/// The consequence of a lost connection for the message in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Nothing,
    /// Report it and publish it again.
    Report,
    /// Publish nothing of that size for [`COUNTS_FOR`]. `is_new`: report it.
    GiveUp {
        is_new: bool,
    },
}

/// What is known of one broker's limit. Sizes are of payloads, in bytes.
#[derive(Debug, Default)]
pub(super) struct BrokerLimit {
    /// The largest payload that was acknowledged.
    taken: Option<usize>,
    /// Kind of the message in flight at the last loss, number of such losses in a row, and its smallest size.
    suspect: Option<(PublishKind, u32, usize)>,
    /// The largest size to publish, and until when this limit applies.
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
        // A message at least as large was accepted, so the size is not the cause.
        let is_cleared = |(kind, _, suspected): (PublishKind, u32, usize)| kind == what || size >= suspected;
        if self.suspect.is_some_and(is_cleared) {
            self.suspect = None;
        }
    }

    /// Records a lost connection. `in_flight` is the message in flight: its kind, its payload size, and when it was sent.
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
        // The size of a status drifts: up to an eighth above an acknowledged size is not evidence of a limit.
        let is_larger = |taken: usize| smallest > taken.saturating_add(taken / 8);
        let is_it = times >= LOSSES && (times >= MANY_LOSSES || self.taken.is_none_or(is_larger));
        if !is_it {
            return Verdict::Nothing;
        }
        let is_new = !self.reported.contains(&what);
        if is_new {
            self.reported.push(what);
        }
        // A state is never given up, and before the first acknowledgement the size need not be the cause.
        if what == PublishKind::State || self.taken.is_none() {
            return if is_new { Verdict::Report } else { Verdict::Nothing };
        }
        // Acknowledgements of such sizes are from before the broker's limit was lowered.
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
