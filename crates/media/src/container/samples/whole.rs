//! Makes whole pictures of the samples of a container. Some writers make a tag, block or sample of each NAL unit, slice or field,
//! write start codes where lengths belong, and flag I-frames as key frames at which decoding cannot begin.
//!
//! PURE. Decides by the coded bytes, as the scanners do.

use bytes::Bytes;

use super::{Codec, Sample, SampleTrack};
use crate::container::codec;
use crate::container::fields::Fields;
use crate::container::nal::{self, Framing, Part, VideoCodec, find_start_code, real_framing};

/// Joins the parts of each H.264 or H.265 picture, and sets which pictures are key frames. Other codecs stay unchanged.
pub(super) fn whole_pictures(track: &mut SampleTrack) {
    let (codec, record) = match &track.codec {
        Codec::H264(record) => (VideoCodec::H264, record),
        Codec::H265(record) => (VideoCodec::H265, record),
        _ => return,
    };
    let size = match codec {
        VideoCodec::H264 => codec::avc_length_size(record),
        _ => codec::hevc_length_size(record),
    }
    .unwrap_or(4);
    let mut fields = Fields::default();
    if codec == VideoCodec::H264 {
        fields.configure(codec::avc_first_sps(record));
    }
    let mut whole: Vec<Sample> = Vec::with_capacity(track.samples.len());
    let mut prefix: Option<Bytes> = None;
    let mut has_first_slice = false;
    for mut sample in std::mem::take(&mut track.samples) {
        // First: the parts of a picture are joined as bytes, and need one framing.
        sample.data = with_lengths(codec, size, sample.data);
        if let Some(before) = prefix.take() {
            sample.data = join(&before, &sample.data);
        }
        let picture = nal::classify(codec, Framing::Length(size), &sample.data, true, sample.key);
        let last = whole.last_mut();
        match (picture, last) {
            (Some(picture), _) if picture.part == Part::Prefix => prefix = Some(sample.data),
            // Slices of a picture mostly share its time. One with another time also continues the last picture, if that has its
            // first slice and no delimiter shows that another picture begins here.
            (Some(picture), Some(last))
                if picture.part == Part::Continues
                    && (last.pts == sample.pts
                        || (has_first_slice && !nal::opens_with_delimiter(codec, Framing::Length(size), &sample.data))) =>
            {
                last.data = join(&last.data, &sample.data);
            }
            (Some(picture), last) => {
                has_first_slice = picture.part == Part::Begins;
                let is_second_field = fields.take(codec, &sample.data, &picture);
                match last.filter(|_| is_second_field) {
                    Some(first) => first.data = join(&first.data, &sample.data),
                    None => {
                        sample.key = picture.key.is_key();
                        whole.push(sample);
                    }
                }
            }
            (None, _) => whole.push(sample),
        }
    }
    // Parameter sets that no picture follows are dropped: they are no sample.
    track.samples = whole;
}

fn join(first: &[u8], second: &[u8]) -> Bytes {
    [first, second].concat().into()
}

/// Replaces start codes by lengths of `size` bytes, if the writer used start codes.
fn with_lengths(codec: VideoCodec, size: usize, data: Bytes) -> Bytes {
    if real_framing(codec, size, &data, true) != Some(Framing::AnnexB) {
        return data;
    }
    let mut framed = Vec::with_capacity(data.len() + 16);
    for unit in units(&data) {
        let len = u32::try_from(unit.len()).unwrap_or(u32::MAX).to_be_bytes();
        framed.extend_from_slice(len.get(4usize.saturating_sub(size)..).unwrap_or_default());
        framed.extend_from_slice(unit);
    }
    framed.into()
}

/// Returns the NAL units between start codes, without trailing zeros.
pub(in crate::container) fn units(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut next = find_start_code(data, 0).map(|at| at + 3);
    std::iter::from_fn(move || {
        let from = next?;
        let code = find_start_code(data, from);
        next = code.map(|at| at + 3);
        let unit = data.get(from..code.unwrap_or(data.len()))?;
        let end = unit.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        unit.get(..end)
    })
    .filter(|unit| !unit.is_empty())
}
