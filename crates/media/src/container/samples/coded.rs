//! VP8, VP9 and AV1: their decoder configuration is in the container, in the pictures, or in both.
//!
//! PURE. See [`super::vpx`] and [`super::av1`].

use super::av1::{self, Av1};
use super::sps::Size;
use super::vpx::{self, Vp9};
use super::{Codec, SampleTrack};
use crate::container::nal::{self, Framing, VideoCodec};

/// Returns what a container states of a track by the record of the codec (`vpcC` with its version, `av1C`), which may be empty,
/// and by the size. `None` for another codec.
pub(in crate::container) fn stated(codec: VideoCodec, record: &[u8], size: Option<Size>) -> Option<Codec> {
    match codec {
        VideoCodec::Vp8 => Some(Codec::Vp8(size)),
        VideoCodec::Vp9 => Some(Codec::Vp9(Vp9::of_record(record, size))),
        VideoCodec::Av1 => Some(Codec::Av1(Av1::of_record(record, size))),
        VideoCodec::H264 | VideoCodec::H265 | VideoCodec::Unknown => None,
    }
}

/// Sets which pictures are key frames, and completes the codec from the first of them. Other codecs stay unchanged.
pub(super) fn complete(track: &mut SampleTrack) {
    let kind = match &track.codec {
        Codec::Vp8(_) => VideoCodec::Vp8,
        Codec::Vp9(_) => VideoCodec::Vp9,
        Codec::Av1(_) => VideoCodec::Av1,
        Codec::H264(_) | Codec::H265(_) | Codec::Aac(_) | Codec::Opus(_) | Codec::Other(_) => return,
    };
    for sample in &mut track.samples {
        if kind == VideoCodec::Av1 {
            sample.data = av1::without_delimiters(&sample.data);
        }
        let picture = nal::classify(kind, Framing::AnnexB, &sample.data, true, sample.key);
        sample.key = picture.is_some_and(|picture| picture.key.is_key());
    }
    // Samples that held only a delimiter are empty now: they are no pictures.
    track.samples.retain(|sample| !sample.data.is_empty());
    let mut keys = track
        .samples
        .iter()
        .filter(|sample| sample.key)
        .map(|sample| &sample.data[..]);
    match &mut track.codec {
        Codec::Vp8(size) => *size = keys.find_map(vpx::vp8_size).or(*size),
        Codec::Vp9(vp9) => vp9.complete(keys.next()),
        Codec::Av1(av1) => av1.complete(keys),
        _ => {}
    }
}
