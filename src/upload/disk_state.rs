//! What is known of the spool's disk, and what is on its way to it.
//!
//! PURE: plain data, part of [`super::state::QueueState`]. Times are in ns on the sink's scale. `hang` decides what a disk in trouble means.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use super::chunk::{SpooledChunk, Summary};
use super::ops::Op;
use super::ticket::Ticket;

/// The side of the state that is about the spool.
pub(super) struct Disk {
    pub(super) mode: Mode,
    pub(super) phase: Phase,
    pub(super) health: DiskHealth,
    /// It does not answer.
    pub(super) hang: Option<Hang>,
    /// It last said that it is full, in a way that chunks of this sink can mend by leaving it. Stays until it says otherwise.
    pub(super) is_full: bool,
    /// What the spool writer has to do.
    pub(super) ops: VecDeque<Op>,
    /// Chunks that were dropped: their files are removed.
    pub(super) discards: Vec<Arc<dyn SpooledChunk>>,
    /// Stored or dropped from memory while they were being moved to disk.
    pub(super) confirms: Vec<Arc<dyn SpooledChunk>>,
    /// What the spool writer has in hand.
    pub(super) in_hand: InHand,
    /// Sessions that ended before are being looked through.
    pub(super) adopting: bool,
    /// This many chunks were reported to stay there for the next start.
    pub(super) left_told: u64,
}

/// Property `spool-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Every buffer as it comes.
    Always,
    /// Whole chunks when the memory is full.
    Overflow {
        /// The chunk being recorded is written to disk as it comes: nothing else was left to be moved.
        open_on_disk: bool,
    },
}

/// How near the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The stream goes on.
    Recording,
    /// All that is in memory is to be moved to disk.
    Ending,
    /// What did not reach the disk in time was dropped, for this reason.
    Abandoned(&'static str),
    /// The session is over: what is on disk stays there for the next start.
    Forgotten,
}

/// What the disk answered last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskHealth {
    /// It takes what it is given. `quiet_since`: when it last did not, if that was reported.
    Works {
        /// See the variant.
        quiet_since: Option<u64>,
    },
    /// It could not write, and nothing has changed since.
    Blocked {
        /// When it last could not, if that was reported.
        since: Option<u64>,
    },
    /// It is to be tried again though nothing has changed.
    Retry {
        /// As in `Blocked`.
        since: Option<u64>,
    },
}

/// A disk that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hang {
    /// When it is to be tried again.
    pub(super) retry_at: u64,
}

/// What the spool writer is doing.
#[derive(Debug, Default)]
pub(super) struct InHand {
    /// It is at work.
    pub(super) working: bool,
    /// Chunks on their way from memory to disk.
    pub(super) moving: HashSet<Ticket>,
    /// The one of them whose end is being written: whether it is in memory or on disk is not known yet.
    pub(super) finishing: Option<Ticket>,
    /// Bytes of memory that wait to be written with what it has taken.
    pub(super) taken: u64,
    /// Chunks that end with what it has taken, by sequence number.
    pub(super) ends: BTreeMap<u64, Summary>,
}

impl Phase {
    /// Nothing may stay in memory alone.
    pub(super) fn is_ending(self) -> bool {
        self != Self::Recording
    }

    /// The end begins, unless it has.
    pub(super) fn end(&mut self) {
        if *self == Self::Recording {
            *self = Self::Ending;
        }
    }

    /// Why chunks were dropped at the end.
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

    /// When it last could not write, if that was reported.
    pub(super) fn trouble_at(self) -> Option<u64> {
        match self {
            Self::Works { quiet_since: at } | Self::Blocked { since: at } | Self::Retry { since: at } => at,
        }
    }

    /// Something has changed: it may take more now.
    pub(super) fn unblock(&mut self) {
        if let Self::Blocked { since } = *self {
            *self = Self::Works { quiet_since: since };
        }
    }

    /// It takes nothing.
    pub(super) fn block(&mut self) {
        *self = Self::Blocked {
            since: self.trouble_at(),
        };
    }

    /// It is tried again though nothing has changed.
    pub(super) fn retry(&mut self) {
        *self = Self::Retry {
            since: self.trouble_at(),
        };
    }

    /// Whether it was to be tried again.
    pub(super) fn take_retry(&mut self) -> bool {
        let is_retry = matches!(self, Self::Retry { .. });
        if let Self::Retry { since } = *self {
            *self = Self::Works { quiet_since: since };
        }
        is_retry
    }
}

impl Disk {
    /// Nothing is on disk yet, and earlier sessions are looked through first.
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
            // Until it is known what earlier sessions left, nothing counts as drained.
            adopting: true,
            left_told: 0,
        }
    }

    /// Whether it takes nothing, as far as is known.
    pub(super) fn is_blocked(&self) -> bool {
        self.hang.is_some() || self.health.is_blocked()
    }

    /// Whether a chunk that leaves it makes room for others: it is full, and neither fails nor hangs.
    pub(super) fn drops_make_room(&self) -> bool {
        self.is_full && self.hang.is_none()
    }

    /// Whether a chunk that has ended is in the writer's hands: it comes back to memory where the disk does not take it.
    pub(super) fn has_ends(&self) -> bool {
        !self.in_hand.ends.is_empty() || self.ops.iter().any(|op| matches!(op, Op::End(_)))
    }

    /// Whether it has refused, and has not taken anything since: an attempt that is due has not begun.
    pub(super) fn is_refusing(&self) -> bool {
        self.is_blocked() || matches!(self.health, DiskHealth::Retry { .. })
    }

    pub(super) fn is_open_on_disk(&self) -> bool {
        self.mode == Mode::Overflow { open_on_disk: true }
    }

    /// Whether something of this session is on its way to or from the disk.
    pub(super) fn is_writing(&self) -> bool {
        let leaving = !self.discards.is_empty() || !self.confirms.is_empty();
        self.in_hand.working || !self.ops.is_empty() || leaving || !self.in_hand.moving.is_empty()
    }

    /// The same, or chunks of earlier sessions are still being looked for.
    pub(super) fn is_busy(&self) -> bool {
        self.adopting || self.is_writing()
    }
}
