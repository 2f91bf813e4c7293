//! The records of a waiting chunk and of the link to a destination, with the queries that one record can answer.
//!
//! PURE.

use super::index::{Index, Order};
use super::link_key::LinkKey;
use crate::upload::ticket::Ticket;

/// What the scheduler knows of a chunk.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) link_key: LinkKey,
    pub(super) queued_at: u64,
    pub(super) not_before: u64,
    pub(super) in_flight: bool,
    pub(super) attempts: u32,
    /// Number of its last attempt, counted over all attempts of the scheduler.
    pub(super) started: u64,
    /// Set if its last attempt failed: the number of successes of its link at that time.
    pub(super) failed: Option<u64>,
    /// How often it failed again although its link had successes in between.
    pub(super) strikes: u32,
    /// Its last attempt was refused for good.
    pub(super) refused: bool,
}

impl Waiting {
    /// Returns the values that determine its place in the index.
    pub(super) fn order(&self) -> Order {
        Order {
            in_flight: self.in_flight,
            refused: self.refused,
            not_before: self.not_before,
            started: self.started,
        }
    }
}

/// The state of the link to a destination.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) concurrency: usize,
    /// Successes since the concurrency last changed.
    pub(super) round: usize,
    pub(super) in_flight: usize,
    /// The newest chunk ever sent: older ones are backlog. `None` until one was sent.
    pub(super) newest_sent: Option<Ticket>,
    /// Consecutive failures of the link or the server.
    pub(super) failures: u32,
    /// Nothing is sent before this time, ns.
    pub(super) not_before: u64,
    /// Chunks stored so far.
    pub(super) successes: u64,
    /// A chunk was refused, and none has been stored since.
    pub(super) refusing: bool,
    /// When a refused chunk may be tried again, ns.
    pub(super) probe_at: u64,
    pub(super) index: Index,
}

impl Link {
    pub(super) fn new(concurrency: usize) -> Self {
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

    /// Returns how many uploads may be in flight.
    pub(super) fn limit(&self) -> usize {
        // One attempt is enough to learn whether the link works again.
        if self.failures > 0 { 1 } else { self.concurrency }
    }

    /// Whether the last attempts failed or were refused.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.failures > 0 || self.refusing
    }

    /// Whether a refused chunk may be tried.
    pub(super) fn may_probe(&self, now: u64) -> bool {
        !self.refusing || self.probe_at <= now
    }

    /// Returns when the first of its chunks that is not in flight may be sent.
    pub(super) fn due(&self) -> Option<u64> {
        let [plain, refused] = self.index.due();
        let probe = if self.refusing { self.probe_at } else { 0 };
        let due = plain.into_iter().chain(refused.map(|at| at.max(probe))).min()?;
        Some(due.max(self.not_before))
    }
}
