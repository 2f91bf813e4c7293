//! Reads the kind of a NAL unit from its header, and the recovery point from an SEI.
//!
//! PURE. Sources: ITU-T H.264 (table 7-1, D.1.8), H.265 (table 7-1).

use super::{Key, work};

pub(in crate::container) enum NalKind {
    Slice(Key),
    Vps,
    Sps,
    Pps,
    Sei,
    /// A unit that comes behind the slices of a picture.
    Behind,
    Other,
}

pub(in crate::container) fn h264_kind(header: u8) -> NalKind {
    match header & 0x1f {
        5 => NalKind::Slice(Key::Closed),
        // 2 is data partition A, which begins with the slice header.
        1 | 2 => NalKind::Slice(Key::No),
        6 => NalKind::Sei,
        7 => NalKind::Sps,
        8 => NalKind::Pps,
        // Data partitions B and C, end of sequence, end of stream, filler data; auxiliary slice, slice extensions.
        3 | 4 | 10..=12 | 19..=21 => NalKind::Behind,
        _ => NalKind::Other,
    }
}

pub(in crate::container) fn h265_kind(header: u8) -> NalKind {
    match header >> 1 & 0x3f {
        // BLA and IDR. Behind a BLA the RASL pictures, which depend on earlier ones, are not output (H.265 8.1.3).
        16..=20 => NalKind::Slice(Key::Closed),
        // CRA, and two reserved IRAP types, which may be followed by leading pictures like a CRA.
        21..=23 => NalKind::Slice(Key::Open),
        0..=31 => NalKind::Slice(Key::No),
        32 => NalKind::Vps,
        33 => NalKind::Sps,
        34 => NalKind::Pps,
        39 => NalKind::Sei,
        // End of sequence, end of bitstream, filler data; suffix SEI.
        36..=38 | 40 => NalKind::Behind,
        _ => NalKind::Other,
    }
}

/// Returns `recovery_frame_cnt` of the recovery point message in an H.264 SEI (D.1.8). `sei` is without the NAL header.
pub(super) fn recovery_frame_cnt(sei: &[u8]) -> Option<u32> {
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
    // A message has at least two bytes, and the byte with the stop bit follows the last one.
    while rest.len() > 2 {
        let (kind, after) = sei_number(rest)?;
        let (size, after) = sei_number(after)?;
        // payloadType 6: recovery_point.
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

/// Reads the ue(v) at the start of `data`. Returns `None` if it is incomplete or does not fit into 32 bits.
pub(in crate::container) fn exp_golomb(data: &[u8]) -> Option<u32> {
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
