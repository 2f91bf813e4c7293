//! Reads the samples of an FLV chunk. See [`crate::container::samples`].
//!
//! PURE. Sources: Adobe Flash Video File Format 10.1 (E.4), Enhanced RTMP v2.

use bytes::Bytes;

use super::tag::{self, TagHeader, TagKind, Video};
use super::times::Widened;
use crate::container::nal::VideoCodec;
use crate::container::samples::{Codec, Sample, SampleTrack, Samples, SamplesError, Wrapped, stated};

/// Period in ns after which timestamps wrap: they are milliseconds of 32 bits.
pub(in crate::container) const WRAP: i64 = (1 << 32) * MS;
const MS: i64 = 1_000_000;
/// Length in bytes of the file header and the first `PreviousTagSize`.
const FILE_HEADER: usize = 13;

/// Reads the tags up to the first one that is incomplete or has no valid header.
pub(in crate::container) fn read(chunk: &Bytes) -> Result<Samples, SamplesError> {
    if !chunk.starts_with(b"FLV") {
        return Err(SamplesError::NoHeader);
    }
    let mut samples = Samples::default();
    let mut times = Wrapped::at(1 << 32);
    let mut widened = Widened::default();
    // The first track of each kind, video and audio.
    let mut tracks = (None, None);
    let mut at = FILE_HEADER;
    while let Some(header) = chunk.get(at..).and_then(TagHeader::parse) {
        let body = at + tag::TAG_HEADER;
        // A last tag that is cut off has no complete sample.
        let Some(end) = body.checked_add(header.size).filter(|end| *end <= chunk.len()) else {
            break;
        };
        let data = chunk.slice(body..end);
        let time = times.unwrap(widened.widen(header.time).into()).saturating_mul(MS);
        match header.kind {
            TagKind::Video => picture(&mut samples.video, &mut tracks.0, &data, time),
            TagKind::Audio => sound(&mut samples.audio, &mut tracks.1, &data, time),
            TagKind::Script | TagKind::Reserved => {}
        }
        at += header.total();
    }
    Ok(samples)
}

fn picture(track: &mut Option<SampleTrack>, first: &mut Option<u8>, data: &Bytes, time: i64) {
    let video = tag::video(data);
    if let Video::Config { track: number, .. } | Video::Picture { track: number, .. } = video
        && *first.get_or_insert(number) != number
    {
        return;
    }
    match video {
        Video::Config { codec, record, .. } => {
            let record = data.slice(record.min(data.len())..);
            let codec = match codec {
                VideoCodec::H264 => Codec::H264(record),
                VideoCodec::H265 => Codec::H265(record),
                other => without_nals(other, &record),
            };
            // The first configuration counts: a different one begins another chunk, so a second one here is a repetition.
            track.get_or_insert(SampleTrack {
                is_video: true,
                codec,
                samples: Vec::new(),
            });
        }
        Video::Picture {
            codec,
            data: at,
            size,
            composition_ms,
            flagged,
            ..
        } => {
            if at >= data.len() {
                return;
            }
            let end = size.map_or(data.len(), |size| data.len().min(at.saturating_add(size)));
            let unknown = || SampleTrack {
                is_video: true,
                codec: without_nals(codec, &[]),
                samples: Vec::new(),
            };
            track.get_or_insert_with(unknown).samples.push(Sample {
                dts: time,
                pts: time + i64::from(composition_ms) * MS,
                key: flagged,
                data: data.slice(at..end),
            });
        }
        Video::Nothing => {}
    }
}

/// Returns the codec, with its record, of pictures without NAL units. The picture size is unknown: FLV tags do not contain it.
fn without_nals(codec: VideoCodec, record: &[u8]) -> Codec {
    stated(codec, record, None).unwrap_or_else(|| Codec::Other(format!("{codec:?}")))
}

fn sound(track: &mut Option<SampleTrack>, first: &mut Option<u8>, data: &Bytes, time: i64) {
    let audio = tag::audio(data);
    if data.is_empty() || audio.is_nothing || *first.get_or_insert(audio.track) != audio.track {
        return;
    }
    let end = audio
        .size
        .map_or(data.len(), |size| data.len().min(audio.body.saturating_add(size)));
    let coded = data.slice(audio.body.min(end)..end);
    if audio.config {
        let codec = match audio.name {
            Some(name) if name.starts_with("mp4a.40") => Codec::Aac(coded),
            Some(name) if name == "opus" => Codec::Opus(coded),
            name => Codec::Other(name.unwrap_or_else(|| "unknown sound".into())),
        };
        track.get_or_insert(SampleTrack {
            is_video: false,
            codec,
            samples: Vec::new(),
        });
        return;
    }
    if coded.is_empty() {
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
        data: coded,
    });
}
