//! Scanner for FLV: a sequence of tags, each with its size.
//!
//! PURE. Source: Adobe Flash Video File Format 10.1, annex E; Enhanced RTMP v2 for the extended headers. A chunk needs this
//! header: the file header, the last `onMetaData` and the last configuration tag of each stream.
//!
//! A file header in mid-stream (two recordings sent one after the other) begins a new chunk. That chunk then opens with its own
//! header.
//!
//! - `tag`, `extended`, `pictures`: the headers of tags and of their data. `header`: the header of a chunk.
//! - `prefix`: what a picture begins with, in tags of their own. `times`: the timestamps. `unsure`: sizes that may be wrong.
//! - `samples`: the samples of a chunk.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use self::prefix::Prefix;
use self::tag::{TAG_HEADER, TRAILER, TagHeader, TagKind};
use self::times::Widened;
use self::unsure::{SURE, Unsure, holds_tags};
use super::feed::{Feed, Step, len64};
use super::fields::Fields;
use super::nal::{self, Framing, VideoCodec};
use super::unwrap::Unwrapper;
use super::{Container, Fault, Init, Key, MAX_GATHER, Mark, MarkKind, Scanner, Track, Unit, codec, work};

mod extended;
mod header;
mod pictures;
mod prefix;
pub(super) mod samples;
mod tag;
#[cfg(test)]
pub(crate) mod test_stream;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_extended;
#[cfg(test)]
mod tests_pictures;
mod times;
mod unsure;

/// Bytes needed to recognise a plausible tag: its header and the first byte of its data.
const PROBE: usize = TAG_HEADER + 1;
/// Largest tag size that is always accepted. A larger one is accepted up to [`DISPROPORTION`] times the largest tag before it.
/// Without this limit a flipped bit in a size would silently skip minutes of the stream.
const MAX_TAG: usize = 4 << 20;
/// See [`MAX_TAG`].
const DISPROPORTION: usize = 8;
/// Largest tag of a reserved type, or with a new StreamID. Such a tag is accepted only if the `PreviousTagSize` behind it
/// matches.
const MAX_UNCONFIRMED: usize = 1 << 20;
/// Type of a video tag.
const VIDEO_TAG: u8 = 9;
/// Longest file header that is accepted.
const MAX_FILE_HEADER: usize = 1024;
const NS_PER_MS: u64 = 1_000_000;
/// Timestamps of 32 bits wrap here, after 49 days.
const WRAP_MS: i64 = 1 << 32;
/// Timestamps less than a minute apart confirm each other.
const CLOSE_MS: i64 = 60_000;

/// A part of the header. The header contains its parts in the order of their first appearance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Script,
    Video,
    Audio,
    /// The configuration of a further track: tag type and track number.
    Further(u8, u8),
}

/// The scanner of FLV. See [`Scanner`].
#[derive(Debug)]
pub struct Flv {
    feed: Feed,
    /// Offset of the current tag, at which marks are emitted.
    at: u64,
    /// Where the tag of the last key frame ends; emitted once the tag is complete.
    picture_end: Option<u64>,
    /// Whether the last bytes were no tag; the scanner then searches for the next plausible tag.
    lost: bool,
    file_header: Bytes,
    parts: Vec<(Part, Bytes)>,
    /// All bytes before the first unit; `None` after the first unit.
    head: Option<Vec<u8>>,
    init: Init,
    /// The most recent headers. Chunks of configurations that alternate share one copy of each.
    recent: VecDeque<Bytes>,
    video: VideoCodec,
    framing: Framing,
    video_name: Option<String>,
    audio_name: Option<String>,
    /// Duration of an AAC frame in ns.
    audio_frame: Option<u64>,
    sets: nal::SetsInForce,
    /// Hash of the parameter sets in force: those of the sequence header, or the last ones in band.
    parameter_sets: Option<u64>,
    has_video: bool,
    has_audio: bool,
    /// Whether an audio tag has come since the file header.
    has_sounded: bool,
    /// Time of the first picture in ns, while audio is announced and has not come.
    sound_awaited: Option<u64>,
    /// Whether key units without any parameter sets have been reported.
    bare_reported: bool,
    /// Unwraps the timestamps of the tags, in ms.
    times: Unwrapper,
    widened: Widened,
    /// Timestamp of the last picture, exactly as in its tag.
    picture_ms: Option<u32>,
    /// Whether the last picture began with its first slice.
    has_first_slice: bool,
    fields: Fields,
    /// Parameter sets, SEI or a delimiter that came in front of a picture in a tag of their own.
    prefix: Option<Prefix>,
    /// The video and the audio track that decide cuts and times: the first of each kind.
    video_track: Option<u8>,
    audio_track: Option<u8>,
    /// StreamID of the last confirmed tag whose StreamID was not 0.
    stream: [u8; 3],
    /// Whether the current tag has to be classified by the bytes received so far.
    is_given_up: bool,
    /// The tag that is being skipped, if its size may be wrong.
    unsure: Option<Unsure>,
    /// Offset up to which rejected tags with unusual headers have been searched for tags inside them.
    searched_to: u64,
    /// Size of the largest tag so far, see [`MAX_TAG`].
    largest: usize,
}

impl Default for Flv {
    fn default() -> Self {
        Self::new()
    }
}

impl Flv {
    /// Creates a scanner at the start of a stream.
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
            audio_frame: None,
            sets: nal::SetsInForce::default(),
            parameter_sets: None,
            has_video: false,
            has_audio: false,
            has_sounded: false,
            sound_awaited: None,
            bare_reported: false,
            times: Unwrapper::default(),
            widened: Widened::default(),
            picture_ms: None,
            has_first_slice: false,
            fields: Fields::default(),
            prefix: None,
            video_track: None,
            audio_track: None,
            stream: [0; 3],
            is_given_up: false,
            unsure: None,
            searched_to: 0,
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

    /// Starts the item at `at`, which begins with `view`. Ends the picture before it, unless the item is a video tag: that one
    /// may be another slice or field of the same picture.
    fn begin_item(&mut self, at: u64, view: &[u8], marks: &mut Vec<Mark>) {
        self.at = at;
        // While a size is in doubt, the skipped bytes are no item.
        if self.unsure.is_none() && (self.lost || view.first() != Some(&VIDEO_TAG)) {
            self.emit_picture_end(at, marks);
        }
    }

    fn read_item(&mut self, view: &[u8], marks: &mut Vec<Mark>) -> Result<Step, Fault> {
        if let Some(unsure) = self.unsure {
            return Ok(self.pass_unsure(unsure, view, marks));
        }
        if self.lost {
            return Ok(self.search(view));
        }
        // A slice of the input may end within the three bytes; no tag begins with an `F`.
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
        if !header.is_plain(self.stream)
            && let Some(step) = self.doubt(view, header, marks)
        {
            return Ok(step);
        }
        if self.head.is_some() && view.len() < total && header.size <= MAX_GATHER {
            // The head contains every byte before the first unit, so a script tag has to be complete. A picture may be the first
            // unit: it need not be gathered.
            if header.kind == TagKind::Script {
                return Step::need_whole(total);
            }
        }
        self.read_tag(view, header, marks)
    }

    /// Searches for the next tag after damage.
    fn search(&mut self, view: &[u8]) -> Step {
        match find_tag(view, self.stream) {
            Some(0) => {
                self.lost = false;
                Step::Pass(0)
            }
            Some(at) => Step::Pass(len64(at)),
            None if view.len() < PROBE => Step::Need(PROBE),
            // A tag may begin in the last bytes: they are searched again together with the next ones.
            None => Step::Pass(len64(view.len() + 1 - PROBE)),
        }
    }

    /// Checks a tag with an unusual header. Returns `None` if it is accepted: the `PreviousTagSize` behind it matches and no
    /// other tags are inside it.
    fn doubt(&mut self, view: &[u8], header: TagHeader, marks: &mut Vec<Mark>) -> Option<Step> {
        let total = header.total();
        // Every byte is searched once only. Otherwise many such headers in a row would cost quadratic time.
        if header.size > MAX_UNCONFIRMED || self.at < self.searched_to {
            return Some(self.damage(marks));
        }
        if let Some(found) = holds_tags(view.get(..total).unwrap_or(view), self.stream) {
            self.searched_to = self.at + len64(found);
            return Some(self.damage(marks));
        }
        let Some(tag) = view.get(..total) else {
            // Doubled each time, so that the total search time stays linear.
            return Some(Step::Need(total.min(SURE.max(view.len() * 2))));
        };
        if !header.is_confirmed(tag) {
            self.searched_to = self.at + len64(total);
            return Some(self.damage(marks));
        }
        if header.kind != TagKind::Reserved {
            self.stream = header.stream;
        }
        None
    }

    /// Reads the content of a tag; `view` begins with the tag.
    fn read_tag(&mut self, view: &[u8], header: TagHeader, marks: &mut Vec<Mark>) -> Result<Step, Fault> {
        let total = header.total();
        let data = view
            .get(TAG_HEADER..(TAG_HEADER + header.size).min(view.len()))
            .unwrap_or_default();
        let step = match header.kind {
            TagKind::Script if view.len() >= total && header.size > SURE && !header.is_confirmed(view) => Ok(self.damage(marks)),
            TagKind::Script => self.read_script(view, total),
            TagKind::Audio => self.read_audio(view, data, header, marks),
            TagKind::Video => self.read_video(view, data, header, marks),
            TagKind::Reserved => Ok(Step::Pass(len64(total))),
        };
        let step = match step {
            // Behind the head a header that is too large counts as damage: the recording must go on.
            Err(_) if self.head.is_none() => self.damage(marks),
            step => step?,
        };
        if matches!(step, Step::Pass(_)) {
            let is_media = matches!(header.kind, TagKind::Audio | TagKind::Video) && !self.lost;
            // A wrong size must not make later wrong sizes acceptable: `largest` grows only after the tag has really ended there.
            if is_media && self.head.is_none() && header.size > self.largest.max(SURE) {
                self.unsure = Some(Unsure::new(self.at, total));
                return Ok(Step::Pass(len64(TAG_HEADER)));
            }
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
        self.release_prefix(marks);
        self.emit_picture_end(self.at, marks);
        self.first_unit(marks);
        marks.push(Mark {
            at: self.at,
            kind: MarkKind::Damage,
        });
        self.lost = true;
        Step::Pass(0)
    }

    /// Ends the head, if it is still open, with an empty unit: damage is payload, not header.
    fn first_unit(&mut self, marks: &mut Vec<Mark>) {
        if self.head.is_some() {
            self.other_unit(None, marks);
        }
    }

    /// Emits a unit that is not a key unit and belongs to no track that decides on cuts.
    fn other_unit(&mut self, pts: Option<u64>, marks: &mut Vec<Mark>) {
        let init = Some(self.init_here());
        self.unit(
            marks,
            Unit {
                track: Track::Other,
                key: Key::No,
                pts,
                end: None,
                decode: None,
                sample_at: None,
                new_codec_config: false,
                init,
            },
        );
    }

    fn read_file_header(&mut self, view: &[u8], marks: &mut Vec<Mark>) -> Step {
        let Some(&[.., flags, o0, o1, o2, o3]) = view.get(..9) else {
            return Step::Need(9);
        };
        let header = usize::try_from(u32::from_be_bytes([o0, o1, o2, o3])).unwrap_or(usize::MAX);
        // DataOffset is 9 in version 1; the field exists so that later versions may have longer headers (E.2).
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
                // Needed for streams without configuration tags (VP6, Sorenson, MP3): nothing else builds their header.
                self.rebuild();
            }
            None => {
                self.release_prefix(marks);
                // The state of the previous recording is not valid in the one that begins here.
                self.parts.clear();
                self.video_name = None;
                self.audio_name = None;
                self.parameter_sets = None;
                (self.sound_awaited, self.has_sounded, self.bare_reported) = (None, false, false);
                self.stream = [0; 3];
                (self.video_track, self.audio_track) = (None, None);
                self.rebuild();
                let init = Init {
                    info: Arc::clone(&self.init.info),
                    ..Init::default()
                };
                self.unit(marks, Unit::of_header(init));
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
        // Limited to the tag's own size: waiting for more bytes of a short tag would read into the next one.
        let prefix = tag::prefix_len(header.kind, data).min(header.size);
        if data.len() < prefix {
            return Ok(Step::Need(TAG_HEADER + prefix));
        }
        let audio = tag::audio(data);
        if audio.is_nothing {
            return Ok(Step::Pass(len64(total)));
        }
        if *self.audio_track.get_or_insert(audio.track) != audio.track {
            return self.read_further(view, header, audio.config.then_some(audio.track), marks);
        }
        if audio.config {
            let Some(bytes) = view.get(..total) else {
                return Step::need_whole(total);
            };
            let config = data.get(audio.body..).filter(|_| audio.is_aac);
            self.audio_frame = config.and_then(codec::aac_frame_duration);
            return Ok(self.config(Part::Audio, bytes, (audio.name, None), marks));
        }
        self.has_sounded = true;
        if !self.has_audio || (self.audio_name.is_none() && audio.name.is_some()) {
            self.has_audio = true;
            self.audio_name = audio.name.clone().or(self.audio_name.take());
            self.rebuild();
        }
        let pts = self.time(header.time, 0);
        // If there is video, a chunk must not begin with audio: it would begin without a key frame.
        let key = if self.has_video { Key::No } else { Key::Closed };
        // In an audio-only stream the duration of a chunk is that of its audio. With video, the pictures decide.
        let length = tag::sound_duration(&audio, data, header.size, self.audio_frame).filter(|_| !self.has_video);
        let init = Some(self.init_here());
        self.unit(
            marks,
            Unit {
                track: Track::Audio,
                key,
                pts: Some(pts),
                end: length.map(|length| pts.saturating_add(length)),
                decode: None,
                sample_at: None,
                new_codec_config: false,
                init,
            },
        );
        Ok(Step::Pass(len64(total)))
    }

    /// Emits a unit at the current tag, or queues it behind a prefix that waits for its picture: marks must be in order.
    fn unit(&mut self, marks: &mut Vec<Mark>, unit: Unit) {
        let mark = Mark {
            at: self.at,
            kind: MarkKind::Unit(unit),
        };
        match &mut self.prefix {
            Some(prefix) => prefix.behind.push(mark),
            None => marks.push(mark),
        }
        if self.prefix.as_ref().is_some_and(|prefix| prefix.is_overdue(self.at)) {
            self.release_prefix(marks);
        }
    }

    /// Returns the unwrapped presentation time in ns.
    fn time(&mut self, ms: u32, composition_ms: i32) -> u64 {
        let dts = self.times.unwrap(self.widened.widen(ms).into(), WRAP_MS, CLOSE_MS);
        u64::try_from(dts + i64::from(composition_ms))
            .unwrap_or(0)
            .saturating_mul(NS_PER_MS)
    }
}

/// Returns the position of the first plausible tag or file header in `view`.
fn find_tag(view: &[u8], stream: [u8; 3]) -> Option<usize> {
    let parse = |window| TagHeader::parse(window).filter(|header| header.is_plain(stream) && header.size <= MAX_TAG);
    let found = view.windows(PROBE).position(|window| match parse(window) {
        Some(header) => {
            let first = window.last().copied().unwrap_or(0);
            header.size > 0
                && match header.kind {
                    // A script tag begins with its name, an AMF0 string (type 2).
                    TagKind::Script => first == 2,
                    // FrameType is 1 to 5 (E.4.3.1).
                    TagKind::Video => (1..=5).contains(&(first >> 4 & 7)),
                    // The first byte of audio may have any value, so the size has to be plausible: no audio tag reaches 64 KiB.
                    TagKind::Audio => header.size < 1 << 16,
                    TagKind::Reserved => false,
                }
        }
        None => window.starts_with(b"FLV\x01") && matches!(window.get(5..9), Some([0, 0, 0, 9])),
    });
    work::count(found.unwrap_or(view.len()));
    found
}

impl Scanner for Flv {
    fn push(&mut self, data: &[u8], marks: &mut Vec<Mark>) -> Result<(), Fault> {
        let mut feed = std::mem::take(&mut self.feed);
        let outcome = feed.push(data, |at, view| {
            self.begin_item(at, view, marks);
            self.read_item(view, marks)
        });
        self.feed = feed;
        outcome
    }

    fn finish(&mut self, marks: &mut Vec<Mark>) {
        let mut feed = std::mem::take(&mut self.feed);
        feed.finish(|at, view| {
            self.begin_item(at, view, marks);
            self.read_item(view, marks)
        });
        self.release_prefix(marks);
        self.emit_picture_end(feed.pos(), marks);
        self.feed = feed;
    }

    fn settled(&self) -> u64 {
        let pos = self.feed.pos();
        self.prefix.as_ref().map_or(pos, |prefix| prefix.at.min(pos))
    }

    fn whole(&self) -> u64 {
        if let Some(unsure) = &self.unsure {
            // The skipped tag has not ended, and its real end is unknown.
            unsure.start.min(self.settled())
        } else if self.feed.is_passing() {
            self.at.min(self.settled())
        } else {
            self.settled()
        }
    }

    fn release(&mut self, marks: &mut Vec<Mark>) {
        self.release_prefix(marks);
    }

    fn give_up(&mut self, marks: &mut Vec<Mark>) {
        self.release_prefix(marks);
        self.is_given_up = true;
        let mut feed = std::mem::take(&mut self.feed);
        feed.read_again(|at, view| {
            self.at = at;
            self.read_item(view, marks)
        });
        self.feed = feed;
        self.is_given_up = false;
        self.release_prefix(marks);
    }

    fn restart(&mut self) {
        self.feed.take_rest();
        self.prefix = None;
        self.fields.restart();
        self.picture_end = None;
        self.picture_ms = None;
        self.has_first_slice = false;
        self.lost = false;
        self.unsure = None;
        // Timestamps after a flush are unrelated to those before it: a smaller one must not be mistaken for a wrap.
        self.times = Unwrapper::default();
        self.widened = Widened::default();
    }

    fn container(&self) -> Container {
        Container::Flv
    }

    fn resolution(&self) -> u64 {
        NS_PER_MS
    }
}
