//! Configuration of AV1 for MP4, from the container and from the sequence header, and its samples.
//!
//! PURE. Sources: the AV1 bitstream specification (5.3 OBUs, 5.5 `sequence_header_obu`), the AV1 Codec ISO Media File Format
//! Binding (2.3 AV1CodecConfigurationRecord, 2.4 samples).

use bytes::Bytes;

use super::bits::Bits;
use super::sps::Size;
use crate::container::nal::{SEQUENCE_HEADER, TEMPORAL_DELIMITER, obus};

/// Most bytes of a sequence header that are read: with all operating points it has about 400.
const HEADER: usize = 1024;
/// Marker and version of a configuration record.
const VERSION: u8 = 0x81;

/// Decoder configuration of AV1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Av1 {
    /// Size of the pictures; `None` if neither the container nor a sequence header states it.
    pub size: Option<Size>,
    /// The AV1CodecConfigurationRecord; `None` if there is neither a record nor a sequence header.
    pub record: Option<Bytes>,
}

impl Av1 {
    /// Returns the configuration with the record and the size that the container states.
    pub(in crate::container) fn of_record(record: &[u8], size: Option<Size>) -> Self {
        Self {
            size,
            record: valid(record),
        }
    }

    /// Completes the configuration from the first sequence header: that of the pictures, or else that of the record.
    pub(super) fn complete<'a>(&mut self, mut pictures: impl Iterator<Item = &'a [u8]>) {
        let record = self.record.clone().unwrap_or_default();
        let found = pictures.find_map(Sequence::of).or_else(|| Sequence::of(record.get(4..)?));
        if let Some(sequence) = found {
            self.size = Some(sequence.size);
            self.record.get_or_insert(sequence.record.into());
        }
    }
}

/// Returns a record with its reserved bits set to 0; `None` if it has another version or is too short.
fn valid(record: &[u8]) -> Option<Bytes> {
    let [VERSION, level, format, delay, obus @ ..] = record else {
        return None;
    };
    let delay = if delay & 0x10 == 0 { 0 } else { delay & 0x1f };
    Some([&[VERSION, *level, *format, delay], obus].concat().into())
}

/// The content of a sequence header.
struct Sequence {
    size: Size,
    record: Vec<u8>,
}

impl Sequence {
    /// Reads the first sequence header in these OBUs.
    fn of(data: &[u8]) -> Option<Self> {
        let header = obus(data).find(|obu| obu.kind == SEQUENCE_HEADER)?;
        let body = data.get(header.body)?;
        let mut bits = Bits::of(body.iter().take(HEADER).copied().collect());
        let (size, [level, format]) = sequence(&mut bits)?;
        let mut record = vec![VERSION, level, format, 0];
        // The record contains the sequence header as an OBU with a size field (2.3.1).
        record.push(SEQUENCE_HEADER << 3 | 2);
        let mut size_left = body.len();
        while size_left > 0x7f {
            record.push(u8::try_from(size_left & 0x7f).unwrap_or(0) | 0x80);
            size_left >>= 7;
        }
        record.push(u8::try_from(size_left).unwrap_or(0));
        record.extend_from_slice(body);
        Some(Self { size, record })
    }
}

/// Reads the size, and the second and third byte of the record (5.5.1).
fn sequence(bits: &mut Bits) -> Option<(Size, [u8; 2])> {
    let profile = bits.byte(3)?;
    bits.bit()?;
    let is_reduced = bits.flag()?;
    let (level, tier) = if is_reduced {
        (bits.byte(5)?, 0)
    } else {
        operating_points(bits)?
    };
    let (width_bits, height_bits) = (bits.bits(4)? + 1, bits.bits(4)? + 1);
    let (width, height) = (bits.bits(width_bits)? + 1, bits.bits(height_bits)? + 1);
    if !is_reduced && bits.flag()? {
        // delta_frame_id_length_minus_2, additional_frame_id_length_minus_1.
        bits.bits(7)?;
    }
    // Super blocks and intra filters.
    bits.bits(3)?;
    if !is_reduced {
        inter_tools(bits)?;
    }
    // Super resolution, CDEF, restoration.
    bits.bits(3)?;
    let format = color_config(bits, profile)?;
    Some((Size { width, height }, [profile << 5 | level, tier << 7 | format]))
}

/// Returns level and tier of the first operating point. Reads all of them.
fn operating_points(bits: &mut Bits) -> Option<(u8, u8)> {
    let mut delay_bits = None;
    if bits.flag()? {
        // timing_info (5.5.3).
        bits.bits(32)?;
        bits.bits(32)?;
        if bits.flag()? {
            bits.ue()?;
        }
        if bits.flag()? {
            // decoder_model_info (5.5.4).
            delay_bits = Some(bits.bits(5)? + 1);
            bits.bits(32)?;
            bits.bits(10)?;
        }
    }
    let has_delays = bits.flag()?;
    let mut first = None;
    for _ in 0..=bits.bits(5)? {
        bits.bits(12)?;
        let level = bits.byte(5)?;
        let tier = if level > 7 { bits.byte(1)? } else { 0 };
        if let Some(delay_bits) = delay_bits
            && bits.flag()?
        {
            // operating_parameters_info (5.5.5).
            bits.bits(delay_bits)?;
            bits.bits(delay_bits)?;
            bits.bit()?;
        }
        if has_delays && bits.flag()? {
            bits.bits(4)?;
        }
        first.get_or_insert((level, tier));
    }
    first
}

/// Skips the tools for inter prediction.
fn inter_tools(bits: &mut Bits) -> Option<()> {
    // Interintra and masked compound, warped motion, dual filter.
    bits.bits(4)?;
    let has_order_hint = bits.flag()?;
    if has_order_hint {
        bits.bits(2)?;
    }
    let chooses_screen_content = bits.flag()?;
    let may_be_screen_content = chooses_screen_content || bits.flag()?;
    if may_be_screen_content && !bits.flag()? {
        bits.bit()?;
    }
    if has_order_hint {
        bits.bits(3)?;
    }
    Some(())
}

/// Returns high_bitdepth to chroma_sample_position as they are in the third byte of the record (5.5.2).
fn color_config(bits: &mut Bits, profile: u8) -> Option<u8> {
    let high = bits.byte(1)?;
    let twelve = if profile == 2 && high == 1 { bits.byte(1)? } else { 0 };
    let mono = if profile == 1 { 0 } else { bits.byte(1)? };
    let colours = if bits.flag()? { bits.bits(24)? } else { 0x02_0202 };
    let packed = |x: u8, y: u8, position: u8| high << 6 | twelve << 5 | mono << 4 | x << 3 | y << 2 | position;
    // BT.709, sRGB and the identity: RGB.
    if mono == 0 && colours == 0x01_0d00 {
        return Some(packed(0, 0, 0));
    }
    // color_range
    bits.bit()?;
    if mono == 1 {
        return Some(packed(1, 1, 0));
    }
    let (x, y) = match profile {
        0 => (1, 1),
        1 => (0, 0),
        _ if twelve == 0 => (1, 0),
        _ => match bits.byte(1)? {
            0 => (0, 0),
            x => (x, bits.byte(1)?),
        },
    };
    let position = if (x, y) == (1, 1) { bits.byte(2)? } else { 0 };
    Some(packed(x, y, position))
}

/// Returns a sample without its temporal delimiters, which MP4 omits (2.4).
pub(super) fn without_delimiters(data: &Bytes) -> Bytes {
    let delimiters: Vec<_> = obus(data).filter(|obu| obu.kind == TEMPORAL_DELIMITER).collect();
    match delimiters.as_slice() {
        [] => data.clone(),
        [first] if first.at == 0 => data.slice(first.body.end..),
        all => {
            let mut kept = Vec::with_capacity(data.len());
            let mut at = 0;
            for obu in all {
                kept.extend_from_slice(data.get(at..obu.at).unwrap_or_default());
                at = obu.body.end;
            }
            kept.extend_from_slice(data.get(at..).unwrap_or_default());
            kept.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bits::packed;
    use super::*;

    fn obu(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind << 3 | 2, u8::try_from(body.len()).unwrap()][..], body].concat()
    }

    /// A sequence header of 1280x720: what is in front of the size, and the colours.
    fn header(begin: &[(u32, u32)], colours: &[(u32, u32)]) -> Vec<u8> {
        let size = [(10, 4), (9, 4), (1279, 11), (719, 10)];
        // No frame ids; order hints, no choice of tools for screens, super resolution and filters.
        let tools = [
            (0, 1),
            (0, 3),
            (0, 4),
            (1, 1),
            (3, 2),
            (0, 1),
            (1, 1),
            (0, 1),
            (1, 1),
            (6, 3),
            (3, 3),
        ];
        let end = [(0, 1), (1, 1)];
        obu(SEQUENCE_HEADER, &packed(&[begin, &size, &tools, colours, &end].concat()))
    }

    const PLAIN: &[(u32, u32)] = &[(0, 3), (0, 2), (0, 1), (0, 1), (0, 5), (0, 12), (8, 5), (1, 1)];

    fn completed(mut av1: Av1, picture: &[u8]) -> Av1 {
        av1.complete([picture].into_iter());
        av1
    }

    #[test]
    fn a_record_is_made_of_a_sequence_header() {
        let size = Some(Size {
            width: 1280,
            height: 720,
        });
        // 4:2:0 of 8 bits, collocated.
        let sequence = header(PLAIN, &[(0, 1), (0, 1), (0, 1), (0, 1), (2, 2)]);
        let unit = [&obu(TEMPORAL_DELIMITER, &[])[..], &sequence, &obu(6, &[0x10, 1, 2])].concat();
        let made = completed(Av1::default(), &unit);
        let record = [&[0x81, 8, 0x8e, 0][..], &sequence].concat();
        assert_eq!((made.size, made.record.as_deref()), (size, Some(&record[..])));
        // Clocks, models, delays and two operating points; ten bits, one colour.
        let long = [
            (0, 5),
            (1, 1),
            (1, 32),
            (25, 32),
            (1, 1),
            (1, 1),
            (1, 1),
            (7, 5),
            (1, 32),
            (0, 10),
            (1, 1),
            (1, 5),
            (1, 12),
            (13, 5),
            (0, 1),
            (1, 1),
            (0, 8),
            (0, 8),
            (0, 1),
            (1, 1),
            (3, 4),
            (2, 12),
            (4, 5),
            (0, 1),
            (0, 1),
        ];
        let made = completed(Av1::default(), &header(&long, &[(1, 1), (1, 1), (0, 1), (0, 1)]));
        assert_eq!((made.size, &made.record.unwrap()[..4]), (size, &[0x81, 13, 0x5c, 0][..]));
        // Profile 2 of twelve bits in 4:2:2, with colours; a picture alone.
        let begin = [&[(2, 3)], PLAIN.get(1..).unwrap()].concat();
        let colours = [(1, 1), (1, 1), (0, 1), (1, 1), (0x09_1009, 24), (0, 1), (1, 1), (0, 1)];
        let made = completed(Av1::default(), &header(&begin, &colours));
        assert_eq!(&made.record.unwrap()[..4], [0x81, 0x48, 0xe8, 0]);
    }

    #[test]
    fn rgb_and_444_have_all_their_colour() {
        let begin = [&[(1, 3)], PLAIN.get(1..).unwrap()].concat();
        for colours in [&[(0, 1), (1, 1), (0x01_0d00, 24)][..], &[(0, 1), (0, 1), (1, 1)]] {
            let made = completed(Av1::default(), &header(&begin, colours));
            assert_eq!(&made.record.unwrap()[..4], [0x81, 0x28, 0x80, 0], "{colours:?}");
        }
    }

    #[test]
    fn a_record_of_the_container_is_kept_and_its_header_tells_the_size() {
        let sequence = header(PLAIN, &[(0, 1), (0, 1), (0, 1), (0, 1), (2, 2)]);
        let stated = [&[0x81, 5, 0x0c, 0xe3][..], &sequence].concat();
        let av1 = completed(Av1::of_record(&stated, None), &[]);
        assert_eq!(
            av1.record.as_deref(),
            Some(&[&[0x81, 5, 0x0c, 0][..], &sequence].concat()[..])
        );
        assert_eq!(av1.size.map(|size| size.width), Some(1280));
        for none in [&[0x80, 5, 0x0c, 0][..], &[0x81, 5, 0x0c], &[]] {
            assert_eq!(Av1::of_record(none, None), Av1::default());
        }
    }

    #[test]
    fn temporal_delimiters_are_no_part_of_a_sample() {
        let (delimiter, frame) = (obu(TEMPORAL_DELIMITER, &[]), obu(6, &[0x10, 1, 2]));
        let without = |parts: &[&[u8]]| without_delimiters(&parts.concat().into());
        assert_eq!(without(&[&delimiter, &frame]), frame);
        assert_eq!(without(&[&frame]), frame);
        assert_eq!(
            without(&[&delimiter, &frame, &delimiter, &frame]),
            [&frame[..], &frame].concat()
        );
        // One without a size is the last; what is torn stays.
        assert_eq!(without(&[&delimiter, &[6 << 3, 0x12, 0]]), [6 << 3, 0x12, 0][..]);
        assert_eq!(
            without(&[&frame, &[6 << 3 | 2, 9, 0x12, 0]]),
            [&frame[..], &[6 << 3 | 2, 9, 0x12, 0]].concat()
        );
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics_on_any_bytes(record: Vec<u8>, picture: Vec<u8>) {
            let _ = completed(Av1::of_record(&record, None), &picture);
            let _ = completed(Av1::default(), &[&[0x0a, 60][..], &picture].concat());
            let _ = without_delimiters(&picture.into());
        }
    }
}
