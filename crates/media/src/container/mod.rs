//! Finds headers, key units and timestamps in a muxed byte stream.
//!
//! PURE: works on byte slices alone, so that it can be tested, fuzzed and timed without GStreamer. A [`Scanner`] is fed the
//! input in arbitrary slices and returns, as [`Mark`]s at absolute offsets, where a chunk may begin and which header it needs in
//! front of it. It never stores payload; the caller stores the bytes above [`Scanner::settled`] until they are decided.
//!
//! A *key unit* is a unit where decoding can begin; a *key frame* is the picture that makes that possible.
//!
//! Every scanner guarantees, for any bytes:
//! 1. The marks depend on the bytes alone, never on how they were sliced.
//! 2. Offsets of marks never decrease, and no mark is below what `settled` had returned before.
//! 3. Nothing panics, and the memory a scanner holds is bounded (`MAX_GATHER` or less).
//! 4. The first [`Unit`] is where the input's head ends; the bytes before it are exactly its `init` (except where a
//!    container's head has to be neutralised, see `matroska`).
//! 5. Damaged bytes are skipped: the scanner emits a [`MarkKind::Damage`] at the first of them, then units again.
//!
//! - `detect`: which container it is. `flv`, `fmp4`, `matroska`, `mpegts`, `raw`: a scanner for each.
//! - `feed`, `unwrap`, `work`: what the scanners share: whole items from any slices, times of limited width, a count of the
//!   work.
//! - `nal`, `sets`, `fields`, `codec`: coded pictures: key frames, parameter sets, fields of one frame, names of codecs.
//! - `samples`: the samples of a whole chunk, for another container.

use std::sync::Arc;

use bytes::Bytes;

pub use gcstreamer_schema::Container;
use gcstreamer_schema::units::bytes as amount;

pub mod codec;
pub mod detect;
mod feed;
mod fields;
pub mod flv;
pub mod fmp4;
pub mod matroska;
pub mod mpegts;
pub mod nal;
pub mod raw;
pub mod samples;
mod sets;
mod unwrap;
mod work;

/// Maximum size in bytes of one header that a scanner gathers (a `moov`, a script tag, `Tracks`): 4 MiB.
pub const MAX_GATHER: usize = 4 << 20;

/// Which kind of stream a unit belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Track {
    /// A picture.
    Video,
    /// Sound.
    Audio,
    /// Configuration, script data, tables, subtitles.
    Other,
}

/// Whether decoding can begin at a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// No.
    No,
    /// Unknown: the format is not parsed, and the container has not flagged any key frame so far.
    Undecided,
    /// Yes, but pictures that follow in the stream and are shown before it may depend on earlier ones (an H.264 recovery
    /// point with `recovery_frame_cnt` 0, an H.265 CRA).
    Open,
    /// Yes, and nothing after it depends on anything before it (IDR, VP8/VP9/AV1 key frame, audio in an audio-only stream).
    Closed,
}

impl Key {
    /// Whether decoding can begin here.
    #[inline]
    pub fn is_key(self) -> bool {
        matches!(self, Self::Open | Self::Closed)
    }
}

/// What the head and the key units show about the streams inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamInfo {
    /// RFC 6381 list, video first, e.g. `avc1.640028,mp4a.40.2`; `None` while at least one codec is unknown.
    pub codecs: Option<String>,
    /// Whether the head announces, or the stream has shown, video.
    pub has_video: bool,
    /// Whether the head announces, or the stream has shown, audio.
    pub has_audio: bool,
}

/// The header in front of the payload of a chunk: `head`, then `tail`. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Init {
    /// The part that all chunks of one configuration share.
    pub head: Bytes,
    /// The part for this offset only (a Matroska Cluster header); mostly empty.
    pub tail: Bytes,
    /// What the streams are.
    pub info: Arc<StreamInfo>,
}

impl Init {
    /// Returns the length of the header in bytes: `head` and `tail`.
    #[inline]
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Whether no header is needed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A legal place for a chunk to begin: a tag, an access unit, a fragment, a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The kind of stream that the unit belongs to. In an audio-only stream the audio units are key units.
    pub track: Track,
    /// Whether decoding can begin here.
    pub key: Key,
    /// Presentation time in ns on the container's own time line, unwrapped (never wraps back to 0 after 26.5 hours of TS).
    pub pts: Option<u64>,
    /// End of the presentation in ns, if the container has it (fMP4, Matroska with durations).
    pub end: Option<u64>,
    /// Start and end of its decoding in ns, if the container has them (fMP4). Consecutive fragments meet in these times, whereas
    /// their presentation times overlap if pictures are reordered.
    pub decode: Option<(u64, u64)>,
    /// Offset in the input of the sample that `pts` belongs to, if the unit begins with something else (fMP4).
    pub sample_at: Option<u64>,
    /// The unit begins with, or is, a decoder configuration that differs from the one in force: a chunk must begin here.
    pub new_codec_config: bool,
    /// Header for a chunk that begins here; `None` if no chunk can begin here (inside a Matroska Cluster of known size).
    pub init: Option<Init>,
}

impl Unit {
    /// Returns the unit of a header in mid-stream that differs from the one in force. It has no sample. The chunk that begins
    /// here contains this header as payload.
    pub(crate) fn of_header(init: Init) -> Self {
        Self {
            track: Track::Other,
            key: Key::No,
            pts: None,
            end: None,
            decode: None,
            sample_at: None,
            new_codec_config: true,
            init: Some(init),
        }
    }
}

/// A property of the stream that is reported to the user once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// A key frame without parameter sets (SPS/PPS) in band: chunks that begin here cannot be decoded alone.
    NoParameterSets,
    /// A key frame of MPEG-2 without a sequence header: as above.
    NoSequenceHeader,
    /// A key frame of MPEG-4 part 2 without a video object layer (VOL): as above.
    NoObjectLayer,
    /// A transport stream without PAT and PMT: it is cut by arrival time until they come.
    NoProgram,
    /// PES packets are not aligned with pictures: the rest of the last picture of a chunk is in the next chunk.
    Unaligned,
    /// Pictures after an open key unit are shown before it and depend on pictures before it: a chunk that begins with the key
    /// unit cannot decode them.
    OpenGop,
}

/// What a scanner found at an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// A unit begins.
    Unit(Unit),
    /// The picture of the last key unit has ended: all bytes below are needed to decode it, none above. At most one for
    /// each key unit on the video track, before the next unit of that track.
    PictureEnd,
    /// Bytes that do not follow the container's grammar begin here.
    Damage,
    /// The stream announces other elementary streams here, and the decoder configuration of the video stays the same. The open
    /// chunk stays playable, so the cut is made at the next key unit, not here.
    StreamsChanged,
    /// A warning for the user.
    Notice(Notice),
}

/// A statement about the input at an absolute offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Bytes from the start of the input.
    pub at: u64,
    /// What is there.
    pub kind: MarkKind,
}

/// Why a stream cannot be cut at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// An MP4 whose samples are not in fragments: its index comes at the end, and no part of it can be played alone.
    #[error("the MP4 is not fragmented: its index is written at the end, by seeking back, so no part of it can play alone")]
    Unfragmented,
    /// An MP4 whose fragments come without a head that can be read.
    #[error("the head (moov) of the MP4 is missing or damaged, and its fragments cannot be read without it")]
    NoHead,
    /// `tfhd` with `base-data-offset`: file offsets that are wrong in any other file.
    #[error("the MP4 fragments use absolute file offsets (tfhd base-data-offset), which are wrong in every chunk but the first")]
    BaseDataOffset,
    /// A transport stream with more than one program.
    #[error("the transport stream holds {0} programs; chunks that play alone need one")]
    Programs(usize),
    /// A Matroska without `Tracks` in front of its first Cluster: no player can decode the Clusters.
    #[error("the Matroska has no Tracks in front of its first Cluster, so no part of it can play alone")]
    TracksLast,
    /// A header is larger than [`MAX_GATHER`].
    #[error("a header of {} is over the limit of {}", amount(*.0), amount(MAX_GATHER as u64))]
    HeaderTooLarge(u64),
}

/// Reads one container format. See the module documentation for what an implementation guarantees.
pub trait Scanner: Send {
    /// Takes the next bytes of the input and appends the marks that are now decided to `marks`.
    ///
    /// # Errors
    /// [`Fault`] if the stream cannot be cut at all; the scanner must not be used afterwards.
    fn push(&mut self, data: &[u8], marks: &mut Vec<Mark>) -> Result<(), Fault>;

    /// Ends the input: decides all that is undecided. Afterwards `settled` is the input's length.
    fn finish(&mut self, marks: &mut Vec<Mark>);

    /// Returns the offset below which everything is decided: no later mark will be below it.
    fn settled(&self) -> u64;

    /// Returns the offset up to which the input consists of complete units. The bytes from there to [`Scanner::settled`] are the
    /// beginning of a unit that has not ended yet, if the container announces where units end.
    fn whole(&self) -> u64 {
        self.settled()
    }

    /// Decides, with the bytes received so far, all units that were held back for too long. Afterwards the marks depend on the
    /// arrival times too, not on the bytes alone.
    fn release(&mut self, _marks: &mut Vec<Mark>) {}

    /// Decides, with the bytes received so far, the unit whose bytes have been arriving for too long, and all units held back.
    /// The rest of that unit is skipped when it arrives.
    fn give_up(&mut self, marks: &mut Vec<Mark>) {
        self.release(marks);
    }

    /// Continues after an interruption of the input (a flush): the next byte does not continue the last one and probably opens a
    /// unit or a head. Drops partially read items, keeps the configuration.
    fn restart(&mut self);

    /// Returns the fault of an input that ends here without the head that every unit needs (an MP4's `moov`).
    fn missing_head(&self) -> Option<Fault> {
        None
    }

    /// Returns whether packets of a transport stream have arrived without a PAT and PMT that describe them.
    fn lacks_program(&self) -> bool {
        false
    }

    /// Returns whether the stream flags key frames at which no chunk can begin: inside a fragment or a Cluster of known size.
    fn encloses_keys(&self) -> bool {
        false
    }

    /// Returns the container (WebM and Matroska differ by the `DocType` in the head).
    fn container(&self) -> Container;

    /// Returns the offset in ns that is added to every time so that none is negative. Constant from the first timestamp on.
    fn origin(&self) -> u64 {
        0
    }

    /// Returns the granularity of this container's timestamps in ns (FLV and Matroska: 1 ms). Because of the rounding, a distance
    /// between two times may come out smaller by this amount.
    fn resolution(&self) -> u64;
}

/// Returns a scanner for a container, at the start of a stream.
pub fn scanner_for(container: Container) -> Box<dyn Scanner> {
    match container {
        Container::Flv => Box::new(flv::Flv::new()),
        Container::MpegTs => Box::new(mpegts::MpegTs::new()),
        Container::Fmp4 => Box::new(fmp4::Fmp4::new()),
        Container::Matroska | Container::WebM => Box::new(matroska::Matroska::new()),
        Container::Raw => Box::new(raw::Raw::new()),
    }
}

#[cfg(test)]
mod tests_corpus;
#[cfg(test)]
mod tests_hostile;
