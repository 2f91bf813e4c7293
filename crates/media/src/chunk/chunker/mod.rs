//! Splits a muxed stream into chunks.
//!
//! PURE. Bytes wait in `undecided` until the scanner has decided about them; its marks are processed in order. The state is
//! one of: waiting for the first key unit (holding or dropping what arrives), a chunk is open, or idle. A closed chunk is
//! reported with the first picture of the next one, because only then its duration is known.
//!
//! - `input` — chooses the scanner, feeds it, dispatches its marks
//! - `undecided` — bytes that are in no chunk yet, and when they arrived
//! - `start` — waits for the unit that begins a chunk: at the start, after a stop, after an idle close
//! - `held` — units held until it is known whether a chunk can begin with them
//! - `config_cuts` — detects a stream whose configuration changes constantly
//! - `cuts` — where a chunk ends and the next begins
//! - `open` — state of the open chunk, and of a closed one whose duration is not known yet
//! - `dates` — when a unit and the chunk that it begins were captured
//! - `audio_only` — sound whose pictures never come, or stop
//! - `trickle` — bytes that arrive without completing a unit
//! - `ending` — closes chunks: idle, recording stopped, end of stream

use bytes::Bytes;

mod audio_only;
mod config_cuts;
mod cuts;
mod dates;
mod ending;
mod held;
mod input;
mod open;
mod start;
mod trickle;
mod undecided;

use self::audio_only::AudioOnly;
use self::config_cuts::ConfigCuts;
use self::dates::AwaitedSample;
use self::ending::ClosedAt;
use self::input::Input;
use self::open::{Closing, KeyUnits, LastUnit, OpenChunk};
use self::start::Waiting;
use self::trickle::Trickle;
use self::undecided::Undecided;
use super::byte_queue::Blocks;
use super::clock::{Arrival, CaptureClock, Stamp};
use super::timeline::{JUMP, TimeLine, Timed};
use super::{Event, GapReason, Limits, Warning};
use crate::container::{Container, Fault, Init, Track, Unit};

/// What the undecided bytes belong to.
#[derive(Debug)]
enum ChunkState {
    /// No chunk yet: a key unit is awaited.
    Waiting(Waiting),
    /// The last chunk was closed because no data arrived.
    Idle(ClosedAt),
    /// A chunk is open.
    Open(Box<OpenChunk>),
}

/// Sequence numbers of the session.
#[derive(Clone, Copy, Debug, Default)]
struct SequenceNumbers {
    first: u64,
    next: u64,
}

/// What is known of the next chunk before it begins.
#[derive(Debug)]
struct NextChunk {
    /// A cut is due at the first key unit at or after this offset.
    cut_from: Option<u64>,
    /// Why it does not continue the chunk before it.
    gap: Option<GapReason>,
    /// Offset of a buffer flagged DISCONT. Counts only if a unit begins there, or if units are shorter than buffers.
    discont_at: Option<u64>,
    /// The current header, for a chunk that must begin where no unit begins.
    init: Init,
}

/// Most bytes of a unit in progress that are held back: 1 MiB. A chunk that is closed because no data arrives can then end
/// before that unit.
const HOLD_BACK: u64 = 1 << 20;

/// Splits a muxed stream into chunks.
pub struct Chunker {
    limits: Limits,
    input: Input,
    undecided: Undecided,
    state: ChunkState,
    closing: Closing,
    /// Capture clock. Public: the shell reports PLAYING and clock mappings to it.
    pub clock: CaptureClock,
    /// Container times without their jumps: durations and capture times are computed from them.
    line: TimeLine,
    arrival: Arrival,
    /// The time of the current unit may be wrong: no cut is made because of it.
    is_doubtful: bool,
    sequence: SequenceNumbers,
    next: NextChunk,
    last: Option<LastUnit>,
    awaited_sample: Option<AwaitedSample>,
    keys: KeyUnits,
    sound: AudioOnly,
    trickle: Trickle,
    /// Pictures that arrived, stored or not.
    pictures: u64,
    config_cuts: ConfigCuts,
    /// Recording is stopped: what arrives is dropped.
    stopped: bool,
    /// Kinds of warnings that were issued: each is issued once.
    warned: Vec<std::mem::Discriminant<Warning>>,
}

impl std::fmt::Debug for Chunker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunker")
            .field("state", &self.state)
            .field("end", &self.undecided.bytes.end())
            .finish_non_exhaustive()
    }
}

impl Chunker {
    /// Returns a chunker at the start of a session. `hint` is the container that the caps name; it is used only if the first
    /// bytes match no known container.
    pub fn new(limits: Limits, hint: Option<Container>) -> Self {
        Self {
            limits,
            input: Input {
                hint,
                ..Input::default()
            },
            undecided: Undecided::default(),
            state: ChunkState::Waiting(Waiting::default()),
            closing: Closing::default(),
            clock: CaptureClock::default(),
            line: TimeLine::default(),
            arrival: Arrival::default(),
            is_doubtful: false,
            sequence: SequenceNumbers::default(),
            next: NextChunk {
                cut_from: None,
                gap: Some(GapReason::Start),
                discont_at: None,
                init: Init::default(),
            },
            last: None,
            awaited_sample: None,
            keys: KeyUnits::default(),
            sound: AudioOnly::default(),
            trickle: Trickle::default(),
            pictures: 0,
            config_cuts: ConfigCuts::default(),
            stopped: false,
            warned: Vec::new(),
        }
    }

    /// Takes blocks for copied bytes from `blocks`. Call before the first [`Chunker::push`].
    #[must_use]
    pub fn with_blocks(mut self, blocks: Blocks) -> Self {
        self.undecided = Undecided::new(blocks);
        self
    }

    /// Continues a session whose sequence numbers below `first` are taken. Call before the first [`Chunker::push`].
    #[must_use]
    pub fn with_first_sequence(mut self, first: u64) -> Self {
        self.sequence = SequenceNumbers { first, next: first };
        self
    }

    /// Returns the sequence number of the next chunk.
    pub fn next_sequence(&self) -> u64 {
        self.sequence.next
    }

    /// Applies other limits from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Sets the container that the caps name. No effect once the container is known.
    pub fn set_hint(&mut self, hint: Option<Container>) {
        self.input.hint = hint;
    }

    /// Returns whether a chunk has ever begun.
    pub fn has_begun(&self) -> bool {
        self.sequence.next > self.sequence.first
    }

    /// Returns how many key units arrived, stored or not.
    pub fn key_units(&self) -> u64 {
        self.keys.count
    }

    /// Returns how many pictures arrived, stored or not.
    pub fn pictures(&self) -> u64 {
        self.pictures
    }

    /// Returns the fault of an MP4 whose `moov` has not come: either the MP4 is not fragmented and has its `moov` at the end, or
    /// the `moov` is damaged.
    pub fn missing_head(&self) -> Option<Fault> {
        self.input.scanner.as_ref().and_then(|scanner| scanner.missing_head())
    }

    /// Returns whether key units arrive where no chunk can begin.
    pub fn encloses_keys(&self) -> bool {
        self.input.scanner.as_ref().is_some_and(|scanner| scanner.encloses_keys())
    }

    /// Warns if packets of a transport stream have come without PAT and PMT. Returns whether that is so.
    pub fn report_no_program(&mut self, events: &mut Vec<Event>) -> bool {
        let lacks = self.input.scanner.as_ref().is_some_and(|scanner| scanner.lacks_program());
        if lacks {
            self.warn(Warning::NoProgram, events);
        }
        lacks
    }

    /// Returns the length of the current header, bytes.
    pub fn head_len(&self) -> usize {
        self.next.init.len()
    }

    /// Returns whether bytes have arrived that are in no chunk yet.
    #[inline]
    pub fn is_holding(&self) -> bool {
        self.undecided.bytes.end() > self.undecided.bytes.base()
    }

    /// Requests a cut at the next key unit (GstForceKeyUnit, caps, `split-now`). Idempotent until that cut.
    pub fn arm(&mut self) {
        // An earlier request stays: a later offset would put its cut off.
        self.next.cut_from.get_or_insert(self.undecided.bytes.end());
    }

    /// Does what [`Chunker::arm`] does, if a chunk has ever begun.
    pub fn arm_if_begun(&mut self) {
        if self.has_begun() {
            self.arm();
        }
    }

    /// Marks the next buffer as flagged DISCONT. No effect before the first buffer.
    pub fn discont(&mut self) {
        if self.undecided.bytes.end() > 0 {
            self.next.discont_at = Some(self.undecided.bytes.end());
        }
    }

    /// A muxer seeks back to `offset`, as it would in a file, to rewrite what it sent. What follows belongs there, so it
    /// neither continues the input nor can be stored in place: it is treated as damage, with one warning.
    pub fn goes_back(&mut self, offset: u64, events: &mut Vec<Event>) {
        // At 0 the next of several files begins: a regular header in mid-stream.
        if offset > 0 && offset < self.undecided.bytes.end() {
            self.warn(Warning::Rewritten(offset), events);
            // The rewritten bytes will not parse; the warning above already explains why.
            self.warned.push(std::mem::discriminant(&Warning::Damage(0)));
        }
    }

    /// The input was flushed: what follows does not continue it.
    pub fn flush(&mut self) {
        self.clock.flushed();
        self.awaited_sample = None;
        if let Some(scanner) = &mut self.input.scanner {
            scanner.restart();
            self.next.gap = Some(GapReason::Discont);
            self.next.cut_from = Some(self.undecided.bytes.end());
        }
    }

    /// Takes a buffer and appends to `events` what is decided by it. Calls `owned` only if the buffer is large enough to be
    /// kept without a copy.
    ///
    /// # Errors
    /// Returns a [`Fault`] if the stream cannot be cut. What arrived before it still becomes a chunk with
    /// [`Chunker::finish`].
    #[inline]
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
        // First: it takes the anchor that the calls below compute dates from.
        self.clock.arrived(&stamp);
        self.date_gap(&stamp);
        self.undecided.push(data, owned, stamp);
        self.take_awaited_sample();
        self.scan(data, events)?;
        self.release_overdue(&stamp, events);
        self.store_trickle(&stamp, events);
        // Last: the marks of the calls above may cut within what is handed over.
        self.hand_over_decided(events);
        Ok(())
    }

    fn unit(&mut self, at: u64, mut unit: Unit, events: &mut Vec<Event>) {
        let stamp = self.stamp_of(at, &unit);
        // The metadata names the time that a player finds in the container, without our corrections.
        let container_pts = unit.pts.map(|pts| pts.saturating_sub(self.input.origin()));
        // `mpegtsmux` moves the running times of its buffers to 0; those of its input are in the stream.
        if self.input.container() == Container::MpegTs {
            self.clock.transport_time(&stamp, container_pts);
        }
        self.place(at, &mut unit, &stamp);
        self.trickle.unit_came();
        self.pictures += u64::from(unit.track == Track::Video);
        self.keys.count += u64::from(unit.key.is_key());
        self.count_sound_alone(at, &mut unit, &stamp, events);
        self.apply_discont(at);
        match &self.state {
            ChunkState::Waiting(_) => self.unit_while_waiting(at, &unit, container_pts, stamp, events),
            ChunkState::Idle(_) => self.unit_while_idle(at, &unit, stamp, events),
            ChunkState::Open(_) => {
                if let Some((cut, init)) = self.decide(at, &unit, &stamp, events) {
                    self.cut(cut, at, init, stamp, events);
                }
            }
        }
        // After the cut: the unit belongs to the chunk that it begins.
        self.account(at, &unit, container_pts, stamp, events);
        self.await_sample(&unit, &stamp);
        if let Some(init) = &unit.init {
            self.next.init = init.clone();
        }
        self.last = Some(LastUnit {
            at,
            unit,
            container_pts,
            stamp,
            picture_end: None,
        });
    }

    /// Applies a pending DISCONT to the unit at `at`, or drops it.
    fn apply_discont(&mut self, at: u64) {
        let Some(discont) = self.next.discont_at.filter(|&d| d <= at) else {
            return;
        };
        self.next.discont_at = None;
        // mp4mux flags buffers DISCONT inside an `mdat`, where nothing is missing. The flag counts at a unit, or in a stream
        // whose units are shorter than a buffer.
        if discont == at || self.has_small_units() {
            self.next.gap = self.next.gap.or(Some(GapReason::Discont));
            self.next.cut_from.get_or_insert(at);
        }
    }

    /// Replaces the times of a unit by those of the time line. A timestamp jump does not count as elapsed time, so it makes
    /// no chunk too long by itself: the cut after it is due at the next key unit, as any other.
    fn place(&mut self, at: u64, unit: &mut Unit, stamp: &Stamp) {
        self.is_doubtful = false;
        let Some(pts) = unit.pts else { return };
        let timed = Timed {
            track: unit.track,
            key: unit.key,
            pts,
            end: unit.end,
            decode: unit.decode,
        };
        let placed = self.line.place(timed, self.arrival.at(stamp));
        (unit.pts, unit.end) = (Some(placed.pts), placed.end);
        self.is_doubtful = placed.is_doubtful;
        if placed.jumped && self.has_begun() {
            // A chunk without a picture so far begins with the new times anyway.
            if !matches!(&self.state, ChunkState::Open(open) if open.first.is_none()) {
                self.next.cut_from.get_or_insert(at);
            }
            if i128::from(placed.waited) > JUMP {
                self.clock.restart_media_time();
            }
        }
    }

    fn has_small_units(&self) -> bool {
        self.input.scanner.is_some() && matches!(self.input.container(), Container::MpegTs | Container::Raw)
    }

    /// Moves decided bytes to the open chunk, or drops them while no chunk can begin, and keeps within the memory limits.
    fn hand_over_decided(&mut self, events: &mut Vec<Event>) {
        let Some(settled) = self.input.settled() else { return };
        self.undecided.forget_stamps_below(settled);
        match &mut self.state {
            ChunkState::Waiting(Waiting { dropping: Some(gap), .. }) => {
                let bytes = self.undecided.bytes.drop_below(settled);
                gap.bytes += bytes;
                events.push(Event::Discard(bytes));
            }
            ChunkState::Waiting(_) => {
                let held = settled - self.undecided.bytes.base();
                if self.limits.hard > 0 && held >= self.limits.hard {
                    self.begin_without_key(events);
                }
            }
            ChunkState::Open(open) => {
                let bytes = open.bytes_up_to(settled);
                self.grow(settled, bytes, events);
            }
            // The bytes stay queued until a unit, or the end of the stream, shows where the next chunk begins.
            ChunkState::Idle(_) => {}
        }
    }

    /// The open chunk has `bytes` bytes up to `settled`: hands them over, or closes it at the hard limit.
    fn grow(&mut self, settled: u64, bytes: u64, events: &mut Vec<Event>) {
        let limits = self.limits;
        // `decide` cuts at the first unit beyond the hard limit. A quarter more without a unit means that none is near.
        let anywhere = limits.hard + limits.hard / 4;
        if limits.hard > 0 && limits.single && bytes >= limits.hard {
            events.push(Event::TooLarge(bytes));
        } else if limits.hard > 0 && !limits.single && bytes >= anywhere {
            self.warn(Warning::EarlyCut { bytes, at_key: false }, events);
            self.cut_anywhere(settled, events);
        } else {
            // Bytes that are held back count towards the memory limit and must not use up a small one.
            let held = if limits.soft > 0 {
                HOLD_BACK.min(limits.soft / 2)
            } else {
                HOLD_BACK
            };
            let whole = self.input.scanner.as_ref().map_or(settled, |s| s.whole());
            self.hand_over(settled.min(whole.max(settled.saturating_sub(held))), true, events);
        }
    }

    fn warn(&mut self, warning: Warning, events: &mut Vec<Event>) {
        if !self.has_warned(&warning) {
            self.warned.push(std::mem::discriminant(&warning));
            events.push(Event::Warn(warning));
        }
    }

    /// Returns whether a warning of this kind was issued.
    fn has_warned(&self, warning: &Warning) -> bool {
        self.warned.contains(&std::mem::discriminant(warning))
    }
}

/// Returns the time between two arrivals in ns: by running time if both have one and it moves, else by arrival.
fn elapsed(from: &Stamp, to: &Stamp) -> u64 {
    let running = match (from.running, to.running) {
        (Some(a), Some(b)) => u64::try_from(b.saturating_sub(a)).unwrap_or(0),
        _ => 0,
    };
    if running > 0 { running } else { from.arrived_before(to) }
}
