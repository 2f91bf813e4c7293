//! Checks that our publishes reach subscribers: our own availability must come back. PURE: time is an argument.
//!
//! A broker also acknowledges a publish that its access rules drop, so a PUBACK is no proof.

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
}

impl Echo {
    /// Restarts the check for a new connection.
    pub(super) fn connected(&mut self) {
        (self.told_at, self.granted_at, self.is_heard) = (None, None, false);
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

    /// Returns when a missing echo must be reported; `None` if nothing is expected.
    pub(super) fn due_at(&self) -> Option<Duration> {
        if self.is_heard || self.is_reported {
            return None;
        }
        Some(self.told_at?.max(self.granted_at?).saturating_add(WAIT))
    }

    /// Returns the text to report: once, until the next echo.
    pub(super) fn silence(&mut self, now: Duration, topic: &str) -> Option<String> {
        self.due_at().filter(|at| now >= *at)?;
        self.is_reported = true;
        Some(format!(
            "the broker acknowledged \"online\" on {topic} and has not delivered it within {} s: its access rules drop what this client \
             publishes, or do not let it read there, and subscribers may see nothing of this device; allow this client to write and \
             read everything below its topic-prefix",
            WAIT.as_secs()
        ))
    }
}
