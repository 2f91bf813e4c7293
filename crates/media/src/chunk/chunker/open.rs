//! State of the open chunk, and of a closed one whose duration is not known yet.
//!
//! PURE.

use std::sync::Arc;

use bytes::Bytes;

use super::{ChunkState, Chunker, elapsed};
use crate::chunk::clock::{CaptureClock, ClockKind, Stamp};
use crate::chunk::frames::Frames;
use crate::chunk::{ChunkInfo, Event, GapReason, Warning};
use crate::container::{Container, Init, Key, StreamInfo, Track, Unit};

/// Sound that ends more than this after the pictures determines the end of a chunk: 1 s. Tracks that end together end less
/// than this apart.
const OUTLASTS: u64 = 1_000_000_000;

/// The open chunk.
#[derive(Debug)]
pub(super) struct OpenChunk {
    pub(super) sequence: u64,
    /// Offset of its payload in the input.
    pub(super) at: u64,
    init_bytes: u64,
    init_crc32c: u32,
    gap: Option<GapReason>,
    clock_step_ms: Option<i64>,
    /// Stamp of its first unit.
    pub(super) stamp: Stamp,
    /// The first picture (in an audio-only stream: the first unit); `None` while only configuration came.
    pub(super) first: Option<FirstUnit>,
    /// Its first sound. Dates the chunk if no picture comes, and gives its time if the first picture has none: the time of a
    /// scrambled picture cannot be read.
    sound: Option<FirstUnit>,
    /// Where the picture of its first key unit ends in the input.
    pub(super) preview_end: Option<u64>,
    /// Where the chunk before ended, ns of the time line, if the first picture of this one has no time; else 0.
    pub(super) after: u64,
    pub(super) video: Frames,
    pub(super) audio: Frames,
    /// Video and audio without the last unit, for a close that leaves that unit to the next chunk.
    pub(super) before_last: (Frames, Frames),
    info: Arc<StreamInfo>,
    pub(super) asked_for_key: bool,
    /// The capture start is a guess until a unit comes whose buffer has a running time.
    pub(super) is_provisional: bool,
    /// It was cut where no picture begins: any unit may be its first.
    pub(super) any_track: bool,
}

/// The last unit, as it was added to the chunk.
#[derive(Clone, Debug)]
pub(super) struct LastUnit {
    pub(super) at: u64,
    pub(super) unit: Unit,
    /// Its time before [`crate::chunk::timeline`] corrected it.
    pub(super) container_pts: Option<u64>,
    pub(super) stamp: Stamp,
    /// Where its picture ends, if it is a key unit and that is known.
    pub(super) picture_end: Option<u64>,
}

/// The unit that a chunk is dated by.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstUnit {
    /// Offset in the input.
    pub(super) at: u64,
    pub(super) key: Key,
    pub(super) pts: Option<u64>,
    /// Its time before [`crate::chunk::timeline`] corrected it.
    pub(super) container_pts: Option<u64>,
    pub(super) utc: u64,
    pub(super) clock: ClockKind,
}

/// A closed chunk, and what its duration is computed from.
#[derive(Debug, Default)]
pub(super) struct Closing {
    /// The chunk and the offset where it ends. Reported with the next picture.
    pub(super) chunk: Option<(Box<OpenChunk>, u64)>,
    /// UTC of the end of the last chunk that was reported, and whether it had a time of its own.
    pub(super) last_end: Option<(u64, bool)>,
    /// By how much the wall clock was stepped since the chunk was closed, ns.
    stepped: i64,
    /// Mean duration of a frame in the last chunk, ns.
    pub(super) usual_frame: u64,
}

impl Closing {
    /// Moves the end of the last chunk by a step of the wall clock, `by` ns: what follows is dated by the stepped clock.
    pub(super) fn step(&mut self, by: i64) {
        if self.chunk.is_some() {
            self.stepped = self.stepped.saturating_add(by);
        } else if let Some((end, _)) = &mut self.last_end {
            *end = end.saturating_add_signed(by);
        }
    }

    /// Returns where the closed chunk ends by the clock that dates what follows, UTC in ns.
    pub(super) fn end_of(&self, info: &ChunkInfo) -> u64 {
        info.start.saturating_add(info.duration).saturating_add_signed(self.stepped)
    }
}

/// Statistics of the session's key units.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeyUnits {
    pub(super) count: u64,
    last_pts: Option<u64>,
    /// Longest time between two, ns.
    pub(super) longest_interval: Option<u64>,
}

impl KeyUnits {
    fn note(&mut self, unit: &Unit) {
        let Some(pts) = unit.pts.filter(|_| unit.key.is_key()) else {
            return;
        };
        if let Some(last) = self.last_pts.filter(|&last| last < pts) {
            self.longest_interval = self.longest_interval.max(Some(pts - last));
        }
        self.last_pts = Some(pts);
    }
}

impl OpenChunk {
    /// Returns a chunk without units whose payload begins at `at`.
    pub(super) fn new(
        sequence: u64,
        at: u64,
        init: &Init,
        stamp: Stamp,
        gap: Option<GapReason>,
        clock_step_ms: Option<i64>,
    ) -> Self {
        Self {
            sequence,
            at,
            init_bytes: init.len() as u64,
            init_crc32c: crc32c::crc32c_append(crc32c::crc32c(&init.head), &init.tail),
            gap,
            clock_step_ms,
            stamp,
            first: None,
            sound: None,
            preview_end: None,
            after: 0,
            video: Frames::default(),
            audio: Frames::default(),
            before_last: <(Frames, Frames)>::default(),
            info: Arc::clone(&init.info),
            asked_for_key: false,
            is_provisional: false,
            any_track: false,
        }
    }

    /// Returns the size of the object if the chunk ended at `at`.
    #[inline]
    pub(super) fn bytes_up_to(&self, at: u64) -> u64 {
        at - self.at + self.init_bytes
    }

    /// Returns the frames that its duration is computed from.
    fn frames(&self) -> Frames {
        if self.video.is_empty() { self.audio } else { self.video }
    }

    /// Returns the end of its last frame, ns, or the end of the sound if that is more than [`OUTLASTS`] later.
    pub(super) fn end(&self, usual: u64) -> u64 {
        let end = self.frames().end(usual);
        let sound = if self.audio.is_empty() { 0 } else { self.audio.end(0) };
        if sound > end.saturating_add(OUTLASTS) { sound } else { end }
    }

    /// Returns the unit that it is dated by: its first picture, else its first sound.
    pub(super) fn dated_by(&self) -> Option<&FirstUnit> {
        self.first.as_ref().or(self.sound.as_ref())
    }

    /// Returns the unit that gives the chunk its container time: the one that it is dated by, or its first sound if that one has
    /// no time.
    fn timed_by(&self) -> Option<&FirstUnit> {
        self.dated_by().filter(|first| first.pts.is_some()).or(self.sound.as_ref())
    }

    /// Returns the time from which its length counts, ns. Not before the end of the previous chunk: sound is stored after the
    /// pictures that it belongs to, so the first sound may belong to pictures of that chunk.
    pub(super) fn begins(&self) -> Option<u64> {
        self.timed_by()?.pts.map(|pts| pts.max(self.after))
    }

    /// Returns how much time it covers so far by the times of its frames, ns; `None` if they have none.
    pub(super) fn covered(&self) -> Option<u64> {
        let from = self.begins()?;
        let end = [self.video, self.audio]
            .iter()
            .filter(|frames| !frames.is_empty())
            .map(|frames| frames.end(0))
            .max()?;
        Some(end.saturating_sub(from))
    }

    /// Adds the times of a unit, and takes over the stream information of its header. A time that may be wrong is left out, so
    /// that it does not determine where the chunk ends.
    fn note(&mut self, unit: &Unit, is_doubtful: bool) {
        // By address, since this runs for every unit: a scanner shares one `Arc` until something changes.
        if let Some(init) = &unit.init
            && !Arc::ptr_eq(&self.info, &init.info)
        {
            self.info = Arc::clone(&init.info);
        }
        self.before_last = (self.video, self.audio);
        if let Some(pts) = unit.pts.filter(|_| !is_doubtful) {
            match unit.track {
                Track::Video => self.video.add(pts, unit.end),
                Track::Audio => self.audio.add(pts, unit.end),
                Track::Other => {}
            }
        }
    }

    /// Corrects a guessed capture start with the first unit whose sample came in a buffer with a time. `stamp` is that of the
    /// buffer, `pts` the time of the unit.
    pub(super) fn correct_start(&mut self, clock: &mut CaptureClock, pts: Option<u64>, stamp: &Stamp) {
        let has_time = stamp.running.is_some() || stamp.reference.is_some();
        let (true, true, Some(first), Some(pts)) = (self.is_provisional, has_time, &mut self.first, pts) else {
            return;
        };
        if let Some(first_pts) = first.pts {
            let (utc, kind) = clock.utc(stamp, Some(pts));
            (first.utc, first.clock) = (utc.saturating_add(first_pts).saturating_sub(pts), kind);
            self.is_provisional = false;
        }
    }

    /// Returns whether this unit is the one that the chunk is dated by.
    fn begins_with(&self, unit: &Unit) -> bool {
        self.first.is_none() && (unit.key.is_key() || unit.track == Track::Video || self.any_track)
    }

    /// Returns whether this picture is shown before the open key unit that the chunk begins with: it depends on pictures of
    /// the chunk before.
    fn depends_on_previous(&self, unit: &Unit) -> bool {
        match self.first {
            Some(FirstUnit {
                key: Key::Open,
                pts: Some(key),
                ..
            }) => unit.track == Track::Video && unit.pts.is_some_and(|pts| pts < key),
            _ => false,
        }
    }
}

impl Chunker {
    /// Adds a unit to what is known of the open chunk.
    pub(super) fn account(&mut self, at: u64, unit: &Unit, container_pts: Option<u64>, stamp: Stamp, events: &mut Vec<Event>) {
        let ChunkState::Open(open) = &mut self.state else { return };
        open.note(unit, self.is_doubtful);
        open.correct_start(&mut self.clock, unit.pts, &stamp);
        let has_time = open.first.is_some_and(|first| first.pts.is_some());
        if !has_time && open.sound.is_none() && unit.track == Track::Audio && unit.pts.is_some() {
            // On a copy: media time starts at the first picture, so sound must not start it unless that picture has no time.
            let mut clock_then = self.clock;
            let (utc, clock) = clock_then.utc(&stamp, unit.pts);
            if open.first.is_some() {
                self.clock = clock_then;
            }
            open.sound = Some(FirstUnit {
                at,
                key: Key::No,
                pts: unit.pts,
                container_pts,
                utc,
                clock,
            });
        }
        if open.begins_with(unit) {
            self.date_chunk(at, unit, container_pts, stamp, events);
        }
        self.warn_of(unit, events);
        self.keys.note(unit);
    }

    /// Warns of a fragment that is too long for chunks of `max-size-time`, and of a picture that depends on the previous chunk.
    fn warn_of(&mut self, unit: &Unit, events: &mut Vec<Event>) {
        let ChunkState::Open(open) = &self.state else { return };
        let depends_on_previous = open.depends_on_previous(unit);
        let limits = self.limits;
        let duration = unit.pts.zip(unit.end).map_or(0, |(pts, end)| end.saturating_sub(pts));
        let is_long = limits.max_time > 0 && !limits.single && duration > limits.max_time.saturating_mul(2);
        // Only a fragment of MP4 is one unit of many pictures.
        if is_long && self.input.container() == Container::Fmp4 {
            self.warn(Warning::LongFragment(duration), events);
        }
        if depends_on_previous {
            self.warn(Warning::OpenGop, events);
        }
    }

    /// Reports the closed chunk, if there is one. `next_pts` is the time of the next chunk's first picture.
    pub(super) fn finish_closing(&mut self, next_pts: Option<u64>, events: &mut Vec<Event>) {
        let Some((open, at)) = self.closing.chunk.take() else {
            return;
        };
        let info = self.info(&open, at, next_pts);
        let has_time = open.begins().is_some();
        self.closing.last_end = Some((self.closing.end_of(&info), has_time));
        self.closing.stepped = 0;
        // A chunk of one frame has no mean: keep that of the previous chunk.
        self.closing.usual_frame = open.frames().mean().unwrap_or(self.closing.usual_frame);
        events.push(Event::End(Box::new(info)));
    }

    /// Returns what is known so far of a chunk that has begun and whose [`Event::End`] has not been returned.
    pub fn info_of(&self, sequence: u64) -> Option<ChunkInfo> {
        let (open, end) = match (&self.state, &self.closing.chunk) {
            (ChunkState::Open(open), _) if open.sequence == sequence => (open, self.undecided.bytes.end()),
            (_, Some((open, at))) if open.sequence == sequence => (open, *at),
            _ => return None,
        };
        Some(self.info(open, end, None))
    }

    /// Returns the bytes of the open chunk that have not been handed over: its sequence number, the offset of the first of
    /// them in its payload, and the bytes. Those above the last decided offset may still go into the next chunk.
    pub fn not_handed_over(&self) -> Option<(u64, u64, Vec<Bytes>)> {
        let ChunkState::Open(open) = &self.state else { return None };
        let bytes = &self.undecided.bytes;
        Some((open.sequence, bytes.base().saturating_sub(open.at), bytes.copied()))
    }

    pub(super) fn info(&self, open: &OpenChunk, at: u64, next_pts: Option<u64>) -> ChunkInfo {
        let container = self.input.container();
        let first = open.dated_by();
        let (start, clock) = first.map_or_else(
            || {
                // `info_of` asks this of open chunks too, which must not change the clock: `peek`, not `utc`.
                let (utc, clock) = self.clock.peek(&open.stamp);
                (self.start_without_time(utc), clock)
            },
            |first| (first.utc, first.clock),
        );
        let key = first.map_or(Key::No, |first| first.key);
        ChunkInfo {
            sequence: open.sequence,
            start,
            duration: self.duration(open, next_pts),
            pts_start: open.timed_by().and_then(|first| first.container_pts),
            // Negative if decoding begins before the segment: the metadata has no negative running times.
            running: open.stamp.running.map(|r| u64::try_from(r).unwrap_or(0)),
            container,
            init_bytes: open.init_bytes,
            init_crc32c: open.init_crc32c,
            // Computed from an announced size: the end of a torn picture lies behind the end of the chunk.
            preview_bytes: open.preview_end.filter(|&end| end <= at).map(|end| open.bytes_up_to(end)),
            key_frame: key.is_key(),
            gap: open.gap,
            clock,
            clock_step_ms: open.clock_step_ms,
            codecs: open.info.codecs.clone(),
            audio_only: open.info.has_audio && !open.info.has_video,
            size: open.bytes_up_to(at),
        }
    }

    /// Returns the duration in ns: to the next chunk's first picture, else to the end of the last frame, else the time that
    /// the bytes took to arrive.
    fn duration(&self, open: &OpenChunk, next_pts: Option<u64>) -> u64 {
        let frames = open.frames();
        let pts = open.begins();
        // The next chunk may begin on an earlier time line: then the frames determine the duration.
        let until = next_pts.filter(|&next| pts.is_some_and(|p| next > p));
        match (pts, until) {
            (Some(pts), Some(next)) => next - pts,
            (Some(pts), None) if !frames.is_empty() => open.end(self.closing.usual_frame).saturating_sub(pts),
            _ => elapsed(&open.stamp, &self.undecided.last_stamp().unwrap_or(open.stamp)),
        }
    }
}
