//! The samples of an FLV chunk. See [`crate::container::samples`].
//!
//! PURE. Sources: Adobe Flash Video File Format 10.1 (E.4), Enhanced RTMP v2.

use bytes::Bytes;

use super::tag::{self, TagHeader, TagKind, Video};
use crate::container::nal::VideoCodec;
use crate::container::samples::{Codec, Sample, SampleTrack, Samples, SamplesError, Wrapped};

/// Times are milliseconds of 32 bits; in ns.
pub(in crate::container) const WRAP: i64 = (1 << 32) * MS;
const MS: i64 = 1_000_000;
/// Bytes of the file header with the first `PreviousTagSize`.
const FILE_HEADER: usize = 13;

/// Reads all tags; ends where they do.
pub(in crate::container) fn read(chunk: &Bytes) -> Result<Samples, SamplesError> {
    if !chunk.starts_with(b"FLV") {
        return Err(SamplesError::NoHeader);
    }
    let mut samples = Samples::default();
    let mut times = Wrapped::at(1 << 32);
    let mut at = FILE_HEADER;
    while let Some(header) = chunk.get(at..).and_then(TagHeader::parse) {
        let body = at + tag::TAG_HEADER;
        let Some(end) = body.checked_add(header.size).filter(|end| *end <= chunk.len()) else {
            break;
        };
        let data = chunk.slice(body..end);
        let time = times.unwrap(header.time.into()).saturating_mul(MS);
        match header.kind {
            TagKind::Video => picture(&mut samples.video, &data, time),
            TagKind::Audio => sound(&mut samples.audio, &data, time),
            TagKind::Script | TagKind::Reserved => {}
        }
        at += header.total();
    }
    Ok(samples)
}

fn picture(track: &mut Option<SampleTrack>, data: &Bytes, time: i64) {
    match tag::video(data) {
        Video::Config { codec, record } => {
            let record = data.slice(record.min(data.len())..);
            let codec = match codec {
                VideoCodec::H264 => Codec::H264(record),
                VideoCodec::H265 => Codec::H265(record),
                other => Codec::Other(format!("{other:?}")),
            };
            // A second configuration begins another chunk; one that only repeats the first changes nothing.
            track.get_or_insert(SampleTrack {
                is_video: true,
                codec,
                samples: Vec::new(),
            });
        }
        Video::Picture {
            codec,
            data: at,
            composition_ms,
            flagged,
        } => {
            if at >= data.len() {
                return;
            }
            let unknown = || SampleTrack {
                is_video: true,
                codec: Codec::Other(format!("{codec:?}")),
                samples: Vec::new(),
            };
            track.get_or_insert_with(unknown).samples.push(Sample {
                dts: time,
                pts: time + i64::from(composition_ms) * MS,
                key: flagged,
                data: data.slice(at..),
            });
        }
        Video::Nothing => {}
    }
}

fn sound(track: &mut Option<SampleTrack>, data: &Bytes, time: i64) {
    let audio = tag::audio(data);
    let (format, packet) = match data.first_chunk::<2>() {
        Some([first, second]) => (first >> 4, *second),
        None => return,
    };
    if audio.config {
        let at = if format == 9 { 5 } else { 2 };
        let config = data.slice(at.min(data.len())..);
        let codec = match audio.name {
            Some(name) if name.starts_with("mp4a.40") => Codec::Aac(config),
            Some(name) if name == "opus" => Codec::Opus(config),
            name => Codec::Other(name.unwrap_or_else(|| "unknown sound".into())),
        };
        track.get_or_insert(SampleTrack {
            is_video: false,
            codec,
            samples: Vec::new(),
        });
        return;
    }
    // AAC: the frame follows AACPacketType. Enhanced: the packet type is in the low bits, the frame follows the FourCC.
    let at = match (format, packet) {
        (10, 1) => 2,
        (9, _) if data.first().is_some_and(|first| first & 0xf == 1) => 5,
        (9 | 10, _) => return,
        _ => 1,
    };
    if at >= data.len() {
        return;
    }
    let unknown = || SampleTrack {
        is_video: false,
        codec: Codec::Other(audio.name.clone().unwrap_or_else(|| "unknown sound".into())),
        samples: Vec::new(),
    };
    track.get_or_insert_with(unknown).samples.push(Sample {
        dts: time,
        pts: time,
        key: true,
        data: data.slice(at..),
    });
}
