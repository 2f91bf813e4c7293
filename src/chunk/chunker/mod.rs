//! Splits a muxed stream into chunks.
//!
//! PURE. Bytes wait in the stash until the scanner has decided about them; marks are worked through in order. A chunk is in
//! one of these states: none yet (waiting for the first key unit, keeping or dropping what comes), open, or closed with its
//! length not yet known.
//!
//! - `start` — from the first byte, or from a pause, to a chunk
//! - `cuts` — where a chunk ends and the next begins
//! - `open` — what is known of the chunk being gathered, and of one whose length is not known yet
//! - `ending` — idle, stopped, at the end

use std::collections::VecDeque;

use bytes::Bytes;

mod cuts;
mod ending;
mod open;
mod start;

use self::open::{LastUnit, OpenChunk};
use self::start::Dropping;
use super::clock::{CaptureClock, Stamp};
use super::stash::{Blocks, ByteQueue, TAKE_OVER};
use super::timeline::{JUMP, TimeLine};
use super::{Event, GapReason, Limits, Warning};
use crate::container::detect::{Detection, detect};
use crate::container::opaque::Raw;
use crate::container::{Container, Fault, Init, Mark, MarkKind, Notice, Scanner, Unit, scanner_for};

/// Where the input stands.
#[derive(Debug)]
enum State {
    /// No key unit yet. `first` is the first unit seen; `dropping` says that a picture came that cannot be decoded.
    Waiting {
        first: Option<(u64, Init)>,
        since: Option<Stamp>,
        dropping: Option<Dropping>,
    },
    /// The last chunk was closed because nothing came.
    Idle,
    /// A chunk is open.
    Open(Box<OpenChunk>),
}

/// Most bytes of a unit in progress that are held back, so that a standstill need not tear it over two chunks.
const HOLD_BACK: u64 = 1 << 20;

/// See the module.
pub struct Chunker {
    limits: Limits,
    hint: Option<Container>,
    scanner: Option<Box<dyn Scanner>>,
    /// The first bytes, until the container is known.
    probe: Vec<u8>,
    stash: ByteQueue,
    stamps: VecDeque<(u64, Stamp)>,
    state: State,
    /// A closed chunk whose length becomes known with the next picture.
    closing: Option<(Box<OpenChunk>, u64)>,
    /// Capture clock; public so that the shell can tell it of PLAYING and of mappings.
    pub clock: CaptureClock,
    next_sequence: u64,
    first_sequence: u64,
    /// A cut is due at the first key unit at or after this offset.
    armed: Option<u64>,
    /// Why the next chunk is not continuous.
    gap: Option<GapReason>,
    /// Offset of a buffer flagged DISCONT that may turn out to begin a unit.
    discont: Option<u64>,
    /// The header last in force, for chunks that have to begin where no unit does.
    last_init: Init,
    /// Container times without their jumps: lengths and starts are reckoned by it.
    line: TimeLine,
    /// The last unit.
    last: Option<LastUnit>,
    /// A unit in progress when a chunk was closed before it: the next one begins with it.
    torn: Option<LastUnit>,
    /// The last chunk was closed before something in progress.
    closed_whole: bool,
    /// Mean length of a frame of the last chunk, ns.
    usual_frame: u64,
    last_key_pts: Option<u64>,
    key_interval: Option<u64>,
    key_units: u64,
    /// Recording was stopped: what comes is let go of.
    stopped: bool,
    warned: Vec<std::mem::Discriminant<Warning>>,
    marks: Vec<Mark>,
}

impl std::fmt::Debug for Chunker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunker")
            .field("state", &self.state)
            .field("stash", &self.stash.end())
            .finish_non_exhaustive()
    }
}

impl Chunker {
    /// A chunker at the start of a session. `hint` is what the caps say, asked only where the bytes are silent.
    pub fn new(limits: Limits, hint: Option<Container>) -> Self {
        Self {
            limits,
            hint,
            scanner: None,
            probe: Vec::new(),
            stash: ByteQueue::default(),
            stamps: VecDeque::new(),
            state: State::Waiting {
                first: None,
                since: None,
                dropping: None,
            },
            closing: None,
            clock: CaptureClock::default(),
            next_sequence: 0,
            first_sequence: 0,
            armed: None,
            gap: Some(GapReason::Start),
            discont: None,
            last_init: Init::default(),
            line: TimeLine::default(),
            last: None,
            torn: None,
            closed_whole: false,
            usual_frame: 0,
            last_key_pts: None,
            key_interval: None,
            key_units: 0,
            stopped: false,
            warned: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Takes its blocks from there.
    #[must_use]
    pub fn with_blocks(mut self, blocks: Blocks) -> Self {
        self.stash = ByteQueue::new(blocks);
        self
    }

    /// Continues a session that has used the sequence numbers below.
    #[must_use]
    pub fn with_first_sequence(mut self, first: u64) -> Self {
        self.next_sequence = first;
        self.first_sequence = first;
        self
    }

    /// The sequence number of the next chunk.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Other limits from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// What the caps say, where it is not known yet.
    pub fn set_hint(&mut self, hint: Option<Container>) {
        self.hint = hint;
    }

    /// Whether a chunk has ever begun.
    pub fn has_begun(&self) -> bool {
        self.next_sequence > self.first_sequence
    }

    /// Key units that have come, stored or not.
    pub fn key_units(&self) -> u64 {
        self.key_units
    }

    /// Whether bytes came that are in no chunk yet.
    pub fn is_holding(&self) -> bool {
        self.stash.end() > self.stash.base()
    }

    /// A cut is due at the next key unit (GstForceKeyUnit, caps, `split-now`).
    pub fn arm(&mut self) {
        self.armed.get_or_insert(self.stash.end());
    }

    /// As [`Chunker::arm`], but not before anything has come.
    pub fn arm_if_begun(&mut self) {
        if self.has_begun() {
            self.arm();
        }
    }

    /// The next buffer is flagged DISCONT.
    pub fn discont(&mut self) {
        if self.stash.end() > 0 {
            self.discont = Some(self.stash.end());
        }
    }

    /// A muxer goes back to `offset`, as it would in a file: what comes next belongs there, and follows on nothing here.
    pub fn goes_back(&mut self, offset: u64, events: &mut Vec<Event>) {
        // At 0 begins the next of several files, one after the other.
        if offset > 0 && offset < self.stash.end() {
            self.warn(Warning::Rewritten(offset), events);
            // What it writes there is damage here; the reason has been told.
            self.warned.push(std::mem::discriminant(&Warning::Damage(0)));
        }
    }

    /// The input was flushed: what comes next does not continue what was there.
    pub fn flush(&mut self) {
        if let Some(scanner) = &mut self.scanner {
            scanner.restart();
            self.gap = Some(GapReason::Discont);
            self.armed = Some(self.stash.end());
            self.clock.restart_media_time();
        }
    }

    /// Takes a buffer. `owned` gives its bytes without a copy where it is large enough to be worth holding.
    ///
    /// # Errors
    /// [`Fault`] where the stream cannot be cut.
    pub fn push(
        &mut self,
        data: &[u8],
        owned: impl FnOnce() -> Option<Bytes>,
        stamp: Stamp,
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        if data.is_empty() {
            return Ok(());
        }
        self.resume(events);
        self.clock.arrived(&stamp);
        if let State::Waiting { dropping: Some(gap), .. } = &mut self.state
            && gap.start == 0
        {
            // It was stopped before anything had come.
            gap.start = self.clock.peek(&stamp).0;
        }
        self.stamps.push_back((self.stash.end(), stamp));
        match if data.len() >= TAKE_OVER { owned() } else { None } {
            Some(bytes) => self.stash.take_over(bytes),
            None => self.stash.copy(data),
        }
        self.scan(data, events)?;
        self.settle(events);
        Ok(())
    }

    fn scan(&mut self, data: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        if self.scanner.is_some() {
            return self.feed(data, events);
        }
        self.probe.extend_from_slice(data);
        self.detect(false, events)
    }

    fn detect(&mut self, complete: bool, events: &mut Vec<Event>) -> Result<(), Fault> {
        let container = match detect(&self.probe, complete) {
            Detection::More => return Ok(()),
            Detection::Is(container) => container,
            Detection::Unknown => self.hint.unwrap_or(Container::Raw),
        };
        if container == Container::Raw {
            self.warn(Warning::UnknownContainer, events);
        }
        self.scanner = Some(scanner_for(container));
        let probe = std::mem::take(&mut self.probe);
        self.feed(&probe, events)
    }

    fn feed(&mut self, data: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        let Some(scanner) = &mut self.scanner else { return Ok(()) };
        let mut marks = std::mem::take(&mut self.marks);
        let outcome = scanner.push(data, &mut marks);
        let outcome = match outcome {
            Err(fault) if !matches!(fault, Fault::Programs(_)) => {
                // What has come so far is kept; nothing more is asked of this scanner.
                self.scanner = Some(Box::new(Raw::at(self.stash.end())));
                Err(fault)
            }
            Err(Fault::Programs(n)) => {
                self.warn(Warning::Programs(n), events);
                let from = marks.last().map_or(self.stash.base(), |m| m.at).max(self.stash.base());
                let rest = usize::try_from(self.stash.end() - from).unwrap_or(0);
                let mut opaque = Raw::at(from);
                // The bytes themselves are in the stash; one unit stands for all of them.
                let outcome = opaque.pass(rest, &mut marks);
                self.scanner = Some(Box::new(opaque));
                outcome
            }
            other => other,
        };
        for mark in marks.drain(..) {
            self.mark(mark, events);
        }
        self.marks = marks;
        outcome
    }

    fn mark(&mut self, mark: Mark, events: &mut Vec<Event>) {
        match mark.kind {
            MarkKind::Unit(unit) => self.unit(mark.at, unit, events),
            MarkKind::PictureEnd => {
                if let Some(last) = &mut self.last {
                    last.picture_end = Some(mark.at);
                }
                if let State::Open(open) = &mut self.state
                    && open.begin.is_some_and(|b| b.key.is_key())
                {
                    open.preview_end.get_or_insert(mark.at);
                }
            }
            MarkKind::Damage => {
                self.gap.get_or_insert(GapReason::Damage);
                self.armed.get_or_insert(mark.at);
                self.warn(Warning::Damage(mark.at), events);
            }
            MarkKind::Notice(Notice::NoParameterSets) => self.warn(Warning::NoParameterSets, events),
            MarkKind::Notice(Notice::OpenGop) => self.warn(Warning::OpenGop, events),
        }
    }

    fn unit(&mut self, at: u64, mut unit: Unit, events: &mut Vec<Event>) {
        let stamp = self.stamp_at(at);
        let container_pts = unit.pts;
        self.place(at, &mut unit, &stamp);
        self.key_units += u64::from(unit.key.is_key());
        // Inside an MP4's `mdat` the flag says nothing; at a unit, or in a stream of packets, it does.
        if self.discont.is_some_and(|d| d == at || (d < at && self.has_small_units())) {
            self.discont = None;
            self.gap = self.gap.or(Some(GapReason::Discont));
            self.armed.get_or_insert(at);
        } else if self.discont.is_some_and(|d| d < at) {
            self.discont = None;
        }
        match &self.state {
            State::Waiting { .. } => self.unit_while_waiting(at, &unit, stamp, events),
            State::Idle => self.unit_while_idle(at, &unit, stamp, events),
            State::Open(_) => {
                if let Some((cut, init)) = self.decide(at, &unit, &stamp, events) {
                    self.cut(cut, at, init, stamp, events);
                }
            }
        }
        self.account(at, &unit, container_pts, stamp, events);
        if let Some(init) = &unit.init {
            self.last_init = init.clone();
        }
        self.last = Some(LastUnit {
            at,
            unit,
            container_pts,
            stamp,
            picture_end: None,
        });
    }

    /// Puts a unit on the time line. A jump says nothing of how long a chunk is: the next key unit begins another, no other
    /// unit does.
    fn place(&mut self, at: u64, unit: &mut Unit, stamp: &Stamp) {
        let Some(pts) = unit.pts else { return };
        let placed = self.line.place(unit.track, pts, unit.end, stamp.wall);
        (unit.pts, unit.end) = (Some(placed.pts), placed.end);
        if placed.jumped && self.has_begun() {
            // A chunk that has no picture yet begins with the new times anyway.
            if !matches!(&self.state, State::Open(open) if open.begin.is_none()) {
                self.armed.get_or_insert(at);
            }
            if i128::from(placed.waited) > JUMP {
                self.clock.restart_media_time();
            }
        }
    }

    fn has_small_units(&self) -> bool {
        matches!(
            self.scanner.as_ref().map(|s| s.container()),
            Some(Container::MpegTs | Container::Raw)
        )
    }

    /// Gives decided bytes to the open chunk, lets go of those that are dropped, and keeps within the memory.
    fn settle(&mut self, events: &mut Vec<Event>) {
        let Some(settled) = self.scanner.as_ref().map(|s| s.settled()) else {
            return;
        };
        while self.stamps.len() > 1 && self.stamps.get(1).is_some_and(|s| s.0 <= settled) {
            self.stamps.pop_front();
        }
        match &mut self.state {
            State::Waiting { dropping: Some(gap), .. } => {
                let bytes = self.stash.drop_below(settled);
                gap.bytes += bytes;
                events.push(Event::Discard(bytes));
            }
            State::Waiting { dropping: None, .. } => {
                let held = settled - self.stash.base();
                if self.limits.hard > 0 && held >= self.limits.hard {
                    self.begin_without_key(events);
                }
            }
            State::Open(open) => {
                let (limits, bytes) = (self.limits, settled - open.at + open.init_bytes);
                let anywhere = limits.hard + limits.hard / 4;
                if limits.hard > 0 && limits.single && bytes >= limits.hard {
                    events.push(Event::TooLarge(bytes));
                } else if limits.hard > 0 && !limits.single && bytes >= anywhere {
                    // No unit came where a cut would have been legal.
                    self.warn(Warning::EarlyCut { bytes, at_key: false }, events);
                    self.cut_anywhere(settled, events);
                } else {
                    let held = if limits.soft > 0 {
                        HOLD_BACK.min(limits.soft / 2)
                    } else {
                        HOLD_BACK
                    };
                    let whole = self.scanner.as_ref().map_or(settled, |s| s.whole());
                    self.hand_over(settled.min(whole.max(settled.saturating_sub(held))), true, events);
                }
            }
            _ => {}
        }
    }

    fn stamp_at(&self, at: u64) -> Stamp {
        let i = self.stamps.partition_point(|s| s.0 <= at);
        self.stamps.get(i.saturating_sub(1)).map_or_else(Stamp::default, |s| s.1)
    }

    fn warn(&mut self, warning: Warning, events: &mut Vec<Event>) {
        let kind = std::mem::discriminant(&warning);
        if !self.warned.contains(&kind) {
            self.warned.push(kind);
            events.push(Event::Warn(warning));
        }
    }
}

/// Time between two arrivals: by running time where both have one, else by the wall clock.
fn elapsed(from: &Stamp, to: &Stamp) -> u64 {
    match (from.running, to.running) {
        (Some(a), Some(b)) => u64::try_from(b.saturating_sub(a)).unwrap_or(0),
        _ => to.wall.saturating_sub(from.wall),
    }
}
