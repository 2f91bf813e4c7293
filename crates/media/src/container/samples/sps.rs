//! Reads the size and format of pictures from a sequence parameter set, and writes configuration records from parameter sets.
//!
//! PURE. Sources: ITU-T H.264 7.3.2.1.1, H.265 7.3.2.2 and 7.3.3, ISO/IEC 14496-15 5.3.3.1 and 8.3.3.1.

use super::bits::Bits;

/// Width and height in pixels, cropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// Returns the bits of the RBSP of a NAL unit, without its `header` bytes.
fn bits_of(nal: &[u8], header: usize) -> Bits {
    Bits::of(unescaped(nal.get(header..).unwrap_or_default()))
}

fn unescaped(data: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::with_capacity(data.len().min(1024));
    let mut zeros = 0;
    // All fields that are read are in the first bytes; a damaged unit may be as long as the chunk.
    for &byte in data.iter().take(1024) {
        if byte == 3 && zeros >= 2 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        bytes.push(byte);
    }
    bytes
}

/// Chroma format and bit depths, as configuration records state them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format {
    size: Size,
    chroma: u32,
    luma_depth: u32,
    chroma_depth: u32,
}

/// Returns the size of the pictures of an H.264 SPS that begins with its NAL header.
pub fn h264_size(sps: &[u8]) -> Option<Size> {
    h264(sps).map(|format| format.size)
}

/// Returns whether an SPS of this profile has chroma_format_idc and scaling lists (7.3.2.1.1).
fn is_high(profile: u32) -> bool {
    matches!(
        profile,
        100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
    )
}

fn h264(sps: &[u8]) -> Option<Format> {
    let mut bits = bits_of(sps, 1);
    let profile = bits.bits(8)?;
    // Constraint flags and level_idc, then the id.
    bits.bits(16)?;
    bits.ue()?;
    // 4:2:0 with 8 bits, unless the profile has fields for them (7.4.2.1.1).
    let (mut chroma, mut luma_depth, mut chroma_depth) = (1, 0, 0);
    if is_high(profile) {
        // chroma_format_idc, separate_colour_plane_flag, both bit depths, qpprime_y_zero_transform_bypass_flag, scaling lists.
        chroma = bits.ue()?;
        if chroma == 3 {
            bits.bit()?;
        }
        (luma_depth, chroma_depth) = (bits.ue()?, bits.ue()?);
        bits.bit()?;
        if bits.bit()? == 1 {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                if bits.bit()? == 1 {
                    scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    // log2_max_frame_num_minus4, then pic_order_cnt_type and the fields that depend on it.
    bits.ue()?;
    match bits.ue()? {
        0 => {
            bits.ue()?;
        }
        1 => {
            bits.bit()?;
            bits.se()?;
            bits.se()?;
            // At most 255 (7.4.2.1.1): a damaged count must not keep the loop busy.
            for _ in 0..bits.ue()?.min(255) {
                bits.se()?;
            }
        }
        _ => {}
    }
    // max_num_ref_frames, gaps_in_frame_num_value_allowed_flag.
    bits.ue()?;
    bits.bit()?;
    let width = bits.ue()?.checked_add(1)?.checked_mul(16)?;
    let map_units = bits.ue()?.checked_add(1)?;
    let frames_only = bits.bit()?;
    // mb_adaptive_frame_field_flag, then direct_8x8_inference_flag.
    if frames_only == 0 {
        bits.bit()?;
    }
    bits.bit()?;
    // If pictures may be fields (frame_mbs_only_flag 0), a map unit has two rows of macroblocks.
    let height = map_units.checked_mul(16)?.checked_mul(2 - frames_only)?;
    let crop = if bits.bit()? == 1 {
        [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?]
    } else {
        [0; 4]
    };
    let (unit_x, unit_y) = crop_units(chroma);
    let size = cropped(width, height, crop, (unit_x, unit_y * (2 - frames_only)))?;
    Some(Format {
        size,
        chroma,
        luma_depth,
        chroma_depth,
    })
}

/// Delta coding ends at a next scale of 0 (7.3.2.1.1.1).
fn scaling_list(bits: &mut Bits, size: u32) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..size {
        if next != 0 {
            let code = i64::from(bits.ue()?);
            let delta = if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) };
            next = (last + delta).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

fn crop_units(chroma: u32) -> (u32, u32) {
    match chroma {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    }
}

fn cropped(width: u32, height: u32, [left, right, top, bottom]: [u32; 4], unit: (u32, u32)) -> Option<Size> {
    let x = left.checked_add(right)?.checked_mul(unit.0)?;
    let y = top.checked_add(bottom)?.checked_mul(unit.1)?;
    let size = Size {
        width: width.checked_sub(x)?,
        height: height.checked_sub(y)?,
    };
    (size.width > 0 && size.height > 0 && size.width <= 16_384 && size.height <= 16_384).then_some(size)
}

/// Returns the size of the pictures of an H.265 SPS that begins with its NAL header.
pub fn h265_size(sps: &[u8]) -> Option<Size> {
    h265(sps).map(|(format, _)| format.size)
}

/// Returns the format, and sps_max_sub_layers_minus1.
fn h265(sps: &[u8]) -> Option<(Format, u32)> {
    let mut bits = bits_of(sps, 2);
    bits.bits(4)?;
    let sub_layers = bits.bits(3)?;
    bits.bit()?;
    // profile_tier_level: 88 bits and the level, then the sub-layers.
    for _ in 0..12 {
        bits.bits(8)?;
    }
    let mut present = Vec::new();
    for _ in 0..sub_layers {
        present.push((bits.bit()?, bits.bit()?));
    }
    if sub_layers > 0 {
        // reserved_zero_2bits for the sub-layers up to the eighth (7.3.3).
        bits.bits((8 - sub_layers) * 2)?;
    }
    for (profile, level) in present {
        for _ in 0..profile * 11 + level {
            bits.bits(8)?;
        }
    }
    // sps_seq_parameter_set_id, chroma_format_idc, separate_colour_plane_flag.
    bits.ue()?;
    let chroma = bits.ue()?;
    if chroma == 3 {
        bits.bit()?;
    }
    let (width, height) = (bits.ue()?, bits.ue()?);
    let crop = if bits.bit()? == 1 {
        [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?]
    } else {
        [0; 4]
    };
    let size = cropped(width, height, crop, crop_units(chroma))?;
    let (luma_depth, chroma_depth) = (bits.ue()?, bits.ue()?);
    Some((
        Format {
            size,
            chroma,
            luma_depth,
            chroma_depth,
        },
        sub_layers,
    ))
}

/// Returns an AVCDecoderConfigurationRecord for lengths of four bytes; `None` if the SPS cannot be read.
pub fn avc_record(sps: &[u8], pps: &[u8]) -> Option<Vec<u8>> {
    let &[_, profile, constraints, level, ..] = sps else {
        return None;
    };
    let format = h264(sps)?;
    // Reserved bits are ones: 0xff means lengths of four bytes, 0xe1 one SPS.
    let mut record = vec![1, profile, constraints, level, 0xff, 0xe1];
    record.extend(u16::try_from(sps.len()).ok()?.to_be_bytes());
    record.extend_from_slice(sps);
    record.push(1);
    record.extend(u16::try_from(pps.len()).ok()?.to_be_bytes());
    record.extend_from_slice(pps);
    // The records of these profiles have fields that others lack (14496-15 5.3.3.1).
    if matches!(profile, 100 | 110 | 122 | 144) {
        record.extend([
            0xfc | low(format.chroma, 3),
            0xf8 | low(format.luma_depth, 7),
            0xf8 | low(format.chroma_depth, 7),
            0,
        ]);
    }
    Some(record)
}

fn low(value: u32, mask: u8) -> u8 {
    u8::try_from(value & u32::from(mask)).unwrap_or_default()
}

/// Returns an HEVCDecoderConfigurationRecord for lengths of four bytes; `None` if the SPS cannot be read.
pub fn hevc_record(vps: &[u8], sps: &[u8], pps: &[u8]) -> Option<Vec<u8>> {
    let (format, sub_layers) = h265(sps)?;
    let rbsp = unescaped(sps.get(2..)?);
    let nested = rbsp.first()? & 1;
    let mut record = vec![1];
    // general_profile_space to general_level_idc, which SPS and record write alike.
    record.extend_from_slice(rbsp.get(1..13)?);
    // Values that are not read from the SPS are 0, which means unknown; reserved bits are ones.
    record.extend([
        0xf0,
        0,
        0xfc,
        0xfc | low(format.chroma, 3),
        0xf8 | low(format.luma_depth, 7),
        0xf8 | low(format.chroma_depth, 7),
        0,
        0,
    ]);
    // numTemporalLayers, temporalIdNested and lengths of four bytes, then the number of arrays.
    record.push(low(sub_layers + 1, 7) << 3 | nested << 2 | 3);
    record.push(3);
    for (kind, set) in [(32u8, vps), (33, sps), (34, pps)] {
        // array_completeness: the record holds all parameter sets of this type; here, one.
        record.extend([0x80 | kind, 0, 1]);
        record.extend(u16::try_from(set.len()).ok()?.to_be_bytes());
        record.extend_from_slice(set);
    }
    Some(record)
}

/// Returns the size of the pictures of a configuration record of H.264.
pub fn avc_record_size(record: &[u8]) -> Option<Size> {
    let len = usize::from(u16::from_be_bytes([*record.get(6)?, *record.get(7)?]));
    h264_size(record.get(8..8 + len)?)
}

/// Returns the size of the pictures of a configuration record of H.265.
pub fn hevc_record_size(record: &[u8]) -> Option<Size> {
    let mut at = 23;
    for _ in 0..*record.get(22)? {
        let kind = record.get(at)? & 0x3f;
        let count = u16::from_be_bytes([*record.get(at + 1)?, *record.get(at + 2)?]);
        at += 3;
        for _ in 0..count {
            let len = usize::from(u16::from_be_bytes([*record.get(at)?, *record.get(at + 1)?]));
            let set = record.get(at + 2..at + 2 + len)?;
            if kind == 33 {
                return h265_size(set);
            }
            at += 2 + len;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x264, 640x360 baseline: 40 macroblocks by 23, 8 lines cropped.
    const SPS_360: [u8; 24] = [
        0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03, 0x00,
        0x32, 0x0f, 0x16, 0x2e,
    ];

    #[test]
    fn the_size_of_a_picture_is_cropped() {
        assert_eq!(h264_size(&SPS_360), Some(Size { width: 640, height: 360 }));
        let record = avc_record(&SPS_360, &[0x68, 0xcb]).unwrap();
        assert_eq!(avc_record_size(&record), h264_size(&SPS_360));
    }

    #[test]
    fn what_is_no_parameter_set_has_no_size() {
        assert_eq!(h264_size(&[0x67]), None);
        assert_eq!(h265_size(&[0x42, 0x01]), None);
        assert_eq!(avc_record_size(&[1, 2, 3]), None);
        assert_eq!(hevc_record_size(&[1; 23]), None);
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics_on_any_bytes(data: Vec<u8>) {
            let _ = (avc_record(&data, &data), hevc_record(&data, &data, &data), avc_record_size(&data), hevc_record_size(&data));
        }
    }
}
