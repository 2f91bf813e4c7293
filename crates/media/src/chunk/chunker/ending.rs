//! Closes chunks: no data arrives, recording stops, or the stream ends.
//!
//! PURE.

use super::open::LastUnit;
use super::start::{Dropping, Waiting};
use super::{ChunkState, Chunker, elapsed};
use crate::chunk::clock::Stamp;
use crate::chunk::{Event, GapReason};
use crate::container::{Fault, Init, Key};

/// Where a chunk ended that was closed because no data arrived.
#[derive(Debug)]
pub(super) enum ClosedAt {
    /// At the last decided byte: the rest of a unit may follow, with which no chunk that plays can begin.
    LastByte,
    /// Before the unit in progress, which begins the next chunk. `None` if that unit is unknown, or has begun a chunk already.
    WholeUnit(Option<Box<LastUnit>>),
}

impl Chunker {
    /// Closes the open chunk: no buffer came for [`crate::chunk::Limits::idle`], or the pipeline is paused for that duration.
    pub fn close_idle(&mut self, events: &mut Vec<Event>) {
        // A fixed name has a single object: once closed, it could not be continued.
        if self.limits.single {
            return;
        }
        if matches!(self.state, ChunkState::Open(_)) {
            self.close_whole(events);
            self.next.gap = self.next.gap.or(Some(GapReason::Stalled));
        }
    }

    /// Closes the open chunk after its last whole unit, if the bytes of the unit in progress are still held; else at the last
    /// decided byte.
    fn close_whole(&mut self, events: &mut Vec<Event>) {
        let (ChunkState::Open(open), Some(scanner)) = (&mut self.state, &self.input.scanner) else {
            return;
        };
        let (settled, whole) = (scanner.settled(), scanner.whole());
        // Bytes below the base are in the chunk already and cannot leave it.
        // A chunk without a whole picture is of no use.
        let has_picture = whole >= self.undecided.bytes.base() && open.first.is_some_and(|first| first.at < whole);
        if whole < settled && has_picture {
            let unit = self.last.take_if(|last| last.at == whole);
            if unit.is_some() {
                // The unit in progress is the next chunk's: its time must not lengthen this one.
                (open.video, open.audio) = open.before_last;
            }
            self.close(whole, events);
            // After `close`, which sets `LastByte`: with that, the next unit would be taken for the rest of a torn one.
            self.state = ChunkState::Idle(ClosedAt::WholeUnit(unit.map(Box::new)));
        } else {
            self.close(settled, events);
        }
        // Reported at once: the next picture may never come.
        self.finish_closing(None, events);
    }

    /// Data arrives again: begins a chunk with the unit that was in progress when the last one was closed.
    #[inline]
    pub(super) fn resume(&mut self, events: &mut Vec<Event>) {
        if let ChunkState::Idle(ClosedAt::WholeUnit(unit)) = &mut self.state
            && let Some(last) = unit.take()
        {
            self.resume_with(*last, events);
        }
    }

    fn resume_with(&mut self, last: LastUnit, events: &mut Vec<Event>) {
        self.unit_while_idle(last.at, &last.unit, last.stamp, events);
        self.account(last.at, &last.unit, last.container_pts, last.stamp, events);
        // The scanner marked that end while the unit still belonged to the chunk before.
        if let (ChunkState::Open(open), true) = (&mut self.state, last.unit.key.is_key()) {
            open.preview_end = last.picture_end;
        }
    }

    /// Starts or stops recording. Stopping closes the open chunk after its last whole unit; what arrives is dropped as one
    /// gap, until recording starts and a key unit arrives. Idempotent.
    pub fn record(&mut self, on: bool, events: &mut Vec<Event>) {
        if on != self.stopped {
            return;
        }
        self.stopped = !on;
        if on {
            return;
        }
        self.close_whole(events);
        let waiting = match &mut self.state {
            ChunkState::Waiting(waiting) => std::mem::take(waiting),
            _ => Waiting::default(),
        };
        let dropping = match waiting.dropping {
            // Recording was started, but no key unit came: the gap continues.
            Some(gap) if gap.reason == GapReason::RecordStopped => gap,
            Some(gap) => self.end_gap(gap, waiting.since.as_ref().map(|since| since.1), events),
            None => self.stopped_from(waiting.first.as_ref()),
        };
        self.state = ChunkState::Waiting(Waiting {
            dropping: Some(dropping),
            // A header that is known stays in use: no other needs to come.
            first: waiting.first,
            ..Waiting::default()
        });
        self.next.gap = Some(GapReason::RecordStopped);
    }

    /// Returns the gap of a recording that stops now. Bytes held from `first`, the first unit, on are part of the gap.
    fn stopped_from(&self, first: Option<&(u64, Init)>) -> Dropping {
        let stamp = match first {
            Some((at, _)) => Some(self.undecided.stamp_at(*at)),
            None => self.undecided.last_stamp(),
        };
        // 0 if nothing has arrived: `date_gap` dates it by the first buffer.
        let start = stamp.map_or(0, |stamp| self.clock.peek(&stamp).0);
        let base = self.undecided.bytes.base();
        Dropping {
            head: first.map_or(0, |(at, _)| at.saturating_sub(base)),
            ..Dropping::new(GapReason::RecordStopped, start)
        }
    }

    /// Reports a gap that has lasted `since` its first unit, because recording stops. Returns the gap that follows.
    fn end_gap(&self, gap: Dropping, since: Option<Stamp>, events: &mut Vec<Event>) -> Dropping {
        let duration = self.gap_duration(Some(&gap), since);
        if gap.bytes > gap.head {
            events.push(gap.into_event(0, duration));
        }
        let now = self.undecided.last_stamp().map_or(0, |stamp| self.clock.peek(&stamp).0);
        Dropping {
            // What was dropped contains the header of the next chunk, which is lost only if no chunk follows.
            bytes: gap.head,
            head: gap.head,
            head_at: gap.head_at,
            ..Dropping::new(GapReason::RecordStopped, now)
        }
    }

    /// Returns how long a gap has lasted until now: by arrival since its first unit, or since the first buffer that is held.
    fn gap_duration(&self, gap: Option<&Dropping>, since: Option<Stamp>) -> u64 {
        let by_arrival = match (
            gap,
            self.undecided.last_stamp(),
            since.or_else(|| self.undecided.first_stamp()),
        ) {
            (Some(gap), Some(last), _) if gap.reason == GapReason::RecordStopped && gap.start > 0 => {
                self.clock.peek(&last).0.saturating_sub(gap.start)
            }
            (_, Some(last), Some(first)) => elapsed(&first, &last),
            _ => 0,
        };
        // A file arrives all at once: there its own times are the longer ones.
        by_arrival.max(gap.map_or(0, Dropping::media_time))
    }

    /// Returns whether recording is stopped.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Ends the stream: moves what is left to the open chunk and closes it. Without an open chunk, begins one if something
    /// can be stored, else reports a gap.
    ///
    /// # Errors
    /// Returns a [`Fault`] if the container turns out to be one that cannot be cut. The events are complete all the same.
    pub fn finish(&mut self, events: &mut Vec<Event>) -> Result<(), Fault> {
        let mut outcome = Ok(());
        // A unit that a close left for the next chunk is stored even if nothing came after it.
        self.resume(events);
        if self.input.scanner.is_none() && !self.input.probe.is_empty() {
            outcome = self.detect(true, events);
        }
        let missing = self.missing_head().filter(|_| !self.has_begun() && !self.stopped);
        if let Some(scanner) = &mut self.input.scanner {
            let mut marks = Vec::new();
            scanner.finish(&mut marks);
            for mark in marks {
                self.mark(mark, events);
            }
        }
        let end = self.undecided.bytes.end();
        if let Some(fault) = missing {
            outcome = outcome.and(Err(fault));
        }
        if let ChunkState::Waiting(waiting) = &mut self.state {
            let mut waiting = std::mem::take(waiting);
            // Without its header no part of the stream could play.
            waiting.first.take_if(|_| missing.is_some());
            self.finish_waiting(waiting, end, events);
        } else if matches!(self.state, ChunkState::Idle(_)) && self.is_holding() {
            // Bytes after a close in which no unit begins are stored too: all payloads joined are the input, byte for byte.
            let from = self.undecided.bytes.base();
            let stamp = self.undecided.stamp_at(from);
            self.begin(from, self.next.init.clone(), stamp, events);
        }
        self.close(end, events);
        self.finish_closing(None, events);
        outcome
    }

    /// The stream ends before a key unit came: stores from the first unit on, or drops everything up to `end` if decoding
    /// could not begin with it.
    fn finish_waiting(&mut self, waiting: Waiting, end: u64, events: &mut Vec<Event>) {
        match waiting {
            Waiting {
                dropping: None,
                first: Some((from, init)),
                undecided,
                sound,
                ..
            } => {
                let stamp = self.undecided.stamp_at(from);
                self.discard_head(from, &init, &stamp, None, events);
                self.begin(from, init, stamp, events);
                // No picture ever came: sound plays from its first unit.
                self.begin_with(undecided, sound, Key::Closed, events);
            }
            Waiting { dropping, since, .. } => {
                let duration = self.gap_duration(dropping.as_ref(), since.map(|since| since.1));
                let rest = self.discard_below(end, events);
                // No chunk follows whose header would have the dropped head: its bytes are lost too.
                let gap = dropping.map(|gap| Dropping { head: 0, ..gap });
                let gap = gap.or_else(|| self.never_begun());
                let gap = gap.filter(|gap| gap.bytes + rest > 0);
                events.extend(gap.map(|gap| gap.into_event(rest, duration)));
            }
        }
    }

    /// Returns the gap of a stream in which no unit came that a chunk could begin with.
    fn never_begun(&self) -> Option<Dropping> {
        let stamp = self.undecided.first_stamp()?;
        let reason = self.next.gap.unwrap_or(GapReason::Start);
        Some(Dropping::new(reason, self.clock.peek(&stamp).0))
    }
}
