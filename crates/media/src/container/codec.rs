//! Derives RFC 6381 names of codecs from the configuration records in containers.
//!
//! PURE. Sources: RFC 6381 3.3, ISO/IEC 14496-15 (5.3.3.1 `avcC`, 8.3.3.1 `hvcC`, annex E), ISO/IEC 14496-3 1.6.2.1.

use std::fmt::Write as _;

use super::nal::{self, Framing, VideoCodec};

/// `avc1.PPCCLL` from an SPS that begins with its NAL header.
pub fn avc_from_sps(sps: &[u8]) -> Option<String> {
    match sps {
        [_, profile, constraints, level, ..] => Some(format!("avc1.{profile:02X}{constraints:02X}{level:02X}")),
        _ => None,
    }
}

/// `avc1.PPCCLL` from an AVCDecoderConfigurationRecord.
pub fn avc_from_record(record: &[u8]) -> Option<String> {
    // Both have profile, constraints and level in bytes 1 to 3.
    avc_from_sps(record)
}

/// Returns the first SPS of an AVCDecoderConfigurationRecord.
pub fn avc_first_sps(record: &[u8]) -> Option<&[u8]> {
    let (&[count, high, low], rest) = record.get(5..)?.split_first_chunk::<3>()?;
    rest.get(..usize::from(u16::from_be_bytes([high, low])))
        .filter(|_| count & 0x1f > 0)
}

/// Bytes of the length before each NAL unit, from an AVCDecoderConfigurationRecord.
pub fn avc_length_size(record: &[u8]) -> Option<usize> {
    record.get(4).map(|b| usize::from(b & 3) + 1)
}

/// `hvc1.…` from an HEVCDecoderConfigurationRecord.
pub fn hevc_from_record(record: &[u8]) -> Option<String> {
    hevc(record.get(1..13)?)
}

/// Bytes of the length before each NAL unit, from an HEVCDecoderConfigurationRecord.
pub fn hevc_length_size(record: &[u8]) -> Option<usize> {
    record.get(21).map(|b| usize::from(b & 3) + 1)
}

/// `hvc1.…` from an H.265 SPS that begins with its two byte NAL header: `profile_tier_level` follows one more byte.
pub fn hevc_from_sps(sps: &[u8]) -> Option<String> {
    let mut rbsp = Vec::with_capacity(16);
    // 15 bytes are needed. At most every third byte is an emulation prevention byte, so 24 bytes contain them.
    for &b in sps.iter().take(24) {
        if b == 3 && rbsp.ends_with(&[0, 0]) {
            continue;
        }
        rbsp.push(b);
    }
    hevc(rbsp.get(3..15)?)
}

/// RFC 6381 name from an SPS that begins with its NAL header.
pub fn from_sps(codec: VideoCodec, sps: &[u8]) -> Option<String> {
    match codec {
        VideoCodec::H264 => avc_from_sps(sps),
        VideoCodec::H265 => hevc_from_sps(sps),
        _ => None,
    }
}

/// Returns the hash of the parameter sets of a decoder configuration record, computed as if they were in band: it can be
/// compared with [`nal::Picture::config`].
pub fn parameter_sets(codec: VideoCodec, private: &[u8]) -> Option<u64> {
    // The record has a length of two bytes before each set, like a stream with lengths of two bytes: one reader serves both.
    nal::classify(codec, Framing::Length(2), &record_nals(codec, private)?, true, false)?.config
}

/// Returns the parameter sets of a decoder configuration record.
pub fn record_sets(codec: VideoCodec, private: &[u8]) -> Vec<nal::ParameterSet> {
    nal::parameter_sets(codec, Framing::Length(2), &record_nals(codec, private).unwrap_or_default())
}

/// Returns the parameter sets of a decoder configuration record, each behind its length in two bytes.
fn record_nals(codec: VideoCodec, record: &[u8]) -> Option<Vec<u8>> {
    match codec {
        VideoCodec::H264 => avc_parameter_sets(record),
        VideoCodec::H265 => hevc_parameter_sets(record),
        _ => None,
    }
}

/// Returns SPS and PPS of an AVCDecoderConfigurationRecord, each behind its length in two bytes (ISO/IEC 14496-15 5.3.3.1).
fn avc_parameter_sets(record: &[u8]) -> Option<Vec<u8>> {
    let mut nals = Vec::new();
    let (&count, rest) = record.get(5..)?.split_first()?;
    let rest = take_nals(rest, usize::from(count & 0x1f), &mut nals)?;
    let (&count, rest) = rest.split_first()?;
    take_nals(rest, usize::from(count), &mut nals)?;
    Some(nals)
}

/// Returns the NAL units in the arrays of an HEVCDecoderConfigurationRecord, likewise (ISO/IEC 14496-15 8.3.3.1).
fn hevc_parameter_sets(record: &[u8]) -> Option<Vec<u8>> {
    let mut nals = Vec::new();
    let (&arrays, mut rest) = record.get(22..)?.split_first()?;
    for _ in 0..arrays {
        let [_, high, low, after @ ..] = rest else { return None };
        rest = take_nals(after, usize::from(u16::from_be_bytes([*high, *low])), &mut nals)?;
    }
    Some(nals)
}

fn take_nals<'a>(mut data: &'a [u8], count: usize, nals: &mut Vec<u8>) -> Option<&'a [u8]> {
    for _ in 0..count {
        let len = usize::from(u16::from_be_bytes([*data.first()?, *data.get(1)?]));
        nals.extend_from_slice(data.get(..2 + len)?);
        data = data.get(2 + len..)?;
    }
    Some(data)
}

/// Returns `hvc1.…` for the twelve bytes general_profile_space … general_level_idc.
fn hevc(ptl: &[u8]) -> Option<String> {
    let [first, c0, c1, c2, c3, constraints @ .., level] = ptl else {
        return None;
    };
    let space = ["", "A", "B", "C"][usize::from(first >> 6)];
    let tier = if first & 0x20 == 0 { 'L' } else { 'H' };
    // RFC 6381 names the flags in reverse order of bits (ISO/IEC 14496-15 annex E).
    let compatibility = u32::from_be_bytes([*c0, *c1, *c2, *c3]).reverse_bits();
    let mut name = format!("hvc1.{space}{}.{compatibility:X}.{tier}{level}", first & 0x1f);
    // The name omits trailing constraint bytes that are 0 (annex E).
    let used = constraints.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
    for b in constraints.iter().take(used) {
        // Writing into a String cannot fail.
        let _ = write!(name, ".{b:X}");
    }
    Some(name)
}

/// `vp09.PP.LL.DD` (with `format` in place of `vp09`) from a VPCodecConfigurationRecord with version and flags, as in `vpcC`.
pub fn vp_from_record(format: &str, record: &[u8]) -> Option<String> {
    let [profile, level, depth, ..] = *record.get(4..)? else {
        return None;
    };
    Some(format!("{format}.{profile:02}.{level:02}.{:02}", depth >> 4))
}

/// `av01.P.LLT.DD` from an AV1CodecConfigurationRecord (AV1 ISOBMFF 2.3.3, 5).
pub fn av1_from_record(record: &[u8]) -> Option<String> {
    // marker 1 and version 1: another version may have another layout.
    let [0x81, profile_level, flags, ..] = record else {
        return None;
    };
    let (profile, level) = (profile_level >> 5, profile_level & 0x1f);
    let tier = if flags & 0x80 == 0 { 'M' } else { 'H' };
    let depth = match (flags & 0x40 != 0, profile == 2 && flags & 0x20 != 0) {
        (true, true) => 12,
        (true, false) => 10,
        _ => 8,
    };
    Some(format!("av01.{profile}.{level:02}{tier}.{depth:02}"))
}

/// `mp4a.40.N` from an AudioSpecificConfig.
pub fn aac_from_config(config: &[u8]) -> Option<String> {
    let first = *config.first()?;
    let kind = match first >> 3 {
        // 31 is an escape: six further bits contain the type minus 32.
        31 => 32 + (u16::from(first & 7) << 3 | u16::from(config.get(1)? >> 5)),
        n => u16::from(n),
    };
    Some(format!("mp4a.40.{kind}"))
}

/// Sampling rates of AAC by `samplingFrequencyIndex`, Hz (ISO/IEC 14496-3 table 1.18).
pub const AAC_RATES: [u64; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350,
];

/// Returns the duration in ns of a frame of 1024 samples, from an AudioSpecificConfig.
pub fn aac_frame_duration(config: &[u8]) -> Option<u64> {
    let (&first, &second) = (config.first()?, config.get(1)?);
    // An escaped object type moves the index, and an explicit rate replaces it: both are rare and not supported.
    let rate = AAC_RATES.get(usize::from(first & 7) << 1 | usize::from(second >> 7))?;
    (first >> 3 != 31).then(|| 1_024_000_000_000 / rate)
}

/// Joins the codec names of a stream, video first. Returns `None` if one of them is unknown, or if there are none.
pub fn join<'a>(names: impl IntoIterator<Item = Option<&'a str>>) -> Option<String> {
    let names: Vec<&str> = names.into_iter().collect::<Option<_>>()?;
    (!names.is_empty()).then(|| names.join(","))
}

/// Returns `mp4v.61` for MPEG-2 Main profile, `mp4v.6A` for MPEG-1, and so on (ISO/IEC 14496-1 table 5, profile_and_level of
/// 13818-2 6.3.5).
pub(super) fn mpeg2_name(data: &[u8]) -> String {
    let mut from = 0;
    while let Some(start) = nal::find_start_code(data, from) {
        match (data.get(start + 3), data.get(start + 4)) {
            // sequence_extension; the escape bit means the 4:2:2 profile.
            (Some(0xb5), Some(&b)) if b >> 4 == 1 => {
                let object_type = match (b & 8, b & 7) {
                    // Simple is profile 5 and object type 0x60, High is profile 1 and 0x64.
                    (0, profile @ 1..=5) => 0x65 - profile,
                    (0, _) => 0x61,
                    _ => 0x65,
                };
                return format!("mp4v.{object_type:02X}");
            }
            _ => {}
        }
        from = start + 3;
    }
    "mp4v.6A".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_rfc_6381() {
        assert_eq!(avc_from_record(&[1, 0x64, 0, 0x28, 0xff]).as_deref(), Some("avc1.640028"));
        assert_eq!(avc_length_size(&[1, 0x64, 0, 0x28, 0xff]), Some(4));
        assert_eq!(aac_frame_duration(&[0x12, 0x10]), Some(23_219_954));
        assert_eq!(aac_frame_duration(&[0x17, 0x80]), None, "a rate that is written out");
        assert_eq!(aac_from_config(&[0x12, 0x10]).as_deref(), Some("mp4a.40.2"));
        // Main profile, level 3.1, the example of ISO/IEC 14496-15 annex E.
        let record = [1, 0x01, 0x60, 0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 93, 0xf0];
        assert_eq!(hevc_from_record(&record).as_deref(), Some("hvc1.1.6.L93.B0"));
        assert_eq!(
            join([Some("avc1.640028"), Some("mp4a.40.2")]).as_deref(),
            Some("avc1.640028,mp4a.40.2")
        );
        assert_eq!(join([Some("avc1.640028"), None]), None);
        assert_eq!(av1_from_record(&[0x81, 0x28, 0xcc, 0]).as_deref(), Some("av01.1.08H.10"));
        assert_eq!(av1_from_record(&[0x01, 0x28, 0xcc, 0]), None);
        let vp = [1, 0, 0, 0, 0, 31, 0x82, 2, 2, 2];
        assert_eq!(vp_from_record("vp09", &vp).as_deref(), Some("vp09.00.31.08"));
    }
}
