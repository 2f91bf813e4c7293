//! Is this access unit a key picture? Answers from the coded bytes, since muxers flag I-frames that are none.
//!
//! PURE. Sources: ITU-T H.264 (7.3.1, 7.4.1, D.1.8), H.265 (7.3.1.2, table 7-1), RFC 6386 (VP8, 9.1), the VP9 bitstream
//! specification (6.2), the AV1 bitstream specification (5.3, 5.9).

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};

pub use super::sets::{ParameterSet, SetsInForce, parameter_sets};
use super::{Key, work};

/// Video coding formats whose key pictures are known.
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
    /// One that this module does not parse: the container's key flag is used.
    Unknown,
}

/// How NAL units are delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Start codes 00 00 01 (MPEG-TS).
    AnnexB,
    /// A big-endian length of this size in bytes (1, 2 or 4) before each (FLV, MP4, Matroska).
    Length(usize),
}

/// What the first bytes of a picture contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Whether decoding can begin here.
    pub key: Key,
    /// Whether SPS and PPS (H.265: VPS too) precede the first slice.
    pub has_parameter_sets: bool,
    /// Hash of the VPS and SPS found, each once and in any order, since encoders repeat them within one picture. `None`
    /// without any. Two of one stream differ where the configuration does.
    pub config: Option<u64>,
    /// Offset and length of the first SPS (with its NAL header) in the data classified.
    pub sps: Option<(usize, usize)>,
    /// What of a picture is there.
    pub part: Part,
    /// Offset of the NAL header of the first slice in the data classified.
    pub slice: Option<usize>,
}

/// What of a picture a unit of the container holds: some writers make a tag, a block or a sample of each NAL unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Its first slice, or all of it.
    #[default]
    Begins,
    /// Only what stands in front of a picture: delimiter, parameter sets, SEI.
    Prefix,
    /// A slice other than the first: the rest of the picture before, where that has the same time.
    Continues,
}

impl Picture {
    /// A picture of which no more is known than whether it is a key.
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

    /// A picture whose first bytes do not show what it is: the container's flag decides.
    const fn by_flag(flagged: bool) -> Self {
        Self::plain(if flagged { Key::Closed } else { Key::No })
    }
}

/// A picture whose first slice is not within this many bytes is judged by the container's flag: 512 KiB. Cameras put motion vectors, previews
/// and whole sound tracks into SEI in front of the slice. Callers ask again after a growth by a part, never for each byte, so
/// that the work stays proportional.
pub const MAX_PREFIX: usize = 512 << 10;

/// Classifies the access unit (frame, sample, temporal unit) that begins with `data`.
///
/// `complete` means that `data` is all of it. Returns `None` if more bytes are needed, but never if `complete` or if
/// [`MAX_PREFIX`] bytes are there. `flagged` is the container's key flag, used only for [`VideoCodec::Unknown`] and where no
/// slice begins within [`MAX_PREFIX`] bytes.
pub fn classify(codec: VideoCodec, framing: Framing, data: &[u8], complete: bool, flagged: bool) -> Option<Picture> {
    let is_cut = data.len() > MAX_PREFIX || (data.len() == MAX_PREFIX && !complete);
    let complete = complete || is_cut;
    let data = data.get(..MAX_PREFIX).unwrap_or(data);
    let picture = match codec {
        VideoCodec::H264 | VideoCodec::H265 => classify_nals(codec, framing, data, complete),
        VideoCodec::Vp8 => first_byte(data, complete, |b| b & 1 == 0),
        VideoCodec::Vp9 => first_byte(data, complete, vp9_key),
        VideoCodec::Av1 => classify_av1(data, complete),
        VideoCodec::Unknown => Some(Picture::by_flag(flagged)),
    }?;
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

fn first_byte(data: &[u8], complete: bool, is_key: impl Fn(u8) -> bool) -> Option<Picture> {
    match data.first() {
        Some(&b) => Some(Picture::plain(if is_key(b) { Key::Closed } else { Key::No })),
        None => complete.then_some(Picture::plain(Key::No)),
    }
}

/// VP9 `uncompressed_header`: frame_marker(2), profile_low, profile_high, [reserved], show_existing_frame, frame_type.
fn vp9_key(b: u8) -> bool {
    if b >> 6 != 2 {
        return false;
    }
    let shift = if b & 0x30 == 0x30 { 1 } else { 0 };
    let show_existing = b << (4 + shift) & 0x80 != 0;
    let inter = b << (5 + shift) & 0x80 != 0;
    !show_existing && !inter
}

/// What has been found in front of the first slice.
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
                (Key::No, Some(0)) if codec == VideoCodec::H264 => Key::Open,
                (key, _) => key,
            };
            return Some(Picture {
                part,
                slice: Some(nal.start),
                ..found.picture(codec, key)
            });
        }
        if !nal.ended && !complete {
            return None;
        }
        let body = data.get(nal.start..nal.end).unwrap_or_default();
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

/// How NAL units are delimited that the container says have lengths of `size` bytes: some writers put start codes there all
/// the same. `None` if more bytes are needed.
pub(super) fn real_framing(codec: VideoCodec, size: usize, data: &[u8], complete: bool) -> Option<Framing> {
    let length = Some(Framing::Length(size));
    let Some(first) = data.first_chunk::<4>() else {
        return if complete { length } else { None };
    };
    let header = match first {
        [0, 0, 0, 1] => 4,
        [0, 0, 1, _] => 3,
        _ => return length,
    };
    let Some(&code) = data.get(header) else {
        return if complete { length } else { None };
    };
    if !is_plausible(codec, code) {
        return length;
    }
    if size < header {
        // A length of 0: no NAL unit is empty.
        return Some(Framing::AnnexB);
    }
    if size == header {
        // A length of 1, which only an end of sequence or of stream has.
        return if ends_sequence(codec, code) {
            length
        } else {
            Some(Framing::AnnexB)
        };
    }
    // A length of 256 to 511, or a start code: what stands behind that many bytes decides.
    let after = 4 + usize::from(u16::from_be_bytes([first[2], first[3]]));
    match (data.get(4), data.get(after..after + 5)) {
        (Some(&first), _) if !is_plausible(codec, first) => Some(Framing::AnnexB),
        (_, Some(&[0, 0, 0, 0 | 1, _])) => Some(Framing::AnnexB),
        (_, Some(&[high, .., next])) if high == 0 && is_plausible(codec, next) => length,
        (_, Some(_)) => Some(Framing::AnnexB),
        (_, None) if !complete => None,
        (_, None) if data.len() == after => length,
        (_, None) => Some(Framing::AnnexB),
    }
}

/// Whether a NAL unit can begin with this byte: forbidden_zero_bit, and a type that is in use.
fn is_plausible(codec: VideoCodec, header: u8) -> bool {
    header & 0x80 == 0
        && match codec {
            VideoCodec::H264 => matches!(header & 0x1f, 1..=21),
            _ => header & 1 == 0 && matches!(header >> 1, 0..=9 | 16..=21 | 32..=40),
        }
}

fn ends_sequence(codec: VideoCodec, header: u8) -> bool {
    codec == VideoCodec::H264 && matches!(header & 0x1f, 10 | 11)
}

pub(super) enum NalKind {
    Slice(Key),
    Vps,
    Sps,
    Pps,
    Sei,
    /// One that stands behind the slices of a picture.
    Behind,
    Other,
}

pub(super) fn h264_kind(header: u8) -> NalKind {
    match header & 0x1f {
        5 => NalKind::Slice(Key::Closed),
        1 | 2 => NalKind::Slice(Key::No),
        6 => NalKind::Sei,
        7 => NalKind::Sps,
        8 => NalKind::Pps,
        3 | 4 | 10..=12 | 19..=21 => NalKind::Behind,
        _ => NalKind::Other,
    }
}

pub(super) fn h265_kind(header: u8) -> NalKind {
    match header >> 1 & 0x3f {
        // BLA: the RASL pictures that depend on earlier ones are not output (H.265 8.1.3); IDR.
        16..=20 => NalKind::Slice(Key::Closed),
        21..=23 => NalKind::Slice(Key::Open),
        0..=31 => NalKind::Slice(Key::No),
        32 => NalKind::Vps,
        33 => NalKind::Sps,
        34 => NalKind::Pps,
        39 => NalKind::Sei,
        36..=38 | 40 => NalKind::Behind,
        _ => NalKind::Other,
    }
}

/// The range of one NAL unit; `ended` is false if the data stops before it ends.
pub(super) struct Nal {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) ended: bool,
}

impl Nal {
    /// Whether its length is 0. Behind a start code nobody can tell: what stands there may be zeros of the next one.
    pub(super) fn is_empty(&self, framing: Framing) -> bool {
        self.ended && self.start == self.end && matches!(framing, Framing::Length(_))
    }
}

pub(super) struct Nals<'a> {
    pub(super) framing: Framing,
    pub(super) data: &'a [u8],
    pub(super) pos: usize,
}

impl Nals<'_> {
    pub(super) fn next_nal(&mut self) -> Option<Nal> {
        match self.framing {
            Framing::AnnexB => {
                let start = find_start_code(self.data, self.pos)? + 3;
                let (end, ended) = match find_start_code(self.data, start) {
                    Some(end) => (end, true),
                    None => (self.data.len(), false),
                };
                work::count(end - self.pos);
                self.pos = end;
                let mut trimmed = end;
                // The zero_byte of a four byte start code, and trailing_zero_8bits, are not the unit's.
                while ended && trimmed > start && self.data.get(trimmed - 1) == Some(&0) {
                    trimmed -= 1;
                }
                Some(Nal {
                    start,
                    end: trimmed,
                    ended,
                })
            }
            Framing::Length(size) => {
                let prefix = self.data.get(self.pos..self.pos.checked_add(size)?)?;
                let len = prefix.iter().fold(0usize, |n, &b| n << 8 | usize::from(b));
                work::count(size);
                let start = self.pos + size;
                let end = start.checked_add(len)?;
                self.pos = end;
                let ended = end <= self.data.len();
                Some(Nal {
                    start,
                    end: end.min(self.data.len()),
                    ended,
                })
            }
        }
    }
}

/// Offset of the next 00 00 01 at or after `from`.
pub fn find_start_code(data: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let &[first, second, third] = data.get(at..at + 3)? else {
            return None;
        };
        match third {
            1 if first == 0 && second == 0 => return Some(at),
            0 => at += 1,
            // No start code holds this byte.
            _ => at += 3,
        }
    }
}

/// `recovery_frame_cnt` of the recovery point message in an H.264 SEI (without its NAL header), D.1.8.
fn recovery_frame_cnt(sei: &[u8]) -> Option<u32> {
    work::count(sei.len());
    let mut rbsp = Vec::with_capacity(sei.len());
    for &b in sei {
        // emulation_prevention_three_byte
        if b == 3 && rbsp.ends_with(&[0, 0]) {
            continue;
        }
        rbsp.push(b);
    }
    let mut rest = rbsp.as_slice();
    while rest.len() > 2 {
        let (kind, after) = sei_number(rest)?;
        let (size, after) = sei_number(after)?;
        if kind == 6 {
            return exp_golomb(after);
        }
        rest = after.get(size..)?;
    }
    None
}

fn sei_number(mut data: &[u8]) -> Option<(usize, &[u8])> {
    let mut n = 0usize;
    loop {
        let (&b, rest) = data.split_first()?;
        n += usize::from(b);
        data = rest;
        if b != 0xff {
            return Some((n, data));
        }
    }
}

/// The ue(v) that `data` begins with.
pub(super) fn exp_golomb(data: &[u8]) -> Option<u32> {
    let bit = |i: usize| data.get(i / 8).map(|b| b >> (7 - i % 8) & 1);
    let mut zeros = 0;
    while bit(zeros)? == 0 {
        zeros += 1;
        if zeros > 31 {
            return None;
        }
    }
    let mut n = 1u32;
    for i in 0..zeros {
        n = n << 1 | u32::from(bit(zeros + 1 + i)?);
    }
    Some(n - 1)
}

/// Walks the OBUs of a temporal unit up to its first frame header (AV1 5.3, 5.9.2).
fn classify_av1(data: &[u8], complete: bool) -> Option<Picture> {
    let no = complete.then_some(Picture::plain(Key::No));
    let mut pos = 0usize;
    loop {
        let Some(&header) = data.get(pos) else { return no };
        let kind = header >> 3 & 0xf;
        let has_extension = header & 4 != 0;
        let has_size = header & 2 != 0;
        pos += if has_extension { 2 } else { 1 };
        let size = if has_size {
            let Some((size, n)) = leb128(data.get(pos..).unwrap_or_default()) else {
                return no;
            };
            pos += n;
            Some(size)
        } else {
            None
        };
        // OBU_FRAME_HEADER, OBU_FRAME: show_existing_frame(1), frame_type(2); 0 is KEY_FRAME.
        if kind == 3 || kind == 6 {
            let Some(&b) = data.get(pos) else { return no };
            let key = b & 0x80 == 0 && b & 0x60 == 0;
            return Some(Picture::plain(if key { Key::Closed } else { Key::No }));
        }
        let Some(next) = size.and_then(|s| pos.checked_add(s)) else {
            return Some(Picture::plain(Key::No));
        };
        pos = next;
    }
}

fn leb128(data: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0u64;
    for (i, &b) in data.iter().take(8).enumerate() {
        value |= u64::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            return usize::try_from(value).ok().map(|v| (v, i + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h264(data: &[u8]) -> Key {
        classify(VideoCodec::H264, Framing::AnnexB, data, true, false).unwrap().key
    }

    #[test]
    fn an_idr_is_a_key_and_an_i_slice_is_none() {
        assert_eq!(h264(&[0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x65, 0x88]), Key::Closed);
        assert_eq!(h264(&[0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x61, 0x88]), Key::No);
    }

    #[test]
    fn a_recovery_point_counts_only_with_frame_cnt_0() {
        // recovery_frame_cnt ue(v): '1' = 0; '00100' = 3.
        assert_eq!(h264(&[0, 0, 1, 6, 6, 1, 0b1100_0000, 0x80, 0, 0, 1, 0x41, 0x9a]), Key::Open);
        assert_eq!(h264(&[0, 0, 1, 6, 6, 1, 0b0010_0100, 0x80, 0, 0, 1, 0x41, 0x9a]), Key::No);
    }

    #[test]
    fn length_framing_waits_for_the_slice_however_it_is_cut() {
        let mut au = Vec::new();
        for nal in [
            &[0x67, 0x64, 0, 40][..],
            &[0x68, 1],
            &[6, 5, 3, 1, 2, 3, 0x80],
            &[0x65, 1, 2, 3],
        ] {
            au.extend_from_slice(&u32::try_from(nal.len()).unwrap().to_be_bytes());
            au.extend_from_slice(nal);
        }
        let whole = classify(VideoCodec::H264, Framing::Length(4), &au, true, false).unwrap();
        assert_eq!(whole.key, Key::Closed);
        assert!(whole.has_parameter_sets);
        assert_eq!(whole.sps, Some((4, 4)));
        for cut in 0..au.len() {
            let part = classify(VideoCodec::H264, Framing::Length(4), &au[..cut], false, false);
            assert!(part.is_none() || part == Some(whole), "cut at {cut}: {part:?}");
        }
    }

    #[test]
    fn h265_irap_pictures_are_keys_and_cra_is_open() {
        let key = |t: u8| {
            classify(VideoCodec::H265, Framing::AnnexB, &[0, 0, 1, t << 1, 1], true, false)
                .unwrap()
                .key
        };
        assert_eq!(key(19), Key::Closed);
        assert_eq!(key(20), Key::Closed);
        assert_eq!(key(21), Key::Open);
        assert_eq!(key(1), Key::No);
        assert_eq!(key(9), Key::No);
    }

    #[test]
    fn vpx_and_av1_key_frames_are_told_apart() {
        let key = |codec, data: &[u8]| classify(codec, Framing::Length(4), data, true, false).unwrap().key;
        assert_eq!(key(VideoCodec::Vp8, &[0x10]), Key::Closed);
        assert_eq!(key(VideoCodec::Vp8, &[0x11]), Key::No);
        assert_eq!(key(VideoCodec::Vp9, &[0x82]), Key::Closed);
        assert_eq!(key(VideoCodec::Vp9, &[0x86]), Key::No);
        // temporal delimiter, sequence header (2 bytes), frame
        assert_eq!(key(VideoCodec::Av1, &[0x12, 0, 0x0a, 2, 0, 0, 0x32, 1, 0x10]), Key::Closed);
        assert_eq!(key(VideoCodec::Av1, &[0x12, 0, 0x32, 1, 0x30]), Key::No);
    }

    #[test]
    fn an_empty_nal_unit_is_passed_over() {
        // The length of the one behind it looks like the header of a slice.
        let data = [&[0, 0, 0, 0][..], &[5, 0, 0, 1], &[0x67; 5000]].concat();
        let picture = classify(VideoCodec::H264, Framing::Length(4), &data[..4096], false, false);
        assert_eq!(picture, None, "no slice has come");
        let data = [0, 0, 0, 0, 0, 0, 0, 2, 0x65, 0x88];
        let picture = classify(VideoCodec::H264, Framing::Length(4), &data, true, false);
        assert_eq!(picture.unwrap().slice, Some(8));
        // Behind start codes it is what its first byte says, however much follows.
        let data = [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0];
        let judge = |data, complete| classify(VideoCodec::H265, Framing::AnnexB, data, complete, false);
        assert_eq!(judge(&data[..8], false), judge(&data, true));
    }

    #[test]
    fn a_changed_sps_changes_the_config_hash() {
        let au = |level: u8| [0, 0, 1, 0x67, 0x64, 0, level, 0, 0, 1, 0x68, 1, 0, 0, 1, 0x65, 1];
        let config = |level| {
            classify(VideoCodec::H264, Framing::AnnexB, &au(level), true, false)
                .unwrap()
                .config
        };
        assert_eq!(config(40), config(40));
        assert_ne!(config(40), config(31));
    }
    #[test]
    fn parameter_sets_that_are_repeated_within_a_picture_are_no_new_configuration() {
        let sps = |level: u8| vec![0, 0, 1, 0x67, 0x64, 0, level];
        let config = |sets: &[Vec<u8>]| {
            let au = [&sets.concat()[..], &[0, 0, 1, 0x68, 1, 0, 0, 1, 0x65, 1]].concat();
            classify(VideoCodec::H264, Framing::AnnexB, &au, true, false).unwrap().config
        };
        assert_eq!(config(&[sps(40)]), config(&[sps(40), sps(40)]));
        assert_eq!(config(&[sps(40), sps(31)]), config(&[sps(31), sps(40), sps(31)]));
        assert_ne!(config(&[sps(40)]), config(&[sps(40), sps(31)]));
    }
}
