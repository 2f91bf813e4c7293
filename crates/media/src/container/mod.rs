//! What a muxed byte stream is made of: headers, key units, timestamps.
//!
//! PURE: works on byte slices alone, so that it can be tested, fuzzed and timed without GStreamer. A [`Scanner`] is fed the
//! input in arbitrary slices and returns, as [`Mark`]s at absolute offsets, where a chunk may begin and which header it needs in
//! front of it. It never holds payload; the caller keeps the bytes above [`Scanner::settled`] until they are decided.
//!
//! Promises every scanner keeps, whatever the bytes are:
//! 1. The marks depend on the bytes alone, never on how they were sliced.
//! 2. Offsets of marks never decrease, and no mark is below what `settled` had returned before.
//! 3. Nothing panics, and the memory a scanner holds is bounded (`MAX_GATHER` or less).
//! 4. The first [`Unit`] is where the input's head ends; the bytes before it are exactly its `init` (except where a
//!    container's head has to be neutralised, see `matroska`).
//! 5. Damaged bytes are passed over: a [`MarkKind::Damage`] at their first byte, then units again.

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

/// Most bytes a scanner gathers of one header (a `moov`, a script tag, `Tracks`): 4 MiB.
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
    /// Not known: the format is not parsed, and the container has flagged nothing so far.
    Unjudged,
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

/// What is known of the streams inside, from the head and the key units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamInfo {
    /// RFC 6381 list, video first, e.g. `avc1.640028,mp4a.40.2`; `None` where a codec is not known (yet).
    pub codecs: Option<String>,
    /// Whether the head announces, or the stream has shown, video.
    pub has_video: bool,
    /// Whether the head announces, or the stream has shown, audio.
    pub has_audio: bool,
}

/// The header in front of the payload of a chunk: `head`, then `tail`. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Init {
    /// The part all chunks of one configuration share.
    pub head: Bytes,
    /// The part for this place alone (a Matroska cluster header); mostly empty.
    pub tail: Bytes,
    /// What the streams are.
    pub info: Arc<StreamInfo>,
}

impl Init {
    /// Bytes of the header altogether.
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
    /// Whose unit it is. In an audio-only stream the audio units are keys.
    pub track: Track,
    /// Whether decoding can begin here.
    pub key: Key,
    /// Presentation time in ns on the container's own time line, unwrapped (never wraps back to 0 after 26.5 hours of TS).
    pub pts: Option<u64>,
    /// End of the presentation in ns, if the container has it (fMP4, Matroska with durations).
    pub end: Option<u64>,
    /// When its decoding begins and ends, likewise (fMP4): fragments meet in these times, and overlap where pictures are reordered.
    pub decode: Option<(u64, u64)>,
    /// Where in the input the sample lies that `pts` is of, if the unit begins with something else (fMP4).
    pub sample_at: Option<u64>,
    /// The unit begins with, or is, a decoder configuration that differs from the one in force: a chunk must begin here.
    pub new_codec_config: bool,
    /// Header for a chunk that begins here; `None` where none can (inside a Matroska cluster of known size).
    pub init: Option<Init>,
}

impl Unit {
    /// A header that differs from the one in force, without any sample: the chunk that begins with it has it as its own.
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

/// A property of the stream that the user is warned of once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// A key frame without parameter sets (SPS/PPS) in band: chunks that begin here cannot be decoded alone.
    NoParameterSets,
    /// A key frame of MPEG-2 without a sequence header: as above.
    NoSequenceHeader,
    /// A key frame of MPEG-4 part 2 without a video object layer (VOL), where none comes: as above.
    NoObjectLayer,
    /// A transport stream comes without PAT and PMT: it is cut by arrival until they come.
    NoProgram,
    /// PES packets are not aligned with pictures: the rest of the last picture of a chunk is in the next one.
    Unaligned,
    /// Pictures after an open key unit are shown before it: they depend on pictures before it.
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
    /// The stream announces other elementary streams here and leaves the decoder of the pictures as it is. What is open stays
    /// playable: a cut is due at the next key unit, not at once.
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
    /// An MP4 whose samples are not in fragments: its index comes at the end, and no part of it plays.
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
    /// A Matroska whose `Tracks` are not in front of its Clusters: no player can begin with them.
    #[error("the Matroska has no Tracks in front of its first Cluster, so no part of it can play alone")]
    TracksLast,
    /// A header grew over [`MAX_GATHER`].
    #[error("a header of {} is over the limit of {}", amount(*.0), amount(MAX_GATHER as u64))]
    HeaderTooLarge(u64),
}

/// Reads one container format. See the module for what an implementation promises.
pub trait Scanner: Send {
    /// Takes the next bytes of the input and appends what is now known to `marks`.
    ///
    /// # Errors
    /// [`Fault`] where the stream cannot be cut at all; the scanner is not to be used afterwards.
    fn push(&mut self, data: &[u8], marks: &mut Vec<Mark>) -> Result<(), Fault>;

    /// The input has ended: decides all that was open. `settled` is the input's length afterwards.
    fn finish(&mut self, marks: &mut Vec<Mark>);

    /// Everything below this offset is decided: no later mark will be below it.
    fn settled(&self) -> u64;

    /// Up to here the input is whole units: what lies between this and [`Scanner::settled`] is the beginning of one that has
    /// not ended yet, if the container announces where units end.
    fn whole(&self) -> u64 {
        self.settled()
    }

    /// What is held back has been held back too long: decides it with what is there. Afterwards marks no longer depend on the
    /// bytes alone, but on when they came.
    fn release(&mut self, _marks: &mut Vec<Mark>) {}

    /// The unit in progress has been arriving for too long: decides it, and all that is held back, with what is there. The rest of
    /// it is passed over when it comes.
    fn give_up(&mut self, marks: &mut Vec<Mark>) {
        self.release(marks);
    }

    /// The input was interrupted (a flush): the next byte does not continue the last one and probably opens a unit or a
    /// head. Drops what was half read, keeps the configuration.
    fn restart(&mut self);

    /// Returns what is wrong if the input ends here, where the head has not come without which no unit can (an MP4's `moov`).
    fn missing_head(&self) -> Option<Fault> {
        None
    }

    /// Whether packets of a transport stream have come, but no PAT and PMT that say what they are.
    fn lacks_program(&self) -> bool {
        false
    }

    /// Whether key units come that no chunk can begin with, by their flags: within a fragment, or within a Cluster of known size.
    fn encloses_keys(&self) -> bool {
        false
    }

    /// Returns the container (WebM and Matroska differ by the `DocType` in the head).
    fn container(&self) -> Container;

    /// What is added to every time so that none is below 0, in ns. Constant from the first time on.
    fn origin(&self) -> u64 {
        0
    }

    /// How coarse this container's timestamps are, in ns (FLV and Matroska: 1 ms): two times that should be 10 s apart may be
    /// that much less.
    fn resolution(&self) -> u64;
}

/// A scanner for a container, at the start of a stream.
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
