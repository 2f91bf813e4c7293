//! Boxes: size, four characters, content (ISO/IEC 14496-12, 4.2).
//!
//! PURE. Reads headers and fields out of byte slices; knows which boxes exist at the top level and how big they may be.

use std::ops::Range;

use crate::container::MAX_GATHER;

/// The four characters that name a box.
pub(super) type FourCc = [u8; 4];

/// The header of a box at the top level of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Its name.
    pub(super) kind: FourCc,
    /// Bytes of the header itself: 8, or 16 with a `largesize`.
    pub(super) len: usize,
    /// Bytes of the box, header included; `None` if it extends to the end of the input (`size` 0).
    pub(super) size: Option<u64>,
}

/// Outcome of reading the first bytes of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// More bytes are needed: this many from the start of the box.
    More(usize),
    /// No box begins here.
    Bad,
    /// The header.
    Header(Header),
}

/// Reads the header of a top level box.
pub(super) fn header(data: &[u8]) -> Parsed {
    let mut fields = Fields(data);
    let (Some(size), Some(kind)) = (fields.u32(), fields.four_cc()) else {
        return Parsed::More(8);
    };
    // Names consist of printable characters; damaged bytes rarely do.
    if !kind.iter().all(|b| (0x20..0x7f).contains(b)) {
        return Parsed::Bad;
    }
    let (len, size) = match size {
        0 => (8, None),
        1 => match fields.u64() {
            Some(large) => (16, Some(large)),
            None => return Parsed::More(16),
        },
        n => (8, Some(u64::from(n))),
    };
    let header = Header { kind, len, size };
    if is_possible(&header) {
        Parsed::Header(header)
    } else {
        Parsed::Bad
    }
}

/// Returns whether a box of this kind can have this size. Only `mdat` may extend to the end of the input. Any other box over
/// 4 MiB counts as damage, since trusting its size would skip intact fragments. Exceptions: `moov`, whose size the caller
/// judges, and `free`, `skip` and `mfra`, which can be that large.
fn is_possible(header: &Header) -> bool {
    let Some(size) = header.size else {
        return &header.kind == b"mdat";
    };
    let limit = match &header.kind {
        b"mdat" => i64::MAX.unsigned_abs(),
        b"free" | b"skip" | b"mfra" | b"moov" => u64::from(u32::MAX),
        _ => MAX_GATHER as u64,
    };
    usize::try_from(size).map_or(true, |size| size >= header.len) && size <= limit
}

/// A box size up to this is trusted without confirmation: 64 KiB.
pub(super) const SURE: u64 = 64 << 10;

/// Bytes of the header of a box, without a `largesize`.
pub(super) const HEADER: usize = 8;

/// Most boxes that [`lead`] follows to a fragment.
const MAX_LEAD: usize = 16;

/// Outcome of [`lead`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// More bytes are needed: this many from the start of the first box.
    More(usize),
    /// The boxes lead to a fragment or a head.
    Fragment,
    /// The boxes lead to no fragment, or exactly to the claimed end.
    Elsewhere,
}

/// Follows small boxes (`sidx`, `prft`, `emsg`, `free` …) from the start of `data` to a fragment or a head. `claimed` is the
/// end that the box around `data` claims: boxes that end exactly there are its content.
pub(super) fn lead(data: &[u8], claimed: Option<usize>) -> Lead {
    let mut at = 0;
    for _ in 0..MAX_LEAD {
        if claimed == Some(at) {
            return Lead::Elsewhere;
        }
        let rest = data.get(at..).unwrap_or_default();
        let size = match header(rest) {
            _ if rest.len() < HEADER => return Lead::More(at + HEADER),
            Parsed::Header(Header { kind, size, .. }) if &kind != b"mdat" => size,
            _ => return Lead::Elsewhere,
        };
        if rest.len() < LANDMARK {
            return Lead::More(at + LANDMARK);
        }
        if is_landmark(rest) {
            return Lead::Fragment;
        }
        match size.and_then(|size| usize::try_from(size).ok()) {
            Some(size) if size as u64 <= SURE => at += size,
            _ => return Lead::Elsewhere,
        }
        // Stop following what may be a chance match in media data.
        if at as u64 > SURE {
            return Lead::Elsewhere;
        }
    }
    Lead::Elsewhere
}

/// Bytes that [`is_landmark`] looks at.
pub(super) const LANDMARK: usize = 16;

/// Returns whether `data` is the start of a `moof` beyond doubt.
pub(super) fn is_fragment(data: &[u8]) -> bool {
    data.get(4..8) == Some(b"moof") && is_landmark(data)
}

/// Returns whether `data` is, beyond doubt, the start of a box that opens a fragment or a head. Reading continues there after
/// damage.
pub(super) fn is_landmark(data: &[u8]) -> bool {
    let mut fields = Fields(data);
    let (Some(size), Some(kind), Some(inner), Some(name)) = (fields.u32(), fields.four_cc(), fields.u32(), fields.four_cc())
    else {
        return false;
    };
    match &kind {
        // An `mfhd` comes first and has 16 bytes; an `mvhd` has 108, or 120 in version 1.
        b"moof" => (24..=MAX_GATHER as u64).contains(&u64::from(size)) && inner == 16 && &name == b"mfhd",
        b"moov" => (24..=MAX_GATHER as u64).contains(&u64::from(size)) && inner >= 100 && &name == b"mvhd",
        // Brands have four bytes each, of letters, digits and spaces.
        b"ftyp" | b"styp" => {
            let brand = inner.to_be_bytes();
            (16..=1024).contains(&size) && size % 4 == 0 && brand.iter().all(|&b| b == b' ' || b.is_ascii_alphanumeric())
        }
        _ => false,
    }
}

/// The bytes break the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Returns the name and content of each box in the content of a box. Ends after the first error.
pub(super) fn children(data: &[u8]) -> Children<'_> {
    Children(data)
}

/// See [`children`].
pub(super) struct Children<'a>(&'a [u8]);

impl<'a> Iterator for Children<'a> {
    type Item = Result<(FourCc, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let child = self.split();
        // After an error it is unknown where the next box begins.
        if child.is_err() {
            self.0 = &[];
        }
        Some(child)
    }
}

impl<'a> Children<'a> {
    fn split(&mut self) -> Result<(FourCc, &'a [u8]), Malformed> {
        let mut fields = Fields(self.0);
        let size = fields.u32().ok_or(Malformed)?;
        let kind = fields.four_cc().ok_or(Malformed)?;
        let size = match size {
            0 => self.0.len(),
            1 => fields.u64().and_then(|n| usize::try_from(n).ok()).ok_or(Malformed)?,
            n => usize::try_from(n).map_err(|_| Malformed)?,
        };
        let used = self.0.len() - fields.0.len();
        let body = self.0.get(used..size).ok_or(Malformed)?;
        self.0 = self.0.get(size..).ok_or(Malformed)?;
        Ok((kind, body))
    }
}

/// Returns the content of the first box of that kind in `data`.
pub(super) fn find<'a>(data: &'a [u8], kind: &FourCc) -> Option<&'a [u8]> {
    children(data)
        .map_while(Result::ok)
        .find(|(k, _)| k == kind)
        .map(|(_, body)| body)
}

/// Returns the range of the first box of that kind in `data`, header included.
pub(super) fn find_box(data: &[u8], kind: &FourCc) -> Option<Range<usize>> {
    let mut rest = Children(data);
    loop {
        let start = data.len() - rest.0.len();
        let (k, _) = rest.next()?.ok()?;
        if k == *kind {
            return Some(start..data.len() - rest.0.len());
        }
    }
}

/// Reads big-endian fields one after the other; `None` at the end of the data.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn four_cc(&mut self) -> Option<FourCc> {
        self.array()
    }

    pub(super) fn skip(&mut self, n: usize) -> Option<&'a [u8]> {
        let (skipped, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(skipped)
    }

    /// Reads version and flags of a `FullBox`.
    pub(super) fn full_box(&mut self) -> Option<(u8, u32)> {
        let word = self.u32()?;
        let [version, ..] = word.to_be_bytes();
        Some((version, word & 0x00ff_ffff))
    }

    /// Reads a field of 64 bits in version 1 of its box, of 32 bits otherwise.
    pub(super) fn word(&mut self, version: u8) -> Option<u64> {
        if version == 1 { self.u64() } else { self.u32().map(u64::from) }
    }
}
