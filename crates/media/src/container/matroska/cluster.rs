//! Walks the blocks of a Cluster: at which of them a chunk can begin, and the header it then needs.
//!
//! PURE. Source: RFC 9559 5.1.3. A chunk can begin at a Cluster. If the Cluster is of unknown size, a chunk can also begin
//! before any of its blocks, with a copy of the Cluster's header. A Cluster that opens with audio is a key unit if its first
//! picture is a key frame: units are held back until that picture has been classified.

use bytes::Bytes;

use super::super::feed::len64;
use super::super::nal::{Part, VideoCodec};
use super::super::{Key, Mark, MarkKind, Track, Unit};
use super::block::{Block, Classified, MAX_LEAD};
use super::ebml::{self, Header, Read};
use super::head;
use super::held::{HeldBlocks, MAX_HELD_BYTES, is_decisive};
use super::stream::{CutPoint, Frame, Stream};

const TIMESTAMP: u32 = 0xE7;
const POSITION: u32 = 0xA7;
const PREV_SIZE: u32 = 0xAB;
pub(super) const SIMPLE_BLOCK: u32 = 0xA3;
pub(super) const BLOCK_GROUP: u32 = 0xA0;
const BLOCK: u32 = 0xA1;
const BLOCK_DURATION: u32 = 0x9B;
const REFERENCE_BLOCK: u32 = 0xFB;
const SILENT_TRACKS: u32 = 0x5854;
const ENCRYPTED_BLOCK: u32 = 0xAF;

/// Maximum size in bytes of an element; a larger one counts as damage. The largest uncompressed pictures have half of it.
pub(super) const MAX_ELEMENT: u64 = 256 << 20;

/// Largest block size that is always accepted. A larger one is accepted up to [`DISPROPORTION`] times the largest size proved so
/// far.
const MAX_BELIEVED: u64 = 32 << 20;
/// See [`MAX_BELIEVED`].
const DISPROPORTION: u64 = 8;

/// Outcome of an attempt to read the next element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// At least this many bytes of the element are needed.
    Need(usize),
    /// This many bytes have been processed.
    Took(u64),
    /// The Cluster ended before these bytes.
    Ended,
    /// These bytes cannot be in a Cluster.
    Damaged,
}

/// An open Cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    start: u64,
    end: Option<u64>,
    timestamp: Option<u64>,
    /// Its ID and size, if the size is unknown; moved to `tail` with the Timestamp.
    header: Vec<u8>,
    tail: Bytes,
    is_empty: bool,
    /// Units held back: `Some` until the first picture of the Cluster has been classified, and while parameter sets in a block of
    /// their own wait for their picture.
    held: Option<HeldBlocks>,
    /// The coded bytes of those parameter sets.
    lead: Vec<u8>,
    group: Option<Group>,
}

/// An open BlockGroup.
#[derive(Debug)]
struct Group {
    start: u64,
    end: u64,
    frame: Option<Frame>,
    /// Whether its unit has been emitted before its end, because the group is too large to be held back.
    is_emitted: bool,
    /// Whether only the container shows key frames (by the absence of a ReferenceBlock), because the codec is not parsed.
    by_flag: bool,
    is_referring: bool,
    duration: Option<u64>,
}

impl Group {
    fn open(start: u64, end: u64) -> Self {
        Self {
            start,
            end,
            frame: None,
            is_emitted: false,
            by_flag: false,
            is_referring: false,
            duration: None,
        }
    }
}

impl Cluster {
    /// Opens the Cluster at `start`; `octets` are the bytes of its ID and size.
    pub(super) fn open(start: u64, octets: &[u8], end: Option<u64>) -> Self {
        Self {
            start,
            end,
            timestamp: None,
            header: if end.is_none() { octets.to_vec() } else { Vec::new() },
            tail: Bytes::new(),
            is_empty: true,
            held: Some(HeldBlocks::new(start, CutPoint::Cluster)),
            lead: Vec::new(),
            group: None,
        }
    }

    /// Returns the offset below which everything is emitted.
    pub(super) fn settled(&self, pos: u64) -> u64 {
        match (&self.held, &self.group) {
            (Some(held), _) => held.at,
            (None, Some(group)) if !group.is_emitted => group.start,
            (None, _) => pos,
        }
    }

    /// Returns whether a BlockGroup is open.
    pub(super) fn has_group(&self) -> bool {
        self.group.is_some()
    }

    /// Returns the offset of the BlockGroup that has not ended at `pos`.
    pub(super) fn group_at(&self, pos: u64) -> Option<u64> {
        self.group.as_ref().filter(|g| pos < g.end).map(|g| g.start)
    }

    /// Returns whether the Cluster has an unknown size, so that blocks may follow an interruption without a new Cluster header.
    pub(super) fn is_open_ended(&self) -> bool {
        self.end.is_none()
    }

    /// Drops partially read elements and held-back units; the Cluster stays open.
    pub(super) fn restart(&mut self) {
        self.held = None;
        self.lead.clear();
        self.group = None;
        // Its blocks were dropped: at its end it must not be mistaken for an empty Cluster.
        self.is_empty = false;
    }

    /// Reads the element that begins with `view`, at offset `pos` of the input.
    pub(super) fn read(&mut self, stream: &mut Stream, pos: u64, view: &[u8], marks: &mut Vec<Mark>) -> Progress {
        // A BlockGroup is emitted at its end: duration and references come behind its Block.
        if let Some(mut group) = self.group.take_if(|g| pos >= g.end) {
            self.emit_group(&mut group, stream, marks);
        }
        if self.group.is_none() && self.end.is_some_and(|end| pos >= end) {
            return Progress::Ended;
        }
        let header = match ebml::header(view) {
            Read::Need(n) => return Progress::Need(n),
            Read::Bad => return Progress::Damaged,
            Read::Got(header) => header,
        };
        let is_above = head::is_segment_level(header.id) || matches!(header.id, head::CLUSTER | head::SEGMENT | ebml::EBML);
        // An unknown size ends with the first element that cannot lie in it (RFC 8794 6.2).
        if is_above && self.group.is_none() && self.end.is_none() {
            return Progress::Ended;
        }
        // A BlockGroup has a known size and cannot contain any of these.
        if is_above && self.group.is_some() {
            return Progress::Damaged;
        }
        let bound = self.group.as_ref().map(|g| g.end).or(self.end).or(stream.segment_end);
        let Some(total) = total(&header, pos, bound, stream.largest) else {
            return Progress::Damaged;
        };
        if self.group.is_some() {
            return self.read_in_group(stream, pos, view, (header, total), marks);
        }
        match header.id {
            TIMESTAMP => self.read_timestamp(view, header.len, total),
            SIMPLE_BLOCK => match self.read_block(stream, pos, view, (header, total), None) {
                Ok(frame) => {
                    self.emit(frame, stream, marks);
                    Progress::Took(total)
                }
                Err(progress) => progress,
            },
            BLOCK_GROUP => {
                let end = pos.saturating_add(total);
                self.group = Some(Group::open(pos, end));
                Progress::Took(len64(header.len))
            }
            POSITION | PREV_SIZE | SILENT_TRACKS | ENCRYPTED_BLOCK | ebml::VOID | ebml::CRC_32 => Progress::Took(total),
            // RFC 8794 asks readers to skip unknown elements. But no element has been added to Cluster in twenty years, and
            // damage looks just like one.
            _ => Progress::Damaged,
        }
    }

    fn read_timestamp(&mut self, view: &[u8], header_len: usize, total: u64) -> Progress {
        // The value has at most eight octets.
        let Some(whole) = usize::try_from(total).ok().filter(|n| *n <= header_len + 8) else {
            return Progress::Damaged;
        };
        let Some(element) = view.get(..whole) else {
            return Progress::Need(whole);
        };
        self.timestamp = ebml::uint(element.get(header_len..).unwrap_or_default());
        // A chunk that begins inside the Cluster needs its header up to here: the times of the blocks are relative to Timestamp.
        if !self.header.is_empty() && self.tail.is_empty() {
            self.header.extend_from_slice(element);
            self.tail = Bytes::from(std::mem::take(&mut self.header));
        }
        Progress::Took(total)
    }

    fn read_in_group(
        &mut self,
        stream: &mut Stream,
        pos: u64,
        view: &[u8],
        (header, total): (Header, u64),
        marks: &mut Vec<Mark>,
    ) -> Progress {
        let Some(mut group) = self.group.take() else {
            return Progress::Damaged;
        };
        let progress = match header.id {
            BLOCK if group.frame.is_none() && !group.is_emitted => {
                match self.read_block(stream, pos, view, (header, total), Some(&mut group)) {
                    Ok(frame) => {
                        group.frame = Some(frame);
                        Progress::Took(total)
                    }
                    Err(progress) => progress,
                }
            }
            BLOCK_DURATION if total <= len64(header.len) + 8 => {
                let whole = header.len + 8.min(usize::try_from(total).unwrap_or(0).saturating_sub(header.len));
                match view.get(header.len..whole) {
                    Some(body) => {
                        group.duration = ebml::uint(body);
                        Progress::Took(total)
                    }
                    None => Progress::Need(whole),
                }
            }
            REFERENCE_BLOCK => {
                group.is_referring = true;
                Progress::Took(total)
            }
            _ => Progress::Took(total),
        };
        // A group this large is not held back for its duration. A ReferenceBlock may still follow, so a picture that only the
        // container could show to be key does not count as key.
        if group.frame.is_some() && group.end.saturating_sub(group.start) > MAX_HELD_BYTES {
            group.is_referring |= group.by_flag;
            self.emit_group(&mut group, stream, marks);
            group.is_emitted = true;
        }
        self.group = Some(group);
        progress
    }

    /// Reads the header of a SimpleBlock or, in `group`, of a Block, and classifies its frame.
    ///
    /// # Errors
    /// [`Progress::Need`] or [`Progress::Damaged`].
    fn read_block(
        &mut self,
        stream: &mut Stream,
        pos: u64,
        view: &[u8],
        (header, total): (Header, u64),
        group: Option<&mut Group>,
    ) -> Result<Frame, Progress> {
        let whole = usize::try_from(total).map_err(|_| Progress::Damaged)?;
        let body = view.get(header.len..whole.min(view.len())).unwrap_or_default();
        let is_all = view.len() >= whole;
        let block = match Block::parse(body) {
            Read::Got(block) => block,
            Read::Need(n) if !is_all => return Err(Progress::Need(header.len + n)),
            Read::Need(_) | Read::Bad => return Err(Progress::Damaged),
        };
        let Some(frames) = block.frames(body) else {
            return Err(if is_all {
                Progress::Damaged
            } else {
                Progress::Need(view.len() + 1)
            });
        };
        let entry = stream.tracks.find(block.number);
        let track = entry.map_or(Track::Other, |e| e.track);
        let pts = self.timestamp.and_then(|t| stream.pts(t, block.relative));
        // In an audio-only stream the duration of a chunk is that of its audio.
        let is_sound_alone = !stream.tracks.has(Track::Video);
        let length = entry
            .and_then(|e| e.default_duration.or(e.frame_duration.filter(|_| is_sound_alone)))
            .and_then(|d| d.checked_mul(frames));
        let end = pts.zip(length).and_then(|(pts, length)| pts.checked_add(length));
        let mut frame = Frame {
            at: pos,
            end_at: pos.saturating_add(total),
            track,
            key: Key::No,
            pts,
            end,
            part: Part::Begins,
            is_rest: false,
            sets: None,
            in_band: Vec::new(),
        };
        if track == Track::Audio && !stream.tracks.has(Track::Video) {
            frame.key = Key::Closed;
        }
        if let Some(entry) = entry.filter(|_| track == Track::Video) {
            // A Block in a BlockGroup has no key flag. A ReferenceBlock shows that it is no key frame, but comes behind the
            // Block: `emit_group` corrects the key then.
            let flagged = group.is_some() || block.flagged;
            if let Some(group) = group {
                group.by_flag = entry.codec == VideoCodec::Unknown;
            }
            let fields = &mut stream.fields;
            let classified = match block.classify(entry, &self.lead, fields, body, (is_all, flagged)) {
                Some(classified) => classified,
                None if stream.ended => Classified::no_key(),
                None => return Err(Progress::Need(view.len().saturating_mul(2).max(64).min(whole))),
            };
            let codec = entry.codec;
            frame.sets = stream.sets(entry, &classified);
            self.apply_kind(&mut frame, classified, codec, frames == 1, &mut stream.picture_pts);
        }
        Ok(frame)
    }

    /// Sets whether a video frame is a key frame and whether it begins a picture. `picture_pts` is the time of the previous
    /// picture.
    fn apply_kind(
        &mut self,
        frame: &mut Frame,
        classified: Classified,
        codec: VideoCodec,
        is_single: bool,
        picture_pts: &mut Option<u64>,
    ) {
        frame.key = match classified.picture.key {
            // The flag does not exclude later pictures that are shown before this one and depend on earlier pictures.
            Key::Closed if codec == VideoCodec::Unknown => Key::Open,
            key => key,
        };
        // A laced block holds several frames, so it is no part of a picture.
        frame.part = if is_single && self.lead.len() + classified.coded.len() <= MAX_LEAD {
            classified.picture.part
        } else {
            Part::Begins
        };
        let is_same_time = frame.pts.is_some() && *picture_pts == frame.pts;
        frame.is_rest = classified.is_second_field || (frame.part == Part::Continues && is_same_time);
        frame.in_band = classified.in_band;
        if frame.part == Part::Prefix {
            self.lead.extend_from_slice(&classified.coded);
        } else {
            self.lead.clear();
            *picture_pts = frame.pts;
        }
    }

    fn emit_group(&mut self, group: &mut Group, stream: &mut Stream, marks: &mut Vec<Mark>) {
        let Some(mut frame) = group.frame.take() else { return };
        frame.at = group.start;
        frame.end_at = group.end;
        if group.by_flag && group.is_referring {
            frame.key = Key::No;
        }
        let length = group.duration.and_then(|d| d.checked_mul(stream.scale));
        if let Some(end) = frame.pts.zip(length).and_then(|(pts, length)| pts.checked_add(length)) {
            frame.end = Some(end);
        }
        self.emit(frame, stream, marks);
    }

    /// Emits a frame, or holds it back until a decisive one has come.
    fn emit(&mut self, frame: Frame, stream: &mut Stream, marks: &mut Vec<Mark>) {
        self.is_empty = false;
        let inside = self.inside();
        let mut held = match self.held.take() {
            Some(held) => held,
            None if frame.part == Part::Prefix => HeldBlocks::new(frame.at, inside.clone()),
            None if frame.is_rest => return stream.extend_picture(frame.end_at),
            None => return stream.unit(frame.at, &frame, &inside, marks),
        };
        if frame.part == Part::Prefix || !is_decisive(&frame, stream) {
            if held.push(frame) {
                held.release(&inside, stream, marks);
                self.lead.clear();
            } else {
                self.held = Some(held);
            }
        } else if frame.is_rest && !held.is_cluster() {
            held.resume(frame.end_at, &inside, stream, marks);
        } else {
            held.resolve(frame, &inside, stream, marks);
        }
    }

    fn inside(&self) -> CutPoint {
        if self.tail.is_empty() {
            CutPoint::Nowhere
        } else {
            CutPoint::InCluster(self.tail.clone())
        }
    }

    /// Emits the units that were held back, without waiting for the first picture.
    pub(super) fn release(&mut self, stream: &mut Stream, marks: &mut Vec<Mark>) {
        if let Some(held) = self.held.take_if(|held| !held.is_empty()) {
            held.release(&self.inside(), stream, marks);
            self.lead.clear();
        }
    }

    /// Does what [`Cluster::release`] does, and emits the current BlockGroup although it has not ended.
    pub(super) fn give_up(&mut self, stream: &mut Stream, marks: &mut Vec<Mark>) {
        if let Some(mut group) = self.group.take() {
            if group.frame.is_some() {
                // A ReferenceBlock may still come: its absence proves a key frame only at the end of the group.
                group.is_referring |= group.by_flag;
                self.emit_group(&mut group, stream, marks);
                group.is_emitted = true;
            }
            self.group = Some(group);
        }
        self.release(stream, marks);
    }

    /// Ends the Cluster: emits everything that was held back.
    pub(super) fn close(&mut self, stream: &mut Stream, marks: &mut Vec<Mark>) {
        if let Some(mut group) = self.group.take() {
            self.emit_group(&mut group, stream, marks);
        }
        if let Some(held) = self.held.take() {
            held.release(&self.inside(), stream, marks);
            self.lead.clear();
        }
        if self.is_empty {
            stream.passed(self.start, marks);
            let unit = Unit {
                track: Track::Other,
                key: Key::No,
                pts: self.timestamp.and_then(|t| stream.pts(t, 0)),
                end: None,
                decode: None,
                sample_at: None,
                new_codec_config: false,
                init: Some(stream.init()),
            };
            marks.push(Mark {
                at: self.start,
                kind: MarkKind::Unit(unit),
            });
        }
    }
}

/// Returns the number of octets of an element, header included. Returns `None` if its size is unknown or too large, or if it
/// ends behind its parent.
fn total(header: &Header, pos: u64, bound: Option<u64>, largest: u64) -> Option<u64> {
    let total = header.size?.checked_add(len64(header.len))?;
    let end = pos.checked_add(total)?;
    let most = match header.id {
        // A flipped bit in the size of a block would silently skip minutes of a Cluster of unknown size.
        SIMPLE_BLOCK | BLOCK_GROUP | BLOCK => MAX_BELIEVED.max(largest.saturating_mul(DISPROPORTION)).min(MAX_ELEMENT),
        ebml::VOID => MAX_ELEMENT,
        _ => MAX_BELIEVED,
    };
    (total <= most && bound.is_none_or(|bound| end <= bound)).then_some(total)
}
