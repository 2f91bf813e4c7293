//! Waits for the unit that begins a chunk: at the start, after a stop, and after an idle close.
//!
//! PURE.

use super::audio_only::waited;
use super::cuts::Cut;
use super::ending::ClosedAt;
use super::held::{HeldUnits, UndecidedPictures};
use super::{ChunkState, Chunker, elapsed};
use crate::chunk::clock::Stamp;
use crate::chunk::{Event, GapReason, Warning};
use crate::container::{Init, Key, Track, Unit};

/// State while a key unit is awaited.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Offset and header of the first unit.
    pub(super) first: Option<(u64, Init)>,
    /// Time and stamp of the first unit.
    pub(super) since: Option<Box<(Option<u64>, Stamp)>>,
    /// Sound that came before any picture.
    pub(super) sound: Option<Box<HeldUnits>>,
    /// Pictures whose bytes do not show whether decoding can begin with them.
    pub(super) undecided: Option<Box<UndecidedPictures>>,
    /// `Some` once a picture came that cannot be decoded, or if recording is stopped: what arrives is dropped.
    pub(super) dropping: Option<Dropping>,
}

/// The bytes dropped before the first key unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dropping {
    pub(super) reason: GapReason,
    /// UTC of the first of them, ns since the epoch; 0 if nothing has arrived yet.
    pub(super) start: u64,
    pub(super) pts: Option<u64>,
    pub(super) bytes: u64,
    /// Latest container time of a dropped unit.
    pub(super) last_pts: Option<u64>,
    /// How many of the bytes are a stream header, which the header of the next chunk repeats.
    pub(super) head: u64,
    /// Offset of another stream header, until the unit after it shows how long it is.
    pub(super) head_at: Option<u64>,
}

impl Dropping {
    pub(super) fn new(reason: GapReason, start: u64) -> Self {
        Self {
            reason,
            start,
            pts: None,
            bytes: 0,
            last_pts: None,
            head: 0,
            head_at: None,
        }
    }

    /// Notes the time of a dropped unit.
    pub(super) fn note(&mut self, unit: &Unit) {
        // A recording may start within a picture, whose beginning is missing and with it the time: take that of a later unit.
        self.pts = self.pts.or(unit.pts);
        self.last_pts = self.last_pts.max(unit.pts);
    }

    /// Notes a stream header that replaces the one before: the header of the next chunk repeats it instead.
    fn note_head(&mut self, at: u64, unit: &Unit) {
        if let Some(head_at) = self.head_at.take() {
            self.head = at.saturating_sub(head_at);
        }
        // Only a header in a unit of its own replaces the one before; parameter sets in band are payload.
        if unit.new_codec_config && unit.track == Track::Other {
            self.head_at = Some(at);
        }
    }

    /// Returns how long the dropped units last by their own times; 0 if they have none.
    pub(super) fn media_time(&self) -> u64 {
        self.last_pts
            .zip(self.pts)
            .map_or(0, |(last, first)| last.saturating_sub(first))
    }

    /// Returns the gap, with `bytes` more bytes. The stream header in it does not count, because it is not lost.
    pub(super) fn into_event(self, bytes: u64, duration: u64) -> Event {
        Event::Gap {
            reason: self.reason,
            start: self.start,
            duration,
            bytes: (self.bytes + bytes).saturating_sub(self.head),
        }
    }
}

impl Chunker {
    /// Dates a gap that began before the first buffer: recording was stopped from the start.
    #[inline]
    pub(super) fn date_gap(&mut self, stamp: &Stamp) {
        if let ChunkState::Waiting(Waiting { dropping: Some(gap), .. }) = &mut self.state
            && gap.start == 0
        {
            gap.start = self.clock.peek(stamp).0;
        }
    }

    /// Begins a chunk with the first unit after one was closed because no data arrived.
    pub(super) fn unit_while_idle(&mut self, at: u64, unit: &Unit, stamp: Stamp, events: &mut Vec<Event>) {
        let from = self.undecided.bytes.base();
        if at > from && matches!(self.state, ChunkState::Idle(ClosedAt::LastByte)) {
            // The rest of a unit that the close split: a chunk of its own, so that the next key unit begins one that plays.
            self.begin(from, self.next.init.clone(), stamp, events);
            match &unit.init {
                Some(init) if unit.key.is_key() => self.cut(Cut::Key, at, init.clone(), stamp, events),
                _ => {}
            }
        } else {
            let init = unit.init.clone().unwrap_or_else(|| self.next.init.clone());
            self.begin(from, init, stamp, events);
        }
    }

    /// Begins a chunk with this unit if it is a key unit, or if none came within the patience or the hard memory limit. Otherwise
    /// holds or drops the unit.
    pub(super) fn unit_while_waiting(
        &mut self,
        at: u64,
        unit: &Unit,
        container_pts: Option<u64>,
        stamp: Stamp,
        events: &mut Vec<Event>,
    ) {
        self.note_dropped(at, unit);
        if self.stopped {
            return;
        }
        if unit.new_codec_config && self.next.cut_from.is_some() {
            self.begin_before_head(at, unit, stamp, events);
        }
        let held = at - self.undecided.bytes.base();
        let ChunkState::Waiting(waiting) = &mut self.state else {
            return;
        };
        let (pts, since) = **waiting.since.get_or_insert_with(|| Box::new((unit.pts, stamp)));
        if pts.is_none() {
            // Configuration has no time: use that of the first unit that has one.
            waiting.since = Some(Box::new((unit.pts, since)));
        }
        if waiting.first.is_none()
            && let Some(init) = &unit.init
        {
            waiting.first = Some((at, init.clone()));
        }
        let waited = waited(pts, &since, unit, &stamp).max(self.trickle.given_up_after);
        let is_too_long = waited >= self.limits.patience() || (self.limits.hard > 0 && held >= self.limits.hard);
        if unit.key.is_key() || is_too_long {
            self.begin_at(at, unit, stamp, waited, events);
            return;
        }
        match unit.track {
            Track::Video if unit.key == Key::Undecided && waiting.dropping.is_none() => {
                self.keep_picture(at, unit, container_pts, stamp);
            }
            Track::Video => self.drop_picture(unit, &stamp),
            Track::Audio => self.keep_sound(at, unit, container_pts, stamp),
            Track::Other => {}
        }
    }

    /// Begins a chunk with this unit, or with everything held before it. `waited` is how long a key unit was awaited, ns.
    fn begin_at(&mut self, at: u64, unit: &Unit, stamp: Stamp, waited: u64, events: &mut Vec<Event>) {
        let ChunkState::Waiting(waiting) = &mut self.state else {
            return;
        };
        let undecided = waiting.undecided.take();
        if unit.key.is_key() {
            // Once a unit shows that it is key, the held pictures before it count as not key: they are dropped as a gap.
            waiting.dropping = waiting.dropping.or(undecided.as_ref().map(|pictures| pictures.gap));
        }
        let (from, init) = match (&waiting.dropping, &waiting.first, &unit.init) {
            // Nothing was dropped: sound in front of the first picture belongs to the chunk.
            (None, Some((first_at, first_init)), _) => (*first_at, first_init.clone()),
            (Some(_), _, Some(here)) => (at, here.clone()),
            // No chunk can begin inside a Matroska Cluster of known size: the next unit is tried.
            _ => return,
        };
        let undecided = undecided.filter(|_| waiting.dropping.is_none());
        let dropped = waiting.dropping.take();
        let sound = waiting.sound.take();
        let has_held = dropped.is_none() && (unit.track != Track::Video || undecided.is_some());
        if !unit.key.is_key() {
            self.warn_of_no_key(waited, events);
        }
        match dropped {
            Some(gap) => {
                let bytes = self.discard_below(from, events);
                let duration = self.duration_of(&gap, unit, &stamp, waited);
                events.push(gap.into_event(bytes, duration));
            }
            None => self.discard_head(from, &init, &stamp, unit.pts, events),
        }
        self.begin(from, init, stamp, events);
        if has_held {
            self.begin_with(undecided, sound, unit.key, events);
        }
    }

    /// Notes how many of the dropped bytes are a stream header, which the header of the next chunk repeats.
    fn note_dropped(&mut self, at: u64, unit: &Unit) {
        let (is_first, base) = (!self.has_begun(), self.undecided.bytes.base());
        let ChunkState::Waiting(Waiting {
            dropping: Some(gap),
            first,
            ..
        }) = &mut self.state
        else {
            return;
        };
        if let (true, None, Some(init)) = (is_first, &first, &unit.init) {
            // Recording was stopped before the first unit: all that came before it was dropped.
            gap.head = (gap.bytes + at.saturating_sub(base)).min(init.len() as u64);
            *first = Some((at, init.clone()));
        }
        gap.note_head(at, unit);
        if self.stopped {
            gap.note(unit);
        }
    }

    /// Drops a picture that came before the first key unit: it cannot be decoded. Everything from here on is dropped too.
    fn drop_picture(&mut self, unit: &Unit, stamp: &Stamp) {
        let gap = self.gap_from(unit, stamp);
        let ChunkState::Waiting(waiting) = &mut self.state else {
            return;
        };
        let undecided = waiting.undecided.take().map(|pictures| pictures.gap);
        waiting.dropping.get_or_insert(undecided.unwrap_or(gap)).note(unit);
    }

    /// Returns the gap that begins with a picture which came before the first key unit.
    pub(super) fn gap_from(&mut self, unit: &Unit, stamp: &Stamp) -> Dropping {
        let head = match &self.state {
            ChunkState::Waiting(Waiting {
                first: Some((at, _)), ..
            }) => at.saturating_sub(self.undecided.bytes.base()),
            _ => 0,
        };
        Dropping {
            pts: unit.pts,
            head,
            ..Dropping::new(GapReason::Start, self.clock.utc(stamp, unit.pts).0)
        }
    }

    /// Returns how long the gap is that ends with this unit.
    fn duration_of(&mut self, gap: &Dropping, unit: &Unit, stamp: &Stamp, waited: u64) -> u64 {
        match gap.reason {
            GapReason::RecordStopped => self.clock.peek(stamp).0.saturating_sub(gap.start),
            _ => unit.pts.zip(gap.pts).map_or(waited, |(b, a)| b.saturating_sub(a)),
        }
    }

    /// Drops the bytes below `from`: they are the header of the chunk that begins there. More bytes than that header has mean
    /// that another header was replaced, or rejected, before any unit came: reports those as a gap.
    pub(super) fn discard_head(&mut self, from: u64, init: &Init, stamp: &Stamp, pts: Option<u64>, events: &mut Vec<Event>) {
        let bytes = self.discard_below(from, events);
        if let Some(lost) = bytes.checked_sub(init.len() as u64).filter(|&lost| lost > 0) {
            self.next.gap = Some(GapReason::Config);
            let start = self.clock.utc(stamp, pts).0;
            events.push(Dropping::new(GapReason::Config, start).into_event(lost, 0));
        }
    }

    /// Stores what came before a new header after damage as a chunk of its own: it cannot be decoded with that header.
    fn begin_before_head(&mut self, at: u64, unit: &Unit, stamp: Stamp, events: &mut Vec<Event>) {
        let ChunkState::Waiting(Waiting {
            first, dropping: None, ..
        }) = &mut self.state
        else {
            return;
        };
        let Some((from, init)) = first.take().filter(|(from, _)| *from < at) else {
            return;
        };
        let here = unit.init.clone().unwrap_or_default();
        let before = self.undecided.stamp_at(from);
        self.discard_head(from, &init, &before, None, events);
        self.begin(from, init, before, events);
        self.next.gap = Some(GapReason::Damage);
        self.cut(Cut::CodecConfig, at, here, stamp, events);
    }

    /// Begins a chunk with everything that is held, although no key unit came.
    pub(super) fn begin_without_key(&mut self, events: &mut Vec<Event>) {
        let base = self.undecided.bytes.base();
        let (first, pictures, sound) = match &mut self.state {
            ChunkState::Waiting(waiting) => (waiting.first.take(), waiting.undecided.take(), waiting.sound.take()),
            _ => return,
        };
        let stamp = self.undecided.stamp_at(base);
        let waited = elapsed(&stamp, &self.undecided.last_stamp().unwrap_or(stamp));
        self.warn_of_no_key(waited, events);
        let (from, init) = first.unwrap_or((base, Init::default()));
        self.discard_head(from, &init, &stamp, None, events);
        self.begin(from, init, stamp, events);
        self.begin_with(pictures, sound, Key::No, events);
    }

    /// Warns that no key unit came, unless the reason is known: without PAT and PMT no key unit can be recognised.
    fn warn_of_no_key(&mut self, waited: u64, events: &mut Vec<Event>) {
        if !self.has_warned(&Warning::NoProgram) {
            self.warn_no_key_unit(waited, None, events);
        }
    }

    pub(super) fn warn_no_key_unit(&mut self, waited: u64, interval: Option<u64>, events: &mut Vec<Event>) {
        let enclosed = self.encloses_keys();
        self.warn(
            Warning::NoKeyUnit {
                waited,
                interval,
                enclosed,
            },
            events,
        );
    }

    /// Drops the undecided bytes below `at`; returns how many.
    pub(super) fn discard_below(&mut self, at: u64, events: &mut Vec<Event>) -> u64 {
        let bytes = self.undecided.bytes.drop_below(at);
        events.push(Event::Discard(bytes));
        bytes
    }
}
