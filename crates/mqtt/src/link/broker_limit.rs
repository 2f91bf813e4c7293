//! Finds out that the broker takes no packet of some size. PURE: time is an argument.
//!
//! MQTT 3.1.1 has no word for "too large": the broker closes the connection (mosquitto's `max_packet_size`), and as every connection
//! publishes the same again, it would close all of them. A message in flight at [`LOSSES`] ends in a row, each soon after it was sent,
//! is taken for the cause if this broker has acknowledged a smaller one. The limit found is forgotten after a while: it was a guess.

use std::time::Duration;

use super::publish_queue::PublishKind;

/// Ends of the connection in a row with the same kind of message in flight.
const LOSSES: u32 = 3;
/// A connection that ends later than this after the message went out was not ended by it.
const SOON: Duration = Duration::from_secs(5);
/// How long a limit counts.
const COUNTS_FOR: Duration = Duration::from_secs(60 * 60);

/// What is known of one broker's limit. Sizes are of payloads, in bytes.
#[derive(Debug, Default)]
pub(super) struct BrokerLimit {
    /// The smallest payload that was acknowledged.
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
        self.taken = Some(self.taken.map_or(size, |taken| taken.min(size)));
        if self
            .suspect
            .is_some_and(|(kind, _, suspected)| kind == what || size >= suspected)
        {
            self.suspect = None;
        }
    }

    /// Takes the end of the connection, and what was in flight: its kind, its size, and since when. Returns whether this size is now
    /// over the limit, and whether to report it.
    pub(super) fn lost(&mut self, now: Duration, in_flight: Option<(PublishKind, usize, Duration)>) -> (bool, bool) {
        let meant = in_flight
            .filter(|(_, size, since)| self.taken.is_some_and(|taken| taken < *size) && now.saturating_sub(*since) < SOON);
        let Some((what, size, _)) = meant else {
            self.suspect = None;
            return (false, false);
        };
        let (times, smallest) = match self.suspect {
            Some((kind, times, smallest)) if kind == what => (times.saturating_add(1), smallest.min(size)),
            _ => (1, size),
        };
        self.suspect = Some((what, times, smallest));
        if times < LOSSES {
            return (false, false);
        }
        self.suspect = None;
        self.limit = Some((smallest.saturating_sub(1), now.saturating_add(COUNTS_FOR)));
        let is_new = !self.reported.contains(&what);
        if is_new {
            self.reported.push(what);
        }
        (true, is_new)
    }

    /// Returns the text to report.
    pub(super) fn text(what: &str, topic: &str, size: usize) -> String {
        format!(
            "the broker ended the connection {LOSSES} times right after the {what} of {size} bytes on {topic}, and takes smaller messages: \
             nothing of that size is published for an hour; raise the broker's limit (mosquitto: max_packet_size)"
        )
    }
}
