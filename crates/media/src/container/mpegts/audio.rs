//! How long the sound in a PES packet is, from the headers of its frames.
//!
//! PURE. Sources: ISO/IEC 14496-3 1.A.2 (ADTS), ISO/IEC 11172-3 2.4.2.3 and 13818-3 2.4.2.3 (MPEG audio), ETSI TS 102 366
//! 4.4.1 and E.1.2.2 (AC-3, E-AC-3).

use super::super::codec::AAC_RATES;

/// The fields of a frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FrameHeader {
    len: usize,
    samples: u64,
    rate: u64,
}

/// Returns the duration in ns of the complete frames in `data`, which begins with one; `None` if their kind is unknown.
pub(super) fn duration(mut data: &[u8]) -> Option<u64> {
    let (mut samples, mut rate) = (0u64, 0);
    while let Some(frame) = header(data) {
        let Some(rest) = data.get(frame.len..) else { break };
        samples += frame.samples;
        rate = frame.rate;
        data = rest;
    }
    (samples * 1_000_000_000).checked_div(rate)
}

fn header(data: &[u8]) -> Option<FrameHeader> {
    let frame = match *data {
        [0xff, b1, ..] if b1 & 0xf6 == 0xf0 => adts(data),
        [0xff, b1, ..] if b1 >> 5 == 7 => mpeg(data),
        [0x0b, 0x77, ..] => ac3(data),
        _ => None,
    };
    frame.filter(|frame| frame.len > 0 && frame.rate > 0)
}

fn adts(data: &[u8]) -> Option<FrameHeader> {
    let &[_, _, b2, b3, b4, b5, b6, ..] = data else { return None };
    Some(FrameHeader {
        len: usize::from(b3 & 3) << 11 | usize::from(b4) << 3 | usize::from(b5 >> 5),
        samples: 1024 * (u64::from(b6 & 3) + 1),
        rate: *AAC_RATES.get(usize::from(b2 >> 2 & 0xf))?,
    })
}

fn mpeg(data: &[u8]) -> Option<FrameHeader> {
    /// kbit/s by version (1; 2 and 2.5) and layer (I, II, III).
    const BITRATES: [[[usize; 14]; 3]; 2] = [
        [
            [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
            [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
            [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        ],
        [
            [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
            [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
            [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
        ],
    ];
    let &[_, b1, b2, ..] = data else { return None };
    // 3 is 1, 2 is 2, 0 is 2.5.
    let version = b1 >> 3 & 3;
    let layer = 3usize.checked_sub(usize::from(b1 >> 1 & 3))?;
    let low = usize::from(version != 3);
    let kbits = BITRATES.get(low)?.get(layer)?.get(usize::from(b2 >> 4).checked_sub(1)?)?;
    let base: u64 = *[44_100, 48_000, 32_000].get(usize::from(b2 >> 2 & 3))?;
    let rate = match version {
        3 => base,
        2 => base / 2,
        0 => base / 4,
        _ => return None,
    };
    let padding = usize::from(b2 >> 1 & 1);
    let samples = match (layer, low) {
        (0, _) => 384,
        (2, 1) => 576,
        _ => 1152,
    };
    let slot = if layer == 0 { 4 } else { 1 };
    let slots = (kbits * 1000 * usize::try_from(samples).ok()? / 8 / slot).checked_div(usize::try_from(rate).ok()?)?;
    Some(FrameHeader {
        len: (slots + padding) * slot,
        samples,
        rate,
    })
}

fn ac3(data: &[u8]) -> Option<FrameHeader> {
    const RATES: [u64; 3] = [48_000, 44_100, 32_000];
    const KBITS: [usize; 19] = [
        32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640,
    ];
    let &[_, _, b2, b3, b4, b5, ..] = data else { return None };
    // bsid: over 10 it is E-AC-3, whose header begins otherwise.
    if b5 >> 3 > 10 {
        if b2 >> 6 == 1 {
            // A dependent substream is no time of its own.
            return None;
        }
        let (rate, blocks) = match usize::from(b4 >> 6) {
            3 => (*RATES.get(usize::from(b4 >> 4 & 3))? / 2, 6),
            code => (*RATES.get(code)?, *[1, 2, 3, 6].get(usize::from(b4 >> 4 & 3))?),
        };
        return Some(FrameHeader {
            len: ((usize::from(b2 & 7) << 8 | usize::from(b3)) + 1) * 2,
            samples: 256 * blocks,
            rate,
        });
    }
    let rate = *RATES.get(usize::from(b4 >> 6))?;
    let code = usize::from(b4 & 0x3f);
    let kbits = *KBITS.get(code / 2)?;
    // 1536 samples, in words of 16 bits; at 44.1 kHz every other size is a word longer.
    let words = kbits * 1000 * 1536 / 16 / usize::try_from(rate).ok()?;
    let odd = usize::from(rate == 44_100 && code % 2 == 1);
    Some(FrameHeader {
        len: (words + odd) * 2,
        samples: 1536,
        rate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(header: &[u8], len: usize, count: usize) -> Vec<u8> {
        let mut frame = header.to_vec();
        frame.resize(len, 0);
        frame.repeat(count)
    }

    #[test]
    fn the_length_of_sound_is_that_of_its_whole_frames() {
        // ADTS, 48 kHz, 200 bytes.
        let adts = [0xff, 0xf1, 0x4c, 0x80, 25, 0x1f, 0xfc];
        assert_eq!(duration(&frames(&adts, 200, 3)), Some(64_000_000));
        assert_eq!(duration(&frames(&adts, 200, 3)[..500]), Some(42_666_666));
        // MPEG-1 layer III, 128 kbit/s, 44.1 kHz: 417 bytes, 1152 samples; layer II, 192 kbit/s, 48 kHz: 576.
        assert_eq!(duration(&frames(&[0xff, 0xfb, 0x90], 417, 2)), Some(52_244_897));
        assert_eq!(duration(&frames(&[0xff, 0xfd, 0xa4], 576, 5)), Some(120_000_000));
        // AC-3, 48 kHz, 192 kbit/s: 768 bytes; E-AC-3, 48 kHz, 6 blocks of 768 bytes.
        assert_eq!(duration(&frames(&[0x0b, 0x77, 0, 0, 20, 0x40], 768, 2)), Some(64_000_000));
        assert_eq!(
            duration(&frames(&[0x0b, 0x77, 1, 0x7f, 0x34, 0x80], 768, 2)),
            Some(64_000_000)
        );
        assert_eq!(duration(&[1, 2, 3]), None);
        assert_eq!(duration(&[]), None);
    }
}
