//! Finds where NAL units begin and end: start codes and lengths.
//!
//! PURE. Sources: ITU-T H.264 and H.265, annex B; ISO/IEC 14496-15.

use super::{VideoCodec, work};

/// How NAL units are delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Start codes 00 00 01 (MPEG-TS).
    AnnexB,
    /// A big-endian length of this size in bytes (1, 2 or 4) before each unit (FLV, MP4, Matroska).
    Length(usize),
}

/// Returns how the NAL units of `data` are really delimited. According to the container they have lengths of `size` bytes, but
/// some writers use start codes nevertheless. Returns `None` if more bytes are needed.
pub(in crate::container) fn real_framing(codec: VideoCodec, size: usize, data: &[u8], complete: bool) -> Option<Framing> {
    let length = Some(Framing::Length(size));
    let Some(first) = data.first_chunk::<4>() else {
        return if complete { length } else { None };
    };
    let header = match first {
        [0, 0, 0, 1] => 4,
        [0, 0, 1, _] => 3,
        _ => return length,
    };
    let Some(&code) = data.get(header) else {
        return if complete { length } else { None };
    };
    // No NAL unit can begin with this byte, so the bytes before it are a length that looks like a start code.
    if !is_plausible(codec, code) {
        return length;
    }
    if size < header {
        // As a length it would be 0, but no NAL unit is empty.
        return Some(Framing::AnnexB);
    }
    if size == header {
        // As a length it would be 1, which only an end of sequence or end of stream has.
        return if ends_sequence(codec, code) {
            length
        } else {
            Some(Framing::AnnexB)
        };
    }
    // Either a length of 256 to 511 or a start code: the bytes behind a unit of this length decide.
    let after = 4 + usize::from(u16::from_be_bytes([first[2], first[3]]));
    match (data.get(4), data.get(after..after + 5)) {
        (Some(&first), _) if !is_plausible(codec, first) => Some(Framing::AnnexB),
        (_, Some(&[0, 0, 0, 0 | 1, _])) => Some(Framing::AnnexB),
        (_, Some(&[high, .., next])) if high == 0 && is_plausible(codec, next) => length,
        (_, Some(_)) => Some(Framing::AnnexB),
        (_, None) if !complete => None,
        (_, None) if data.len() == after => length,
        (_, None) => Some(Framing::AnnexB),
    }
}

/// Returns whether a NAL unit can begin with this byte: forbidden_zero_bit is 0, and the type is in use.
fn is_plausible(codec: VideoCodec, header: u8) -> bool {
    header & 0x80 == 0
        && match codec {
            VideoCodec::H264 => matches!(header & 0x1f, 1..=21),
            _ => header & 1 == 0 && matches!(header >> 1, 0..=9 | 16..=21 | 32..=40),
        }
}

fn ends_sequence(codec: VideoCodec, header: u8) -> bool {
    codec == VideoCodec::H264 && matches!(header & 0x1f, 10 | 11)
}

/// The range of one NAL unit, without start code or length; `ended` is false if its end is not in the data.
pub(in crate::container) struct Nal {
    pub(in crate::container) start: usize,
    pub(in crate::container) end: usize,
    pub(in crate::container) ended: bool,
}

impl Nal {
    /// Returns whether its length is 0. Always false behind a start code: the zeros there may belong to the next start code.
    pub(in crate::container) fn is_empty(&self, framing: Framing) -> bool {
        self.ended && self.start == self.end && matches!(framing, Framing::Length(_))
    }
}

pub(in crate::container) struct Nals<'a> {
    pub(in crate::container) framing: Framing,
    pub(in crate::container) data: &'a [u8],
    pub(in crate::container) pos: usize,
}

impl Nals<'_> {
    pub(in crate::container) fn next_nal(&mut self) -> Option<Nal> {
        match self.framing {
            Framing::AnnexB => {
                let start = find_start_code(self.data, self.pos)? + 3;
                let (end, ended) = match find_start_code(self.data, start) {
                    Some(end) => (end, true),
                    None => (self.data.len(), false),
                };
                work::count(end - self.pos);
                self.pos = end;
                let mut trimmed = end;
                // The zero_byte of a four-byte start code and trailing_zero_8bits do not belong to the unit.
                while ended && trimmed > start && self.data.get(trimmed - 1) == Some(&0) {
                    trimmed -= 1;
                }
                Some(Nal {
                    start,
                    end: trimmed,
                    ended,
                })
            }
            Framing::Length(size) => {
                let prefix = self.data.get(self.pos..self.pos.checked_add(size)?)?;
                let len = prefix.iter().fold(0usize, |n, &b| n << 8 | usize::from(b));
                work::count(size);
                let start = self.pos + size;
                let end = start.checked_add(len)?;
                self.pos = end;
                let ended = end <= self.data.len();
                Some(Nal {
                    start,
                    end: end.min(self.data.len()),
                    ended,
                })
            }
        }
    }
}

/// Returns the offset of the next 00 00 01 at or after `from`.
pub fn find_start_code(data: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let &[first, second, third] = data.get(at..at + 3)? else {
            return None;
        };
        match third {
            1 if first == 0 && second == 0 => return Some(at),
            0 => at += 1,
            // No start code contains this byte, so none begins at the two bytes before it either.
            _ => at += 3,
        }
    }
}
