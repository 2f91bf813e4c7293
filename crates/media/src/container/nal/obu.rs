//! Key frames of VP9 and AV1, by their first header.
//!
//! PURE. Sources: the VP9 bitstream specification (6.2), the AV1 bitstream specification (5.3, 5.9).

use super::{Key, Picture};

/// VP9 `uncompressed_header`: frame_marker(2), profile_low, profile_high, [reserved], show_existing_frame, frame_type.
pub(super) fn vp9_key(b: u8) -> bool {
    if b >> 6 != 2 {
        return false;
    }
    // Profile 3 has a reserved bit behind it.
    let shift = if b & 0x30 == 0x30 { 1 } else { 0 };
    let show_existing = b << (4 + shift) & 0x80 != 0;
    let inter = b << (5 + shift) & 0x80 != 0;
    !show_existing && !inter
}

/// Walks the OBUs of a temporal unit up to its first frame header (AV1 5.3, 5.9.2).
pub(super) fn classify_av1(data: &[u8], complete: bool) -> Option<Picture> {
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
    // leb128 has at most eight bytes (AV1 4.10.5).
    for (i, &b) in data.iter().take(8).enumerate() {
        value |= u64::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            return usize::try_from(value).ok().map(|v| (v, i + 1));
        }
    }
    None
}
