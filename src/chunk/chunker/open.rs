//! What is known of the chunk being gathered, and of one whose length is not known yet.

use std::sync::Arc;

use bytes::Bytes;

use super::{Chunker, State, elapsed};
use crate::chunk::clock::{ClockKind, Stamp};
use crate::chunk::frames::Frames;
use crate::chunk::{ChunkInfo, Event, GapReason, Warning};
use crate::container::{Container, Key, StreamInfo, Track, Unit};

/// The chunk being gathered.
#[derive(Debug)]
pub(super) struct OpenChunk {
    pub(super) sequence: u64,
    /// Offset of its payload in the input.
    pub(super) at: u64,
    pub(super) init_bytes: u64,
    pub(super) gap: Option<GapReason>,
    pub(super) clock_step_ms: Option<i64>,
    /// Stamp of its first unit.
    pub(super) stamp: Stamp,
    /// The first picture (in an audio-only stream: the first unit); `None` while only configuration came.
    pub(super) begin: Option<FirstUnit>,
    pub(super) preview_end: Option<u64>,
    pub(super) video: Frames,
    pub(super) audio: Frames,
    /// Video and audio without the last unit.
    pub(super) before_last: (Frames, Frames),
    pub(super) info: Arc<StreamInfo>,
    pub(super) asked_for_key: bool,
    /// When it began is a guess, until a unit comes whose buffer has a time.
    pub(super) provisional: bool,
    /// It was cut where no picture begins: any unit tells its time.
    pub(super) any_track: bool,
}

/// A unit as it was told.
#[derive(Clone, Debug)]
pub(super) struct LastUnit {
    pub(super) at: u64,
    pub(super) unit: Unit,
    pub(super) container_pts: Option<u64>,
    pub(super) stamp: Stamp,
    /// Where its picture ends, if it has and is a key picture.
    pub(super) picture_end: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct FirstUnit {
    /// Offset in the input.
    pub(super) at: u64,
    pub(super) key: Key,
    pub(super) pts: Option<u64>,
    /// As the container has it.
    pub(super) container_pts: Option<u64>,
    pub(super) utc: u64,
    pub(super) clock: ClockKind,
}

impl Chunker {
    /// Notes a unit in the open chunk.
    pub(super) fn account(&mut self, at: u64, unit: &Unit, container_pts: Option<u64>, stamp: Stamp, events: &mut Vec<Event>) {
        let State::Open(open) = &mut self.state else { return };
        if let Some(init) = &unit.init
            && !Arc::ptr_eq(&open.info, &init.info)
        {
            open.info = Arc::clone(&init.info);
        }
        open.before_last = (open.video, open.audio);
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
            Some(FirstUnit {
                key: Key::Open,
                pts: Some(key),
                ..
            }) => unit.track == Track::Video && unit.pts.is_some_and(|p| p < key),
            _ => false,
        };
        if open.begin.is_none() && (unit.key.is_key() || unit.track == Track::Video || open.any_track) {
            let (utc, clock) = self.clock.utc(&stamp, unit.pts);
            open.begin = Some(FirstUnit {
                at,
                key: unit.key,
                pts: unit.pts,
                container_pts,
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
        let length = unit.pts.zip(unit.end).map_or(0, |(pts, end)| end.saturating_sub(pts));
        let limits = self.limits;
        let is_fmp4 = self.scanner.as_ref().is_some_and(|s| s.container() == Container::Fmp4);
        if is_fmp4 && limits.max_time > 0 && !limits.single && length >= limits.patience() {
            self.warn(Warning::LongFragment(length), events);
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
    pub(super) fn finish_closing(&mut self, next_pts: Option<u64>, events: &mut Vec<Event>) {
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

    pub(super) fn info(&self, open: &OpenChunk, at: u64, next_pts: Option<u64>) -> ChunkInfo {
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
            pts_start: open.begin.and_then(|b| b.container_pts),
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
}
