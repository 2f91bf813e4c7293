//! Recognises key frames of VP9 and AV1 by their first header, and splits AV1 into OBUs.
//!
//! PURE. Sources: the VP9 bitstream specification (6.2), the AV1 bitstream specification (5.3, 5.9, 6.2.2).

use std::ops::Range;

use super::{Key, Picture};

/// `OBU_SEQUENCE_HEADER`.
pub(in crate::container) const SEQUENCE_HEADER: u8 = 1;
/// `OBU_TEMPORAL_DELIMITER`.
pub(in crate::container) const TEMPORAL_DELIMITER: u8 = 2;

/// An open bitstream unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::container) struct Obu {
    /// `obu_type`.
    pub(in crate::container) kind: u8,
    /// Position of its header.
    pub(in crate::container) at: usize,
    /// Range of its payload, behind header and size.
    pub(in crate::container) body: Range<usize>,
}

/// Iterates over the OBUs of a temporal unit, up to the first incomplete one. An OBU without a size is the last (AV1 5.3.1).
pub(in crate::container) fn obus(data: &[u8]) -> impl Iterator<Item = Obu> + '_ {
    let mut next = 0;
    std::iter::from_fn(move || {
        let at = next;
        let header = head(data, at)?;
        let size = header.size?;
        let end = size.map_or(Some(data.len()), |size| header.body.checked_add(size));
        next = end.filter(|end| *end <= data.len())?;
        Some(Obu {
            kind: header.kind,
            at,
            body: header.body..next,
        })
    })
}

/// The header of an OBU.
struct Head {
    kind: u8,
    /// Position of its body.
    body: usize,
    /// Size of the body in bytes. Outer `None`: it cannot be read; inner `None`: the OBU has no size field.
    size: Option<Option<usize>>,
}

fn head(data: &[u8], at: usize) -> Option<Head> {
    let &header = data.get(at)?;
    let has_extension = header & 4 != 0;
    let mut body = at + if has_extension { 2 } else { 1 };
    let size = if header & 2 == 0 {
        Some(None)
    } else {
        leb128(data.get(body..).unwrap_or_default()).map(|(size, len)| {
            body += len;
            Some(size)
        })
    };
    Some(Head {
        kind: header >> 3 & 0xf,
        body,
        size,
    })
}

/// VP9 `uncompressed_header`: frame_marker(2), profile_low, profile_high, `[reserved]`, show_existing_frame, frame_type.
pub(super) fn vp9_key(b: u8) -> bool {
    if b >> 6 != 2 {
        return false;
    }
    // Profile 3 is followed by a reserved bit.
    let shift = if b & 0x30 == 0x30 { 1 } else { 0 };
    let show_existing = b << (4 + shift) & 0x80 != 0;
    let inter = b << (5 + shift) & 0x80 != 0;
    !show_existing && !inter
}

/// Classifies a temporal unit of AV1 by its first frame header (AV1 5.3, 5.9.2). Returns `None` if more bytes are needed.
pub(super) fn classify_av1(data: &[u8], complete: bool) -> Option<Picture> {
    let no = complete.then_some(Picture::plain(Key::No));
    let mut pos = 0usize;
    loop {
        let Some(Head { kind, body, size }) = head(data, pos) else {
            return no;
        };
        let Some(size) = size else { return no };
        // OBU_FRAME_HEADER, OBU_FRAME: show_existing_frame(1), frame_type(2); 0 is KEY_FRAME.
        if kind == 3 || kind == 6 {
            let Some(&b) = data.get(body) else { return no };
            let key = b & 0x80 == 0 && b & 0x60 == 0;
            return Some(Picture::plain(if key { Key::Closed } else { Key::No }));
        }
        let Some(next) = size.and_then(|s| body.checked_add(s)) else {
            return Some(Picture::plain(Key::No));
        };
        pos = next;
    }
}

fn leb128(data: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0u64;
    // leb128 has at most eight bytes (AV1 4.10.5).
    for (i, &b) in data.iter().take(8).enumerate() {
        value |= u64::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            return usize::try_from(value).ok().map(|v| (v, i + 1));
        }
    }
    None
}
