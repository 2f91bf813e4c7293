//! Classifies the first bytes of a PES packet of video: a key frame, another picture, or the rest of the previous picture.
//!
//! PURE. Sources: ITU-T H.264 7.4.1.2.3 and H.265 7.4.2.4.4 (first NAL unit of an access unit), ISO/IEC 13818-2 6.2.2 and 6.2.3.

use std::hash::{DefaultHasher, Hasher};

use super::super::Key;
use super::super::nal::{Framing, MAX_PREFIX, Part, Picture, VideoCodec, classify, find_start_code, opens_with_delimiter};
use super::super::work;
use super::mpeg4;
use super::stream::Video;

/// Content of a PES packet of video.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A picture begins.
    Begins(Picture),
    /// A picture begins behind the rest of the previous picture.
    BeginsBehindRest(Picture),
    /// More of the last picture: encoders split pictures over 64 KiB, or send each slice in a PES packet of its own.
    Continues,
}

/// What decides, besides its bytes, whether a picture is a key frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hints {
    /// random_access_indicator of the PES packet: it decides if the bytes show nothing.
    pub(super) is_flagged: bool,
    /// Whether the headers that a decoder needs no longer come: then the stream may be cut at a group of pictures without them.
    pub(super) lacks_headers: bool,
}

/// Classifies the elementary stream bytes of a PES packet. Returns `None` if more bytes are needed.
pub(super) fn classify_video(video: Video, data: &[u8], has_pts: bool, complete: bool, hints: Hints) -> Option<Verdict> {
    if video != Video::Nal(VideoCodec::Unknown) && has_pts && begins_picture(video, data, false) == Some(false) {
        return classify_behind_tail(video, data, complete, hints);
    }
    let begins = match video {
        Video::Nal(VideoCodec::Unknown) => Some(true),
        _ => begins_picture(video, data, has_pts),
    };
    match (begins, complete) {
        (None, false) => return None,
        (Some(false), _) => return Some(Verdict::Continues),
        _ => {}
    }
    let picture = classify_first(video, data, complete, hints)?;
    Some(if is_rest(video, data, &picture) {
        Verdict::Continues
    } else {
        Verdict::Begins(picture)
    })
}

/// Returns whether `data` opens with the rest of the previous picture, although parameter sets or SEI are in front of the slice:
/// `h264parse config-interval=-1` repeats the sets in front of each slice of a key frame if the slices reach it one by one.
fn is_rest(video: Video, data: &[u8], picture: &Picture) -> bool {
    let Video::Nal(codec) = video else { return false };
    picture.part == Part::Continues && !opens_with_delimiter(codec, Framing::AnnexB, data)
}

/// Classifies the picture at the start of `data`. Returns `None` if more bytes are needed.
fn classify_first(video: Video, data: &[u8], complete: bool, hints: Hints) -> Option<Picture> {
    match video {
        Video::Nal(codec) => classify(codec, Framing::AnnexB, data, complete, hints.is_flagged),
        Video::Mpeg2 => classify_mpeg2(data, complete || data.len() >= MAX_PREFIX, hints.lacks_headers),
        Video::Mpeg4 => mpeg4::classify(data, complete, hints),
    }
}

/// Classifies the first picture that begins behind the rest of the previous one: PES packets need not be aligned with access
/// units (data_alignment_indicator 0), and their PTS is that of the first access unit that begins in them.
fn classify_behind_tail(video: Video, data: &[u8], complete: bool, hints: Hints) -> Option<Verdict> {
    let Some(from) = first_access_unit(video, data) else {
        return complete.then_some(Verdict::Continues);
    };
    let data = data.get(from..).unwrap_or_default();
    let picture = classify_first(video, data, complete, hints)?;
    if is_rest(video, data, &picture) {
        return Some(Verdict::Continues);
    }
    Some(Verdict::BeginsBehindRest(Picture {
        sps: picture.sps.map(|(at, len)| (from + at, len)),
        slice: picture.slice.map(|at| from + at),
        ..picture
    }))
}

/// Classifies the pictures that begin in a complete PES packet. Returns the first key frame.
pub(super) fn later_key(video: Video, data: &[u8], hints: Hints) -> Option<Picture> {
    // The flag applies only to the first picture of the packet.
    let hints = Hints {
        is_flagged: false,
        ..hints
    };
    let mut from = 0;
    while let Some(at) = first_access_unit(video, data.get(from..)?).map(|at| from + at) {
        let picture = classify_first(video, data.get(at..)?, true, hints)?;
        if picture.key.is_key() && !is_rest(video, data.get(at..)?, &picture) {
            return Some(Picture {
                // Not closed: a chunk begins with the whole packet, and the pictures before this one cannot be decoded.
                key: Key::Open,
                sps: picture.sps.map(|(sps, len)| (at + sps, len)),
                slice: picture.slice.map(|slice| at + slice),
                ..picture
            });
        }
        // Without a slice there is none within the next `MAX_PREFIX` bytes. They are skipped: classifying again from each start
        // code in them would take quadratic time.
        from = at + picture.slice.unwrap_or(MAX_PREFIX).max(3);
    }
    None
}

/// Returns the offset of the first start code with which an access unit can begin.
fn first_access_unit(video: Video, data: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(start) = find_start_code(data, from) {
        work::count(start + 3 - from);
        let &code = data.get(start + 3)?;
        let (stands_before, slice) = match video {
            Video::Mpeg2 => (begins_mpeg2(code), None),
            Video::Mpeg4 => (begins_mpeg4(code), None),
            Video::Nal(VideoCodec::H264) => (
                matches!(code & 0x1f, 6..=9 | 15),
                matches!(code & 0x1f, 1 | 2 | 5).then_some(4),
            ),
            Video::Nal(_) => (
                matches!(code >> 1 & 0x3f, 32..=35 | 39),
                matches!(code >> 1 & 0x3f, 0..=31).then_some(5),
            ),
        };
        let is_first = slice.is_some_and(|at| data.get(start + at).is_some_and(|b| b & 0x80 != 0));
        if stands_before || is_first {
            return Some(start);
        }
        from = start + 3;
    }
    None
}

/// Returns whether the data opens with the first bytes of a picture; `None` if it is too short.
fn begins_picture(video: Video, data: &[u8], has_pts: bool) -> Option<bool> {
    let zeros = data.iter().position(|&b| b != 0)?;
    if zeros < 2 || data.get(zeros) != Some(&1) {
        // Not aligned to start codes, which is legal (data_alignment_indicator 0): then a PTS means that a picture begins later
        // in the packet.
        return Some(has_pts);
    }
    let &code = data.get(zeros + 1)?;
    let first_slice = |offset: usize| data.get(zeros + 1 + offset).map(|b| b & 0x80 != 0);
    match video {
        Video::Nal(VideoCodec::H265) => match code >> 1 & 0x3f {
            0..=31 => first_slice(2),
            // End of sequence, end of bitstream, filler, suffix SEI: they end a picture, and a PTS means that another one begins.
            36..=38 | 40 => Some(has_pts),
            _ => Some(true),
        },
        Video::Nal(_) => match code & 0x1f {
            1 | 2 | 5 => first_slice(1),
            // Partitions B and C, end of sequence, end of stream, filler: as above.
            3 | 4 | 10..=12 => Some(has_pts),
            _ => Some(true),
        },
        Video::Mpeg2 => Some(begins_mpeg2(code)),
        Video::Mpeg4 => Some(begins_mpeg4(code)),
    }
}

/// Returns whether a start code is picture_start_code, sequence_header_code or group_start_code.
fn begins_mpeg2(code: u8) -> bool {
    matches!(code, 0x00 | 0xb3 | 0xb8)
}

fn begins_mpeg4(code: u8) -> bool {
    code == mpeg4::VOP || mpeg4::stands_before(code)
}

/// Returns whether the first slice of the picture that begins in a PES packet must be in a later packet: this one contains only
/// what precedes a picture, or the first bytes of a start code.
pub(super) fn is_beginning(video: Video, data: &[u8], has_pts: bool) -> bool {
    if !video.is_parsed() {
        return false;
    }
    if !has_pts || begins_picture(video, data, false) != Some(false) {
        return is_prefix(video, data);
    }
    match first_access_unit(video, data) {
        Some(at) => is_prefix(video, data.get(at..).unwrap_or_default()),
        None => matches!(data, [.., 0] | [.., 0, 0, 1]),
    }
}

/// Returns whether the data contains only what precedes a picture: delimiter, parameter sets, SEI. Behind parsers that emit NAL
/// units one by one, muxers put each into a PES packet of its own; the picture then follows in the next packet.
fn is_prefix(video: Video, data: &[u8]) -> bool {
    let stands_before = |code: u8| match video {
        // 13 and 15 are the extension of an SPS and a subset SPS.
        Video::Nal(VideoCodec::H264) => matches!(code & 0x1f, 6..=9 | 13 | 15),
        Video::Nal(VideoCodec::H265) => matches!(code >> 1 & 0x3f, 32..=35 | 39),
        // user_data, sequence_header, extension and group_start codes.
        Video::Mpeg2 => matches!(code, 0xb2 | 0xb3 | 0xb5 | 0xb8),
        Video::Mpeg4 => mpeg4::stands_before(code),
        Video::Nal(_) => false,
    };
    work::count(data.len());
    let mut from = 0;
    let mut any = false;
    while let Some(start) = find_start_code(data, from) {
        match data.get(start + 3) {
            Some(&code) if stands_before(code) => any = true,
            _ => return false,
        }
        from = start + 3;
    }
    any
}

/// Classifies a picture of MPEG-2. A key frame is an I picture with a sequence header before it; with `lacks_headers` also one
/// with only a group header. Returns `None` if more bytes are needed.
fn classify_mpeg2(data: &[u8], complete: bool, lacks_headers: bool) -> Option<Picture> {
    let data = data.get(..MAX_PREFIX).unwrap_or(data);
    work::count(data.len());
    let mut sequence = None;
    let (mut closed, mut has_group) = (true, false);
    let mut from = 0;
    while let Some(start) = find_start_code(data, from) {
        let body = data.get(start + 4..).unwrap_or_default();
        match data.get(start + 3) {
            Some(0xb3) => sequence = Some((start + 4, body.get(..4))),
            // time_code takes 25 bits, then closed_gop.
            Some(0xb8) => (closed, has_group) = (body.get(3).is_some_and(|b| b & 0x40 != 0), true),
            Some(0) if body.len() >= 2 => {
                // The extension behind the picture header shows whether it is a field (13818-2 6.2.3.1).
                if !complete && mpeg2_structure(data, start).is_none() {
                    return None;
                }
                let intra = body.get(1).is_some_and(|b| b >> 3 & 7 == 1);
                let begins = sequence.is_some() || (lacks_headers && has_group);
                let key = match (intra && begins, closed) {
                    (false, _) => Key::No,
                    (true, true) => Key::Closed,
                    (true, false) => Key::Open,
                };
                let config = sequence.and_then(|(_, size)| size).map(|size| {
                    // Size, aspect ratio and frame rate. The rest (bit rate, matrices) may change without a new configuration.
                    let mut hasher = DefaultHasher::new();
                    hasher.write(size);
                    hasher.finish()
                });
                return Some(Picture {
                    has_parameter_sets: sequence.is_some(),
                    config,
                    sps: sequence.map(|(at, _)| (at, 4)),
                    slice: Some(start + 3),
                    ..Picture::plain(key)
                });
            }
            _ => {}
        }
        from = start + 3;
    }
    complete.then_some(Picture {
        has_parameter_sets: true,
        ..Picture::plain(Key::No)
    })
}

/// Returns, for a field of MPEG-2, the `temporal_reference` of its frame and whether it is the bottom field. Returns `Some(None)`
/// for a frame and `None` if more bytes are needed. `start` is the offset of the picture start code.
fn mpeg2_structure(data: &[u8], start: usize) -> Option<Option<(u16, bool)>> {
    let &[high, low, ..] = data.get(start + 4..)? else {
        return None;
    };
    let next = find_start_code(data, start + 4)?;
    let reference = u16::from_be_bytes([high, low]) >> 6;
    match (data.get(next + 3)?, data.get(next + 4)?) {
        // picture_coding_extension: f_code takes 16 bits, intra_dc_precision two.
        (0xb5, id) if id >> 4 == 8 => Some(match data.get(next + 6)? & 3 {
            1 => Some((reference, false)),
            2 => Some((reference, true)),
            _ => None,
        }),
        _ => Some(None),
    }
}

/// Duration in ns without a sequence header of MPEG-2 or a layer of MPEG-4 after which key frames without one are accepted: 25 s.
/// Less than the 30 s after which chunks are cut without a key frame. A stream whose headers repeat within this time is cut only
/// at them.
const SEQUENCE: u64 = 25_000_000_000;

/// Tracks the last sequence header of MPEG-2, or layer of MPEG-4: some encoders write only one, at the start.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    last: Option<u64>,
    is_missing: bool,
}

impl Sequences {
    /// Returns whether the last one is so old that key frames without one are accepted. In MPEG-4 this is also true if none has
    /// come at all: muxers that got the layer from a header of their own omit it. A stream of MPEG-2 joined between two sequence
    /// headers gets one soon.
    pub(super) fn are_missing(&self, video: Video) -> bool {
        self.is_missing || (video == Video::Mpeg4 && self.last.is_none())
    }

    /// Takes a picture with its time in ns.
    pub(super) fn note(&mut self, picture: &Picture, pts: Option<u64>) {
        let Some(pts) = pts else { return };
        if picture.key.is_key() && picture.has_parameter_sets {
            (self.last, self.is_missing) = (Some(pts), false);
        } else if self.last.is_some_and(|last| pts.saturating_sub(last) >= SEQUENCE) {
            self.is_missing = true;
        }
    }
}

/// Pairs the fields of MPEG-2 video that come in PES packets of their own (13818-2 6.3.10: two fields of a frame have one
/// `temporal_reference`).
#[derive(Debug, Default)]
pub(super) struct Mpeg2Fields {
    /// The last picture, if it is a first field whose second field has not come.
    open: Option<(u16, bool)>,
}

impl Mpeg2Fields {
    /// Takes the next PES packet in which a picture begins. Returns whether that is the second field of the previous picture.
    pub(super) fn take(&mut self, data: &[u8]) -> bool {
        let mut from = 0;
        let mut field = None;
        while let Some(start) = find_start_code(data, from) {
            work::count(start + 3 - from);
            if data.get(start + 3) == Some(&0) {
                field = mpeg2_structure(data, start).flatten();
                break;
            }
            from = start + 3;
        }
        let before = std::mem::replace(&mut self.open, field);
        let is_second = before
            .zip(field)
            .is_some_and(|(first, second)| first.0 == second.0 && first.1 != second.1);
        if is_second {
            self.open = None;
        }
        is_second
    }
}
