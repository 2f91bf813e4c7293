//! What the engine has to say, and what it needs of whatever feeds it. The element turns messages into GStreamer's; the tests
//! keep them.

use std::time::Instant;

use crate::upload::report::{Pending, Report};
use gcstreamer_media::chunk::{GapReason, Warning};
use gcstreamer_media::container::Fault;

/// Something for the application. Times in ns.
#[derive(Clone, Debug)]
pub enum Message {
    /// From the upload queue.
    Report(Report),
    /// From the chunker, with the limits that were in force.
    Warning {
        /// What was noticed.
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
        /// Why.
        reason: GapReason,
        /// UTC of the first of them, since the epoch.
        start: u64,
        /// Their length.
        duration: u64,
        /// Their number.
        bytes: u64,
        /// The sequence number of the next chunk.
        first_sequence: u64,
    },
    /// PLAYING for this long without one key unit.
    NothingToStore {
        /// How long.
        waited: u64,
        /// Bytes that came.
        received: u64,
    },
    /// PLAYING for this long with an MP4 whose `moov` has not come.
    NoFragments {
        /// How long.
        waited: u64,
    },
    /// PLAYING for this long with pictures none of which is a key frame.
    NoKeyAmong {
        /// How long.
        waited: u64,
        /// Pictures that came.
        pictures: u64,
    },
    /// One object grew over the memory: an ERROR.
    TooLarge(u64),
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
        /// Bytes a second that may be sent.
        limit: u64,
        /// Bytes a second that come in.
        needed: f64,
    },
    /// Its `max-requests-per-second` does.
    TooFewRequests {
        /// Requests a second that may be made.
        limit: f64,
        /// Requests a second that the chunks that come in take.
        needed: f64,
    },
    /// The recording goes well so far, and its first object is this one.
    Started {
        /// Its name.
        object: String,
        /// Property `bucket`.
        bucket: String,
        /// Where it goes, if not to Google.
        endpoint: Option<String>,
    },
    /// EOS has come and waits for the uploads.
    Draining(Draining),
    /// Another sink of the flow group has set the limits.
    LimitsChanged {
        /// Bytes a second, 0 = none.
        bytes: u64,
        /// Requests a second, 0 = none.
        requests: f64,
        /// No other sink of the group has reported it.
        is_news: bool,
    },
}

/// How an EOS gets on. After `Begins` the last one is `Stored` or `Unfinished`.
#[derive(Clone, Copy, Debug)]
pub enum Draining {
    /// This is waited for.
    Begins(Pending),
    /// This is still waited for.
    GoesOn(Pending),
    /// All of it is stored.
    Stored,
    /// This is not waited for any longer.
    Unfinished(Pending),
}

/// Where messages go.
pub trait Poster: Send + Sync {
    /// Enqueues a message. Never blocks and never calls the application: the engine may hold its lock.
    fn post(&self, message: Message);
    /// Waits until everything is posted, or `until`. Called without a lock.
    fn wait_posted(&self, until: Instant);
}

/// How the streaming thread waits while its element pauses.
pub trait Wait {
    /// What the thread has to return when waiting ends without data being wanted again.
    type Flow;

    /// Waits as long as the element is paused.
    ///
    /// # Errors
    /// The element is flushing or stopping; what the streaming thread returns.
    fn wait_preroll(&self) -> Result<(), Self::Flow>;
}

/// Why a buffer was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal<F> {
    /// Waiting was ended by a flush or a stop.
    Flow(F),
    /// An ERROR was posted: nothing more is taken.
    Failed,
}
