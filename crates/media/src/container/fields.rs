//! Pairs the fields of interlaced H.264: the second field of a frame is more of the same picture.
//!
//! PURE. Source: ITU-T H.264 7.3.2.1.1 (sequence parameter set), 7.3.3 (slice header), 7.4.1.2.4. Some muxers write each field
//! as a unit of its own. A chunk that begins with a second field lacks half a frame, and a preview that ends with a first field
//! shows half a frame.

use super::nal::{Picture, VideoCodec};

/// Bytes of a slice that contain the start of its header, up to `bottom_field_flag`.
const SLICE_HEAD: usize = 16;

/// The fields of an SPS that are needed to read the start of a slice header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sequence {
    /// Bits of `frame_num`.
    frame_num_bits: u32,
    has_separate_planes: bool,
    /// `frame_mbs_only_flag`: the stream has no fields.
    is_progressive: bool,
}

/// One field of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    frame_num: u32,
    is_bottom: bool,
}

/// Tracks the pictures of one stream and the last SPS, from the header or in band.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields {
    sequence: Option<Sequence>,
    /// The last picture, if it is a first field whose second field has not come.
    open: Option<Field>,
}

impl Fields {
    /// Returns whether [`Fields::take`] needs more bytes of a picture; `data` are the available ones.
    pub(super) fn needs_more(&self, codec: VideoCodec, data: &[u8], picture: &Picture) -> bool {
        let sequence = sps(data, picture).and_then(Sequence::parse).or(self.sequence);
        codec == VideoCodec::H264
            && sequence.is_some_and(|sequence| !sequence.is_progressive)
            && picture.slice.is_some_and(|at| data.len() < at.saturating_add(SLICE_HEAD))
    }

    /// Stores the SPS of a decoder configuration record and forgets the open field.
    pub(super) fn configure(&mut self, sps: Option<&[u8]>) {
        *self = Self {
            sequence: sps.and_then(Sequence::parse),
            open: None,
        };
    }

    /// Takes the next picture. Returns whether it is the second field of the one before.
    pub(super) fn take(&mut self, codec: VideoCodec, data: &[u8], picture: &Picture) -> bool {
        let before = self.open.take();
        if codec != VideoCodec::H264 {
            return false;
        }
        self.sequence = sps(data, picture).and_then(Sequence::parse).or(self.sequence);
        let (Some(at), Some(sequence)) = (picture.slice, self.sequence) else {
            return false;
        };
        let head = data
            // Limited to the head, so that the result does not depend on how many bytes are available.
            .get(at..data.len().min(at.saturating_add(SLICE_HEAD)))
            .unwrap_or_default();
        let Some(field) = sequence.field(head) else { return false };
        // The second field has the other parity and the same frame_num. By definition it is never an IDR picture (H.264,
        // complementary reference field pair).
        let is_second =
            before.is_some_and(|first| first.frame_num == field.frame_num && first.is_bottom != field.is_bottom) && !is_idr(head);
        self.open = (!is_second).then_some(field);
        is_second
    }

    /// Returns whether the pictures may be fields.
    pub(super) fn is_interlaced(&self) -> bool {
        self.sequence.is_some_and(|sequence| !sequence.is_progressive)
    }

    /// Returns whether the last picture was a first field.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Forgets the open field: the next picture does not continue the last one.
    pub(super) fn restart(&mut self) {
        self.open = None;
    }
}

fn sps<'a>(data: &'a [u8], picture: &Picture) -> Option<&'a [u8]> {
    let (at, len) = picture.sps?;
    data.get(at..at.checked_add(len)?)
}

fn is_idr(nal: &[u8]) -> bool {
    nal.first().is_some_and(|header| header & 0x1f == 5)
}

impl Sequence {
    /// Parses an SPS that begins with its NAL header.
    fn parse(sps: &[u8]) -> Option<Self> {
        let profile = *sps.get(1)?;
        let mut bits = Bits::new(sps.get(4..)?);
        bits.ue()?;
        let mut has_separate_planes = false;
        // Profiles whose SPS has chroma_format_idc (7.3.2.1.1).
        if matches!(
            profile,
            100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
        ) {
            let chroma = bits.ue()?;
            has_separate_planes = chroma == 3 && bits.flag()?;
            bits.ue()?;
            bits.ue()?;
            bits.flag()?;
            if bits.flag()? {
                for list in 0..if chroma == 3 { 12 } else { 8 } {
                    if bits.flag()? {
                        bits.scaling_list(if list < 6 { 16 } else { 64 })?;
                    }
                }
            }
        }
        // log2_max_frame_num_minus4 is 0 to 12 (7.4.2.1.1).
        let frame_num_bits = bits.ue()?.checked_add(4).filter(|&n| n <= 16)?;
        // pic_order_cnt_type.
        match bits.ue()? {
            0 => {
                bits.ue()?;
            }
            1 => {
                bits.flag()?;
                bits.ue()?;
                bits.ue()?;
                // offset_for_ref_frame
                for _ in 0..bits.ue().filter(|&n| n < 256)? {
                    bits.ue()?;
                }
            }
            _ => {}
        }
        // max_num_ref_frames, gaps_in_frame_num_value_allowed_flag, size.
        bits.ue()?;
        bits.flag()?;
        bits.ue()?;
        bits.ue()?;
        Some(Self {
            frame_num_bits,
            has_separate_planes,
            is_progressive: bits.flag()?,
        })
    }

    /// Returns the field that a slice belongs to, or `None` for a slice of a frame. `slice` begins with the NAL header.
    fn field(self, slice: &[u8]) -> Option<Field> {
        if self.is_progressive {
            return None;
        }
        let mut bits = Bits::new(slice.get(1..)?);
        // first_mb_in_slice, slice_type, pic_parameter_set_id.
        bits.ue()?;
        bits.ue()?;
        bits.ue()?;
        if self.has_separate_planes {
            bits.number(2)?;
        }
        let frame_num = bits.number(self.frame_num_bits)?;
        // field_pic_flag: 0 means that the slice belongs to a frame.
        bits.flag()?.then_some(())?;
        Some(Field {
            frame_num,
            is_bottom: bits.flag()?,
        })
    }
}

/// Reads the bits of a NAL unit, without its emulation prevention bytes.
struct Bits<'a> {
    data: &'a [u8],
    /// Number of consecutive zero bytes directly before `data`.
    zeros: u8,
    byte: u8,
    left: u32,
}

impl<'a> Bits<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            zeros: 0,
            byte: 0,
            left: 0,
        }
    }

    fn flag(&mut self) -> Option<bool> {
        if self.left == 0 {
            let mut byte = self.next_byte()?;
            if byte == 3 && self.zeros >= 2 {
                self.zeros = 0;
                byte = self.next_byte()?;
            }
            self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
            (self.byte, self.left) = (byte, 8);
        }
        self.left -= 1;
        Some(self.byte >> self.left & 1 == 1)
    }

    fn next_byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.data.split_first()?;
        self.data = rest;
        Some(byte)
    }

    fn number(&mut self, bits: u32) -> Option<u32> {
        (0..bits).try_fold(0u32, |n, _| Some(n << 1 | u32::from(self.flag()?)))
    }

    /// Reads a ue(v). Also skips an se(v), which has the same length.
    fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            // A longer code does not fit into 32 bits; it occurs only in damaged data.
            if zeros > 31 {
                return None;
            }
        }
        Some((1 << zeros) - 1 + self.number(zeros)?)
    }

    /// se(v).
    fn se(&mut self) -> Option<i64> {
        let code = i64::from(self.ue()?);
        Some(if code % 2 == 1 { (code + 1) / 2 } else { -code / 2 })
    }

    /// `scaling_list` (7.3.2.1.1.1).
    fn scaling_list(&mut self, size: u32) -> Option<()> {
        let (mut last, mut next) = (8, 8);
        for _ in 0..size {
            if next != 0 {
                next = (last + self.se()?).rem_euclid(256);
            }
            last = if next == 0 { last } else { next };
        }
        Some(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::nal::{Framing, classify};
    use super::*;

    /// Writes bits from the highest on; the last byte is filled with ones.
    fn bytes(bits: &str) -> Vec<u8> {
        let bits: Vec<u8> = bits.bytes().filter(|b| matches!(b, b'0' | b'1')).collect();
        bits.chunks(8)
            .map(|byte| (0..8).fold(0, |n, i| n << 1 | u8::from(byte.get(i) != Some(&b'0'))))
            .collect()
    }

    /// An SPS of Main profile: id 0, `frame_num` has 4 bits, POC type 2, 1 reference, no gaps, 2 × 1 macroblocks.
    fn sps(frame_mbs_only: char) -> Vec<u8> {
        let bits = format!("1 1 011 010 0 010 1 {frame_mbs_only} 0 1 0 0 1");
        [&[0x67, 0x4d, 0, 0x1e][..], &bytes(&bits)].concat()
    }

    pub(crate) fn interlaced_sps() -> Vec<u8> {
        sps('0')
    }

    /// A slice of a field: `first_mb_in_slice` 0, `slice_type` 0, PPS 0, `frame_num` 0, `field_pic_flag` 1.
    pub(crate) fn field(nal: u8, is_bottom: bool) -> Vec<u8> {
        let head = bytes(if is_bottom { "1 1 1 0000 1 1" } else { "1 1 1 0000 1 0" });
        [&[nal][..], &head, &[0x99; 20]].concat()
    }

    pub(crate) fn units(nals: &[Vec<u8>]) -> Vec<u8> {
        let unit = |nal: &Vec<u8>| [&u32::try_from(nal.len()).unwrap().to_be_bytes()[..], nal].concat();
        nals.iter().flat_map(unit).collect()
    }

    fn take(fields: &mut Fields, data: &[u8]) -> bool {
        let picture = classify(VideoCodec::H264, Framing::Length(4), data, true, false).unwrap();
        fields.take(VideoCodec::H264, data, &picture)
    }

    #[test]
    fn only_the_opposite_field_directly_behind_a_first_one_is_its_second() {
        let idr = units(&[interlaced_sps(), vec![0x68, 1], field(0x65, false)]);
        let (top, bottom) = (units(&[field(0x41, false)]), units(&[field(0x41, true)]));
        let mut fields = Fields::default();
        let pairs = [&idr, &bottom, &top, &bottom, &bottom, &top, &idr, &idr].map(|data| take(&mut fields, data));
        assert_eq!(pairs, [false, true, false, true, false, true, false, false]);
    }

    #[test]
    fn progressive_pictures_are_never_fields() {
        let mut fields = Fields::default();
        fields.configure(Some(&sps('1')));
        for data in [units(&[field(0x65, false)]), units(&[field(0x41, true)])] {
            assert!(!take(&mut fields, &data));
        }
    }

    #[test]
    fn scaling_lists_and_emulation_prevention_are_read_over() {
        // High profile, 4:2:0, 8 bits, a scaling list of 16 entries of +1 and seven that are absent.
        let lists = format!("1 1 {} 0000000", "010 ".repeat(16));
        let bits = format!("1 010 1 1 0 {lists} 1 011 010 0 010 1 0 0");
        let rbsp = bytes(&bits);
        let sps = [&[0x67, 100, 0, 0x1e][..], &rbsp].concat();
        let sequence = Sequence::parse(&sps).unwrap();
        assert_eq!((sequence.frame_num_bits, sequence.is_progressive), (4, false));
        let mut bits = Bits::new(&[0, 0, 3, 1]);
        assert_eq!((bits.number(16), bits.number(8)), (Some(0), Some(1)));
    }
}
