//! Splits a stream into chunks, and dates and describes each chunk.
//!
//! PURE: bytes, times and settings in, [`Event`]s out. [`Chunker`] drives a container scanner over the input and splits it
//! into chunks that each play alone; init of chunk 0 plus all payloads is the input, byte for byte.
//!
//! - `chunker`: cuts, with `timeline` (one time line although timestamps jump), `clock` (the UTC time of a unit), `frames`
//!   (how long a chunk is) and `info` (the metadata of a chunk).
//! - `assembler`, `byte_queue`: from events to whole chunks with checksums.
//! - `replay`: a chunk whose end was lost, from its bytes.

use bytes::Bytes;

pub mod assembler;
pub mod byte_queue;
pub mod chunker;
pub mod clock;
pub mod frames;
pub mod info;
pub mod replay;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_dates;
#[cfg(test)]
mod tests_heads;
#[cfg(test)]
mod tests_input;
#[cfg(test)]
mod tests_mpeg;
#[cfg(test)]
mod tests_stops;
#[cfg(test)]
mod tests_tables;
#[cfg(test)]
mod tests_times;
#[cfg(test)]
mod tests_trickle;
pub mod timeline;

pub use chunker::Chunker;
pub use gcstreamer_schema::GapReason;
pub use info::ChunkInfo;

use crate::container::Init;

/// A warning that is issued once. Times in ns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// No key unit came for a long time.
    NoKeyUnit {
        /// How long.
        waited: u64,
        /// Longest time between two key units so far.
        interval: Option<u64>,
        /// Key units arrive, but only where no chunk can begin: within a fragment or a Cluster of known size.
        enclosed: bool,
    },
    /// Only sound has arrived for a long time, although the header announces pictures or pictures arrived earlier.
    AudioOnly {
        /// How long.
        waited: u64,
    },
    /// Key units without SPS/PPS.
    NoParameterSets,
    /// Key units of MPEG-2 without a sequence header.
    NoSequenceHeader,
    /// Key units of MPEG-4 part 2 without a video object layer.
    NoObjectLayer,
    /// PES packets are not aligned with pictures: the last picture of a chunk lacks its end.
    Unaligned,
    /// Pictures after a key unit depend on pictures before it.
    OpenGop,
    /// A fragment lasts more than twice as long as a chunk should: it cannot be cut. Its duration.
    LongFragment(u64),
    /// The muxer seeked back to this offset to overwrite what it had sent.
    Rewritten(u64),
    /// A chunk reached a memory limit and was cut early.
    EarlyCut {
        /// Bytes at which it was cut.
        bytes: u64,
        /// Whether at a key unit.
        at_key: bool,
    },
    /// The decoder configuration has changed more than twice a second for ten seconds, each time with a cut: this many times.
    ConfigCuts(u64),
    /// Damaged bytes from this offset of the input on.
    Damage(u64),
    /// More than one program: stored unparsed. How many.
    Programs(usize),
    /// A transport stream without PAT and PMT: cut by arrival time until they come.
    NoProgram,
    /// No known container: stored unparsed.
    UnknownContainer,
}

/// What happens to the input, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// A chunk begins.
    Begin {
        /// Its sequence number.
        sequence: u64,
        /// Where its payload begins in the input.
        at: u64,
        /// The header in front of its payload.
        init: Init,
    },
    /// Payload of a chunk.
    Data {
        /// The chunk's sequence number.
        sequence: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// A chunk is complete. May come after the `Begin` of the next chunk, whose first picture determines its duration.
    End(Box<ChunkInfo>),
    /// Bytes that are not stored.
    Gap {
        /// Why.
        reason: GapReason,
        /// UTC of the first of them, ns since the epoch.
        start: u64,
        /// Their length in ns.
        duration: u64,
        /// Their number.
        bytes: u64,
    },
    /// Bytes that are dropped: part of a gap that is reported later, or a head that the next header contains.
    Discard(u64),
    /// A warning for the user.
    Warn(Warning),
    /// A cut is due: upstream should send a key unit.
    WantKeyUnit,
    /// The only object of a fixed name reached the hard limit. Its size in bytes.
    TooLarge(u64),
}

/// When to cut. Times in ns, 0 = never.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Property `max-size-time`.
    pub max_time: u64,
    /// Property `max-size-bytes`.
    pub max_bytes: u64,
    /// Property `align-to-clock`.
    pub align: bool,
    /// A fixed object name: never cut.
    pub single: bool,
    /// Bytes at which a chunk is cut at the next key unit; 0 = never.
    pub soft: u64,
    /// Bytes at which a chunk is cut anywhere; 0 = never.
    pub hard: u64,
}

impl Limits {
    /// Returns how long to wait for a key unit: max(3 × `max-size-time`, 30 s).
    pub fn patience(&self) -> u64 {
        self.max_time.saturating_mul(3).max(30_000_000_000)
    }

    /// Returns how long no buffer may arrive before the open chunk is closed: max(2 × `max-size-time`, 15 s).
    pub fn idle(&self) -> u64 {
        // The floor also serves max-size-time=0, which never cuts by time but must not idle at once.
        self.max_time.saturating_mul(2).max(15_000_000_000)
    }
}
