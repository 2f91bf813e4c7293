//! The events of a pipeline, and the messages published besides the status.

use serde_json::Value;

use super::input::Format;
use gcstreamer_schema::structures::UploadStatus;

/// A WARNING or an ERROR of another element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// Name of the element.
    pub src: String,
    /// Domain of the error, e.g. `gst-resource-error-quark`.
    pub domain: String,
    /// Code within the domain.
    pub code: i32,
    /// The text; the reporter redacts it.
    pub msg: String,
    /// Whether the element is a source, or part of one.
    pub is_source: bool,
    /// An ERROR; otherwise a WARNING.
    pub is_error: bool,
    /// The element is neither upstream nor downstream: it concerns this stream only if it stops the pipeline.
    pub is_elsewhere: bool,
}

/// A stored chunk, from `gcssink-chunk-uploaded`.
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
    /// Length, ns.
    pub duration: u64,
    /// Time from closing to confirmation, ns.
    pub latency: u64,
}

/// Bytes that were not stored, from `gcssink-gap`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Start, RFC 3339.
    pub start_time: String,
    /// As in the metadata `gap-reason`.
    pub reason: String,
    /// Length, ns.
    pub duration: u64,
    /// Bytes.
    pub bytes: u64,
    /// First sequence number affected.
    pub first_sequence: u64,
    /// Whole chunks.
    pub chunks: u64,
}

/// One gcssink at one moment: its properties `stats`, `status` and `session-id`. Times in ns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkSample {
    /// Its path, unique among the sinks.
    pub name: String,
    /// Key units received.
    pub key_units: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes in memory and in the spool.
    pub bytes_held: u64,
    /// Closed chunks that wait.
    pub chunks_pending: u64,
    /// Age of the oldest of them.
    pub oldest_pending: u64,
    /// Bytes dropped.
    pub bytes_dropped: u64,
    /// Repeated attempts.
    pub retries: u64,
    /// `None` if unknown.
    pub status: Option<UploadStatus>,
    /// The last stored object, if known.
    pub object: Option<String>,
    /// Session id, if known.
    pub session: Option<String>,
}

/// The outcome of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The command.
    pub name: String,
    /// The sender's id of the command.
    pub id: Option<String>,
    /// Whether it was carried out.
    pub ok: bool,
    /// Why not.
    pub msg: Option<String>,
    /// Whether the bare state is published again with it: the command asked for a status, and IoT Core in text format has only
    /// the state.
    pub repeats_state: bool,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Whether the pipeline is in PLAYING, or on its way there.
    Playing(bool),
    /// The element itself goes to PLAYING: an apparent stop was not one.
    Resumed,
    /// EOS.
    Eos,
    /// The stream restarts: flush or stream-start.
    Restart,
    /// A GAP event: upstream announces that no data follows for a while.
    GapEvent,
    /// An element posted a WARNING or an ERROR.
    Problem(Problem),
    /// New caps.
    Format(Format),
    /// All gcssinks behind the element, as they are now.
    Sinks(Vec<SinkSample>),
    /// A chunk was stored.
    Chunk(Chunk),
    /// Bytes were not stored.
    Gap(Gap),
    /// The broker is connected: the first status it receives must not be older than a few seconds.
    Connected,
    /// A config arrived; its SHA-256 in hexadecimal.
    Config(String),
    /// A command has its outcome; the next status answers it.
    Answer(Answer),
    /// A gcssink accepted a command that starts or stops the recording.
    Record(bool),
    /// The element is stopping.
    Stopping,
}

/// One message for subscribers of events: `chunk`, `gap`, `error`, `stall`.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// Its kind.
    pub kind: &'static str,
    /// Its JSON.
    pub body: Value,
}
