//! Checks that our publishes reach subscribers: our own availability must come back. PURE: time is an argument.
//!
//! A broker also acknowledges a publish that its access rules drop, so a PUBACK is no proof. Neither is a retained `online`: it may be of
//! an earlier connection, before the rules changed. A retained status of this connection is one, as no two are alike; without it `online`
//! is published again after half of the time, for a copy that is not retained.

use std::time::Duration;

/// How long our own `online` may take to come back.
const WAIT: Duration = Duration::from_secs(30);

/// The check of one link.
#[derive(Debug, Default)]
pub(super) struct Echo {
    /// When `online` was acknowledged on this connection.
    told_at: Option<Duration>,
    /// When the subscription to the availability was granted on this connection.
    granted_at: Option<Duration>,
    is_heard: bool,
    is_reported: bool,
    /// A retained `online` came.
    is_kept: bool,
    /// `online` was published a second time on this connection.
    is_repeated: bool,
}

impl Echo {
    /// Restarts the check for a new connection.
    pub(super) fn connected(&mut self) {
        (self.told_at, self.granted_at) = (None, None);
        (self.is_heard, self.is_kept, self.is_repeated) = (false, false, false);
    }

    pub(super) fn told(&mut self, now: Duration) {
        self.told_at.get_or_insert(now);
    }

    pub(super) fn granted(&mut self, now: Duration) {
        self.granted_at.get_or_insert(now);
    }

    pub(super) fn heard(&mut self) {
        (self.is_heard, self.is_reported) = (true, false);
    }

    /// Takes a retained `online`.
    pub(super) fn kept(&mut self) {
        self.is_kept = true;
    }

    /// Returns whether to publish `online` again: once a connection.
    pub(super) fn repeats(&mut self, now: Duration) -> bool {
        let is_due = self.repeat_at().is_some_and(|at| now >= at);
        self.is_repeated |= is_due;
        is_due
    }

    fn repeat_at(&self) -> Option<Duration> {
        let at = self.missing_at().filter(|_| self.is_kept && !self.is_repeated)?;
        Some(at.saturating_sub(WAIT / 2))
    }

    /// Returns when [`Self::repeats`] or [`Self::silence`] has something to do; `None` if nothing is expected.
    pub(super) fn due_at(&self) -> Option<Duration> {
        self.repeat_at().or_else(|| self.missing_at())
    }

    /// Returns when a missing echo must be reported; `None` if nothing is expected.
    fn missing_at(&self) -> Option<Duration> {
        if self.is_heard || self.is_reported {
            return None;
        }
        Some(self.told_at?.max(self.granted_at?).saturating_add(WAIT))
    }

    /// Returns the text to report: once, until the next echo.
    pub(super) fn silence(&mut self, now: Duration, topic: &str) -> Option<String> {
        self.missing_at().filter(|at| now >= *at)?;
        self.is_reported = true;
        Some(format!(
            "the broker acknowledged \"online\" on {topic} and has not delivered it within {} s: its access rules drop what this client \
             publishes, or do not let it read there, and subscribers may see nothing of this device; allow this client to write and \
             read everything below its topic-prefix",
            WAIT.as_secs()
        ))
    }
}
