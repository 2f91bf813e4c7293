//! Finds out whether an access unit is a key frame. Reads the coded bytes, because muxers also flag I-frames as key that are not
//! IDR: a chunk that begins with one decodes to 0 frames.
//!
//! PURE. Sources: ITU-T H.264 (7.3.1, 7.4.1, D.1.8), H.265 (7.3.1.2, table 7-1), RFC 6386 (VP8, 9.1), the VP9 bitstream
//! specification (6.2), the AV1 bitstream specification (5.3, 5.9).
//!
//! `framing` finds the NAL units, `kind` reads what they are, `obu` does both for VP9 and AV1.

mod framing;
mod kind;
mod obu;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};

pub use super::sets::{ParameterSet, SetsInForce, parameter_sets};
use super::{Key, work};
pub use framing::{Framing, find_start_code};
pub(super) use framing::{Nals, real_framing};
use kind::recovery_frame_cnt;
pub(super) use kind::{NalKind, exp_golomb, h264_kind, h265_kind};
pub(super) use obu::{SEQUENCE_HEADER, TEMPORAL_DELIMITER, obus};
use obu::{classify_av1, vp9_key};

/// Video coding formats whose key frames this module recognises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoCodec {
    /// ITU-T H.264, AVC.
    H264,
    /// ITU-T H.265, HEVC.
    H265,
    /// VP8.
    Vp8,
    /// VP9.
    Vp9,
    /// AV1.
    Av1,
    /// Any other format, which this module does not parse: the container's key flag is used.
    Unknown,
}

/// What the first bytes of a picture contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Whether decoding can begin here.
    pub key: Key,
    /// Whether SPS and PPS (H.265: VPS too) precede the first slice.
    pub has_parameter_sets: bool,
    /// Hash of the VPS and SPS found, or `None` if there are none. Does not depend on their order or on repetitions, since
    /// encoders repeat them within one picture. Two hashes of one stream differ if the configurations differ.
    pub config: Option<u64>,
    /// Offset and length of the first SPS (with its NAL header) in the classified data.
    pub sps: Option<(usize, usize)>,
    /// Which part of a picture the data contains.
    pub part: Part,
    /// Offset in the classified data of the NAL header of the first slice, or, for MPEG-2, of the last byte of the picture start
    /// code.
    pub slice: Option<usize>,
}

/// Which part of a picture a unit of the container contains: some writers put each NAL unit into a tag, block or sample of its
/// own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// The first slice, or the whole picture.
    #[default]
    Begins,
    /// Only NAL units that precede a picture: delimiter, parameter sets, SEI.
    Prefix,
    /// A slice other than the first: the rest of the previous picture, if that has the same time.
    Continues,
}

impl Picture {
    /// Returns a picture of which only `key` is known.
    pub const fn plain(key: Key) -> Self {
        Self {
            key,
            has_parameter_sets: false,
            config: None,
            sps: None,
            part: Part::Begins,
            slice: None,
        }
    }

    /// Returns a picture that only the container's flag describes.
    const fn by_flag(flagged: bool) -> Self {
        Self::plain(if flagged { Key::Closed } else { Key::No })
    }
}

/// If the first slice of a picture does not begin within this many bytes, the container's flag decides: 512 KiB. The limit is
/// this large because cameras put motion vectors, previews and whole audio tracks into SEI in front of the slice. Callers
/// classify again only after the data has grown by a certain part, not for each byte, so that the total work stays linear.
pub const MAX_PREFIX: usize = 512 << 10;

/// Classifies the access unit (frame, sample, temporal unit) that begins with `data`.
///
/// `complete` means that `data` is the whole unit. Returns `None` if more bytes are needed, but never if `complete` or with
/// [`MAX_PREFIX`] bytes. `flagged` is the container's key flag, used only for [`VideoCodec::Unknown`] and if no slice begins
/// within [`MAX_PREFIX`] bytes.
pub fn classify(codec: VideoCodec, framing: Framing, data: &[u8], complete: bool, flagged: bool) -> Option<Picture> {
    let is_cut = data.len() > MAX_PREFIX || (data.len() == MAX_PREFIX && !complete);
    let complete = complete || is_cut;
    // Limited, so that the result does not depend on how the input was sliced.
    let data = data.get(..MAX_PREFIX).unwrap_or(data);
    let picture = match codec {
        VideoCodec::H264 | VideoCodec::H265 => classify_nals(codec, framing, data, complete),
        VideoCodec::Vp8 => first_byte(data, complete, |b| b & 1 == 0),
        VideoCodec::Vp9 => first_byte(data, complete, vp9_key),
        VideoCodec::Av1 => classify_av1(data, complete),
        VideoCodec::Unknown => Some(Picture::by_flag(flagged)),
    }?;
    // Complete data without a slice is excluded: it is no picture, regardless of its flag.
    let is_unseen = is_cut && picture.slice.is_none() && matches!(codec, VideoCodec::H264 | VideoCodec::H265);
    Some(if is_unseen {
        Picture {
            key: Picture::by_flag(flagged).key,
            part: Part::Begins,
            ..picture
        }
    } else {
        picture
    })
}

/// Returns whether `data` opens with an access unit delimiter. A picture begins behind it, even if the first slice received is
/// not its first one (H.264 7.4.1.2.3).
pub fn opens_with_delimiter(codec: VideoCodec, framing: Framing, data: &[u8]) -> bool {
    let is_delimiter = match codec {
        VideoCodec::H264 => |first: u8| first & 0x1f == 9,
        VideoCodec::H265 => |first: u8| first >> 1 & 0x3f == 35,
        _ => return false,
    };
    let mut nals = Nals { framing, data, pos: 0 };
    while let Some(nal) = nals.next_nal() {
        if !nal.is_empty(framing) {
            return data.get(nal.start).is_some_and(|&first| is_delimiter(first));
        }
    }
    false
}

fn first_byte(data: &[u8], complete: bool, is_key: impl Fn(u8) -> bool) -> Option<Picture> {
    match data.first() {
        Some(&b) => Some(Picture::plain(if is_key(b) { Key::Closed } else { Key::No })),
        None => complete.then_some(Picture::plain(Key::No)),
    }
}

/// Parameter sets and SEI found in front of the first slice.
#[derive(Default)]
struct Found {
    /// A hash of each VPS and SPS.
    sets: BTreeSet<u64>,
    sps: Option<(usize, usize)>,
    has_vps: bool,
    has_pps: bool,
    recovery_frame_cnt: Option<u32>,
}

impl Found {
    fn config(&mut self, nal: &[u8]) {
        self.sets.insert(hash(nal));
    }

    fn picture(self, codec: VideoCodec, key: Key) -> Picture {
        let vps = codec == VideoCodec::H264 || self.has_vps;
        Picture {
            key,
            has_parameter_sets: vps && self.sps.is_some() && self.has_pps,
            config: together(&self.sets),
            sps: self.sps,
            part: Part::Begins,
            slice: None,
        }
    }
}

pub(super) fn hash(nal: &[u8]) -> u64 {
    work::count(nal.len());
    // Hashes are compared only within one process: another version of Rust may compute different ones.
    let mut hasher = DefaultHasher::new();
    hasher.write(nal);
    hasher.finish()
}

fn together(sets: &BTreeSet<u64>) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    sets.iter().for_each(|&set| hasher.write_u64(set));
    (!sets.is_empty()).then(|| hasher.finish())
}

fn classify_nals(codec: VideoCodec, framing: Framing, data: &[u8], complete: bool) -> Option<Picture> {
    let framing = match framing {
        Framing::Length(size) => real_framing(codec, size, data, complete)?,
        Framing::AnnexB => framing,
    };
    let mut found = Found::default();
    let (mut any, mut is_prefix) = (false, true);
    let mut nals = Nals { framing, data, pos: 0 };
    while let Some(nal) = nals.next_nal() {
        if nal.is_empty(framing) {
            continue;
        }
        let Some(&first) = data.get(nal.start) else { break };
        let kind = match codec {
            VideoCodec::H264 => h264_kind(first),
            _ => h265_kind(first),
        };
        if let NalKind::Slice(slice_key) = kind {
            // first_mb_in_slice, first_slice_segment_in_pic_flag.
            let part = match data.get(nal.start + if codec == VideoCodec::H264 { 1 } else { 2 }) {
                Some(b) if b & 0x80 == 0 => Part::Continues,
                Some(_) => Part::Begins,
                None if complete => Part::Begins,
                None => return None,
            };
            let key = match (slice_key, found.recovery_frame_cnt) {
                // recovery_frame_cnt 0: this picture is already correct. With a larger count the first pictures would be shown
                // damaged, so they are not key.
                (Key::No, Some(0)) if codec == VideoCodec::H264 => Key::Open,
                (key, _) => key,
            };
            return Some(Picture {
                part,
                slice: Some(nal.start),
                ..found.picture(codec, key)
            });
        }
        // An incomplete parameter set would have another hash.
        if !nal.ended && !complete {
            return None;
        }
        let body = data.get(nal.start..nal.end).unwrap_or_default();
        // Behind a start code the end of the last unit is never marked, so it counts. Behind a length it is incomplete.
        any |= nal.ended || framing == Framing::AnnexB;
        match kind {
            NalKind::Vps => {
                found.has_vps = true;
                found.config(body);
            }
            NalKind::Sps => {
                found.sps.get_or_insert((nal.start, body.len()));
                found.config(body);
            }
            NalKind::Pps => found.has_pps = true,
            NalKind::Behind => is_prefix = false,
            NalKind::Sei if codec == VideoCodec::H264 => {
                if let Some(count) = recovery_frame_cnt(body.get(1..).unwrap_or_default()) {
                    found.recovery_frame_cnt = Some(count);
                }
            }
            _ => {}
        }
    }
    let part = if any && is_prefix { Part::Prefix } else { Part::Begins };
    complete.then(|| Picture {
        part,
        ..found.picture(codec, Key::No)
    })
}
