//! The messages of the engine, and the traits that its caller implements. The element turns messages into GStreamer's; the tests
//! collect them.

use std::time::Duration;

use crate::flow::pending::Pending;
use crate::upload::report::Report;
use gcstreamer_media::chunk::{GapReason, Warning};
use gcstreamer_media::container::Fault;

/// A message for the application. Times in ns.
#[derive(Clone, Debug)]
pub enum Message {
    /// From the upload queue.
    Report(Report),
    /// From the chunker, with the limits that were in force.
    Warning {
        /// The warning.
        warning: Warning,
        /// Property `max-size-time`.
        max_time: u64,
        /// Property `max-memory-bytes`.
        max_memory: u64,
    },
    /// The stream cannot be cut: an ERROR.
    Fault(Fault),
    /// Bytes that were not stored.
    Gap {
        /// The cause.
        reason: GapReason,
        /// Start time of the first of them, UTC, ns since the Unix epoch.
        start: u64,
        /// Their duration, ns.
        duration: u64,
        /// Their size.
        bytes: u64,
        /// The sequence number of the next chunk.
        first_sequence: u64,
    },
    /// No key unit for this long since PLAYING.
    NothingToStore {
        /// Time since PLAYING.
        waited: u64,
        /// Bytes received.
        received: u64,
    },
    /// An MP4 without its `moov` for this long since PLAYING.
    NoFragments {
        /// Time since PLAYING.
        waited: u64,
        /// There are fragments, or a `moov` that cannot be read.
        is_damaged: bool,
    },
    /// Pictures but no key frame for this long since PLAYING.
    NoKeyAmong {
        /// Time since PLAYING.
        waited: u64,
        /// Pictures received.
        pictures: u64,
    },
    /// A single object has grown too large for the memory: an ERROR.
    TooLarge {
        /// Its size, bytes.
        size: u64,
        /// Property `max-memory-bytes`, if there is a spool: the spool accepts no more of the object and that memory is full.
        full_memory: Option<u64>,
    },
    /// The memory is full and the policy is `error`: an ERROR.
    Full,
    /// The memory is full and uploads are refused: an ERROR.
    Refused(String),
    /// EOS, and this many chunks were not stored: an ERROR.
    NotDrained {
        /// Chunks that are lost.
        lost: Pending,
        /// Property `drain-timeout`.
        timeout: u64,
    },
    /// The flow group's `max-bytes-per-second` lets the backlog grow: a WARNING.
    TooFewBytes {
        /// The limit, bytes a second.
        limit: u64,
        /// Input rate, bytes a second.
        needed: f64,
    },
    /// The flow group's `max-requests-per-second` lets the backlog grow: a WARNING.
    TooFewRequests {
        /// The limit, requests a second.
        limit: f64,
        /// Requests a second that the new chunks need.
        needed: f64,
    },
    /// The recording works; this is its first object.
    Started {
        /// Its name.
        object: String,
        /// Property `bucket`.
        bucket: String,
        /// The endpoint, if not Google's.
        endpoint: Option<String>,
    },
    /// An EOS has arrived and waits for the uploads.
    Draining(Draining),
    /// Another sink of the flow group has set the limits.
    LimitsChanged {
        /// Bytes a second, 0 = none.
        bytes: u64,
        /// Requests a second, 0 = none.
        requests: f64,
        /// No other sink of the group has reported it yet.
        is_new: bool,
    },
}

/// Progress of an EOS. `Begins` is always followed by `Stored` or `Unfinished` in the end.
#[derive(Clone, Copy, Debug)]
pub enum Draining {
    /// The EOS waits for these chunks.
    Begins(Pending),
    /// The EOS still waits for these chunks.
    GoesOn(Pending),
    /// All chunks are stored.
    Stored,
    /// The EOS no longer waits for these chunks.
    Unfinished(Pending),
}

/// Receives the engine's messages.
pub trait Poster: Send + Sync {
    /// Enqueues a message. Never blocks and never calls the application: the engine may hold its lock.
    fn post(&self, message: Message);
    /// Waits until everything is posted, for `at_most`. Called without a lock held.
    fn wait_posted(&self, at_most: Duration);
}

/// How the streaming thread waits while its element pauses.
pub trait Wait {
    /// The flow return that the streaming thread must return if a wait ends and no more data is accepted.
    type Flow;

    /// Waits while the element is paused.
    ///
    /// # Errors
    /// The flow return for the streaming thread: the element is flushing or stopping.
    fn wait_preroll(&self) -> Result<(), Self::Flow>;
}

/// Why a buffer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal<F> {
    /// A flush or a stop ended the wait.
    Flow(F),
    /// An ERROR was posted: no more data is accepted.
    Failed,
}
