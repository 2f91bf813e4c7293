//! Configuration of VP8 and VP9 for MP4, from the container and from the key frames.
//!
//! PURE. Sources: the VP9 bitstream specification (6.2 `uncompressed_header`, 7.2.2 `color_config`, annex A), the VP Codec ISO
//! Media File Format Binding (VPCodecConfigurationRecord), the WebM container guidelines (CodecPrivate of VP9), RFC 6386 9.1.

use super::bits::Bits;
use super::sps::Size;

/// Levels of VP9, ten times their number, with the most luma samples of a picture and of a second (annex A).
const LEVELS: [(u8, u64, u64); 14] = [
    (10, 36_864, 829_440),
    (11, 73_728, 2_764_800),
    (20, 122_880, 4_608_000),
    (21, 245_760, 9_216_000),
    (30, 552_960, 20_736_000),
    (31, 983_040, 36_864_000),
    (40, 2_228_224, 83_558_400),
    (41, 2_228_224, 160_432_128),
    (50, 8_912_896, 311_951_360),
    (51, 8_912_896, 588_251_136),
    (52, 8_912_896, 1_176_502_272),
    (60, 35_651_584, 1_176_502_272),
    (61, 35_651_584, 2_353_004_544),
    (62, 35_651_584, 4_706_009_088),
];
/// Pictures per second that a level is chosen for. A constant, since the measured rate of each chunk would give each chunk a
/// different header.
const RATE: u64 = 60;
/// Colour primaries, transfer and matrix coefficients with the value "unspecified" (ITU-T H.273).
const UNSPECIFIED: [u8; 3] = [2, 2, 2];
/// Most bytes of a key frame that are read: its header is at its start.
const HEADER: usize = 32;

/// A VPCodecConfigurationRecord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VpConfig {
    /// 0 to 3.
    pub profile: u8,
    /// Ten times the level.
    pub level: u8,
    /// Bits of a sample: 8, 10 or 12.
    pub depth: u8,
    /// `chromaSubsampling`: 0 and 1 are 4:2:0, 2 is 4:2:2, 3 is 4:4:4.
    pub chroma: u8,
    /// Whether samples use the full range of values.
    pub full_range: bool,
    /// Colour primaries, transfer characteristics and matrix coefficients.
    pub colours: [u8; 3],
}

impl Default for VpConfig {
    /// Returns the format of nearly all streams: 4:2:0 with eight bits. A decoder takes the real one from the key frames.
    fn default() -> Self {
        Self {
            profile: 0,
            level: 0,
            depth: 8,
            chroma: 1,
            full_range: false,
            colours: UNSPECIFIED,
        }
    }
}

/// Decoder configuration of VP9.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vp9 {
    /// Size of the pictures; `None` if neither the container nor a key frame states it.
    pub size: Option<Size>,
    /// The configuration record.
    pub config: VpConfig,
}

impl Vp9 {
    /// Returns the configuration of a `vpcC`, which begins with its version and flags, and the size that the container states.
    pub(in crate::container) fn of_record(record: &[u8], size: Option<Size>) -> Self {
        let mut config = VpConfig::default();
        if let Some(&[profile, level, format, primaries, transfer, matrix, ..]) = record.get(4..) {
            config = VpConfig {
                profile,
                level,
                depth: format >> 4,
                chroma: format >> 1 & 7,
                full_range: format & 1 == 1,
                colours: [primaries, transfer, matrix],
            };
        }
        Self { size, config }
    }

    /// Returns the configuration of a WebM CodecPrivate: a list of features, each of an id, a length and a value.
    pub(in crate::container) fn of_features(private: &[u8], size: Option<Size>) -> Self {
        let mut config = VpConfig::default();
        let mut rest = private;
        while let [id, 1, value, after @ ..] = rest {
            match id {
                1 => config.profile = *value,
                2 => config.level = *value,
                3 => config.depth = *value,
                4 => config.chroma = *value,
                _ => {}
            }
            rest = after;
        }
        Self { size, config }
    }

    /// Completes the configuration from a key frame, if there is one. The format in the key frame takes precedence, since it is
    /// what a decoder uses.
    pub(super) fn complete(&mut self, key_frame: Option<&[u8]>) {
        let stated = self.config;
        if let Some((size, coded)) = key_frame.and_then(vp9_key_frame) {
            self.size = Some(size);
            self.config = VpConfig {
                level: stated.level,
                // Only the container states the position of the chroma samples of 4:2:0.
                chroma: if coded.chroma < 2 && stated.chroma < 2 {
                    stated.chroma
                } else {
                    coded.chroma
                },
                colours: if stated.colours == UNSPECIFIED {
                    coded.colours
                } else {
                    stated.colours
                },
                ..coded
            };
        }
        self.config = self.config.valid(self.size);
    }
}

impl VpConfig {
    /// Returns the configuration with invalid values replaced by likely ones.
    fn valid(self, size: Option<Size>) -> Self {
        let is_format = self.profile < 4 && matches!(self.depth, 8 | 10 | 12) && self.chroma < 4;
        let format = if is_format { self } else { Self::default() };
        let is_level = LEVELS.iter().any(|(level, ..)| *level == self.level);
        // Matrix coefficients 0 are RGB, which cannot be subsampled.
        let is_rgb = format.colours.last() == Some(&0);
        Self {
            level: if is_level { self.level } else { level(size) },
            colours: if is_rgb && format.chroma != 3 {
                UNSPECIFIED
            } else {
                format.colours
            },
            ..format
        }
    }
}

/// Returns the lowest level, times ten, for pictures of this size.
fn level(size: Option<Size>) -> u8 {
    let samples = size.map_or(0, |size| u64::from(size.width) * u64::from(size.height));
    let fits = LEVELS
        .iter()
        .find(|(_, most, a_second)| samples <= *most && samples * RATE <= *a_second);
    fits.map_or(62, |(level, ..)| *level)
}

/// Returns size and format of a VP9 key frame; `None` if it is no key frame, or has a format without a value in MP4 (4:4:0).
fn vp9_key_frame(frame: &[u8]) -> Option<(Size, VpConfig)> {
    let mut bits = Bits::of(frame.iter().take(HEADER).copied().collect());
    let is_marked = bits.bits(2)? == 2;
    // profile_low_bit comes before profile_high_bit; profile 3 has a reserved bit.
    let profile = bits.byte(1)? | bits.byte(1)? << 1;
    if profile == 3 {
        bits.bit()?;
    }
    let shows_existing = bits.flag()?;
    let is_inter = bits.flag()?;
    // show_frame and error_resilient_mode.
    bits.bits(2)?;
    if !is_marked || shows_existing || is_inter || bits.bits(24)? != 0x49_8342 {
        return None;
    }
    let config = color_config(&mut bits, profile)?;
    let (width, height) = (bits.bits(16)? + 1, bits.bits(16)? + 1);
    Some((Size { width, height }, config))
}

fn color_config(bits: &mut Bits, profile: u8) -> Option<VpConfig> {
    let depth = match profile {
        0 | 1 => 8,
        _ if bits.flag()? => 12,
        _ => 10,
    };
    let space = bits.bits(3)?;
    let has_sampling = profile & 1 == 1;
    let (full_range, sampling) = if space == 7 {
        (true, (0, 0))
    } else {
        let full_range = bits.flag()?;
        let sampling = if has_sampling { (bits.bit()?, bits.bit()?) } else { (1, 1) };
        (full_range, sampling)
    };
    if has_sampling {
        // reserved_zero
        bits.bit()?;
    }
    let chroma = match sampling {
        (1, 1) => 1,
        (1, 0) => 2,
        (0, 0) => 3,
        _ => return None,
    };
    let colours = match space {
        1 => [5, 6, 5],
        2 => [1, 1, 1],
        3 => [6, 6, 6],
        4 => [7, 7, 7],
        5 => [9, 14, 9],
        7 => [1, 13, 0],
        _ => UNSPECIFIED,
    };
    Some(VpConfig {
        profile,
        level: 0,
        depth,
        chroma,
        full_range,
        colours,
    })
}

/// Returns the size in a VP8 key frame (RFC 6386 9.1). The upper two bits of each dimension are a scaling hint and ignored.
pub(super) fn vp8_size(frame: &[u8]) -> Option<Size> {
    let &[tag, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..] = frame else {
        return None;
    };
    let pixels = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    (tag & 1 == 0).then(|| Size {
        width: pixels(w0, w1),
        height: pixels(h0, h1),
    })
}

#[cfg(test)]
mod tests {
    use super::super::bits::packed;
    use super::*;

    /// A frame of these numbers, and something behind them.
    fn frame(fields: &[(u32, u32)]) -> Vec<u8> {
        [&packed(fields)[..], &[0; 8]].concat()
    }

    fn key_frame(profile: &[(u32, u32)], format: &[(u32, u32)]) -> Vec<u8> {
        let begin = [&[(2, 2)], profile, &[(0, 1), (0, 1), (2, 2), (0x49_8342, 24)]].concat();
        frame(&[&begin[..], format, &[(639, 16), (359, 16), (0, 1)]].concat())
    }

    fn completed(mut vp9: Vp9, frame: &[u8]) -> Vp9 {
        vp9.complete(Some(frame));
        vp9
    }

    #[test]
    fn a_key_frame_of_vp9_says_what_it_is() {
        let size = Some(Size { width: 640, height: 360 });
        let plain = VpConfig {
            level: 30,
            ..VpConfig::default()
        };
        let of = |profile: &[(u32, u32)], format: &[(u32, u32)]| completed(Vp9::default(), &key_frame(profile, format));
        // BT.601, not all values.
        let vp9 = of(&[(0, 2)], &[(1, 3), (0, 1)]);
        assert_eq!(
            (vp9.size, vp9.config),
            (
                size,
                VpConfig {
                    colours: [5, 6, 5],
                    ..plain
                }
            )
        );
        // Profile 1 is 01 with the low bit first: 4:4:4, RGB, 4:2:2.
        let full = VpConfig {
            profile: 1,
            chroma: 3,
            full_range: true,
            ..plain
        };
        assert_eq!(of(&[(1, 1), (0, 1)], &[(0, 3), (1, 1), (0, 2), (0, 1)]).config, full);
        let rgb = VpConfig {
            colours: [1, 13, 0],
            ..full
        };
        assert_eq!(of(&[(1, 1), (0, 1)], &[(7, 3), (0, 1)]).config, rgb);
        let half = of(&[(1, 1), (0, 1)], &[(2, 3), (0, 1), (2, 2), (0, 1)]).config;
        assert_eq!((half.chroma, half.colours), (2, [1, 1, 1]));
        // Profile 2 of ten bits, and profile 3 of twelve, which has a reserved bit.
        let ten = of(&[(0, 1), (1, 1)], &[(0, 1), (5, 3), (0, 1)]);
        assert_eq!(
            (ten.config.profile, ten.config.depth, ten.config.colours),
            (2, 10, [9, 14, 9])
        );
        let twelve = of(&[(3, 2), (0, 1)], &[(1, 1), (2, 3), (0, 1), (0, 2), (0, 1)]);
        assert_eq!((twelve.config.profile, twelve.config.depth, twelve.size), (3, 12, size));
    }

    #[test]
    fn what_is_no_key_frame_leaves_what_the_container_states() {
        let size = Some(Size {
            width: 1920,
            height: 1080,
        });
        let inter = frame(&[(2, 2), (0, 2), (0, 1), (1, 1)]);
        let existing = frame(&[(2, 2), (0, 2), (1, 1), (0, 3)]);
        let unsynced = frame(&[(2, 2), (0, 2), (0, 1), (0, 1), (2, 2), (0x49_8343, 24), (0, 20), (0, 20)]);
        for frame in [&inter[..], &existing, &unsynced, b"", &[0x82]] {
            let vp9 = completed(Vp9::of_features(&[1, 1, 2, 3, 1, 10], size), frame);
            assert_eq!((vp9.size, vp9.config.profile, vp9.config.depth), (size, 2, 10), "{frame:?}");
            assert_eq!(vp9.config.level, 41, "for 60 pictures a second");
        }
    }

    #[test]
    fn what_the_container_states_is_kept_unless_it_is_none() {
        let frame = key_frame(&[(0, 2)], &[(0, 3), (0, 1)]);
        let stated = completed(Vp9::of_record(&[1, 0, 0, 0, 1, 41, 0xc1, 9, 16, 9, 0, 0], None), &frame);
        let expected = VpConfig {
            level: 41,
            chroma: 0,
            colours: [9, 16, 9],
            ..VpConfig::default()
        };
        assert_eq!(stated.config, expected, "the format is that of the pictures");
        // RGB in 4:2:0, a level and a format that there are none of.
        let false_record = [1, 0, 0, 0, 9, 13, 0x7e, 1, 1, 0, 0, 0];
        let mut vp9 = Vp9::of_record(&false_record, None);
        vp9.complete(None);
        assert_eq!((vp9.config.profile, vp9.config.depth, vp9.config.level), (0, 8, 10));
        assert_eq!(Vp9::of_record(&false_record[..7], None), Vp9::default());
    }

    #[test]
    fn a_level_has_room_for_the_pictures() {
        let of = |width, height| level(Some(Size { width, height }));
        assert_eq!([of(256, 144), of(640, 360), of(1280, 720)], [11, 30, 40]);
        assert_eq!(
            [of(1920, 1080), of(3840, 2160), of(7680, 4320), of(65_536, 65_536)],
            [41, 51, 61, 62]
        );
        assert_eq!(level(None), 10);
    }

    #[test]
    fn a_key_frame_of_vp8_says_its_size() {
        let frame = [0x50, 0x22, 0, 0x9d, 0x01, 0x2a, 0x40, 0x41, 0xf0, 0x80, 7];
        let size = Size { width: 320, height: 240 };
        assert_eq!(vp8_size(&frame), Some(size));
        assert_eq!(
            vp8_size(&[0x51, 0x22, 0, 0x9d, 0x01, 0x2a, 0x40, 1, 0xf0, 0, 7]),
            None,
            "no key frame"
        );
        assert_eq!(vp8_size(&frame[..9]), None);
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics_on_any_bytes(record: Vec<u8>, frame: Vec<u8>) {
            for mut vp9 in [Vp9::of_record(&record, None), Vp9::of_features(&record, None)] {
                vp9.complete(Some(&frame));
                assert!(vp9.config.chroma < 4 && vp9.config.level > 9);
            }
            let _ = vp8_size(&frame);
        }
    }
}
