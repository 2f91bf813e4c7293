//! What was published so far, and whether a new status is needed. Times in ns on the monotonic scale.

use super::phase::{Phase, Reason};
use gcstreamer_schema::structures::UploadStatus;

/// The parts of a status that subscribers act on; a change of any of them is published at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Visible {
    pub phase: Phase,
    pub reason: Option<Reason>,
    pub upload: Option<UploadStatus>,
}

/// A status that is older than this is replaced by a fresh one when the broker is connected.
const MAX_AGE: u64 = 5_000_000_000;

/// The last status and when the bare state was last published.
#[derive(Clone, Debug)]
pub(super) struct Publication {
    /// `None` before the first status.
    last: Option<Visible>,
    state_at: u64,
    /// When the last status was written.
    status_at: u64,
    /// A status is due even if nothing has changed.
    is_forced: bool,
    /// A chunk was stored that no status has named yet.
    has_new_chunk: bool,
    /// Statuses so far.
    seq: u64,
}

impl Publication {
    /// Begins with nothing published.
    pub(super) fn new(now: u64) -> Self {
        Self {
            last: None,
            state_at: now,
            status_at: now,
            is_forced: false,
            has_new_chunk: false,
            seq: 0,
        }
    }

    /// Forces the next poll to publish.
    pub(super) fn force(&mut self) {
        self.is_forced = true;
    }

    /// Forces the next poll to publish if the last status is old.
    pub(super) fn refresh(&mut self, now: u64) {
        self.is_forced |= self.last.is_some() && now.saturating_sub(self.status_at) >= MAX_AGE;
    }

    /// Forgets what was published: the next status counts as the first.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// Records that a chunk was stored. Forces nothing: the next status names it, the final one at the latest.
    pub(super) fn note_chunk(&mut self) {
        self.has_new_chunk = true;
    }

    /// Returns whether nothing was published yet.
    pub(super) fn is_first(&self) -> bool {
        self.last.is_none()
    }

    /// Returns whether a status is due: forced, after a visible change, or as a heartbeat.
    pub(super) fn is_due(&self, visible: Visible, interval: u64, now: u64) -> bool {
        self.is_forced || self.last != Some(visible) || self.is_state_due(visible.phase, interval, now)
    }

    /// Returns whether the bare state goes with the status: it has changed, or its heartbeat is due.
    pub(super) fn is_state_due(&self, phase: Phase, interval: u64, now: u64) -> bool {
        let is_same = self.last.is_some_and(|last| last.phase.state() == phase.state());
        !is_same || now.saturating_sub(self.state_at) >= interval
    }

    /// Returns when the heartbeat is due; `None` before the first status.
    pub(super) fn heartbeat_at(&self, interval: u64) -> Option<u64> {
        self.last.map(|_| self.state_at.saturating_add(interval))
    }

    /// Returns whether a final status would contain nothing new.
    pub(super) fn is_complete(&self, visible: Visible) -> bool {
        self.last == Some(visible) && !self.has_new_chunk
    }

    /// Returns the number of the status being written.
    pub(super) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.has_new_chunk = false;
        self.seq
    }

    /// Records that a status was published.
    pub(super) fn published(&mut self, visible: Visible, with_state: bool, now: u64) {
        self.last = Some(visible);
        self.is_forced = false;
        self.status_at = now;
        if with_state {
            self.state_at = now;
        }
    }

    /// Records that the final status was published.
    pub(super) fn published_final(&mut self, visible: Visible) {
        self.last = Some(visible);
    }
}
