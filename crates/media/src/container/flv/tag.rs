//! The tags of FLV and the headers of their data.
//!
//! PURE. Sources: Adobe Flash Video File Format 10.1 (E.4), Enhanced RTMP v2 (ExVideoTagHeader, ExAudioTagHeader).

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
    /// Milliseconds, 32 bits that wrap.
    pub time: u32,
    /// Always 0 by the specification; some writers number their streams.
    pub stream: [u8; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TagKind {
    Audio,
    Video,
    Script,
    /// A reserved type. Its content means nothing here.
    Reserved,
}

impl TagHeader {
    /// `None` where these bytes are no tag header: the upper three bits of the type are set (reserved, encrypted).
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        let &[kind, s0, s1, s2, t0, t1, t2, t3, id0, id1, id2, ..] = data else {
            return None;
        };
        let kind = match kind {
            8 => TagKind::Audio,
            9 => TagKind::Video,
            18 => TagKind::Script,
            0x20.. => return None,
            _ => TagKind::Reserved,
        };
        let size = usize::from(s0) << 16 | usize::from(s1) << 8 | usize::from(s2);
        Some(Self {
            kind,
            size,
            time: u32::from_be_bytes([t3, t0, t1, t2]),
            stream: [id0, id1, id2],
        })
    }

    /// Whether the header alone is proof enough: a known type in a stream that is known to be one.
    pub(super) fn is_plain(&self, stream: [u8; 3]) -> bool {
        self.kind != TagKind::Reserved && (self.stream == [0, 0, 0] || self.stream == stream)
    }

    /// Whether `tag`, all of it, ends with its own size.
    pub(super) fn is_confirmed(&self, tag: &[u8]) -> bool {
        let size = u32::try_from(TAG_HEADER + self.size).unwrap_or(0).to_be_bytes();
        tag.get(TAG_HEADER + self.size..self.total()) == Some(&size)
    }

    /// Bytes from the start of this tag to the start of the next.
    pub(super) fn total(&self) -> usize {
        TAG_HEADER + self.size + TRAILER
    }
}

/// What a video tag holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Video {
    /// A decoder configuration record that begins at `record` in the tag's data.
    Config { codec: VideoCodec, record: usize },
    /// A picture whose coded bytes begin at `data`.
    Picture {
        codec: VideoCodec,
        data: usize,
        composition_ms: i32,
        flagged: bool,
    },
    /// End of sequence, commands, metadata: no picture.
    Nothing,
}

/// Bytes of a video tag's data that are enough for [`video`].
pub(super) const VIDEO_PREFIX: usize = 8;

/// Reads the head of a video tag's data.
pub(super) fn video(data: &[u8]) -> Video {
    let Some(&first) = data.first() else { return Video::Nothing };
    let flagged = first >> 4 & 7 == 1;
    if first & 0x80 != 0 {
        return ex_video(first & 0xf, data, flagged);
    }
    if first >> 4 == 5 {
        return Video::Nothing;
    }
    let codec = match first & 0xf {
        7 => VideoCodec::H264,
        // Not in the specification, but what cameras that send H.265 in FLV use.
        12 => VideoCodec::H265,
        _ => {
            return Video::Picture {
                codec: VideoCodec::Unknown,
                data: 1,
                composition_ms: 0,
                flagged,
            };
        }
    };
    match data.get(1) {
        Some(0) => Video::Config { codec, record: 5 },
        Some(1) => Video::Picture {
            codec,
            data: 5,
            composition_ms: int24(data.get(2..5)),
            flagged,
        },
        _ => Video::Nothing,
    }
}

fn ex_video(packet: u8, data: &[u8], flagged: bool) -> Video {
    let codec = match data.get(1..5) {
        Some(b"avc1") => VideoCodec::H264,
        Some(b"hvc1") => VideoCodec::H265,
        Some(b"vp08") => VideoCodec::Vp8,
        Some(b"vp09") => VideoCodec::Vp9,
        Some(b"av01") => VideoCodec::Av1,
        _ => VideoCodec::Unknown,
    };
    let has_composition = matches!(codec, VideoCodec::H264 | VideoCodec::H265);
    match packet {
        0 => Video::Config { codec, record: 5 },
        1 if has_composition => Video::Picture {
            codec,
            data: 8,
            composition_ms: int24(data.get(5..8)),
            flagged,
        },
        1 | 3 => Video::Picture {
            codec,
            data: 5,
            composition_ms: 0,
            flagged,
        },
        // Multitrack and ModEx wrap the picture once more: the tag's own flag has to do.
        6 | 7 => Video::Picture {
            codec: VideoCodec::Unknown,
            data: 5,
            composition_ms: 0,
            flagged,
        },
        _ => Video::Nothing,
    }
}

fn int24(bytes: Option<&[u8]>) -> i32 {
    match bytes {
        Some(&[a, b, c]) => i32::from_be_bytes([a, b, c, 0]) >> 8,
        _ => 0,
    }
}

/// How the pictures of a configuration are framed.
pub(super) fn framing(codec: VideoCodec, record: &[u8]) -> Framing {
    let size = match codec {
        VideoCodec::H265 => codec::hevc_length_size(record),
        _ => codec::avc_length_size(record),
    };
    Framing::Length(size.unwrap_or(4))
}

/// RFC 6381 name from a video configuration record.
pub(super) fn video_name(codec: VideoCodec, record: &[u8]) -> Option<String> {
    match codec {
        VideoCodec::H264 => codec::avc_from_record(record),
        VideoCodec::H265 => codec::hevc_from_record(record),
        _ => None,
    }
}

/// What an audio tag holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Audio {
    /// The tag is a configuration, not sound.
    pub config: bool,
    /// RFC 6381 name, if the tag identifies the codec.
    pub name: Option<String>,
}

/// Reads the head of an audio tag's data; a configuration needs all of it.
pub(super) fn audio(data: &[u8]) -> Audio {
    let plain = |name: &str| Audio {
        config: false,
        name: Some(name.to_owned()),
    };
    let Some(&first) = data.first() else {
        return Audio {
            config: false,
            name: None,
        };
    };
    match first >> 4 {
        2 | 14 => plain("mp4a.40.34"),
        7 => plain("alaw"),
        8 => plain("ulaw"),
        9 => {
            let config = first & 0xf == 0;
            let name = match data.get(1..5) {
                Some(b"mp4a") if config => data.get(5..).and_then(codec::aac_from_config),
                Some(b"Opus") => Some("opus".to_owned()),
                Some(b"fLaC") => Some("flac".to_owned()),
                Some(b"ac-3") => Some("ac-3".to_owned()),
                Some(b"ec-3") => Some("ec-3".to_owned()),
                Some(b".mp3") => Some("mp4a.40.34".to_owned()),
                _ => None,
            };
            Audio { config, name }
        }
        10 if data.get(1) == Some(&0) => Audio {
            config: true,
            name: data.get(2..).and_then(codec::aac_from_config),
        },
        _ => Audio {
            config: false,
            name: None,
        },
    }
}

/// The AudioSpecificConfig in an audio tag of configuration.
pub(super) fn aac_config(data: &[u8]) -> Option<&[u8]> {
    match data {
        [first, 0, config @ ..] if first >> 4 == 10 => Some(config),
        [0x90, b'm', b'p', b'4', b'a', config @ ..] => Some(config),
        _ => None,
    }
}

/// Duration in ns of the sound in an audio tag of `size` bytes of data; `aac` is that of a frame of AAC.
pub(super) fn sound_duration(data: &[u8], size: usize, aac: Option<u64>) -> Option<u64> {
    match data {
        // AAC, in a tag of one frame.
        [first, 1, ..] if first >> 4 == 10 => aac,
        [0x91, b'm', b'p', b'4', b'a', ..] => aac,
        // G.711: 8000 bytes a second.
        [first, ..] if matches!(first >> 4, 7 | 8) => Some(len64(size.saturating_sub(1)).saturating_mul(125_000)),
        _ => None,
    }
}

/// Returns a copy of a script tag with `duration` and `filesize` set to 0: they describe the whole file, not a chunk.
/// `None` where it holds an index of file positions.
pub(super) fn neutral_script(tag: &[u8]) -> Option<Vec<u8>> {
    if find(tag, b"keyframes").is_some() {
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
