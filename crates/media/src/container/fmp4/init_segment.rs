//! The init segment (`ftyp`, `moov` and everything up to the first fragment), and how it is gathered.
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
    /// The `ftyp` inside the init, for a `moov` that comes without one.
    fn ftyp(&self) -> Bytes {
        match find_box(&self.init.head, b"ftyp") {
            Some(range) => self.init.head.slice(range),
            None => Bytes::new(),
        }
    }
}

/// A head that is being gathered.
#[derive(Debug)]
pub(super) struct InitBuilder {
    /// Where it begins in the input.
    pub(super) at: u64,
    /// What there is of it.
    bytes: Vec<u8>,
    /// The `ftyp` to set before a `moov` that comes alone.
    ftyp: Bytes,
    /// Where the `moov` begins in `bytes`.
    moov_start: usize,
    /// Its content, and where it ends in `bytes`.
    found: Option<(Movie, usize)>,
}

/// What a complete `moov` turns out to be.
pub(super) enum MoovOutcome {
    /// The one in force, again.
    Same,
    /// Another, or the first. A chunk that begins with it has this in front.
    New(Init),
    /// None that can be used.
    Rejected(MoovError),
}

impl InitBuilder {
    /// Begins at an `ftyp`, or at the start of the input.
    pub(super) fn at(at: u64) -> Self {
        Self {
            at,
            bytes: Vec::new(),
            ftyp: Bytes::new(),
            moov_start: 0,
            found: None,
        }
    }

    /// Begins at a `moov` without an `ftyp`.
    pub(super) fn at_moov(at: u64, in_force: Option<&InitSegment>) -> Self {
        Self {
            ftyp: in_force.map_or_else(Bytes::new, InitSegment::ftyp),
            ..Self::at(at)
        }
    }

    /// Whether its `moov` has come.
    pub(super) fn is_found(&self) -> bool {
        self.found.is_some()
    }

    /// Bytes there are.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes bytes of the head.
    pub(super) fn extend(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
    }

    /// The bytes before `end`, an offset in the input.
    pub(super) fn into_bytes(mut self, end: u64) -> Vec<u8> {
        let len = usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        self.bytes.truncate(len);
        self.bytes
    }

    /// The next box is the `moov`.
    pub(super) fn open_moov(&mut self) {
        self.moov_start = self.bytes.len();
    }

    /// The `moov` is complete.
    pub(super) fn close_moov(&mut self, header_len: usize, in_force: Option<&InitSegment>) -> MoovOutcome {
        let moov = self.bytes.get(self.moov_start..).unwrap_or_default();
        if in_force.is_some_and(|config| config.moov == moov) {
            return MoovOutcome::Same;
        }
        match Movie::parse(moov.get(header_len..).unwrap_or_default()) {
            Ok(movie) => {
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

    /// The head ends before `end`, an offset in the input; `None` where it has no `moov`.
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
