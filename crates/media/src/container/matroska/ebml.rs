//! Reads EBML (RFC 8794): element headers, children of a master element, values. Overwrites elements with Void.
//!
//! PURE.

/// `EBML`, the head of a document (RFC 8794 11.2.1).
pub(super) const EBML: u32 = 0x1A45_DFA3;
/// `DocType` (RFC 8794 11.2.6).
pub(super) const DOC_TYPE: u32 = 0x4282;
/// `Void` (RFC 8794 11.3.2).
pub(super) const VOID: u32 = 0xEC;
/// `CRC-32` (RFC 8794 11.3.1).
pub(super) const CRC_32: u32 = 0xBF;

/// Outcome of reading a number or an element header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read<T> {
    /// At least this many bytes are needed.
    Need(usize),
    /// The bytes are not valid.
    Bad,
    /// The value read.
    Got(T),
}

/// Element ID and Element Data Size (RFC 8794 5, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Element ID with its length marker.
    pub(super) id: u32,
    /// Number of octets of data; `None` means an unknown size.
    pub(super) size: Option<u64>,
    /// Number of octets of the ID.
    pub(super) id_len: usize,
    /// Number of octets of ID and size together.
    pub(super) len: usize,
}

/// Reads an element header.
pub(super) fn header(data: &[u8]) -> Read<Header> {
    let Some(&first) = data.first() else { return Read::Need(2) };
    let id_len = vint_len(first);
    // EBMLMaxIDLength is 4 in Matroska (RFC 8794 11.2.4).
    if id_len > 4 {
        return Read::Bad;
    }
    let Some(&second) = data.get(id_len) else {
        return Read::Need(id_len + 1);
    };
    let size_len = vint_len(second);
    // EBMLMaxSizeLength is at most 8 (11.2.5).
    if size_len > 8 {
        return Read::Bad;
    }
    let len = id_len + size_len;
    let (Some(id), Some(size)) = (data.get(..id_len), data.get(id_len..len)) else {
        return Read::Need(len);
    };
    let id = id.iter().fold(0u32, |n, &b| n << 8 | u32::from(b));
    if !is_legal_id(id, id_len) {
        return Read::Bad;
    }
    let (value, unknown) = vint_value(size);
    Read::Got(Header {
        id,
        size: (!unknown).then_some(value),
        id_len,
        len,
    })
}

/// Reads a variable size integer (RFC 8794 4). Returns it and its number of octets. Returns [`Read::Bad`] if all value bits are
/// ones, which is reserved.
pub(super) fn vint(data: &[u8]) -> Read<(u64, usize)> {
    let Some(&first) = data.first() else { return Read::Need(1) };
    let len = vint_len(first);
    if len > 8 {
        return Read::Bad;
    }
    let Some(octets) = data.get(..len) else {
        return Read::Need(len);
    };
    match vint_value(octets) {
        (_, true) => Read::Bad,
        (value, false) => Read::Got((value, len)),
    }
}

/// Returns the number of octets of the integer that begins with `first`; 9 means that it is invalid.
fn vint_len(first: u8) -> usize {
    (first.leading_zeros() + 1) as usize
}

/// Returns the value of a complete integer, and whether all its value bits are set.
fn vint_value(octets: &[u8]) -> (u64, bool) {
    let bits = 7 * octets.len().min(8);
    let mask = (1u64 << bits) - 1;
    let value = octets.iter().fold(0u64, |n, &b| n << 8 | u64::from(b)) & mask;
    (value, value == mask)
}

/// Returns whether an ID is legal: not all zeros, not all ones, in its shortest form (RFC 8794 5).
fn is_legal_id(id: u32, len: usize) -> bool {
    let bits = 7 * len.min(4);
    let ones = |bits: usize| (1u32 << bits) - 1;
    let value = id & ones(bits);
    let least = if len > 1 { ones(bits - 7) } else { 1 };
    value >= least && value != ones(bits)
}

/// A complete child of a master element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Child<'a> {
    /// Element ID.
    pub(super) id: u32,
    /// Offset of its ID in the data of the parent.
    pub(super) at: usize,
    /// Number of octets of ID, size and data together.
    pub(super) total: usize,
    /// Its data.
    pub(super) body: &'a [u8],
}

/// Iterates over the children in the data of a master element. Ends with `Err` at the first invalid or incomplete child.
pub(super) fn children(data: &[u8]) -> impl Iterator<Item = Result<Child<'_>, Malformed>> {
    let mut at = 0usize;
    std::iter::from_fn(move || {
        let rest = data.get(at..).filter(|rest| !rest.is_empty())?;
        let child = child(rest, at);
        // After an error the start of the next child is unknown.
        at = child.as_ref().map_or(data.len(), |c| at + c.total);
        Some(child)
    })
}

/// The data of a master element is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

fn child(rest: &[u8], at: usize) -> Result<Child<'_>, Malformed> {
    let Read::Got(Header {
        id,
        size: Some(size),
        len,
        ..
    }) = header(rest)
    else {
        return Err(Malformed);
    };
    let total = usize::try_from(size)
        .ok()
        .and_then(|size| len.checked_add(size))
        .ok_or(Malformed)?;
    let body = rest.get(len..total).ok_or(Malformed)?;
    Ok(Child { id, at, total, body })
}

/// Reads an Unsigned Integer Element (RFC 8794 7.2). Returns `None` if it has more than eight octets.
pub(super) fn uint(body: &[u8]) -> Option<u64> {
    (body.len() <= 8).then(|| body.iter().fold(0u64, |n, &b| n << 8 | u64::from(b)))
}

/// Returns the value of a String Element without its terminating zeros (RFC 8794 7.4).
pub(super) fn string(body: &[u8]) -> &[u8] {
    body.split(|&b| b == 0).next().unwrap_or_default()
}

/// Overwrites an element of at least two octets with a Void element of the same length.
pub(super) fn make_void(element: &mut [u8]) {
    element.fill(0);
    let Some((id, rest)) = element.split_first_mut() else { return };
    *id = 0xEC;
    // The fewest octets that can encode the remaining length; all ones would mean an unknown size (RFC 8794 6.2).
    for octets in 1..=8usize.min(rest.len()) {
        let size = (rest.len() - octets) as u64;
        if size < (1u64 << (7 * octets)) - 1 {
            let coded = (size | 1 << (7 * octets)).to_be_bytes();
            let from = coded.len() - octets;
            for (to, from) in rest.iter_mut().zip(coded.iter().skip(from)) {
                *to = *from;
            }
            return;
        }
    }
}

/// Overwrites the size in an element header with "unknown", in the same number of octets (RFC 8794 6.2).
pub(super) fn make_size_unknown(size: &mut [u8]) {
    let octets = size.len();
    size.fill(0xff);
    if let Some(first) = size.first_mut() {
        // The length marker stays; only the bits behind it become ones.
        *first = 0xffu8
            .checked_shr(u32::try_from(octets).map_or(0, |n| n.saturating_sub(1)))
            .unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_once_all_of_it_is_there() {
        let cluster = [0x1F, 0x43, 0xB6, 0x75, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
        for cut in 0..cluster.len() {
            assert!(matches!(header(&cluster[..cut]), Read::Need(n) if n > cut), "cut at {cut}");
        }
        assert_eq!(
            header(&cluster),
            Read::Got(Header {
                id: 0x1F43_B675,
                size: None,
                id_len: 4,
                len: 12
            })
        );
        assert_eq!(
            header(&[0xA3, 0x40, 0x7f]),
            Read::Got(Header {
                id: 0xA3,
                size: Some(127),
                id_len: 1,
                len: 3
            })
        );
    }

    #[test]
    fn ids_that_rfc_8794_forbids_are_no_elements() {
        for data in [
            [0x80, 0x81, 0],
            [0xff, 0x81, 0],
            [0x40, 0x20, 0x81],
            [0x7f, 0xff, 0x81],
            [0x0f, 1, 1],
            [0xA3, 0, 1],
        ] {
            assert_eq!(header(&data), Read::Bad, "{data:x?}");
        }
    }

    #[test]
    fn a_void_has_the_length_of_what_it_replaces() {
        for len in (2..300).chain([16_383, 16_384, 16_385, 16_386, 16_387, 70_000]) {
            let mut element = vec![7u8; len];
            make_void(&mut element);
            let all: Vec<_> = children(&element).map(|c| c.map(|c| (c.id, c.total))).collect();
            assert_eq!(all, [Ok((VOID, len))], "length {len}");
        }
    }

    #[test]
    fn an_unknown_size_keeps_its_octets() {
        for octets in 1..=8 {
            let mut element = vec![0xEC; octets + 1];
            make_size_unknown(&mut element[1..]);
            assert_eq!(
                header(&element),
                Read::Got(Header {
                    id: VOID,
                    size: None,
                    id_len: 1,
                    len: octets + 1
                })
            );
        }
    }
}
