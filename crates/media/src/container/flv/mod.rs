//! FLV: tags one after the other, each with its size.
//!
//! PURE. Source: Adobe Flash Video File Format 10.1, annex E; Enhanced RTMP v2 for the extended headers. What a chunk needs
//! in front: the file header, the last `onMetaData` and the last configuration tag of each stream.
//!
//! A file header in mid-stream (two recordings sent one after the other) begins a new chunk, which then opens with its own
//! header.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use self::tag::{TAG_HEADER, TRAILER, TagHeader, TagKind, VIDEO_PREFIX, Video};
use super::feed::{Feed, Step, len64};
use super::nal::{self, Framing, VideoCodec};
use super::unwrap::Unwrapper;
use super::{Container, Fault, Init, Key, MAX_GATHER, Mark, MarkKind, Notice, Scanner, StreamInfo, Track, Unit, codec};

pub(super) mod samples;
mod tag;
#[cfg(test)]
pub(crate) mod test_stream;
#[cfg(test)]
mod tests;

/// Bytes needed to recognise a plausible tag: its header and the first byte of its data.
const PROBE: usize = TAG_HEADER + 1;
/// Largest tag that is believed in any case; above, one of at most [`DISPROPORTION`] times the largest before. A flipped bit in
/// a size would pass over minutes of the stream in silence.
const MAX_TAG: usize = 4 << 20;
/// See [`MAX_TAG`].
const DISPROPORTION: usize = 8;
/// Largest tag of a reserved type, or with a new StreamID: it is believed once the size behind it has come.
const MAX_UNCONFIRMED: usize = 1 << 20;
/// The type of a tag of video.
const VIDEO_TAG: u8 = 9;
/// Longest file header that is believed.
const MAX_FILE_HEADER: usize = 1024;
const NS_PER_MS: u64 = 1_000_000;
/// Times of 32 bits wrap there, after 49 days.
const WRAP_MS: i64 = 1 << 32;
/// Times less than a minute apart confirm each other.
const CLOSE_MS: i64 = 60_000;

/// What part of the header an item is; the order of first appearance is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Script,
    Video,
    Audio,
}

/// The scanner of FLV. See [`Scanner`].
#[derive(Debug)]
pub struct Flv {
    feed: Feed,
    /// Offset of the current tag, at which marks are emitted.
    at: u64,
    /// Where the tag of the last key picture ends; emitted once the tag is complete.
    picture_end: Option<u64>,
    /// The last bytes were no tag: the next plausible one is looked for.
    lost: bool,
    file_header: Bytes,
    parts: Vec<(Part, Bytes)>,
    /// All bytes before the first unit; `None` once that was seen.
    head: Option<Vec<u8>>,
    init: Init,
    /// The headers last made: of configurations that take turns each is held once.
    recent: VecDeque<Bytes>,
    video: VideoCodec,
    framing: Framing,
    video_name: Option<String>,
    audio_name: Option<String>,
    sets: nal::SetsInForce,
    /// Hash of the parameter sets in force: those of the sequence header, or those that came in band last.
    parameter_sets: Option<u64>,
    has_video: bool,
    has_audio: bool,
    /// Times of the tags in ms.
    times: Unwrapper,
    /// Time of the last picture, as it stands in its tag.
    picture_ms: Option<u32>,
    /// StreamID of the last tag that had one other than 0 and was confirmed.
    stream: [u8; 3],
    /// The largest tag so far: one that is out of all proportion is damage.
    largest: usize,
}

impl Default for Flv {
    fn default() -> Self {
        Self::new()
    }
}

impl Flv {
    /// A scanner at the start of a stream.
    pub fn new() -> Self {
        Self {
            feed: Feed::default(),
            at: 0,
            picture_end: None,
            lost: false,
            file_header: Bytes::new(),
            parts: Vec::new(),
            head: Some(Vec::new()),
            init: Init::default(),
            recent: VecDeque::new(),
            video: VideoCodec::Unknown,
            framing: Framing::Length(4),
            video_name: None,
            audio_name: None,
            sets: nal::SetsInForce::default(),
            parameter_sets: None,
            has_video: false,
            has_audio: false,
            times: Unwrapper::default(),
            picture_ms: None,
            stream: [0; 3],
            largest: 0,
        }
    }

    fn emit_picture_end(&mut self, passed: u64, marks: &mut Vec<Mark>) {
        if let Some(at) = self.picture_end.filter(|&end| end <= passed) {
            self.picture_end = None;
            marks.push(Mark {
                at,
                kind: MarkKind::PictureEnd,
            });
        }
    }

    fn read_item(&mut self, view: &[u8], marks: &mut Vec<Mark>) -> Result<Step, Fault> {
        if self.lost {
            return Ok(match find_tag(view, self.stream) {
                Some(0) => {
                    self.lost = false;
                    Step::Pass(0)
                }
                Some(at) => Step::Pass(len64(at)),
                None if view.len() < PROBE => Step::Need(PROBE),
                None => Step::Pass(len64(view.len() + 1 - PROBE)),
            });
        }
        if b"FLV".starts_with(view.get(..view.len().min(3)).unwrap_or_default()) {
            return if view.len() < 9 {
                Ok(Step::Need(9))
            } else {
                Ok(self.read_file_header(view, marks))
            };
        }
        if view.len() < TAG_HEADER {
            return Ok(Step::Need(TAG_HEADER));
        }
        let Some(header) = TagHeader::parse(view) else {
            return Ok(self.damage(marks));
        };
        let total = header.total();
        if header.size > MAX_TAG.max(self.largest.saturating_mul(DISPROPORTION)) {
            return Ok(self.damage(marks));
        }
        if !header.is_plain(self.stream) {
            if header.size > MAX_UNCONFIRMED {
                return Ok(self.damage(marks));
            }
            let Some(tag) = view.get(..total) else {
                return Ok(Step::Need(total));
            };
            if !header.is_confirmed(tag) {
                return Ok(self.damage(marks));
            }
            if header.kind != TagKind::Reserved {
                self.stream = header.stream;
            }
        }
        if self.head.is_some() && view.len() < total && header.size <= MAX_GATHER {
            // Before the first unit everything is kept as it is, but a first picture need not be.
            if header.kind == TagKind::Script {
                return Step::need_whole(total);
            }
        }
        let data = view
            .get(TAG_HEADER..(TAG_HEADER + header.size).min(view.len()))
            .unwrap_or_default();
        let step = match header.kind {
            TagKind::Script => self.read_script(view, total)?,
            TagKind::Audio => self.read_audio(view, data, header, marks)?,
            TagKind::Video => self.read_video(view, data, header, marks)?,
            TagKind::Reserved => Step::Pass(len64(total)),
        };
        if matches!(step, Step::Pass(_)) {
            self.largest = self.largest.max(header.size);
        }
        if matches!(step, Step::Pass(_)) && self.head.is_some() {
            let Some(bytes) = view.get(..total) else {
                return Step::need_whole(total);
            };
            self.keep_head(bytes)?;
        }
        Ok(step)
    }

    fn keep_head(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if let Some(head) = &mut self.head {
            head.extend_from_slice(bytes);
            if head.len() > MAX_GATHER {
                return Err(Fault::HeaderTooLarge(len64(head.len())));
            }
        }
        Ok(())
    }

    fn damage(&mut self, marks: &mut Vec<Mark>) -> Step {
        self.emit_picture_end(self.at, marks);
        self.first_unit(marks);
        marks.push(Mark {
            at: self.at,
            kind: MarkKind::Damage,
        });
        self.lost = true;
        Step::Pass(0)
    }

    /// Ends the head where something other than a unit does: damage is payload, not header.
    fn first_unit(&mut self, marks: &mut Vec<Mark>) {
        if self.head.is_some() {
            let init = Some(self.init_here());
            self.unit(
                marks,
                Unit {
                    track: Track::Other,
                    key: Key::No,
                    pts: None,
                    end: None,
                    new_codec_config: false,
                    init,
                },
            );
        }
    }

    fn read_file_header(&mut self, view: &[u8], marks: &mut Vec<Mark>) -> Step {
        let Some(&[.., flags, o0, o1, o2, o3]) = view.get(..9) else {
            return Step::Need(9);
        };
        let header = usize::try_from(u32::from_be_bytes([o0, o1, o2, o3])).unwrap_or(usize::MAX);
        if !(9..=MAX_FILE_HEADER).contains(&header) {
            return self.damage(marks);
        }
        let total = header + TRAILER;
        let Some(bytes) = view.get(..total) else {
            return Step::Need(total);
        };
        self.file_header = Bytes::copy_from_slice(bytes);
        self.has_video = flags & 1 != 0;
        self.has_audio = flags & 4 != 0;
        match &mut self.head {
            Some(head) => {
                head.extend_from_slice(bytes);
                // Also for streams in which no tag of configuration follows (VP6, Sorenson, MP3).
                self.rebuild();
            }
            None => {
                self.parts.clear();
                self.video_name = None;
                self.audio_name = None;
                self.parameter_sets = None;
                self.stream = [0; 3];
                self.rebuild();
                let init = Init {
                    info: Arc::clone(&self.init.info),
                    ..Init::default()
                };
                self.unit(
                    marks,
                    Unit {
                        track: Track::Other,
                        key: Key::No,
                        pts: None,
                        end: None,
                        new_codec_config: true,
                        init: Some(init),
                    },
                );
            }
        }
        Step::Pass(len64(total))
    }

    fn read_script(&mut self, view: &[u8], total: usize) -> Result<Step, Fault> {
        let Some(bytes) = view.get(..total) else {
            return Step::need_whole(total);
        };
        if let Some(neutral) = tag::neutral_script(bytes) {
            self.set_part(Part::Script, neutral.into());
        }
        Ok(Step::Pass(len64(total)))
    }

    fn read_audio(&mut self, view: &[u8], data: &[u8], header: TagHeader, marks: &mut Vec<Mark>) -> Result<Step, Fault> {
        let total = header.total();
        if data.len() < header.size.min(VIDEO_PREFIX) {
            return Ok(Step::Need(TAG_HEADER + header.size.min(VIDEO_PREFIX)));
        }
        let audio = tag::audio(data);
        if audio.config {
            let Some(bytes) = view.get(..total) else {
                return Step::need_whole(total);
            };
            return Ok(self.config(Part::Audio, bytes, (audio.name, None), marks));
        }
        if !self.has_audio || (self.audio_name.is_none() && audio.name.is_some()) {
            self.has_audio = true;
            self.audio_name = audio.name.or(self.audio_name.take());
            self.rebuild();
        }
        let pts = self.time(header.time, 0);
        let key = if self.has_video { Key::No } else { Key::Closed };
        let init = Some(self.init_here());
        self.unit(
            marks,
            Unit {
                track: Track::Audio,
                key,
                pts: Some(pts),
                end: None,
                new_codec_config: false,
                init,
            },
        );
        Ok(Step::Pass(len64(total)))
    }

    fn read_video(&mut self, view: &[u8], data: &[u8], header: TagHeader, marks: &mut Vec<Mark>) -> Result<Step, Fault> {
        let total = header.total();
        if data.len() < header.size.min(VIDEO_PREFIX) {
            return Ok(Step::Need(TAG_HEADER + header.size.min(VIDEO_PREFIX)));
        }
        match tag::video(data) {
            Video::Nothing => {
                self.emit_picture_end(self.at, marks);
                Ok(Step::Pass(len64(total)))
            }
            Video::Config { codec, record } => {
                let Some(bytes) = view.get(..total) else {
                    return Step::need_whole(total);
                };
                self.emit_picture_end(self.at, marks);
                let record = data.get(record..).unwrap_or_default();
                self.video = codec;
                self.framing = tag::framing(codec, record);
                self.has_video = true;
                let sets = codec::parameter_sets(codec, record);
                self.sets = nal::SetsInForce::new(&codec::record_sets(codec, record));
                Ok(self.config(Part::Video, bytes, (tag::video_name(codec, record), sets), marks))
            }
            Video::Picture {
                codec,
                data: start,
                composition_ms,
                flagged,
            } => {
                let coded = data.get(start..).unwrap_or_default();
                let complete = data.len() == header.size;
                let framing = if codec == self.video {
                    self.framing
                } else {
                    Framing::Length(4)
                };
                let Some(picture) = nal::classify(codec, framing, coded, complete, flagged) else {
                    let more = (view.len() * 2).max(512).min(TAG_HEADER + header.size);
                    return Ok(Step::Need(more));
                };
                let is_same_time = self.picture_ms.replace(header.time) == Some(header.time);
                if is_same_time && picture.part == nal::Part::Continues {
                    // A tag for each slice.
                    self.picture_end = self.picture_end.map(|_| self.at + len64(total));
                    return Ok(Step::Pass(len64(total)));
                }
                self.emit_picture_end(self.at, marks);
                if !self.has_video {
                    self.has_video = true;
                    self.rebuild();
                }
                let pts = self.time(header.time, composition_ms);
                let key = picture.key;
                let is_first = self.head.is_some();
                let new_codec_config = self.take_in_band(codec, &picture, coded) && !is_first;
                let init = Some(self.init_here());
                self.unit(
                    marks,
                    Unit {
                        track: Track::Video,
                        key,
                        pts: Some(pts),
                        end: None,
                        new_codec_config,
                        init,
                    },
                );
                let in_band = nal::parameter_sets(codec, framing, coded);
                if self.sets.take(&in_band, key.is_key()) {
                    marks.push(Mark {
                        at: self.at,
                        kind: MarkKind::Notice(Notice::NoParameterSets),
                    });
                }
                if key.is_key() {
                    self.picture_end = Some(self.at + len64(total));
                }
                Ok(Step::Pass(len64(total)))
            }
        }
    }

    /// Puts the parameter sets of a key picture in force; whether they replace others.
    fn take_in_band(&mut self, codec: VideoCodec, picture: &nal::Picture, coded: &[u8]) -> bool {
        if !picture.key.is_key() || picture.config.is_none() || picture.config == self.parameter_sets {
            return false;
        }
        let replaces = std::mem::replace(&mut self.parameter_sets, picture.config).is_some();
        let sps = picture.sps.and_then(|(at, len)| coded.get(at..at.checked_add(len)?));
        let name = sps.and_then(|sps| codec::from_sps(codec, sps));
        if name.is_some() && name != self.video_name {
            self.video_name = name;
            self.rebuild();
        }
        replaces
    }

    /// Takes a configuration tag. One that replaces a different one begins a new chunk and is part of its payload.
    fn config(&mut self, part: Part, bytes: &[u8], (name, sets): (Option<String>, Option<u64>), marks: &mut Vec<Mark>) -> Step {
        let done = Step::Pass(len64(bytes.len()));
        let in_force = self.parts.iter().find(|(p, _)| *p == part).map(|(_, b)| b.clone());
        // Times differ between equal configurations that are sent again.
        if in_force.as_deref().and_then(|b| b.get(TAG_HEADER..)) == bytes.get(TAG_HEADER..) {
            return done;
        }
        match part {
            Part::Video => {
                self.video_name = name;
                self.parameter_sets = sets;
            }
            _ => {
                self.audio_name = name;
                self.has_audio = true;
            }
        }
        if in_force.is_some() && self.head.is_none() {
            let others = self.parts.iter().filter(|(p, _)| *p != part && *p != Part::Script);
            let head = std::iter::once(&self.file_header)
                .chain(others.map(|(_, b)| b))
                .flatten()
                .copied()
                .collect::<Vec<u8>>();
            self.set_part(part, Bytes::copy_from_slice(bytes));
            let init = Init {
                head: self.shared(head),
                tail: Bytes::new(),
                info: Arc::clone(&self.init.info),
            };
            self.unit(
                marks,
                Unit {
                    track: Track::Other,
                    key: Key::No,
                    pts: None,
                    end: None,
                    new_codec_config: true,
                    init: Some(init),
                },
            );
        } else {
            self.set_part(part, Bytes::copy_from_slice(bytes));
        }
        done
    }

    fn set_part(&mut self, part: Part, bytes: Bytes) {
        match self.parts.iter_mut().find(|(p, _)| *p == part) {
            Some((_, b)) if *b == bytes => return,
            Some((_, b)) => *b = bytes,
            None => self.parts.push((part, bytes)),
        }
        self.rebuild();
    }

    /// Returns a header, as one of the last few where that is equal.
    fn shared(&mut self, head: Vec<u8>) -> Bytes {
        const RECENT: usize = 4;
        let known = self.recent.iter().position(|known| *known == head);
        let head = known
            .and_then(|at| self.recent.remove(at))
            .unwrap_or_else(|| Bytes::copy_from_slice(&head));
        self.recent.truncate(RECENT - 1);
        self.recent.push_front(head.clone());
        head
    }

    fn rebuild(&mut self) {
        let head = std::iter::once(&self.file_header).chain(self.parts.iter().map(|(_, b)| b));
        let video = self.has_video.then_some(self.video_name.as_deref());
        let audio = self.has_audio.then_some(self.audio_name.as_deref());
        let info = StreamInfo {
            codecs: codec::join(video.into_iter().chain(audio)),
            has_video: self.has_video,
            has_audio: self.has_audio,
        };
        let head = head.flatten().copied().collect::<Vec<u8>>();
        self.init = Init {
            head: self.shared(head),
            tail: Bytes::new(),
            info: Arc::new(info),
        };
    }

    /// The header for a unit at this place: the first one's is the head itself.
    fn init_here(&mut self) -> Init {
        match self.head.take() {
            Some(head) => Init {
                head: head.into(),
                ..self.init.clone()
            },
            None => self.init.clone(),
        }
    }

    fn unit(&self, marks: &mut Vec<Mark>, unit: Unit) {
        marks.push(Mark {
            at: self.at,
            kind: MarkKind::Unit(unit),
        });
    }

    /// Unwrapped presentation time in ns.
    fn time(&mut self, ms: u32, composition_ms: i32) -> u64 {
        let dts = self.times.unwrap(ms.into(), WRAP_MS, CLOSE_MS);
        u64::try_from(dts + i64::from(composition_ms))
            .unwrap_or(0)
            .saturating_mul(NS_PER_MS)
    }
}

/// The first plausible tag (or file header) in `view`.
fn find_tag(view: &[u8], stream: [u8; 3]) -> Option<usize> {
    let parse = |window| TagHeader::parse(window).filter(|header| header.is_plain(stream) && header.size <= MAX_TAG);
    view.windows(PROBE).position(|window| match parse(window) {
        Some(header) => {
            let first = window.last().copied().unwrap_or(0);
            header.size > 0
                && match header.kind {
                    TagKind::Script => first == 2,
                    TagKind::Video => (1..=5).contains(&(first >> 4 & 7)),
                    TagKind::Audio => header.size < 1 << 16,
                    TagKind::Reserved => false,
                }
        }
        None => window.starts_with(b"FLV\x01") && matches!(window.get(5..9), Some([0, 0, 0, 9])),
    })
}

impl Scanner for Flv {
    fn push(&mut self, data: &[u8], marks: &mut Vec<Mark>) -> Result<(), Fault> {
        let mut feed = std::mem::take(&mut self.feed);
        let outcome = feed.push(data, |at, view| {
            self.at = at;
            // A tag of video may be more of the same picture.
            if self.lost || view.first() != Some(&VIDEO_TAG) {
                self.emit_picture_end(at, marks);
            }
            self.read_item(view, marks)
        });
        self.feed = feed;
        outcome
    }

    fn finish(&mut self, marks: &mut Vec<Mark>) {
        let mut feed = std::mem::take(&mut self.feed);
        self.emit_picture_end(feed.pos(), marks);
        feed.finish(|at, view| {
            self.at = at;
            self.read_item(view, marks)
        });
        self.feed = feed;
    }

    fn settled(&self) -> u64 {
        self.feed.pos()
    }

    fn whole(&self) -> u64 {
        if self.feed.is_passing() { self.at } else { self.settled() }
    }

    fn restart(&mut self) {
        self.feed.take_rest();
        self.picture_end = None;
        self.picture_ms = None;
        self.lost = false;
        self.times = Unwrapper::default();
    }

    fn container(&self) -> Container {
        Container::Flv
    }

    fn resolution(&self) -> u64 {
        NS_PER_MS
    }
}
