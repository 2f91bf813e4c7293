//! The steps in the life of a chunk, for observers: the element logs them, tests count them.

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

/// A step of a chunk. The first is `Cut` or `Found`; the last is `Stored` or `Dropped`, unless it waits on disk for the next
/// start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It begins.
    Cut,
    /// An earlier session left it in the spool.
    Found,
    /// It is complete, with this many bytes.
    Closed(u64),
    /// It waits to be sent.
    Queued,
    /// Its bytes are on disk, durably.
    Spooled,
    /// It is sent, for the `n`th time.
    Attempt(u32),
    /// The attempt was aborted for a reason of our own; it counts neither as a failure nor as a success.
    Recalled(Recall),
    /// It was not stored, for this reason, and is tried again.
    Retry(String),
    /// The server has confirmed it under this name.
    Stored(String),
    /// It is dropped, for this reason.
    Dropped(&'static str),
}

/// Steps that the observer has not received yet.
///
/// Steps happen on several threads, and each of these may pass them on. Only one thread does so at a time, without a lock held.
/// So the observer receives the steps in the order in which they happened, and may block.
#[derive(Debug, Default)]
pub(super) struct Unobserved {
    events: Vec<LifeEvent>,
    /// A thread is passing events on; it also takes those that are added meanwhile.
    is_handing_over: bool,
}

impl Unobserved {
    pub(super) fn push(&mut self, event: LifeEvent) {
        self.events.push(event);
    }

    /// Takes the events that the caller must pass on; then it calls [`Self::end`] and begins again. `None`: there are none, or
    /// another thread is passing them on.
    pub(super) fn begin(&mut self) -> Option<Vec<LifeEvent>> {
        if self.is_handing_over || self.events.is_empty() {
            return None;
        }
        self.is_handing_over = true;
        Some(std::mem::take(&mut self.events))
    }

    pub(super) fn end(&mut self) {
        self.is_handing_over = false;
    }
}

/// Why an attempt was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recall {
    /// Another chunk takes precedence.
    MakesWay,
    /// The server has asked for a pause (`Retry-After`).
    Held,
    /// A buffer needs its memory: it is sent from disk instead.
    FromDisk,
}

/// Receives every step, from any thread and without a lock held.
pub trait Observer: Send + Sync {
    /// A step was taken.
    fn observe(&self, event: &LifeEvent);
}

/// Observes nothing.
impl Observer for () {
    fn observe(&self, _event: &LifeEvent) {}
}

impl fmt::Display for LifeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk {} of session {} ", self.sequence, self.session)?;
        match &self.step {
            Step::Cut => write!(f, "is cut: it begins"),
            Step::Found => write!(f, "was found in the spool"),
            Step::Closed(bytes) => write!(f, "is closed with {}", units::bytes(*bytes)),
            Step::Queued => write!(f, "is queued"),
            Step::Spooled => write!(f, "is spooled: it is on disk"),
            Step::Attempt(n) => write!(f, "is sent, attempt {n}"),
            Step::Recalled(reason) => write!(f, "is not sent after all: {reason}"),
            Step::Retry(reason) => write!(f, "is to be retried: {reason}"),
            Step::Stored(object) => write!(f, "is stored as {object}"),
            Step::Dropped(reason) => write!(f, "is dropped: {reason}"),
        }
    }
}

impl fmt::Display for Recall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MakesWay => "another chunk goes before it",
            Self::Held => "the server has asked for a pause (Retry-After)",
            Self::FromDisk => "its memory is wanted, it is sent from disk",
        })
    }
}
