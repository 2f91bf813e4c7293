//! Names and fields of the structures that the elements exchange: element messages on the bus, custom events between the
//! elements, and the property `stats`. Both elements use these constants, so writer and reader cannot disagree.
//!
//! They are part of the public surface (`docs/reference.md`): applications match on them. Times are ns as `guint64`, counts and
//! sizes are `guint64`, unless the doc comment of a constant states otherwise.
//!
//! PURE: names and one enumeration; no GStreamer.

/// Name of the factory of the storage element.
pub const GCSSINK: &str = "gcssink";

/// Names of the properties of `gcssink` that `iotcorestatus` reads.
pub mod properties {
    /// Property `status`; its nicks are those of [`UploadStatus`](super::UploadStatus).
    pub const STATUS: &str = "status";
    /// Property `stats`; see [`stats`](super::stats).
    pub const STATS: &str = "stats";
    /// Property `session-id`.
    pub const SESSION_ID: &str = "session-id";
}

/// Element message `gcssink-chunk-uploaded`: the server has confirmed a chunk.
pub mod chunk_uploaded {
    /// Name of the structure.
    pub const NAME: &str = "gcssink-chunk-uploaded";
    /// Object name, string.
    pub const OBJECT: &str = "object";
    /// Property `device-id` of the sink that recorded it, string; empty if it is not known.
    pub const DEVICE_ID: &str = "device-id";
    /// Session of the chunk, string.
    pub const SESSION_ID: &str = "session-id";
    /// Generation of the object, `gint64`; 0 if reading it back is not allowed.
    pub const GENERATION: &str = "generation";
    /// Bytes.
    pub const SIZE: &str = "size";
    /// Number within the session.
    pub const SEQUENCE: &str = "sequence";
    /// Running time of the first unit; `G_MAXUINT64` if unknown.
    pub const RUNNING_TIME: &str = "running-time";
    /// Length.
    pub const DURATION: &str = "duration";
    /// From closing the chunk to its confirmation.
    pub const LATENCY: &str = "latency";
    /// CRC32C of the bytes, `guint32`.
    pub const CRC32C: &str = "crc32c";
    /// Start of the chunk, RFC 3339 string.
    pub const START_TIME: &str = "start-time";
}

/// The PROGRESS messages of `gcssink` while an EOS waits for its chunks.
pub mod drain {
    /// The code of the progress.
    pub const CODE: &str = "gcssink-drain";
}

/// Element message `gcssink-gap`: bytes that were not stored.
pub mod gap {
    /// Name of the structure.
    pub const NAME: &str = "gcssink-gap";
    /// Start of the gap, RFC 3339 string.
    pub const START_TIME: &str = "start-time";
    /// Reason, string; the metadata `gap-reason` uses the same words.
    pub const REASON: &str = "reason";
    /// Length.
    pub const DURATION: &str = "duration";
    /// Bytes.
    pub const BYTES: &str = "bytes";
    /// First sequence number affected.
    pub const FIRST_SEQUENCE: &str = "first-sequence";
    /// Whole chunks; 0 if the bytes belong to no chunk.
    pub const CHUNKS: &str = "chunks";
}

/// Element message `gcssink-status`: the property `status` has changed.
pub mod status {
    /// Name of the structure.
    pub const NAME: &str = "gcssink-status";
    /// New status, string: a name of [`UploadStatus`](super::UploadStatus).
    pub const STATUS: &str = "status";
    /// Last failure, string; empty if nothing fails.
    pub const REASON: &str = "reason";
    /// Bytes of closed chunks that wait.
    pub const PENDING_BYTES: &str = "pending-bytes";
    /// Closed chunks that wait.
    pub const PENDING_CHUNKS: &str = "pending-chunks";
    /// Age of the oldest chunk that waits.
    pub const OLDEST_PENDING: &str = "oldest-pending-ns";
}

/// Property `stats` of `gcssink`.
pub mod stats {
    /// Name of the structure.
    pub const NAME: &str = "gcssink-stats";
    /// Chunks that were opened.
    pub const CHUNKS_CREATED: &str = "chunks-created";
    /// Chunks that the server has confirmed.
    pub const CHUNKS_UPLOADED: &str = "chunks-uploaded";
    /// Chunks that were dropped.
    pub const CHUNKS_DROPPED: &str = "chunks-dropped";
    /// Chunks of earlier sessions that were found in the spool.
    pub const CHUNKS_RECOVERED: &str = "chunks-recovered";
    /// Key units received.
    pub const KEY_UNITS: &str = "key-units";
    /// Bytes received.
    pub const BYTES_RECEIVED: &str = "bytes-received";
    /// Bytes that the server has confirmed.
    pub const BYTES_UPLOADED: &str = "bytes-uploaded";
    /// Bytes that were dropped.
    pub const BYTES_DROPPED: &str = "bytes-dropped";
    /// Bytes held in memory now.
    pub const BYTES_IN_MEMORY: &str = "bytes-in-memory";
    /// Bytes held in the spool now.
    pub const BYTES_IN_SPOOL: &str = "bytes-in-spool";
    /// Closed chunks that wait.
    pub const CHUNKS_PENDING: &str = "chunks-pending";
    /// Chunks in the spool for an endpoint that gets no credentials from this sink.
    pub const CHUNKS_PARKED: &str = "chunks-parked";
    /// Age of the oldest chunk that waits.
    pub const OLDEST_PENDING: &str = "oldest-pending-ns";
    /// How long an outage the spool still covers at the current rate, seconds.
    pub const SPOOL_SECONDS_LEFT: &str = "spool-seconds-left";
    /// How long uploads waited for the limits.
    pub const THROTTLED: &str = "throttled-ns";
    /// Repeated attempts.
    pub const RETRIES: &str = "retries";
    /// Uploads under way.
    pub const UPLOADS_IN_FLIGHT: &str = "uploads-in-flight";
    /// Bytes a second, `gdouble`.
    pub const UPLOAD_RATE: &str = "upload-rate";
}

/// Custom upstream event `gcssink-health`: the fields of [`stats`] and these. A muxer sends one copy to each of
/// its sink pads, all with one sequence number.
pub mod health {
    /// Name of the structure.
    pub const NAME: &str = "gcssink-health";
    /// Status, string: a name of [`UploadStatus`](super::UploadStatus).
    pub const STATUS: &str = "status";
    /// Last stored object, string; absent before the first.
    pub const OBJECT: &str = "object";
    /// Session of the sink, string; absent if unknown.
    pub const SESSION_ID: &str = "session-id";
}

/// Custom downstream event `gcssink-command`: a command to a `gcssink`. Sticky if it sets whether to record.
pub mod command {
    /// Name of the structure.
    pub const NAME: &str = "gcssink-command";
    /// The command, string: one of the constants below.
    pub const COMMAND: &str = "command";
    /// The sender's id of the command, string; may be empty.
    pub const ID: &str = "id";
    /// Command: cut at the next key unit.
    pub const SPLIT: &str = "split";
    /// Command: resume recording.
    pub const RECORD_START: &str = "record-start";
    /// Command: store nothing until the next start.
    pub const RECORD_STOP: &str = "record-stop";
}

/// Custom sticky downstream event `gcssink-clock`: a pair of equal moments on the camera's clock and in running time.
pub mod clock {
    /// Name of the structure.
    pub const NAME: &str = "gcssink-clock";
    /// Running time.
    pub const RUNNING_TIME: &str = "running-time";
    /// UTC since the Unix epoch.
    pub const UTC: &str = "utc";
}

/// Property `stats` of `iotcorestatus`.
pub mod iotcorestatus_stats {
    /// Name of the structure.
    pub const NAME: &str = "iotcorestatus-stats";
    /// Phase, string, as in the JSON status.
    pub const PHASE: &str = "phase";
    /// Reason of the phase, string; empty if there is none.
    pub const REASON: &str = "reason";
    /// Buffers passed.
    pub const FRAMES: &str = "frames";
    /// Their bytes.
    pub const BYTES: &str = "bytes";
    /// Those without the flag DELTA_UNIT.
    pub const KEY_FRAMES: &str = "key-frames";
    /// Stalls of the session.
    pub const STALLS: &str = "stalls";
    /// Connections that the broker accepted.
    pub const MQTT_CONNECTS: &str = "mqtt-connects";
    /// Connections that failed or broke.
    pub const MQTT_FAILURES: &str = "mqtt-failures";
    /// Publishes that the broker acknowledged.
    pub const MQTT_PUBLISHED: &str = "mqtt-published";
    /// Telemetry that was dropped.
    pub const MQTT_DROPPED: &str = "mqtt-dropped";
    /// Tokens that were signed.
    pub const MQTT_TOKENS: &str = "mqtt-tokens";
}

/// Upload health of a `gcssink`: its property `status`, and `upload.status` of the JSON status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadStatus {
    /// Nothing was stored and nothing has failed yet.
    Starting,
    /// The newest closed chunk was stored.
    Online,
    /// The last attempt failed, or the oldest chunk has waited too long.
    Degraded,
    /// No chunk can be uploaded.
    Offline,
    /// EOS or leaving PLAYING: the remaining chunks are being sent.
    Draining,
    /// Not running.
    Stopped,
}

impl UploadStatus {
    /// All statuses, in the order of the property's values.
    pub const ALL: [Self; 6] = [
        Self::Starting,
        Self::Online,
        Self::Degraded,
        Self::Offline,
        Self::Draining,
        Self::Stopped,
    ];

    /// Returns the nick of the property's value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Online => "online",
            Self::Degraded => "degraded",
            Self::Offline => "offline",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }

    /// Returns the status with this nick; `None` if there is no such nick.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_found_by_its_name_and_nothing_else_is() {
        for status in UploadStatus::ALL {
            assert_eq!(UploadStatus::from_name(status.name()), Some(status));
        }
        for name in ["", "Online", "online ", "unknown"] {
            assert_eq!(UploadStatus::from_name(name), None, "{name:?}");
        }
    }
}
