//! Computes the duration of the audio in a PES packet from the headers of its frames.
//!
//! PURE. Sources: ISO/IEC 14496-3 1.A.2 (ADTS), ISO/IEC 11172-3 2.4.2.3 and 13818-3 2.4.2.3 (MPEG audio), ETSI TS 102 366
//! 4.4.1 and E.1.2.2 (AC-3, E-AC-3), the control header of Opus in MPEG-TS (Opus encapsulation in
//! MPEG-2 TS, 4.2) with RFC 6716 3.1 and 3.2, ISO/IEC 14496-3 1.7.2 and 1.7.3 (LOAS, LATM).

use super::super::codec::AAC_RATES;

/// Length in bytes, number of samples and sampling rate in Hz of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FrameHeader {
    len: usize,
    samples: u64,
    rate: u64,
}

/// Returns the duration in ns of the complete frames in `data`, which begins with a frame. Returns `None` if the first is not
/// complete or of an unknown kind.
pub(super) fn duration(mut data: &[u8]) -> Option<u64> {
    let (mut samples, mut rate) = (0u64, 0);
    let mut last = None;
    while let Some(frame) = header(data, last) {
        let Some(rest) = data.get(frame.len..) else { break };
        samples += frame.samples;
        rate = frame.rate;
        last = Some(frame);
        data = rest;
    }
    (samples * 1_000_000_000).checked_div(rate)
}

/// Reads the header of a frame. `last` is the previous frame, whose configuration LATM may reuse.
fn header(data: &[u8], last: Option<FrameHeader>) -> Option<FrameHeader> {
    let frame = match *data {
        // ADTS first: it has the syncword of MPEG audio, with a layer value that is reserved there.
        [0xff, b1, ..] if b1 & 0xf6 == 0xf0 => adts(data),
        [0xff, b1, ..] if b1 >> 5 == 7 => mpeg(data),
        [0x0b, 0x77, ..] => ac3(data),
        [0x7f, b1, ..] if b1 & 0xe0 == 0xe0 => opus(data),
        [0x56, b1, ..] if b1 & 0xe0 == 0xe0 => loas(data, last),
        _ => None,
    };
    // A frame of length 0 would make the caller loop forever.
    frame.filter(|frame| frame.len > 0 && frame.rate > 0)
}

fn adts(data: &[u8]) -> Option<FrameHeader> {
    let &[_, _, b2, b3, b4, b5, b6, ..] = data else { return None };
    Some(FrameHeader {
        len: usize::from(b3 & 3) << 11 | usize::from(b4) << 3 | usize::from(b5 >> 5),
        // number_of_raw_data_blocks_in_frame is one less than their number.
        samples: 1024 * (u64::from(b6 & 3) + 1),
        rate: *AAC_RATES.get(usize::from(b2 >> 2 & 0xf))?,
    })
}

fn mpeg(data: &[u8]) -> Option<FrameHeader> {
    /// Bit rates in kbit/s by version (1; 2 and 2.5), layer (I, II, III) and index.
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
    // Version: 3 is MPEG-1, 2 is MPEG-2, 0 is MPEG-2.5.
    let version = b1 >> 3 & 3;
    let layer = 3usize.checked_sub(usize::from(b1 >> 1 & 3))?;
    let low = usize::from(version != 3);
    // Index 0 is the free format, whose frame headers do not contain the length; 15 is forbidden.
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
    // Layer I counts in slots of four bytes.
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
    // bsid over 10 means E-AC-3, whose header has another layout.
    if b5 >> 3 > 10 {
        if b2 >> 6 == 1 {
            // A dependent substream adds channels to another frame, not time.
            return None;
        }
        let (rate, blocks) = match usize::from(b4 >> 6) {
            // fscod 3: fscod2 selects one of the half rates and takes the place of numblkscod; there are always six blocks.
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
    // 1536 samples, in words of 16 bits. At 44.1 kHz an odd code means one word more.
    let words = kbits * 1000 * 1536 / 16 / usize::try_from(rate).ok()?;
    let odd = usize::from(rate == 44_100 && code % 2 == 1);
    Some(FrameHeader {
        len: (words + odd) * 2,
        samples: 1536,
        rate,
    })
}

/// Reads an access unit of Opus behind its control header.
fn opus(data: &[u8]) -> Option<FrameHeader> {
    let flags = *data.get(1)?;
    // au_size is the sum of its bytes; the first byte below 255 is the last.
    let mut at = 2;
    let mut size = 0;
    loop {
        let byte = *data.get(at)?;
        (at, size) = (at + 1, size + usize::from(byte));
        if byte != 0xff {
            break;
        }
    }
    // start_trim_flag, end_trim_flag: two bytes each; control_extension_flag: a length and that many bytes.
    at += 2 * usize::from(flags >> 4 & 1) + 2 * usize::from(flags >> 3 & 1);
    if flags & 4 != 0 {
        at += 1 + usize::from(*data.get(at)?);
    }
    let packet = data.get(at..)?;
    let toc = *packet.first()?;
    // At 48 kHz: SILK 10 to 60 ms, hybrid 10 and 20 ms, CELT 2.5 to 20 ms.
    let frame = match toc >> 3 {
        config @ 0..12 => *[480, 960, 1920, 2880].get(usize::from(config % 4))?,
        config @ 12..16 => 480 << (config % 2),
        config => 120 << (config % 4),
    };
    let count = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        // Code 3: the low six bits of the next byte are the number of frames (RFC 6716 3.2.5).
        _ => u64::from(packet.get(1)? & 0x3f),
    };
    Some(FrameHeader {
        len: at + size,
        samples: frame * count,
        rate: 48_000,
    })
}

/// Reads a LOAS frame that contains the configuration of AAC, or reuses that of the previous frame.
fn loas(data: &[u8], last: Option<FrameHeader>) -> Option<FrameHeader> {
    let &[_, b1, b2, m0, ref rest @ ..] = data else { return None };
    let len = 3 + (usize::from(b1 & 0x1f) << 8 | usize::from(b2));
    if m0 & 0x80 != 0 {
        // useSameStreamMux: the frame has no configuration of its own.
        return last.map(|last| FrameHeader { len, ..last });
    }
    let &[m1, m2, m3, ..] = rest else { return None };
    if m0 & 0x40 != 0 {
        // audioMuxVersion 1 has another layout: not supported.
        return None;
    }
    let subframes = u64::from(m0 & 0x1f) << 1 | u64::from(m1 >> 7);
    Some(FrameHeader {
        len,
        samples: 1024 * (subframes + 1),
        rate: *AAC_RATES.get(usize::from(m2 & 7) << 1 | usize::from(m3 >> 7))?,
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
        // Opus, CELT of 20 ms: one frame, with trims and an extension, and two of 10 ms in a packet of over 255 bytes.
        assert_eq!(duration(&frames(&[0x7f, 0xe0, 100, 0xf8], 103, 5)), Some(100_000_000));
        assert_eq!(
            duration(&frames(&[0x7f, 0xfc, 100, 0, 1, 0, 2, 1, 9, 0xf8], 109, 2)),
            Some(40_000_000)
        );
        assert_eq!(duration(&frames(&[0x7f, 0xe0, 0xff, 45, 0xf1], 304, 1)), Some(20_000_000));
        // LOAS of 200 bytes, AAC LC at 48 kHz; the second frame says "as before".
        let latm = [0x56, 0xe0, 197, 0x20, 0, 0x11, 0x80];
        let same = [0x56, 0xe0, 197, 0x80];
        let both = [frames(&latm, 200, 1), frames(&same, 200, 1)].concat();
        assert_eq!(duration(&both), Some(42_666_666));
        assert_eq!(duration(&frames(&same, 200, 2)), None, "as before what?");
        assert_eq!(duration(&[1, 2, 3]), None);
        assert_eq!(duration(&[]), None);
    }
}
