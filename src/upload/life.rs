//! The life of a chunk, step by step, for whoever wants to watch it: the element logs it, tests count it.

use std::fmt;
use std::sync::Arc;

use gcstreamer_schema::units;

/// One step of one chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LifeEvent {
    /// The session that recorded it.
    pub session: Arc<str>,
    /// Sequence number in that session.
    pub sequence: u64,
    /// What has happened.
    pub step: Step,
}

/// What happens to a chunk, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It begins.
    Cut,
    /// It is complete: this many bytes.
    Closed(u64),
    /// It waits to be sent.
    Queued,
    /// Its bytes are on disk, durable.
    Spooled,
    /// It is sent, for the `n`th time.
    Attempt(u32),
    /// It was not stored, for this reason, and is tried again.
    Retry(String),
    /// The server has confirmed it, under this name.
    Stored(String),
    /// It is given up, for this reason.
    Dropped(&'static str),
}

/// Receives every step, from any thread and without a lock held.
pub trait Observer: Send + Sync {
    /// A step was taken.
    fn observe(&self, event: &LifeEvent);
}

/// Nobody watches.
impl Observer for () {
    fn observe(&self, _event: &LifeEvent) {}
}

impl fmt::Display for LifeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk {} of session {} ", self.sequence, self.session)?;
        match &self.step {
            Step::Cut => write!(f, "begins"),
            Step::Closed(bytes) => write!(f, "is closed with {}", units::bytes(*bytes)),
            Step::Queued => write!(f, "is queued"),
            Step::Spooled => write!(f, "is on disk"),
            Step::Attempt(n) => write!(f, "is sent, attempt {n}"),
            Step::Retry(reason) => write!(f, "is tried again: {reason}"),
            Step::Stored(object) => write!(f, "is stored as {object}"),
            Step::Dropped(reason) => write!(f, "is dropped: {reason}"),
        }
    }
}
