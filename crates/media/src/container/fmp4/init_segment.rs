//! The init segment (`ftyp`, `moov` and everything up to the first fragment), and the builder that gathers it.
//!
//! PURE.

use bytes::Bytes;

use crate::container::Init;

use super::boxes::find_box;
use super::moov::{MoovError, Movie};

/// The head in force.
#[derive(Debug)]
pub(super) struct InitSegment {
    pub(super) init: Init,
    pub(super) movie: Movie,
    /// The `moov` inside the init.
    moov: Bytes,
}

impl InitSegment {
    /// Returns the `ftyp` inside the init, for a `moov` that comes without one. Empty if it has none.
    fn ftyp(&self) -> Bytes {
        match find_box(&self.init.head, b"ftyp") {
            Some(range) => self.init.head.slice(range),
            None => Bytes::new(),
        }
    }
}

/// A head while it is gathered.
#[derive(Debug)]
pub(super) struct InitBuilder {
    /// Where it begins in the input.
    pub(super) at: u64,
    /// Its bytes so far.
    bytes: Vec<u8>,
    /// The `ftyp` to put before a `moov` that comes without one.
    ftyp: Bytes,
    /// Where the `moov` begins in `bytes`.
    moov_start: usize,
    /// The content of the `moov`, and where it ends in `bytes`.
    found: Option<(Movie, usize)>,
}

/// Result of comparing and reading a complete `moov`.
pub(super) enum MoovOutcome {
    /// It equals the one in force.
    Same,
    /// It is the first, or differs from the one in force. A chunk that begins with it needs this header.
    New(Init),
    /// It cannot be used.
    Rejected(MoovError),
}

impl InitBuilder {
    /// Returns a builder that begins at an `ftyp`, or at the start of the input.
    pub(super) fn at(at: u64) -> Self {
        Self {
            at,
            bytes: Vec::new(),
            ftyp: Bytes::new(),
            moov_start: 0,
            found: None,
        }
    }

    /// Returns a builder that begins at a `moov` without an `ftyp`, and takes the `ftyp` of the head in force.
    pub(super) fn at_moov(at: u64, in_force: Option<&InitSegment>) -> Self {
        Self {
            ftyp: in_force.map_or_else(Bytes::new, InitSegment::ftyp),
            ..Self::at(at)
        }
    }

    /// Returns whether its `moov` has come.
    pub(super) fn is_found(&self) -> bool {
        self.found.is_some()
    }

    /// Returns the number of bytes gathered.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes bytes of the head.
    pub(super) fn extend(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
    }

    /// Returns the bytes before `end`, an offset in the input.
    pub(super) fn into_bytes(mut self, end: u64) -> Vec<u8> {
        let len = usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        self.bytes.truncate(len);
        self.bytes
    }

    /// Notes that the `moov` begins with the next byte.
    pub(super) fn open_moov(&mut self) {
        self.moov_start = self.bytes.len();
    }

    /// Compares and reads the `moov`, which is complete.
    pub(super) fn close_moov(&mut self, header_len: usize, in_force: Option<&InitSegment>) -> MoovOutcome {
        let moov = self.bytes.get(self.moov_start..).unwrap_or_default();
        if in_force.is_some_and(|config| is_same(&config.moov, moov)) {
            return MoovOutcome::Same;
        }
        match Movie::parse(moov.get(header_len..).unwrap_or_default()) {
            Ok(movie) => {
                // The payload begins with this head, so it needs no header except an `ftyp` that it lacks.
                let init = Init {
                    head: self.ftyp.clone(),
                    tail: Bytes::new(),
                    info: movie.info.clone(),
                };
                self.found = Some((movie, self.bytes.len()));
                MoovOutcome::New(init)
            }
            Err(rejected) => MoovOutcome::Rejected(rejected),
        }
    }

    /// Returns the head, which ends before `end`, an offset in the input; `None` if it has no `moov`.
    pub(super) fn finish(mut self, end: u64) -> Option<InitSegment> {
        let (movie, moov_end) = self.found?;
        let len = usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        self.bytes.truncate(len);
        let before = self.ftyp.len();
        let head = if before == 0 {
            Bytes::from(self.bytes)
        } else {
            Bytes::from([&self.ftyp[..], &self.bytes].concat())
        };
        let end = (before + moov_end).min(head.len());
        let moov = head.slice((before + self.moov_start).min(end)..end);
        Some(InitSegment {
            init: Init {
                head,
                tail: Bytes::new(),
                info: movie.info.clone(),
            },
            movie,
            moov,
        })
    }
}

/// Depth of the deepest box with a time or length: `moov`, `trak`, `edts`, `elst`.
const DEEPEST: u8 = 4;

/// Returns whether two `moov` are equal apart from creation and modification times and durations. Some muxers send their head
/// again at the end, with the duration filled in.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let without = |moov: &[u8]| {
        let mut moov = moov.to_vec();
        clear_times(&mut moov, DEEPEST);
        moov
    };
    // In most cases they are equal byte for byte: only others are copied.
    a == b || a.len() == b.len() && without(a) == without(b)
}

/// Sets creation and modification times and durations in boxes to 0.
fn clear_times(mut boxes: &mut [u8], depth: u8) {
    while let Some((&head, _)) = boxes.split_first_chunk::<8>() {
        let [s0, s1, s2, s3, kind @ ..] = head;
        let size = usize::try_from(u32::from_be_bytes([s0, s1, s2, s3])).unwrap_or(0);
        let Some((this, rest)) = boxes.split_at_mut_checked(size).filter(|_| size >= head.len()) else {
            return;
        };
        boxes = rest;
        let (_, body) = this.split_at_mut(head.len());
        // Version 1 has times of 64 bits.
        let is_long = body.first() == Some(&1);
        let mut clear = |parts: [std::ops::Range<usize>; 2]| {
            for part in parts {
                body.get_mut(part).unwrap_or_default().fill(0);
            }
        };
        match (&kind, is_long) {
            // With a limit, since damaged boxes could nest very deeply.
            (b"moov" | b"trak" | b"mdia" | b"edts" | b"mvex", _) if depth > 1 => clear_times(body, depth - 1),
            // creation_time and modification_time, then duration (14496-12 8.2.2, 8.3.2, 8.4.2, 8.8.2).
            (b"mvhd" | b"mdhd", false) => clear([4..12, 16..20]),
            (b"mvhd" | b"mdhd", true) => clear([4..20, 24..32]),
            (b"tkhd", false) => clear([4..12, 20..24]),
            (b"tkhd", true) => clear([4..20, 28..36]),
            (b"mehd", false) => clear([4..8, 0..0]),
            (b"mehd", true) => clear([4..12, 0..0]),
            (b"elst", _) => {
                let (entry, duration) = if is_long { (20, 8) } else { (12, 4) };
                for entry in body.get_mut(8..).unwrap_or_default().chunks_exact_mut(entry) {
                    let (duration, edit) = entry.split_at_mut(duration);
                    // Except for empty edits, whose media time is -1: their length delays the track.
                    if !edit.starts_with(&[0xff; 4]) {
                        duration.fill(0);
                    }
                }
            }
            _ => {}
        }
    }
}
