//! The state of the spool's disk, and what is on its way to it.
//!
//! PURE: plain data, part of [`super::state::QueueState`]. Times are in ns on the sink's scale. `hang` decides what happens when
//! the disk is in trouble.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use super::chunk::{SpooledChunk, Summary};
use super::ops::Op;
use super::ticket::Ticket;

/// The part of the queue's state that concerns the spool.
pub(super) struct DiskState {
    pub(super) mode: Mode,
    pub(super) phase: Phase,
    pub(super) health: DiskHealth,
    /// Set while it does not answer.
    pub(super) hang: Option<Hang>,
    /// Its last error was that it is full, in a way that removing chunks of this sink can resolve. Stays set until another
    /// answer.
    pub(super) is_full: bool,
    /// Operations for the spool writer.
    pub(super) ops: VecDeque<Op>,
    /// Dropped chunks whose files are to be removed.
    pub(super) discards: Vec<Arc<dyn SpooledChunk>>,
    /// Stored chunks whose files are to be marked as confirmed and removed.
    pub(super) confirms: Vec<Arc<dyn SpooledChunk>>,
    /// What the spool writer has taken and not finished.
    pub(super) in_hand: InHand,
    /// Earlier sessions are still being looked through.
    pub(super) adopting: bool,
    /// Number of chunks last reported as left on disk for the next start.
    pub(super) left_reported: u64,
}

/// Property `spool-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Every buffer as it arrives.
    Always,
    /// Whole chunks when the memory is full.
    Overflow {
        /// The open chunk is written to disk as it is recorded: no other chunk was left to move.
        open_on_disk: bool,
    },
}

/// How far the session is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The stream continues.
    Recording,
    /// Everything in memory is to be moved to disk.
    Ending,
    /// What did not reach the disk before the deadline was dropped, for this reason.
    Abandoned(&'static str),
    /// The session is over: chunks on disk stay there for the next start.
    Forgotten,
}

/// The last answer of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskHealth {
    /// It accepts writes. `quiet_since`: when it last refused, if that was reported.
    Works {
        /// See the variant.
        quiet_since: Option<u64>,
    },
    /// It refused, and nothing has changed since.
    Blocked {
        /// When it last refused, if that was reported.
        since: Option<u64>,
    },
    /// It is to be tried again although nothing has changed.
    Retry {
        /// As in `Blocked`.
        since: Option<u64>,
    },
}

/// A disk that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hang {
    /// When the next probe is due.
    pub(super) retry_at: u64,
}

/// What the spool writer has taken and not finished.
#[derive(Debug, Default)]
pub(super) struct InHand {
    /// It is at work.
    pub(super) working: bool,
    /// Chunks that are being moved from memory to disk.
    pub(super) moving: HashSet<Ticket>,
    /// The one of them whose End is being written: until that returns it may be in memory or on disk.
    pub(super) finishing: Option<Ticket>,
    /// Bytes of memory charged for the operations that it has taken and not yet written.
    pub(super) taken: u64,
    /// Chunks that end in the operations that it has taken, by sequence number.
    pub(super) ends: BTreeMap<u64, Summary>,
}

impl Phase {
    /// Whether everything in memory has to go to disk.
    pub(super) fn is_ending(self) -> bool {
        self != Self::Recording
    }

    /// Begins the end, unless it has begun.
    pub(super) fn end(&mut self) {
        if *self == Self::Recording {
            *self = Self::Ending;
        }
    }

    /// Returns why chunks were dropped at the end, if they were.
    pub(super) fn abandoned(self) -> Option<&'static str> {
        match self {
            Self::Abandoned(reason) => Some(reason),
            _ => None,
        }
    }
}

impl DiskHealth {
    pub(super) fn is_blocked(self) -> bool {
        matches!(self, Self::Blocked { .. })
    }

    /// Returns when it last refused, if that was reported.
    pub(super) fn trouble_at(self) -> Option<u64> {
        match self {
            Self::Works { quiet_since: at } | Self::Blocked { since: at } | Self::Retry { since: at } => at,
        }
    }

    /// Notes a change that may have made room.
    pub(super) fn unblock(&mut self) {
        if let Self::Blocked { since } = *self {
            *self = Self::Works { quiet_since: since };
        }
    }

    /// Notes that it refused.
    pub(super) fn block(&mut self) {
        *self = Self::Blocked {
            since: self.trouble_at(),
        };
    }

    /// Has it tried again although nothing has changed.
    pub(super) fn retry(&mut self) {
        *self = Self::Retry {
            since: self.trouble_at(),
        };
    }

    /// Returns whether a retry was due, and clears that.
    pub(super) fn take_retry(&mut self) -> bool {
        let is_retry = matches!(self, Self::Retry { .. });
        if let Self::Retry { since } = *self {
            *self = Self::Works { quiet_since: since };
        }
        is_retry
    }
}

impl DiskState {
    /// Creates the state of an unused disk; earlier sessions are looked through first.
    pub(super) fn new(mode: Mode) -> Self {
        Self {
            mode,
            phase: Phase::Recording,
            health: DiskHealth::Works { quiet_since: None },
            hang: None,
            is_full: false,
            ops: VecDeque::new(),
            discards: Vec::new(),
            confirms: Vec::new(),
            in_hand: InHand::default(),
            // Until the leftovers of earlier sessions are known, nothing counts as drained.
            adopting: true,
            left_reported: 0,
        }
    }

    /// Whether it accepts nothing, as far as is known.
    pub(super) fn is_blocked(&self) -> bool {
        self.hang.is_some() || self.health.is_blocked()
    }

    /// Whether removing a chunk from it makes room for others: it is full, and neither fails nor hangs.
    pub(super) fn drops_make_room(&self) -> bool {
        self.is_full && self.hang.is_none()
    }

    /// Whether the writer has an ended chunk, taken or queued. Such a chunk returns to memory if the disk refuses it.
    pub(super) fn has_ends(&self) -> bool {
        !self.in_hand.ends.is_empty() || self.ops.iter().any(|op| matches!(op, Op::End(_)))
    }

    /// Whether it has refused and no new try has begun since.
    pub(super) fn is_refusing(&self) -> bool {
        self.is_blocked() || matches!(self.health, DiskHealth::Retry { .. })
    }

    pub(super) fn is_open_on_disk(&self) -> bool {
        self.mode == Mode::Overflow { open_on_disk: true }
    }

    /// Whether something of this session is being written to the disk or removed from it.
    pub(super) fn is_writing(&self) -> bool {
        let leaving = !self.discards.is_empty() || !self.confirms.is_empty();
        self.in_hand.working || !self.ops.is_empty() || leaving || !self.in_hand.moving.is_empty()
    }

    /// Like [`Self::is_writing`], or earlier sessions are still being looked through.
    pub(super) fn is_busy(&self) -> bool {
        self.adopting || self.is_writing()
    }
}
