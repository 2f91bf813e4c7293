//! The format of a chunk file: records with a marker, a length and a CRC32C.
//!
//! PURE. A file is [`MAGIC`], then records that are only ever appended; the table is in `docs/spool.md`. All numbers are
//! little-endian. The CRC of a record begins with a [`Salt`] made of the file's session and sequence number, so that a stale
//! block of another chunk, or a record that lies inside a payload, is never mistaken for a record of this file.

/// The first bytes of a file; the last of them is the version of the format.
pub const MAGIC: [u8; 8] = *b"GCSPOOL\x01";
/// Bytes of a record in front of its payload.
pub const RECORD_HEADER: usize = 12;
/// Bytes of a Data record's payload in front of the object's bytes.
pub const DATA_FIELDS: usize = 12;
/// Maximum number of object bytes in one Data record.
pub const MAX_DATA: usize = 1 << 20;
/// Maximum payload of a record in bytes.
pub const MAX_PAYLOAD: usize = MAX_DATA + DATA_FIELDS;
/// Length of a mark: every record except Head, Data and End is one. All have the same length, because they are read backwards
/// from the end of the file.
pub const MARK_LEN: usize = RECORD_HEADER + 8;

/// The first bytes of every record. Not valid UTF-8, so they cannot occur in the JSON of an entry, and not an MPEG start code.
const MARKER: [u8; 3] = [0xD5, 0x9E, 0xC7];
/// Bytes of an offset in a Data record: 48 bits.
const OFFSET_BYTES: usize = 6;

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The entry as known when the chunk began.
    Head,
    /// Bytes of the object.
    Data,
    /// The entry with its final values, with size and CRC32C of the object.
    End,
    /// States that everything before this record is durable, and the offset of the End. Written after the End was synced.
    Footer,
    /// The server has the object.
    Confirmed,
    /// A request is about to send a chunk that is not closed, from the file and from memory. Written before the first request.
    Attempted,
    /// The object was sent whole under a name.
    Sent,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Head => 1,
            Self::Data => 2,
            Self::End => 3,
            Self::Footer => 4,
            Self::Confirmed => 5,
            Self::Attempted => 6,
            Self::Sent => 7,
        }
    }

    const fn of(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Head,
            2 => Self::Data,
            3 => Self::End,
            4 => Self::Footer,
            5 => Self::Confirmed,
            6 => Self::Attempted,
            7 => Self::Sent,
            _ => return None,
        })
    }
}

/// The initial value of all CRCs of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt(u32);

impl Salt {
    /// Returns the salt of a chunk's file.
    pub fn of(session: &str, sequence: u64) -> Self {
        Self(crc32c::crc32c(format!("{session}/{sequence:020}").as_bytes()))
    }
}

/// A parsed record header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Kind of the record.
    pub kind: Kind,
    /// Length of its payload in bytes.
    pub len: usize,
    crc: u32,
}

impl Header {
    /// Parses a header; `None` if the bytes are not one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (marker, rest) = bytes.split_first_chunk::<3>()?;
        let (code, rest) = rest.split_first()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let crc = rest.first_chunk::<4>()?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        // A damaged length must not make a reader allocate gigabytes.
        if *marker != MARKER || len > MAX_PAYLOAD {
            return None;
        }
        Some(Self {
            kind: Kind::of(*code)?,
            len,
            crc: u32::from_le_bytes(*crc),
        })
    }

    /// Returns whether `payload` is what was written, in the file that `salt` belongs to.
    pub fn verifies(&self, salt: Salt, payload: &[u8]) -> bool {
        payload.len() == self.len && checksum(self.kind, self.len, salt, &[payload]) == Some(self.crc)
    }

    /// Returns the length of the whole record in bytes.
    pub fn record_len(&self) -> usize {
        RECORD_HEADER + self.len
    }
}

/// Returns the header of a record whose payload is the concatenation of `parts`; `None` if that is longer than [`MAX_PAYLOAD`].
pub fn header(kind: Kind, salt: Salt, parts: &[&[u8]]) -> Option<[u8; RECORD_HEADER]> {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    if len > MAX_PAYLOAD {
        return None;
    }
    let mut out = [0; RECORD_HEADER];
    let crc = checksum(kind, len, salt, parts)?.to_le_bytes();
    let len = u32::try_from(len).ok()?.to_le_bytes();
    let bytes = MARKER.into_iter().chain([kind.code()]).chain(len).chain(crc);
    out.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    Some(out)
}

/// Returns a whole record; `None` if the payload is longer than [`MAX_PAYLOAD`].
pub fn record(kind: Kind, salt: Salt, payload: &[u8]) -> Option<Vec<u8>> {
    let mut out = header(kind, salt, &[payload])?.to_vec();
    out.extend_from_slice(payload);
    Some(out)
}

fn checksum(kind: Kind, len: usize, salt: Salt, parts: &[&[u8]]) -> Option<u32> {
    let len = u32::try_from(len).ok()?.to_le_bytes();
    // Kind and length are included: a flipped bit there would turn an intact payload into another record.
    let crc = crc32c::crc32c_append(salt.0, &[kind.code(), len[0], len[1], len[2], len[3]]);
    Some(parts.iter().fold(crc, |crc, part| crc32c::crc32c_append(crc, part)))
}

/// The fields of a Data record in front of the object's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataFields {
    /// Offset of the first byte in the object.
    pub at: u64,
    /// Number of bytes of the file that were known to be durable when the record was written.
    pub synced: u64,
}

impl DataFields {
    /// Returns the bytes of the fields; `None` if an offset has more than 48 bits.
    pub fn encode(self) -> Option<[u8; DATA_FIELDS]> {
        if (self.at | self.synced) >> (8 * OFFSET_BYTES) != 0 {
            return None;
        }
        let mut out = [0; DATA_FIELDS];
        let at = self.at.to_le_bytes().into_iter().take(OFFSET_BYTES);
        let synced = self.synced.to_le_bytes().into_iter().take(OFFSET_BYTES);
        out.iter_mut().zip(at.chain(synced)).for_each(|(to, from)| *to = from);
        Some(out)
    }

    /// Parses the payload of a Data record.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (at, rest) = payload.split_first_chunk::<OFFSET_BYTES>()?;
        let synced = rest.first_chunk::<OFFSET_BYTES>()?;
        let number = |bytes: &[u8; OFFSET_BYTES]| bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        Some(Self {
            at: number(at),
            synced: number(synced),
        })
    }
}

/// Returns the payload of a Sent record, see [`name_mark`](super::entry::name_mark).
pub fn sent_payload(mark: u32) -> [u8; 8] {
    u64::from(mark).to_le_bytes()
}

/// Parses the payload of a Sent record and returns its mark.
pub fn parse_sent(payload: &[u8]) -> Option<u32> {
    u32::try_from(parse_mark(payload)?).ok()
}

/// Parses the payload of a Footer and returns the offset of the End record, or of a Confirmed or Attempted record and returns its
/// own offset.
pub fn parse_mark(payload: &[u8]) -> Option<u64> {
    payload.try_into().ok().map(u64::from_le_bytes)
}

/// Returns the index in `bytes` at which the next record may begin.
pub fn find_marker(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let rest = bytes.get(from..)?;
        let at = from + rest.iter().position(|b| *b == MARKER[0])?;
        if bytes.get(at..)?.starts_with(&MARKER) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Checks the first bytes of a file. Returns false if the magic is torn by a crash.
///
/// # Errors
/// Another magic or another version; the text is the reason.
pub fn check_magic(first: &[u8]) -> Result<bool, String> {
    let first = first.get(..MAGIC.len()).unwrap_or(first);
    if first == MAGIC {
        return Ok(true);
    }
    // A crash leaves a beginning of the magic, followed by zeros.
    let written = first.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    if MAGIC.starts_with(first.get(..written).unwrap_or_default()) {
        return Ok(false);
    }
    match (first.split_last(), MAGIC.split_last()) {
        (Some((version, name)), Some((ours, our_name))) if name == our_name => Err(format!(
            "it has version {version} of the spool's format, this build reads {ours}"
        )),
        _ => Err("it does not begin with the spool's magic".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_data_record_costs_24_bytes() {
        assert_eq!(RECORD_HEADER + DATA_FIELDS, 24);
    }

    #[test]
    fn a_record_of_another_chunk_does_not_verify() {
        let salt = Salt::of("0a1b2c3d4e", 7);
        let bytes = record(Kind::End, salt, b"{}").unwrap();
        let header = Header::parse(&bytes).unwrap();
        assert!(header.verifies(salt, b"{}"));
        assert!(!header.verifies(Salt::of("0a1b2c3d4e", 8), b"{}"));
        assert!(!header.verifies(Salt::of("0a1b2c3d4f", 7), b"{}"));
    }

    #[test]
    fn a_torn_magic_is_told_from_a_foreign_one_and_another_version() {
        assert_eq!(check_magic(b"GCSPOOL\x01rest"), Ok(true));
        for torn in [&b""[..], b"GCS", b"GCS\0\0\0\0\0", &[0; 8], b"GCSPOOL\0"] {
            assert_eq!(check_magic(torn), Ok(false), "{torn:?}");
        }
        assert!(check_magic(b"GCSPOOL\x02").unwrap_err().contains("version 2"));
        assert!(check_magic(b"#!/bin/sh").is_err());
        assert!(check_magic(b"\0\0\0\0POOL").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(at in 0u64..1 << 48, synced in 0u64..1 << 48, body in prop::collection::vec(any::<u8>(), 0..300)) {
            let salt = Salt::of("s", at);
            let fields = DataFields { at, synced };
            let head = fields.encode().unwrap();
            let mut bytes = header(Kind::Data, salt, &[&head, &body]).unwrap().to_vec();
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(&body);
            let parsed = Header::parse(&bytes).unwrap();
            prop_assert_eq!(parsed.record_len(), bytes.len());
            prop_assert!(parsed.verifies(salt, &bytes[RECORD_HEADER..]));
            prop_assert_eq!(DataFields::parse(&bytes[RECORD_HEADER..]), Some(fields));
            prop_assert_eq!(find_marker(&bytes), Some(0));
        }

        #[test]
        fn a_flipped_bit_never_verifies(body in prop::collection::vec(any::<u8>(), 0..200), bit in any::<prop::sample::Index>()) {
            let salt = Salt::of("s", 1);
            let mut bytes = record(Kind::Data, salt, &body).unwrap();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let sound = Header::parse(&bytes).is_some_and(|h| h.verifies(salt, &bytes[RECORD_HEADER..]));
            prop_assert!(!sound);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Header::parse(&bytes);
            let _ = DataFields::parse(&bytes);
            let _ = check_magic(&bytes);
            let _ = find_marker(&bytes);
        }
    }
}
