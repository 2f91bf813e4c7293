//! Parses the tags of FLV and the headers of their data.
//!
//! PURE. Sources: Adobe Flash Video File Format 10.1 (E.4), Enhanced RTMP v2 (ExVideoTagHeader, ExAudioTagHeader).

use super::extended::{self, Extended, packet};
use crate::container::codec;
use crate::container::feed::len64;
use crate::container::nal::{Framing, VideoCodec};

/// Bytes of a tag header.
pub(super) const TAG_HEADER: usize = 11;
/// Bytes of `PreviousTagSize` behind every tag.
pub(super) const TRAILER: usize = 4;

/// The 11 bytes in front of a tag's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TagHeader {
    pub kind: TagKind,
    /// Bytes of data, without header and trailer.
    pub size: usize,
    /// Timestamp in milliseconds; wraps at 32 bits.
    pub time: u32,
    /// StreamID: always 0 by the specification, but some writers number their streams.
    pub stream: [u8; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TagKind {
    Audio,
    Video,
    Script,
    /// A reserved type. Its content is ignored.
    Reserved,
}

impl TagHeader {
    /// Parses a tag header. Returns `None` if `data` is too short, or if one of the upper three bits of the type is set
    /// (reserved, encrypted).
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        let &[kind, s0, s1, s2, t0, t1, t2, t3, id0, id1, id2, ..] = data else {
            return None;
        };
        let kind = match kind {
            8 => TagKind::Audio,
            9 => TagKind::Video,
            18 => TagKind::Script,
            // Bits 6 and 7 are reserved; bit 5 is Filter: the data is encrypted (E.4.1).
            0x20.. => return None,
            _ => TagKind::Reserved,
        };
        let size = usize::from(s0) << 16 | usize::from(s1) << 8 | usize::from(s2);
        Some(Self {
            kind,
            size,
            // TimestampExtended comes last and holds the upper eight bits.
            time: u32::from_be_bytes([t3, t0, t1, t2]),
            stream: [id0, id1, id2],
        })
    }

    /// Returns whether the header is credible without the `PreviousTagSize` behind the tag: a known type with StreamID 0 or
    /// `stream`, the last one that was confirmed.
    pub(super) fn is_plain(&self, stream: [u8; 3]) -> bool {
        self.kind != TagKind::Reserved && (self.stream == [0, 0, 0] || self.stream == stream)
    }

    /// Returns whether `tag`, if it is complete, ends with a `PreviousTagSize` that matches its size.
    pub(super) fn is_confirmed(&self, tag: &[u8]) -> bool {
        let size = u32::try_from(TAG_HEADER + self.size).unwrap_or(0).to_be_bytes();
        tag.get(TAG_HEADER + self.size..self.total()) == Some(&size)
    }

    /// Returns the number of bytes from the start of this tag to the start of the next.
    pub(super) fn total(&self) -> usize {
        TAG_HEADER + self.size + TRAILER
    }
}

/// Content of a video tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Video {
    /// A decoder configuration record that begins at `record` in the tag's data.
    Config { codec: VideoCodec, record: usize, track: u8 },
    /// A picture whose coded bytes begin at `data`.
    Picture {
        codec: VideoCodec,
        data: usize,
        /// Number of these bytes, if something else follows in the tag.
        size: Option<usize>,
        composition_ms: i32,
        flagged: bool,
        track: u8,
    },
    /// End of sequence, commands, metadata: no picture.
    Nothing,
}

/// Bytes of a tag's data that are enough for [`video`] and [`audio`], except for extended headers that are longer.
const PREFIX: usize = 13;

/// Returns how many bytes of its data are needed to recognise a tag, judging by `data`, the bytes received so far.
pub(super) fn prefix_len(kind: TagKind, data: &[u8]) -> usize {
    let read = match (kind, data.first()) {
        (TagKind::Video, Some(first)) if first & 0x80 != 0 => extended::read(data, packet::VIDEO_TRACKS),
        (TagKind::Audio, Some(first)) if first >> 4 == 9 => extended::read(data, packet::AUDIO_TRACKS),
        _ => return PREFIX,
    };
    match read {
        extended::Read::More(n) => n.max(PREFIX),
        // Three more bytes: the composition time.
        extended::Read::Got(header) => PREFIX.max(header.body + 3),
        extended::Read::Unknown => PREFIX,
    }
}

/// Reads the head of a video tag's data.
pub(super) fn video(data: &[u8]) -> Video {
    let Some(&first) = data.first() else { return Video::Nothing };
    let flagged = first >> 4 & 7 == 1;
    // FrameType 5 is a command: a server-side seek begins or ends.
    if first >> 4 & 7 == 5 {
        return Video::Nothing;
    }
    if first & 0x80 != 0 {
        return match extended::read(data, packet::VIDEO_TRACKS) {
            extended::Read::Got(header) => ex_video(header, data, flagged),
            _ => Video::Nothing,
        };
    }
    let picture = |codec, data, composition_ms| Video::Picture {
        codec,
        data,
        size: None,
        composition_ms,
        flagged,
        track: 0,
    };
    let codec = match first & 0xf {
        7 => VideoCodec::H264,
        // Not in the specification, but used by cameras that send H.265 in FLV.
        12 => VideoCodec::H265,
        _ => return picture(VideoCodec::Unknown, 1, 0),
    };
    match data.get(1) {
        Some(0) => Video::Config {
            codec,
            record: 5,
            track: 0,
        },
        Some(1) => picture(codec, 5, int24(data.get(2..5))),
        // AVCPacketType 2 is the end of sequence. flvmux flags it as a key frame (`17 02`), but it contains no picture.
        _ => Video::Nothing,
    }
}

fn ex_video(header: Extended, data: &[u8], flagged: bool) -> Video {
    let codec = match &header.four_cc {
        b"avc1" => VideoCodec::H264,
        b"hvc1" => VideoCodec::H265,
        b"vp08" => VideoCodec::Vp8,
        b"vp09" => VideoCodec::Vp9,
        b"av01" => VideoCodec::Av1,
        _ => VideoCodec::Unknown,
    };
    // Only avc1 and hvc1 have a composition time; FRAMES_X omits it, which means 0.
    let has_composition = matches!(codec, VideoCodec::H264 | VideoCodec::H265) && header.packet == packet::FRAMES;
    let skip = if has_composition { 3 } else { 0 };
    match header.packet {
        packet::START => Video::Config {
            codec,
            record: header.body,
            track: header.track,
        },
        packet::FRAMES | packet::FRAMES_X => Video::Picture {
            codec,
            data: header.body + skip,
            size: header.size.map(|size| size.saturating_sub(skip)),
            composition_ms: if has_composition {
                int24(data.get(header.body..header.body + 3))
            } else {
                0
            },
            flagged,
            track: header.track,
        },
        _ => Video::Nothing,
    }
}

fn int24(bytes: Option<&[u8]>) -> i32 {
    match bytes {
        // SI24: the arithmetic shift keeps the sign.
        Some(&[a, b, c]) => i32::from_be_bytes([a, b, c, 0]) >> 8,
        _ => 0,
    }
}

/// Returns the framing of the pictures that use a configuration.
pub(super) fn framing(codec: VideoCodec, record: &[u8]) -> Framing {
    let size = match codec {
        VideoCodec::H265 => codec::hevc_length_size(record),
        _ => codec::avc_length_size(record),
    };
    Framing::Length(size.unwrap_or(4))
}

/// Returns the RFC 6381 name for a video configuration record.
pub(super) fn video_name(codec: VideoCodec, record: &[u8]) -> Option<String> {
    match codec {
        VideoCodec::H264 => codec::avc_from_record(record),
        VideoCodec::H265 => codec::hevc_from_record(record),
        VideoCodec::Vp8 => Some("vp8".to_owned()),
        VideoCodec::Vp9 => codec::vp_from_record("vp09", record),
        VideoCodec::Av1 => codec::av1_from_record(record),
        VideoCodec::Unknown => None,
    }
}

/// Content of an audio tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Audio {
    /// Whether the tag is a configuration, not coded audio.
    pub config: bool,
    /// Whether the tag is neither: end of sequence, channel layout.
    pub is_nothing: bool,
    /// RFC 6381 name, if the tag identifies the codec.
    pub name: Option<String>,
    /// Whether the codec is AAC, with one frame in each tag.
    pub is_aac: bool,
    pub track: u8,
    /// Position of the coded bytes, or of the configuration, in the tag's data.
    pub body: usize,
    /// Number of these bytes, if something else follows in the tag.
    pub size: Option<usize>,
}

/// Reads the head of an audio tag's data. For a configuration, `data` must be complete.
pub(super) fn audio(data: &[u8]) -> Audio {
    let plain = |name: Option<&str>| Audio {
        name: name.map(str::to_owned),
        body: 1,
        ..Audio::default()
    };
    let Some(&first) = data.first() else {
        return Audio::default();
    };
    match (first >> 4, data.get(1)) {
        // 2 is MP3, 14 is MP3 at 8 kHz (E.4.2.1).
        (2 | 14, _) => plain(Some("mp4a.40.34")),
        (7, _) => plain(Some("alaw")),
        (8, _) => plain(Some("ulaw")),
        (9, _) => match extended::read(data, packet::AUDIO_TRACKS) {
            extended::Read::Got(header) => ex_audio(header, data),
            _ => Audio {
                is_nothing: true,
                ..Audio::default()
            },
        },
        (10, second) => {
            let config = second == Some(&0);
            Audio {
                config,
                name: data.get(2..).filter(|_| config).and_then(codec::aac_from_config),
                is_aac: true,
                body: 2,
                ..Audio::default()
            }
        }
        _ => plain(None),
    }
}

fn ex_audio(header: Extended, data: &[u8]) -> Audio {
    let config = header.packet == packet::START;
    let name = match &header.four_cc {
        b"mp4a" if config => data.get(header.body..).and_then(codec::aac_from_config),
        b"Opus" => Some("opus".to_owned()),
        b"fLaC" => Some("flac".to_owned()),
        b"ac-3" => Some("ac-3".to_owned()),
        b"ec-3" => Some("ec-3".to_owned()),
        b".mp3" => Some("mp4a.40.34".to_owned()),
        _ => None,
    };
    Audio {
        config,
        is_nothing: !matches!(header.packet, packet::START | packet::FRAMES),
        name,
        is_aac: &header.four_cc == b"mp4a",
        track: header.track,
        body: header.body,
        size: header.size,
    }
}

/// Returns the duration in ns of an audio tag with `size` bytes of data; `aac` is the duration of an AAC frame.
pub(super) fn sound_duration(audio: &Audio, data: &[u8], size: usize, aac: Option<u64>) -> Option<u64> {
    match data.first()? >> 4 {
        _ if audio.is_aac => aac,
        // G.711: 8000 bytes a second.
        7 | 8 => Some(len64(size.saturating_sub(1)).saturating_mul(125_000)),
        _ => None,
    }
}

/// Returns a copy of a script tag with `duration` and `filesize` set to 0: they describe the whole file, not a chunk.
/// Returns `None` if the tag contains an index of file positions, which are wrong in every chunk, or if it is not `onMetaData`:
/// captions and cue points are valid only at their own time.
pub(super) fn neutral_script(tag: &[u8]) -> Option<Vec<u8>> {
    let data = tag.get(TAG_HEADER..).unwrap_or_default();
    // AMF0 strings: type 2, length, text.
    let data = data.strip_prefix(b"\x02\x00\x0d@setDataFrame").unwrap_or(data);
    if !data.starts_with(b"\x02\x00\x0aonMetaData") || find(tag, b"keyframes").is_some() {
        return None;
    }
    let mut copy = tag.to_vec();
    for key in [&b"\x00\x08duration\x00"[..], b"\x00\x08filesize\x00"] {
        if let Some(i) = find(&copy, key)
            && let Some(number) = copy.get_mut(i + key.len()..i + key.len() + 8)
        {
            number.fill(0);
        }
    }
    Some(copy)
}

fn find(data: &[u8], what: &[u8]) -> Option<usize> {
    data.windows(what.len()).position(|w| w == what)
}
