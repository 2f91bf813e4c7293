//! Where a chunk ends and the next begins.
//!
//! PURE.

use super::ending::ClosedAt;
use super::open::{FirstUnit, OpenChunk};
use super::start::Waiting;
use super::{ChunkState, Chunker, elapsed};
use crate::chunk::clock::Stamp;
use crate::chunk::{Event, GapReason, Warning};
use crate::container::{Init, Unit};

/// A key unit more than this before the first time of the chunk is on another time line: 1 s. A smaller difference is decoding
/// order, in which B-frames follow pictures that are shown after them.
const BACKWARDS: u64 = 1_000_000_000;

/// Why a chunk begins at a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// A limit is reached, and the unit is a key unit.
    Key,
    /// The hard memory limit is reached.
    Early,
    /// No key unit came for [`crate::chunk::Limits::patience`].
    NoKey,
    /// The decoder configuration changes here.
    CodecConfig,
}

/// Duration of the open chunk if it ended at the current unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Elapsed {
    /// In ns.
    For(u64),
    /// The unit is a key unit on another time line: it has no duration on this one.
    Backwards,
}

impl Elapsed {
    fn reaches(self, limit: u64, resolution: u64) -> bool {
        match self {
            // Two times that should be a limit apart can be one tick less after rounding.
            Self::For(ns) => ns.saturating_add(resolution) >= limit,
            Self::Backwards => true,
        }
    }
}

impl Chunker {
    /// Decides whether a chunk begins at this unit, and with which header.
    pub(super) fn decide(&mut self, at: u64, unit: &Unit, stamp: &Stamp, events: &mut Vec<Event>) -> Option<(Cut, Init)> {
        let ChunkState::Open(open) = &self.state else { return None };
        // Without a header no chunk can begin here, as within a Matroska Cluster of known size.
        let init = unit.init.as_ref()?;
        if self.limits.single {
            return None;
        }
        if unit.new_codec_config {
            // Without a picture yet the open chunk takes the new configuration in its payload.
            return open.first.is_some().then(|| (Cut::CodecConfig, init.clone()));
        }
        let first = open.first?;
        // A cut here would leave a chunk of no bytes.
        if at == open.at {
            return None;
        }
        let bytes = open.bytes_up_to(at);
        let elapsed = elapsed_to(open, &first, unit, stamp);
        if elapsed == Elapsed::Backwards {
            // Date by arrival again: counted from the old times, the next chunk would start before this one.
            self.clock.restart_media_time();
        }
        let span = if let Elapsed::For(ns) = elapsed { ns } else { 0 };
        let is_overdue = self.is_overdue(stamp, span, unit.key.is_key());
        let elapsed = if is_overdue {
            Elapsed::For(span.max(self.limits.patience()))
        } else {
            elapsed
        };
        let is_due = is_overdue || self.is_due(at, &first, elapsed, bytes, unit, stamp);
        let cut = if unit.key.is_key() {
            self.decide_at_key(is_due, bytes, events)
        } else {
            self.decide_without_key(is_due, elapsed, bytes, events)
        };
        cut.map(|cut| (cut, init.clone()))
    }

    /// Returns whether a cut was requested or a limit of the user is reached: bytes, duration, or the next clock boundary.
    fn is_due(&mut self, at: u64, first: &FirstUnit, elapsed: Elapsed, bytes: u64, unit: &Unit, stamp: &Stamp) -> bool {
        let limits = self.limits;
        let resolution = self.input.resolution();
        if self.next.cut_from.is_some_and(|offset| at >= offset)
            || elapsed == Elapsed::Backwards
            || (limits.max_bytes > 0 && bytes >= limits.max_bytes)
        {
            return true;
        }
        // A time that may be wrong is no reason to cut: the next key unit decides.
        if limits.max_time == 0 || self.is_doubtful {
            return false;
        }
        if !limits.align {
            return elapsed.reaches(limits.max_time, resolution);
        }
        // A clock slewed by less than 250 ms a cut (`CaptureClock::compare`) can date the start of a chunk shortly before its
        // boundary: it still belongs to that boundary.
        let tolerance = (limits.max_time / 8).min(250_000_000);
        let boundary = (first.utc.saturating_add(tolerance) / limits.max_time + 1).saturating_mul(limits.max_time);
        self.clock.utc(stamp, unit.pts).0.saturating_add(resolution) >= boundary
    }

    /// Decides at a key unit: a due cut is made, and one at the soft memory limit.
    fn decide_at_key(&mut self, is_due: bool, bytes: u64, events: &mut Vec<Event>) -> Option<Cut> {
        let is_over_soft_limit = self.is_over_soft_limit(bytes);
        if is_over_soft_limit && !is_due {
            self.warn(Warning::EarlyCut { bytes, at_key: true }, events);
        }
        (is_due || is_over_soft_limit).then_some(Cut::Key)
    }

    /// Decides at any other unit: asks upstream for a key unit once a cut is due, and cuts without one only at the hard memory
    /// limit or after [`crate::chunk::Limits::patience`].
    fn decide_without_key(&mut self, is_due: bool, elapsed: Elapsed, bytes: u64, events: &mut Vec<Event>) -> Option<Cut> {
        let limits = self.limits;
        let is_wanted = is_due || self.is_over_soft_limit(bytes);
        // One request per chunk: an encoder answers each one with another key unit.
        if let ChunkState::Open(open) = &mut self.state
            && is_wanted
            && !open.asked_for_key
        {
            open.asked_for_key = true;
            events.push(Event::WantKeyUnit);
        }
        if limits.hard > 0 && bytes >= limits.hard {
            self.warn(Warning::EarlyCut { bytes, at_key: false }, events);
            return Some(Cut::Early);
        }
        match elapsed {
            Elapsed::For(waited) if limits.max_time > 0 && waited >= limits.patience() && !self.is_doubtful => {
                let interval = self.keys.longest_interval;
                self.warn_no_key_unit(waited, interval, events);
                Some(Cut::NoKey)
            }
            _ => None,
        }
    }

    fn is_over_soft_limit(&self, bytes: u64) -> bool {
        self.limits.soft > 0 && bytes >= self.limits.soft
    }

    /// Ends the open chunk at `at` and begins the next there.
    pub(super) fn cut(&mut self, cut: Cut, at: u64, init: Init, stamp: Stamp, events: &mut Vec<Event>) {
        self.close(at, events);
        if cut == Cut::CodecConfig {
            // By running time if known: a file arrives all at once, so that all its changes would seem to fall into one second.
            let now = stamp
                .running
                .and_then(|running| u64::try_from(running).ok())
                .unwrap_or(stamp.wall);
            if let Some(cuts) = self.config_cuts.cut(now) {
                self.warn(Warning::ConfigCuts(cuts), events);
            }
        }
        if cut == Cut::Early {
            self.next.gap = self.next.gap.or(Some(GapReason::EarlyCut));
        }
        self.begin(at, init, stamp, events);
        if let (ChunkState::Open(open), Cut::Early | Cut::NoKey) = (&mut self.state, cut) {
            open.any_track = true;
        }
    }

    /// Ends the open chunk at `at`. It is reported with the first picture of the next one, which determines its duration.
    pub(super) fn close(&mut self, at: u64, events: &mut Vec<Event>) {
        self.hand_over(at, false, events);
        let idle = ChunkState::Idle(ClosedAt::LastByte);
        if let ChunkState::Open(open) = std::mem::replace(&mut self.state, idle) {
            // Only one closed chunk waits for its duration: report the previous one now.
            self.finish_closing(None, events);
            self.closing.chunk = Some((open, at));
        }
    }

    /// Begins a chunk whose payload starts at `at`.
    pub(super) fn begin(&mut self, at: u64, init: Init, stamp: Stamp, events: &mut Vec<Event>) {
        let sequence = self.sequence.next;
        self.sequence.next += 1;
        // A cut requested for a later offset is still due.
        self.next.cut_from = self.next.cut_from.filter(|&offset| offset > at);
        // A step of the clock is reported between two chunks, so the first chunk has none.
        let step = if sequence == self.sequence.first {
            None
        } else {
            // By the newest stamp: that of the unit may be older than the step.
            self.clock.compare(&self.undecided.last_stamp().unwrap_or(stamp))
        };
        self.closing.step(step.unwrap_or(0));
        let gap = self.next.gap.take();
        let open = OpenChunk::new(sequence, at, &init, stamp, gap, step.map(|ns| ns / 1_000_000));
        self.state = ChunkState::Open(Box::new(open));
        events.push(Event::Begin { sequence, at, init });
    }

    /// Cuts at `at`, where no unit begins. The closed chunk is reported at once: the next picture may be far away.
    pub(super) fn cut_anywhere(&mut self, at: u64, events: &mut Vec<Event>) {
        let stamp = self.undecided.stamp_at(at);
        self.cut(Cut::Early, at, self.next.init.clone(), stamp, events);
        self.finish_closing(None, events);
        // The new chunk does not play from its start: end it at the next key unit.
        self.next.cut_from = Some(at);
    }

    /// Closes the open chunk at the last decided byte. Call if the memory is full: only closed chunks can leave it. Begins a
    /// chunk first if all that arrived is held for a key unit. No effect on the single object of a fixed name.
    pub fn make_room(&mut self, events: &mut Vec<Event>) {
        let Some(settled) = self.input.settled() else { return };
        if matches!(self.state, ChunkState::Waiting(Waiting { dropping: None, .. })) {
            self.begin_without_key(events);
        }
        if let ChunkState::Open(open) = &self.state
            && !self.limits.single
        {
            let bytes = open.bytes_up_to(settled);
            self.warn(Warning::EarlyCut { bytes, at_key: false }, events);
            self.cut_anywhere(settled, events);
        }
    }

    /// Moves the bytes below `below` to the open chunk. With `only_finished` the block being filled stays, so that a chunk
    /// consists of few large pieces.
    pub(super) fn hand_over(&mut self, below: u64, only_finished: bool, events: &mut Vec<Event>) {
        let ChunkState::Open(open) = &self.state else { return };
        let sequence = open.sequence;
        let mut pieces = Vec::new();
        if only_finished {
            self.undecided.bytes.take_finished_below(below, &mut pieces);
        } else {
            self.undecided.bytes.take_below(below, &mut pieces);
        }
        events.extend(pieces.into_iter().map(|bytes| Event::Data { sequence, bytes }));
    }
}

/// Returns how much time the open chunk covers up to this unit.
fn elapsed_to(open: &OpenChunk, first: &FirstUnit, unit: &Unit, stamp: &Stamp) -> Elapsed {
    // The time of a scrambled picture cannot be read; that of the sound beside it can.
    let from = first.pts.or_else(|| open.begins());
    match (from, unit.pts) {
        (Some(a), Some(b)) if b >= a => Elapsed::For(b - a),
        (Some(a), Some(b)) if unit.key.is_key() && a - b > BACKWARDS => Elapsed::Backwards,
        (Some(_), Some(_)) => Elapsed::For(0),
        // A file arrives all at once: there the times of the sound show how much time scrambled pictures cover.
        _ => Elapsed::For(elapsed(&open.stamp, stamp).max(open.covered().unwrap_or(0))),
    }
}
