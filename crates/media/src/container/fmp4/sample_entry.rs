//! Sample entries: which codec a track holds, and how its pictures are framed.
//!
//! PURE. Sources: ISO/IEC 14496-12 8.5.2 (`stsd`), 8.12 (`sinf`), 14496-14 5.6 and 14496-1 7.2.6 (`esds`), 14496-15
//! (`avcC`, `hvcC`), the VP codec and the AV1 ISO media file format bindings (`vpcC`, `av1C`), RFC 6381 3.3.

use super::boxes::{Fields, FourCc, children, find};
use crate::container::codec;
use crate::container::nal::{Framing, ParameterSet, VideoCodec};

/// What a sample entry declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SampleEntry {
    /// Codec by which key frames are recognised; `Unknown` if the samples are encrypted.
    pub(super) codec: VideoCodec,
    /// How NAL units are delimited.
    pub(super) framing: Framing,
    /// RFC 6381 name.
    pub(super) name: Option<String>,
    /// Whether the entry holds parameter sets, or the codec has none.
    pub(super) has_parameter_sets: bool,
    /// Hash of the parameter sets in the entry.
    pub(super) parameter_sets: Option<u64>,
    /// The parameter sets in the entry.
    pub(super) record: Vec<ParameterSet>,
    /// The first SPS of H.264 in the entry.
    pub(super) sps: Option<Vec<u8>>,
}

impl SampleEntry {
    /// An entry of which nothing is known.
    pub(super) const UNKNOWN: Self = Self {
        codec: VideoCodec::Unknown,
        framing: Framing::Length(4),
        name: None,
        has_parameter_sets: true,
        parameter_sets: None,
        record: Vec::new(),
        sps: None,
    };
}

/// Bytes of a `VisualSampleEntry` before the boxes in it.
pub(super) const VISUAL: usize = 78;
/// Bytes of an `AudioSampleEntry` before the boxes in it.
const AUDIO: usize = 28;

/// Reads the first entry of an `stsd` of a video track.
pub(super) fn video(stsd: &[u8]) -> Option<SampleEntry> {
    let (_, kind, body) = first(stsd)?;
    let boxes = body.get(VISUAL..)?;
    let (format, encrypted) = original(kind, boxes);
    let mut entry = visual(&format, boxes);
    if encrypted {
        entry.codec = VideoCodec::Unknown;
    }
    Some(entry)
}

/// Returns the RFC 6381 name of the first entry of an `stsd` of an audio track.
pub(super) fn audio(stsd: &[u8]) -> Option<String> {
    let (kind, boxes) = audio_entry(stsd)?;
    let (format, _) = original(kind, boxes);
    match &format {
        b"mp4a" => mp4a(&elementary_stream(esds(boxes)?)?),
        b"Opus" => Some("opus".into()),
        b"fLaC" => Some("flac".into()),
        b".mp3" => Some("mp4a.40.34".into()),
        _ => plain_name(&format),
    }
}

/// Returns the format of the first entry of an `stsd` of an audio track, and its boxes.
pub(super) fn audio_entry(stsd: &[u8]) -> Option<(FourCc, &[u8])> {
    let (stsd_version, kind, body) = first(stsd)?;
    let entry_version = Fields(body.get(8..)?).u16()?;
    // QuickTime's longer sound descriptions. An entry of version 1 in an `stsd` of version 1 is ISO's and has the usual length.
    let extra = match (stsd_version, entry_version) {
        (0, 1) => 16,
        (0, 2) => 36,
        _ => 0,
    };
    Some((kind, body.get(AUDIO + extra..)?))
}

/// Returns the content of the `esds` of an audio entry. QuickTime puts it into a `wave`.
pub(super) fn esds(boxes: &[u8]) -> Option<&[u8]> {
    find(boxes, b"esds").or_else(|| find(find(boxes, b"wave")?, b"esds"))
}

/// Returns the version of the `stsd`, and kind and content of its first entry.
pub(super) fn first(stsd: &[u8]) -> Option<(u8, FourCc, &[u8])> {
    let mut fields = Fields(stsd);
    let (version, _) = fields.full_box()?;
    fields.u32()?;
    let (kind, body) = children(fields.0).next()?.ok()?;
    Some((version, kind, body))
}

/// Returns the original format of an entry, and whether the entry is encrypted.
fn original(kind: FourCc, boxes: &[u8]) -> (FourCc, bool) {
    if &kind != b"encv" && &kind != b"enca" {
        return (kind, false);
    }
    let format = find(boxes, b"sinf")
        .and_then(|sinf| find(sinf, b"frma"))
        .and_then(|frma| Fields(frma).four_cc());
    (format.unwrap_or(kind), true)
}

fn visual(format: &FourCc, boxes: &[u8]) -> SampleEntry {
    match format {
        // `dva1` and `dvav` are Dolby Vision with H.264, `dvh1` and `dvhe` below with H.265.
        b"avc1" | b"avc2" | b"avc3" | b"avc4" | b"dva1" | b"dvav" => {
            let record = find(boxes, b"avcC").unwrap_or_default();
            SampleEntry {
                codec: VideoCodec::H264,
                framing: Framing::Length(codec::avc_length_size(record).unwrap_or(4)),
                name: codec::avc_from_record(record).map(|name| named(format, &name)),
                // numOfSequenceParameterSets
                has_parameter_sets: record.get(5).is_some_and(|n| n & 0x1f != 0),
                parameter_sets: codec::parameter_sets(VideoCodec::H264, record),
                record: codec::record_sets(VideoCodec::H264, record),
                sps: codec::avc_first_sps(record).map(<[u8]>::to_vec),
            }
        }
        b"hvc1" | b"hev1" | b"dvh1" | b"dvhe" => {
            let record = find(boxes, b"hvcC").unwrap_or_default();
            SampleEntry {
                codec: VideoCodec::H265,
                framing: Framing::Length(codec::hevc_length_size(record).unwrap_or(4)),
                name: codec::hevc_from_record(record).map(|name| named(format, &name)),
                has_parameter_sets: hevc_has_sps(record).unwrap_or(false),
                parameter_sets: codec::parameter_sets(VideoCodec::H265, record),
                record: codec::record_sets(VideoCodec::H265, record),
                sps: None,
            }
        }
        b"vp08" => SampleEntry {
            codec: VideoCodec::Vp8,
            name: find(boxes, b"vpcC").and_then(|record| codec::vp_from_record("vp08", record)),
            ..SampleEntry::UNKNOWN
        },
        b"vp09" => SampleEntry {
            codec: VideoCodec::Vp9,
            name: find(boxes, b"vpcC").and_then(|record| codec::vp_from_record("vp09", record)),
            ..SampleEntry::UNKNOWN
        },
        b"av01" => SampleEntry {
            codec: VideoCodec::Av1,
            name: find(boxes, b"av1C").and_then(codec::av1_from_record),
            ..SampleEntry::UNKNOWN
        },
        b"mp4v" => SampleEntry {
            name: mpeg4_visual(boxes),
            ..SampleEntry::UNKNOWN
        },
        b"encv" => SampleEntry::UNKNOWN,
        _ => SampleEntry {
            name: plain_name(format),
            ..SampleEntry::UNKNOWN
        },
    }
}

/// Returns `name` with the four characters of the entry: `avc3` and `hev1` mean that parameter sets are in band (14496-15).
fn named(format: &FourCc, name: &str) -> String {
    let tail = name.split_once('.').map_or("", |(_, tail)| tail);
    format!("{}.{tail}", String::from_utf8_lossy(format))
}

/// Returns the name of a codec whose name is its four characters (RFC 6381 3.3), such as `ac-3`, `ec-3`, `alac`.
fn plain_name(format: &FourCc) -> Option<String> {
    let plain = format.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
    (plain && format != b"enca").then(|| String::from_utf8_lossy(format).into_owned())
}

/// Returns whether an HEVCDecoderConfigurationRecord holds an SPS (NAL unit type 33).
fn hevc_has_sps(record: &[u8]) -> Option<bool> {
    let mut fields = Fields(record.get(22..)?);
    for _ in 0..fields.u8()? {
        let is_sps = fields.u8()? & 0x3f == 33;
        let count = fields.u16()?;
        if is_sps && count > 0 {
            return Some(true);
        }
        for _ in 0..count {
            let len = fields.u16()?;
            fields.skip(len.into())?;
        }
    }
    Some(false)
}

/// Returns `mp4v.20.N`, where N is the `profile_and_level_indication` of the visual object sequence.
fn mpeg4_visual(boxes: &[u8]) -> Option<String> {
    let stream = elementary_stream(find(boxes, b"esds")?)?;
    match (stream.object_type, stream.config) {
        (0x20, [0, 0, 1, 0xb0, level, ..]) => Some(format!("mp4v.20.{level}")),
        (kind, _) => Some(format!("mp4v.{kind:02X}")),
    }
}

/// The fields of an `ES_Descriptor`.
struct ElementaryStream<'a> {
    /// `objectTypeIndication`.
    object_type: u8,
    /// `DecoderSpecificInfo`; usually empty for codecs other than AAC.
    config: &'a [u8],
}

fn mp4a(stream: &ElementaryStream<'_>) -> Option<String> {
    match stream.object_type {
        0x40 => codec::aac_from_config(stream.config),
        // MPEG-2 and MPEG-1 layer III: MPEG-4's own object type 34.
        0x69 | 0x6b => Some("mp4a.40.34".into()),
        0xa5 => Some("ac-3".into()),
        0xa6 => Some("ec-3".into()),
        0xad => Some("opus".into()),
        kind => Some(format!("mp4a.{kind:02X}")),
    }
}

/// Reads `esds`: ES_Descriptor (tag 3), DecoderConfigDescriptor (4), DecoderSpecificInfo (5).
fn elementary_stream(esds: &[u8]) -> Option<ElementaryStream<'_>> {
    let mut fields = Fields(esds);
    fields.full_box()?;
    let mut fields = Fields(descriptor(&mut fields, 3)?);
    fields.u16()?;
    let flags = fields.u8()?;
    // streamDependenceFlag, URL_Flag, OCRstreamFlag.
    if flags & 0x80 != 0 {
        fields.u16()?;
    }
    if flags & 0x40 != 0 {
        let len = fields.u8()?;
        fields.skip(len.into())?;
    }
    if flags & 0x20 != 0 {
        fields.u16()?;
    }
    let mut fields = Fields(descriptor(&mut fields, 4)?);
    let object_type = fields.u8()?;
    // streamType, bufferSizeDB, maxBitrate, avgBitrate.
    fields.skip(12)?;
    Some(ElementaryStream {
        object_type,
        config: descriptor(&mut fields, 5).unwrap_or_default(),
    })
}

/// The content of the descriptor that comes next, if it has that tag.
fn descriptor<'a>(fields: &mut Fields<'a>, tag: u8) -> Option<&'a [u8]> {
    if fields.u8()? != tag {
        return None;
    }
    let mut len = 0usize;
    // A length has at most four bytes of seven bits (14496-1 8.3.3).
    for _ in 0..4 {
        let b = fields.u8()?;
        len = len << 7 | usize::from(b & 0x7f);
        if b & 0x80 == 0 {
            break;
        }
    }
    fields.skip(len.min(fields.0.len()))
}
