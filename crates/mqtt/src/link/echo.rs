//! Checks that our publishes reach subscribers: our own availability, state and status must come back. PURE: time is an argument.
//!
//! A PUBACK proves nothing: a broker also acknowledges a publish that its access rules drop. A retained `online` proves nothing
//! either: it may be from an earlier connection, before the rules changed. A retained status of this connection does, because no
//! two statuses are equal. Without one, `online` is published a second time after half of [`WAIT`]: the broker forwards that copy
//! to existing subscriptions without the retain flag.

use std::time::Duration;

use super::publish_queue::PublishKind;

/// How long our own messages may take to come back.
const WAIT: Duration = Duration::from_secs(30);

/// What has to come back.
const ALL: [PublishKind; 3] = [PublishKind::Availability, PublishKind::State, PublishKind::Status];

/// The check of one link.
#[derive(Debug, Default)]
pub(super) struct Echo {
    /// When `online` was acknowledged on this connection: after its state, and its status if there is one.
    reported_at: Option<Duration>,
    /// A status was published before that.
    has_status: bool,
    /// When the subscriptions were granted on this connection, and which.
    granted_at: Option<Duration>,
    granted: Vec<PublishKind>,
    /// What came back on this connection.
    returned: Vec<PublishKind>,
    is_reported: bool,
    /// A retained `online` has arrived.
    is_kept: bool,
    /// A status has arrived that no earlier connection published.
    is_fresh: bool,
    /// `online` was published a second time on this connection.
    is_repeated: bool,
}

impl Echo {
    /// Restarts the check for a new connection.
    pub(super) fn connected(&mut self) {
        let is_reported = self.is_reported;
        *self = Self {
            is_reported,
            ..Self::default()
        };
    }

    /// Records the acknowledgement of `online`, and whether a status was published before it.
    pub(super) fn on_published(&mut self, now: Duration, has_status: bool) {
        if self.reported_at.is_none() {
            (self.reported_at, self.has_status) = (Some(now), has_status);
        }
    }

    pub(super) fn granted(&mut self, now: Duration, own: PublishKind) {
        self.granted_at = Some(now);
        self.granted.push(own);
    }

    /// Records that a publish of this connection has come back. A retained `online` goes to [`Self::kept`] instead.
    pub(super) fn on_echo(&mut self, own: PublishKind) {
        if !self.returned.contains(&own) {
            self.returned.push(own);
        }
        self.forget_report();
    }

    /// Records a status that no earlier connection published.
    pub(super) fn fresh(&mut self) {
        self.is_fresh = true;
        self.forget_report();
    }

    /// Records a retained `online`, which may be from an earlier connection.
    pub(super) fn kept(&mut self) {
        self.is_kept = true;
        self.forget_report();
    }

    /// Allows another report once everything has come back.
    fn forget_report(&mut self) {
        if self.reported_at.is_some() && self.missing().next().is_none() {
            self.is_reported = false;
        }
    }

    /// Returns whether to publish `online` a second time. `true` at most once per connection.
    pub(super) fn repeats(&mut self, now: Duration) -> bool {
        let is_due = self.repeat_at().is_some_and(|at| now >= at);
        self.is_repeated |= is_due;
        is_due
    }

    fn repeat_at(&self) -> Option<Duration> {
        let is_wanted = self.is_kept && !self.is_repeated && self.missing().any(|own| own == PublishKind::Availability);
        let at = self.missing_at().filter(|_| is_wanted)?;
        Some(at.saturating_sub(WAIT / 2))
    }

    /// Returns when [`Self::repeats`] or [`Self::silence`] has something to do; `None` if nothing is expected.
    pub(super) fn due_at(&self) -> Option<Duration> {
        self.repeat_at().or_else(|| self.missing_at())
    }

    /// Returns what was published and has not come back.
    fn missing(&self) -> impl Iterator<Item = PublishKind> {
        ALL.into_iter().filter(|own| {
            let is_here = match own {
                PublishKind::Availability => self.is_kept && self.is_fresh,
                PublishKind::State => false,
                PublishKind::Status => !self.has_status,
                PublishKind::Discovery | PublishKind::Telemetry => true,
            };
            self.granted.contains(own) && !is_here && !self.returned.contains(own)
        })
    }

    /// Returns when a missing echo must be reported; `None` if nothing is expected.
    fn missing_at(&self) -> Option<Duration> {
        if self.is_reported || self.missing().next().is_none() {
            return None;
        }
        Some(self.reported_at?.max(self.granted_at?).saturating_add(WAIT))
    }

    /// Returns the text to report if echoes are missing after [`WAIT`], then `None` until everything has come back. `topic`
    /// returns the topic of each kind.
    pub(super) fn silence(&mut self, now: Duration, topic: impl Fn(PublishKind) -> Option<String>) -> Option<String> {
        self.missing_at().filter(|at| now >= *at)?;
        self.is_reported = true;
        let topics: Vec<String> = self.missing().filter_map(topic).collect();
        Some(format!(
            "the broker acknowledged what was published on {} and has not delivered it within {} s: its access rules drop what this \
             client publishes, or do not let it read there, and subscribers may see nothing of this device; allow this client to write \
             and read everything below its topic-prefix",
            topics.join(", "),
            WAIT.as_secs()
        ))
    }
}
