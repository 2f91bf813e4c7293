//! What may happen to a pipeline, in the reporter's words.

use serde_json::Value;

use super::Sample;
use super::status::Answer;
use super::video::Format;

/// A WARNING or an ERROR of another element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// Name of the element.
    pub src: String,
    /// Domain of the error, e.g. `gst-resource-error-quark`.
    pub domain: String,
    /// Code within the domain.
    pub code: i32,
    /// The text; it is redacted here.
    pub msg: String,
    /// Whether the element is a source, or part of one.
    pub is_source: bool,
    /// An ERROR; else a WARNING.
    pub is_error: bool,
}

/// A stored chunk, as `gcssink-chunk-uploaded` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Object name.
    pub object: String,
    /// `session-id`.
    pub session: String,
    /// RFC 3339.
    pub start_time: String,
    /// Number within the session.
    pub sequence: u64,
    /// Bytes.
    pub size: u64,
    /// ns.
    pub duration: u64,
    /// ns from closing to confirmation.
    pub latency: u64,
}

/// Bytes that were not stored, as `gcssink-gap` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// RFC 3339.
    pub start_time: String,
    /// As in the metadata `gap-reason`.
    pub reason: String,
    /// ns.
    pub duration: u64,
    /// Bytes.
    pub bytes: u64,
    /// First sequence number concerned.
    pub first_sequence: u64,
    /// Whole chunks.
    pub chunks: u64,
}

/// Something has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The pipeline is in PLAYING or on its way there, or not.
    Playing(bool),
    /// The element itself goes to PLAYING: what looked like the end was none.
    Resumed,
    /// EOS.
    Eos,
    /// The stream begins anew: flush, stream-start.
    Restart,
    /// A GAP event: nothing comes for a while, and that is known.
    GapEvent,
    /// An element posted a WARNING or an ERROR.
    Problem(Problem),
    /// What the caps say.
    Format(Format),
    /// All gcssinks behind us, as they are now.
    Sinks(Vec<Sample>),
    /// A chunk was stored.
    Chunk(Chunk),
    /// Bytes were not stored.
    Gap(Gap),
    /// A config came; its SHA-256.
    Config(String),
    /// A command was done, or not; the next status answers it.
    Answer(Answer),
    /// The recording goes on or rests, by a command that a gcssink has got.
    Record(bool),
    /// The element stops.
    Stopping,
}

/// An event for those who listen: `chunk`, `gap`, `error`, `stall`.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its kind.
    pub kind: &'static str,
    /// Its JSON.
    pub body: Value,
}
