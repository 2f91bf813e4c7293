//! Splits a muxed stream into chunks.
//!
//! PURE. Bytes wait in the stash until the scanner has decided about them; marks are worked through in order. A chunk is in
//! one of these states: none yet (waiting for the first key unit, keeping or dropping what comes), open, or closed with its
//! length not yet known.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::clock::{CaptureClock, ClockKind, Stamp};
use super::frames::Frames;
use super::stash::{Blocks, Stash, TAKE_OVER};
use super::{ChunkInfo, Event, GapReason, Limits, Warning};
use crate::container::detect::{Detection, detect};
use crate::container::opaque::Opaque;
use crate::container::{Container, Fault, Init, Key, Mark, MarkKind, Notice, Scanner, StreamInfo, Track, Unit, scanner_for};

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
    Open(Box<Open>),
}

/// What was left out before the first key unit.
#[derive(Clone, Copy, Debug)]
struct Dropping {
    reason: GapReason,
    start: u64,
    pts: Option<u64>,
    bytes: u64,
}

/// The chunk being gathered.
#[derive(Debug)]
struct Open {
    sequence: u64,
    /// Offset of its payload in the input.
    at: u64,
    init_bytes: u64,
    gap: Option<GapReason>,
    clock_step_ms: Option<i64>,
    /// Stamp of its first unit.
    stamp: Stamp,
    /// The first picture (in an audio-only stream: the first unit); `None` while only configuration came.
    begin: Option<Begin>,
    preview_end: Option<u64>,
    video: Frames,
    audio: Frames,
    info: Arc<StreamInfo>,
    asked_for_key: bool,
    /// When it began is a guess, until a unit comes whose buffer has a time.
    provisional: bool,
    /// It was cut where no picture begins: any unit tells its time.
    any_track: bool,
}

#[derive(Clone, Copy, Debug)]
struct Begin {
    key: Key,
    pts: Option<u64>,
    utc: u64,
    clock: ClockKind,
}

/// What decides that a chunk begins at a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Key,
    Early,
    NoKey,
    Config,
}

/// See the module.
pub struct Chunker {
    limits: Limits,
    hint: Option<Container>,
    scanner: Option<Box<dyn Scanner>>,
    /// The first bytes, until the container is known.
    probe: Vec<u8>,
    stash: Stash,
    stamps: VecDeque<(u64, Stamp)>,
    state: State,
    /// A closed chunk whose length becomes known with the next picture.
    closing: Option<(Box<Open>, u64)>,
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
    /// Mean length of a frame of the last chunk, ns.
    usual_frame: u64,
    last_key_pts: Option<u64>,
    key_interval: Option<u64>,
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
            stash: Stash::default(),
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
            usual_frame: 0,
            last_key_pts: None,
            key_interval: None,
            stopped: false,
            warned: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Takes its blocks from there.
    #[must_use]
    pub fn with_blocks(mut self, blocks: Blocks) -> Self {
        self.stash = Stash::new(blocks);
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
        self.clock.arrived(&stamp);
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
            Err(fault) if !matches!(fault, Fault::Programmes(_)) => {
                // What has come so far is kept; nothing more is asked of this scanner.
                self.scanner = Some(Box::new(Opaque::at(self.stash.end())));
                Err(fault)
            }
            Err(Fault::Programmes(n)) => {
                self.warn(Warning::Programmes(n), events);
                let from = marks.last().map_or(self.stash.base(), |m| m.at).max(self.stash.base());
                let rest = usize::try_from(self.stash.end() - from).unwrap_or(0);
                let mut opaque = Opaque::at(from);
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
        }
    }

    fn unit(&mut self, at: u64, unit: Unit, events: &mut Vec<Event>) {
        let stamp = self.stamp_at(at);
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
        self.account(at, &unit, stamp, events);
        if let Some(init) = unit.init {
            self.last_init = init;
        }
    }

    /// The first unit after a chunk was closed for want of data.
    fn unit_while_idle(&mut self, at: u64, unit: &Unit, stamp: Stamp, events: &mut Vec<Event>) {
        let from = self.stash.base();
        if at > from {
            // The rest of a unit that was torn by the close: no chunk that plays can begin with it.
            self.begin(from, self.last_init.clone(), stamp, events);
            match &unit.init {
                Some(init) if unit.key.is_key() => self.cut(Cut::Key, at, init.clone(), stamp, events),
                _ => {}
            }
        } else {
            let init = unit.init.clone().unwrap_or_else(|| self.last_init.clone());
            self.begin(from, init, stamp, events);
        }
    }

    fn has_small_units(&self) -> bool {
        matches!(
            self.scanner.as_ref().map(|s| s.container()),
            Some(Container::MpegTs | Container::Raw)
        )
    }

    fn unit_while_waiting(&mut self, at: u64, unit: &Unit, stamp: Stamp, events: &mut Vec<Event>) {
        if self.stopped {
            return;
        }
        let patience = self.limits.patience();
        let hard = self.limits.hard;
        let held = at - self.stash.base();
        let State::Waiting { first, since, dropping } = &mut self.state else {
            return;
        };
        let since = *since.get_or_insert(stamp);
        if first.is_none()
            && let Some(init) = &unit.init
        {
            *first = Some((at, init.clone()));
        }
        let waited = elapsed(&since, &stamp);
        let too_long = waited >= patience || (hard > 0 && held >= hard);
        if !unit.key.is_key() && !too_long {
            if unit.track == Track::Video {
                let pts = unit.pts;
                let start = self.clock.utc(&stamp, pts).0;
                dropping.get_or_insert(Dropping {
                    reason: GapReason::Start,
                    start,
                    pts,
                    bytes: 0,
                });
            }
            return;
        }
        let (from, init) = match (&dropping, &first, &unit.init) {
            (None, Some((first_at, first_init)), _) => (*first_at, first_init.clone()),
            (Some(_), _, Some(here)) => (at, here.clone()),
            // No chunk can begin here: at the next.
            _ => return,
        };
        let dropped = dropping.take();
        if !unit.key.is_key() {
            self.warn(Warning::NoKeyUnit { waited, interval: None }, events);
        }
        if let Some(mut gap) = dropped {
            let bytes = self.stash.drop_below(from);
            events.push(Event::Discard(bytes));
            gap.bytes += bytes;
            let duration = match gap.reason {
                GapReason::RecordStopped => self.clock.peek(&stamp).0.saturating_sub(gap.start),
                _ => unit.pts.zip(gap.pts).map_or(waited, |(b, a)| b.saturating_sub(a)),
            };
            events.push(Event::Gap {
                reason: gap.reason,
                start: gap.start,
                duration,
                bytes: gap.bytes,
            });
        } else {
            // The head is the init of the first unit, save where another head has taken its place before anything came.
            let bytes = self.stash.drop_below(from);
            events.push(Event::Discard(bytes));
            let superseded = bytes.saturating_sub(init.len() as u64);
            if superseded > 0 {
                let start = self.clock.utc(&stamp, unit.pts).0;
                events.push(Event::Gap {
                    reason: GapReason::Start,
                    start,
                    duration: 0,
                    bytes: superseded,
                });
            }
        }
        self.begin(from, init, stamp, events);
    }

    /// Whether a chunk begins at this unit, and with what in front.
    fn decide(&mut self, at: u64, unit: &Unit, stamp: &Stamp, events: &mut Vec<Event>) -> Option<(Cut, Init)> {
        let resolution = self.scanner.as_ref().map_or(0, |s| s.resolution());
        let limits = self.limits;
        let State::Open(open) = &mut self.state else { return None };
        let init = unit.init.as_ref()?;
        let bytes = at - open.at + open.init_bytes;
        if limits.single {
            return None;
        }
        if unit.new_config {
            if open.begin.is_some() {
                return Some((Cut::Config, init.clone()));
            }
            return None;
        }
        let begin = open.begin?;
        if at == open.at {
            return None;
        }
        let passed = match (begin.pts, unit.pts) {
            (Some(a), Some(b)) if b >= a => b - a,
            // Time went backwards: another time line, another chunk.
            (Some(a), Some(b)) if unit.key.is_key() && a - b > 1_000_000_000 => {
                self.clock.restart_media_time();
                u64::MAX
            }
            (Some(_), Some(_)) => 0,
            _ => elapsed(&open.stamp, stamp),
        };
        let is_due = self.armed.is_some_and(|offset| at >= offset)
            || passed == u64::MAX
            || (limits.max_bytes > 0 && bytes >= limits.max_bytes)
            || (limits.max_time > 0 && !limits.align && passed.saturating_add(resolution) >= limits.max_time)
            || (limits.max_time > 0 && limits.align && {
                // A start that a slewed clock puts a moment before a boundary belongs to that boundary.
                let tolerance = (limits.max_time / 8).min(250_000_000);
                let boundary = (begin.utc.saturating_add(tolerance) / limits.max_time + 1).saturating_mul(limits.max_time);
                self.clock.utc(stamp, unit.pts).0.saturating_add(resolution) >= boundary
            });
        let early = limits.soft > 0 && bytes >= limits.soft;
        if unit.key.is_key() {
            if early && !is_due {
                self.warn(Warning::EarlyCut { bytes, at_key: true }, events);
            }
            return (is_due || early).then(|| (Cut::Key, init.clone()));
        }
        if (is_due || early) && !open.asked_for_key {
            open.asked_for_key = true;
            events.push(Event::WantKeyUnit);
        }
        if limits.hard > 0 && bytes >= limits.hard {
            self.warn(Warning::EarlyCut { bytes, at_key: false }, events);
            return Some((Cut::Early, init.clone()));
        }
        if limits.max_time > 0 && passed != u64::MAX && passed >= limits.patience() {
            self.warn(
                Warning::NoKeyUnit {
                    waited: passed,
                    interval: self.key_interval,
                },
                events,
            );
            return Some((Cut::NoKey, init.clone()));
        }
        None
    }

    fn cut(&mut self, cut: Cut, at: u64, init: Init, stamp: Stamp, events: &mut Vec<Event>) {
        self.close(at, events);
        if cut == Cut::Early {
            self.gap = self.gap.or(Some(GapReason::EarlyCut));
        }
        self.begin(at, init, stamp, events);
        if let (State::Open(open), Cut::Early | Cut::NoKey) = (&mut self.state, cut) {
            open.any_track = true;
        }
    }

    /// Ends the open chunk at `at`; its length becomes known later.
    fn close(&mut self, at: u64, events: &mut Vec<Event>) {
        self.hand_over(at, false, events);
        if let State::Open(open) = std::mem::replace(&mut self.state, State::Idle) {
            self.finish_closing(None, events);
            self.closing = Some((open, at));
        }
    }

    fn begin(&mut self, at: u64, init: Init, stamp: Stamp, events: &mut Vec<Event>) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.armed = self.armed.filter(|&offset| offset > at);
        let step = if sequence == self.first_sequence {
            None
        } else {
            self.clock.compare(&self.stamps.back().map_or(stamp, |s| s.1))
        };
        let init_bytes = init.len() as u64;
        self.state = State::Open(Box::new(Open {
            sequence,
            at,
            init_bytes,
            gap: self.gap.take(),
            clock_step_ms: step,
            stamp,
            begin: None,
            preview_end: None,
            video: Frames::default(),
            audio: Frames::default(),
            info: Arc::clone(&init.info),
            asked_for_key: false,
            provisional: false,
            any_track: false,
        }));
        events.push(Event::Begin { sequence, at, init });
    }

    /// Notes a unit in the open chunk.
    fn account(&mut self, at: u64, unit: &Unit, stamp: Stamp, events: &mut Vec<Event>) {
        let State::Open(open) = &mut self.state else { return };
        if let Some(init) = &unit.init
            && !Arc::ptr_eq(&open.info, &init.info)
        {
            open.info = Arc::clone(&init.info);
        }
        if let Some(pts) = unit.pts {
            match unit.track {
                Track::Video => open.video.add(pts, unit.end),
                Track::Audio => open.audio.add(pts, unit.end),
                Track::Other => {}
            }
        }
        if let (true, Some(begin), Some(_), Some(pts)) = (open.provisional, &mut open.begin, stamp.running, unit.pts)
            && let Some(began) = begin.pts
        {
            let (utc, clock) = self.clock.utc(&stamp, None);
            (begin.utc, begin.clock) = (utc.saturating_add(began).saturating_sub(pts), clock);
            open.provisional = false;
        }
        let leans_back = match open.begin {
            Some(Begin {
                key: Key::Open,
                pts: Some(key),
                ..
            }) => unit.track == Track::Video && unit.pts.is_some_and(|p| p < key),
            _ => false,
        };
        if open.begin.is_none() && (unit.key.is_key() || unit.track == Track::Video || open.any_track) {
            let (utc, clock) = self.clock.utc(&stamp, unit.pts);
            open.begin = Some(Begin {
                key: unit.key,
                pts: unit.pts,
                utc,
                clock,
            });
            open.stamp = stamp;
            open.provisional = self.clock.is_provisional(&stamp);
            self.finish_closing(unit.pts, events);
            if !unit.key.is_key() {
                // It does not play from its start: the next one shall, as soon as it can.
                self.armed.get_or_insert(at);
            }
        }
        if leans_back {
            self.warn(Warning::OpenGop, events);
        }
        if unit.key.is_key()
            && let Some(pts) = unit.pts
        {
            if let Some(last) = self.last_key_pts.filter(|&last| last < pts) {
                self.key_interval = self.key_interval.max(Some(pts - last));
            }
            self.last_key_pts = Some(pts);
        }
    }

    /// Tells the end of the chunk that was waiting for the time of the next one's first picture.
    fn finish_closing(&mut self, next_pts: Option<u64>, events: &mut Vec<Event>) {
        let Some((open, at)) = self.closing.take() else { return };
        let info = self.info(&open, at, next_pts);
        let frames = if open.video.is_empty() { open.audio } else { open.video };
        self.usual_frame = frames.mean().unwrap_or(self.usual_frame);
        events.push(Event::End(Box::new(info)));
    }

    /// What is known by now of a chunk that has begun and whose [`Event::End`] has not come.
    pub fn info_of(&self, sequence: u64) -> Option<ChunkInfo> {
        let (open, end) = match (&self.state, &self.closing) {
            (State::Open(open), _) if open.sequence == sequence => (open, self.stash.end()),
            (_, Some((open, at))) if open.sequence == sequence => (open, *at),
            _ => return None,
        };
        Some(self.info(open, end, None))
    }

    /// The bytes of the open chunk that have not been handed over: its sequence number, the offset of the first of them in
    /// its payload, and the bytes. What is above the last decided offset may turn out to be another chunk's.
    pub fn not_handed_over(&self) -> Option<(u64, u64, Vec<Bytes>)> {
        let State::Open(open) = &self.state else { return None };
        Some((open.sequence, self.stash.base().saturating_sub(open.at), self.stash.copied()))
    }

    fn info(&self, open: &Open, at: u64, next_pts: Option<u64>) -> ChunkInfo {
        let container = self.scanner.as_ref().map_or(Container::Raw, |s| s.container());
        let frames = if open.video.is_empty() { open.audio } else { open.video };
        let (utc, clock) = match open.begin {
            Some(begin) => (begin.utc, begin.clock),
            None => self.clock.peek(&open.stamp),
        };
        let pts = open.begin.and_then(|b| b.pts);
        let until = next_pts.filter(|&next| pts.is_some_and(|p| next > p));
        let duration = match (pts, until) {
            (Some(pts), Some(next)) => next - pts,
            (Some(pts), None) if !frames.is_empty() => frames.end(self.usual_frame).saturating_sub(pts),
            _ => elapsed(&open.stamp, &self.stamps.back().map_or(open.stamp, |s| s.1)),
        };
        let key = open.begin.map_or(Key::No, |b| b.key);
        ChunkInfo {
            sequence: open.sequence,
            start: utc,
            duration,
            pts_start: pts,
            running: open.stamp.running.map(|r| u64::try_from(r).unwrap_or(0)),
            container,
            init_bytes: open.init_bytes,
            preview_bytes: open
                .preview_end
                .filter(|&end| end <= at)
                .map(|end| end - open.at + open.init_bytes),
            key_frame: key.is_key() && container != Container::Raw,
            gap: open.gap,
            clock,
            clock_step_ms: open.clock_step_ms,
            codecs: open.info.codecs.clone(),
            audio_only: open.info.has_audio && !open.info.has_video,
            size: at - open.at + open.init_bytes,
        }
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
                    self.hand_over(settled, true, events);
                }
            }
            _ => {}
        }
    }

    /// Cuts where no unit begins. What is closed is not kept waiting for a picture that may never come.
    fn cut_anywhere(&mut self, at: u64, events: &mut Vec<Event>) {
        let stamp = self.stamp_at(at);
        self.cut(Cut::Early, at, self.last_init.clone(), stamp, events);
        self.finish_closing(None, events);
        self.armed = Some(at);
    }

    /// Begins a chunk with all that is held, though no key unit has come.
    fn begin_without_key(&mut self, events: &mut Vec<Event>) {
        let base = self.stash.base();
        let first = match &mut self.state {
            State::Waiting { first, .. } => first.take(),
            _ => return,
        };
        let stamp = self.stamp_at(base);
        let waited = elapsed(&stamp, &self.stamps.back().map_or(stamp, |s| s.1));
        self.warn(Warning::NoKeyUnit { waited, interval: None }, events);
        let (from, init) = first.unwrap_or((base, Init::default()));
        let head = self.stash.drop_below(from);
        events.push(Event::Discard(head));
        self.begin(from, init, stamp, events);
        if let State::Open(open) = &mut self.state {
            open.any_track = true;
        }
    }

    /// The memory is full and holds nothing but the open chunk: it is closed here and now.
    pub fn make_room(&mut self, events: &mut Vec<Event>) {
        let Some(settled) = self.scanner.as_ref().map(|s| s.settled()) else {
            return;
        };
        if matches!(self.state, State::Waiting { dropping: None, .. }) {
            self.begin_without_key(events);
        }
        if let State::Open(open) = &self.state
            && !self.limits.single
        {
            let bytes = settled - open.at + open.init_bytes;
            self.warn(Warning::EarlyCut { bytes, at_key: false }, events);
            self.cut_anywhere(settled, events);
        }
    }

    fn hand_over(&mut self, below: u64, only_finished: bool, events: &mut Vec<Event>) {
        let State::Open(open) = &self.state else { return };
        let sequence = open.sequence;
        let mut pieces = Vec::new();
        if only_finished {
            self.stash.take_finished_below(below, &mut pieces);
        } else {
            self.stash.take_below(below, &mut pieces);
        }
        events.extend(pieces.into_iter().map(|bytes| Event::Data { sequence, bytes }));
    }

    /// Nothing came for [`Limits::idle`], or the pipeline has been paused that long: the open chunk is closed.
    pub fn close_idle(&mut self, events: &mut Vec<Event>) {
        if self.limits.single {
            return;
        }
        if let (State::Open(_), Some(settled)) = (&self.state, self.scanner.as_ref().map(|s| s.settled())) {
            self.close(settled, events);
            self.finish_closing(None, events);
            self.gap = self.gap.or(Some(GapReason::Stalled));
        }
    }

    /// Stops or starts recording. Stopped: the open chunk is closed with the last whole unit, and what comes is let go of as
    /// a gap, until recording starts and a key unit comes.
    pub fn record(&mut self, on: bool, events: &mut Vec<Event>) {
        if on != self.stopped {
            return;
        }
        self.stopped = !on;
        if on {
            return;
        }
        if let (State::Open(_), Some(settled)) = (&self.state, self.scanner.as_ref().map(|s| s.settled())) {
            self.close(settled, events);
            self.finish_closing(None, events);
        }
        let stamp = self.stamps.back().map_or_else(Stamp::default, |s| s.1);
        self.state = State::Waiting {
            first: None,
            since: None,
            dropping: Some(Dropping {
                reason: GapReason::RecordStopped,
                start: self.clock.peek(&stamp).0,
                pts: None,
                bytes: 0,
            }),
        };
        self.gap = Some(GapReason::RecordStopped);
    }

    /// Whether recording is stopped.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The stream has ended: all that is left goes into the open chunk, which is closed.
    ///
    /// # Errors
    /// [`Fault`] where the container turns out to be one that cannot be cut.
    pub fn finish(&mut self, events: &mut Vec<Event>) -> Result<(), Fault> {
        let mut outcome = Ok(());
        if self.scanner.is_none() && !self.probe.is_empty() {
            outcome = self.detect(true, events);
        }
        if let Some(scanner) = &mut self.scanner {
            let mut marks = Vec::new();
            scanner.finish(&mut marks);
            for mark in marks {
                self.mark(mark, events);
            }
        }
        let end = self.stash.end();
        if let State::Waiting { first, dropping, .. } = &mut self.state {
            let gap = dropping.take();
            if let (None, Some((from, init))) = (gap, first.take()) {
                let stamp = self.stamp_at(from);
                let head = self.stash.drop_below(from);
                events.push(Event::Discard(head));
                self.begin(from, init, stamp, events);
            } else {
                let rest = self.stash.drop_below(end);
                events.push(Event::Discard(rest));
                if let Some(gap) = gap {
                    events.push(Event::Gap {
                        reason: gap.reason,
                        start: gap.start,
                        duration: 0,
                        bytes: gap.bytes + rest,
                    });
                }
            }
        } else if matches!(self.state, State::Idle) && self.is_holding() {
            let from = self.stash.base();
            let stamp = self.stamp_at(from);
            self.begin(from, self.last_init.clone(), stamp, events);
        }
        self.close(end, events);
        self.finish_closing(None, events);
        outcome
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
