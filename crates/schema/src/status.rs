//! Formats and parses the JSON status of a pipeline, schema 1.
//!
//! PURE. Every key is always written; `null` means unknown. `docs/status.schema.json` describes it. The parser accepts statuses
//! of newer versions: it ignores unknown keys, treats absent ones as unknown, and keeps an unknown reason or upload status as
//! text.

use serde::{Deserialize, Serialize};

use crate::time;

/// Version of the schema: the key `v`.
pub const VERSION: u32 = 1;

/// Phase of the pipeline. Only [`Phase::Streaming`] is `connected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// No frame has passed yet.
    Starting,
    /// Frames are passing, and every gcssink in the pipeline receives key units.
    Streaming,
    /// No frame for `stall-timeout` while PLAYING.
    Stalled,
    /// Our own push is blocked for `stall-timeout`: the cause is downstream, not the camera.
    Blocked,
    /// Frames are passing, but a gcssink receives no key units.
    NotRecording,
    /// PAUSED after it was PLAYING.
    Paused,
    /// The stream has ended.
    Eos,
    /// The stream has ended because its source failed.
    SourceLost,
    /// An element has posted an ERROR, or downstream refuses the buffers.
    Error,
    /// The element is not running.
    Stopped,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 10] = [
        Self::Starting,
        Self::Streaming,
        Self::Stalled,
        Self::Blocked,
        Self::NotRecording,
        Self::Paused,
        Self::Eos,
        Self::SourceLost,
        Self::Error,
        Self::Stopped,
    ];

    /// Returns the value of the key `phase`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Streaming => "streaming",
            Self::Stalled => "stalled",
            Self::Blocked => "blocked",
            Self::NotRecording => "not-recording",
            Self::Paused => "paused",
            Self::Eos => "eos",
            Self::SourceLost => "source-lost",
            Self::Error => "error",
            Self::Stopped => "stopped",
        }
    }

    /// Returns the state of the device: `connected` or `disconnected`.
    pub const fn state(self) -> &'static str {
        match self {
            Self::Streaming => CONNECTED,
            _ => DISCONNECTED,
        }
    }
}

/// State of a device whose frames are passing and recorded.
pub const CONNECTED: &str = "connected";
/// State of every other device.
pub const DISCONNECTED: &str = "disconnected";

/// The stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VideoSection {
    /// Media type of the caps, e.g. `video/x-h264`.
    pub media: Option<String>,
    /// Pixels.
    pub width: Option<u64>,
    /// Pixels.
    pub height: Option<u64>,
    /// Buffers since the session began.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Buffers without the flag DELTA_UNIT.
    pub key_frames: u64,
    /// GAP events.
    pub gaps: u64,
    /// Buffers a second, of the last ten seconds.
    pub fps: Option<f64>,
    /// kbit/s, of the last ten seconds.
    pub kbps: Option<f64>,
    /// Seconds between key frames, of the last ten seconds.
    pub key_interval_s: Option<f64>,
    /// Age of the last buffer in seconds.
    pub last_frame_age_s: Option<f64>,
}

/// Stalls, times in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StallSection {
    /// Number of stalls of the session.
    pub count: u64,
    /// Total length of the finished ones.
    pub total_s: f64,
    /// Longest finished one.
    pub longest_s: f64,
    /// Length of the current one.
    pub now_s: Option<f64>,
}

/// Upload health. Everything is unknown without a gcssink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UploadSection {
    /// Name of the last stored object.
    pub object: Option<String>,
    /// When it was confirmed, ns since the Unix epoch.
    #[serde(with = "time::option")]
    pub last_done: Option<u64>,
    /// Bytes that wait for upload.
    pub backlog_bytes: Option<u64>,
    /// Chunks that wait for upload.
    pub backlog_chunks: Option<u64>,
    /// Age of the oldest of them in seconds.
    pub oldest_pending_s: Option<f64>,
    /// Bytes that were dropped.
    pub dropped_bytes: Option<u64>,
    /// Repeated attempts.
    pub retries: Option<u64>,
    /// The property `status` of gcssink.
    pub status: Option<String>,
}

/// The last configuration received from the bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigSection {
    /// Its SHA-256, hexadecimal.
    pub sha256: Option<String>,
    /// Whether it was accepted.
    pub ok: Option<bool>,
}

/// Outcome of the last command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommandSection {
    /// The command.
    pub name: Option<String>,
    /// The sender's id of the command.
    pub id: Option<String>,
    /// Whether it was carried out.
    pub ok: Option<bool>,
    /// Why not.
    pub msg: Option<String>,
}

/// The last WARNING or ERROR of an element.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorSection {
    /// Name of the element.
    pub src: Option<String>,
    /// Domain, e.g. `gst-resource-error-quark`.
    pub domain: Option<String>,
    /// Code within the domain.
    pub code: Option<i32>,
    /// The text, without secrets.
    pub msg: Option<String>,
}

/// The reporter and the session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SystemSection {
    /// Age of the session in seconds.
    pub uptime_s: f64,
    /// Version of the plugin.
    pub version: String,
    /// Version of GStreamer.
    pub gst: String,
    /// Name of the machine.
    pub host: String,
}

/// The whole status, in the order in which it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusDocument {
    /// Version of the schema.
    pub v: u32,
    /// [`CONNECTED`] or [`DISCONNECTED`].
    pub state: String,
    /// What the pipeline does.
    pub phase: Phase,
    /// Reason of the phase, one word.
    pub reason: Option<String>,
    /// Start of the phase, ns since the Unix epoch; for a stall, time of the last frame.
    #[serde(with = "time::required")]
    pub since: u64,
    /// When this status was written, ns since the Unix epoch.
    #[serde(with = "time::required")]
    pub ts: u64,
    /// Number of the status within the session, from 1.
    pub seq: u64,
    /// Session of the gcssink, or of iotcorestatus if there is none.
    pub session: String,
    /// Property `device-id`.
    pub device: String,
    /// Heartbeat in seconds.
    pub interval_s: f64,
    /// Whether chunks are recorded; unknown without a gcssink.
    pub recording: Option<bool>,
    /// The stream.
    #[serde(default)]
    pub video: VideoSection,
    /// Stalls.
    #[serde(default)]
    pub stalls: StallSection,
    /// The uploads.
    #[serde(default)]
    pub upload: UploadSection,
    /// The last configuration.
    #[serde(default)]
    pub config: ConfigSection,
    /// The last command.
    #[serde(default)]
    pub command: CommandSection,
    /// The last WARNING or ERROR.
    #[serde(default)]
    pub error: ErrorSection,
    /// The reporter and the session.
    #[serde(default)]
    pub sys: SystemSection,
}

impl StatusDocument {
    /// Parses a status received from the broker.
    ///
    /// # Errors
    /// The error in the JSON, with line and column.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }
}

/// Converts ns to seconds with three digits.
#[allow(clippy::cast_precision_loss, reason = "rounded to milliseconds")]
pub fn seconds(ns: u64) -> f64 {
    (ns / 1_000_000) as f64 / 1000.0
}

/// Rounds a rate to one digit.
pub fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document() -> StatusDocument {
        StatusDocument {
            v: VERSION,
            state: CONNECTED.into(),
            phase: Phase::Streaming,
            reason: None,
            since: 1_795_329_912_345_000_000,
            ts: 1_795_329_922_345_000_000,
            seq: 7,
            session: "0a1b2c3d4e".into(),
            device: "cam1".into(),
            interval_s: 60.0,
            recording: None,
            video: VideoSection::default(),
            stalls: StallSection::default(),
            upload: UploadSection::default(),
            config: ConfigSection::default(),
            command: CommandSection::default(),
            error: ErrorSection::default(),
            sys: SystemSection::default(),
        }
    }

    #[test]
    fn what_is_unknown_is_null_and_every_key_is_there() {
        let json = serde_json::to_value(document()).unwrap();
        for pointer in [
            "/reason",
            "/recording",
            "/video/fps",
            "/upload/last_done",
            "/config/ok",
            "/error/code",
            "/stalls/now_s",
        ] {
            assert_eq!(json.pointer(pointer), Some(&serde_json::Value::Null), "{pointer}");
        }
        assert_eq!(
            json.pointer("/since").and_then(|v| v.as_str()),
            Some("2026-11-22T06:45:12.345Z")
        );
        assert_eq!(json.pointer("/phase").and_then(|v| v.as_str()), Some("streaming"));
    }

    #[test]
    fn a_phase_is_written_as_it_is_called() {
        for phase in Phase::ALL {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.name());
        }
    }

    #[test]
    fn a_status_of_a_newer_version_is_read() {
        let mut json = serde_json::to_value(document()).unwrap();
        json["invented"] = 1.into();
        json["reason"] = "lightning".into();
        json["upload"] = serde_json::json!({"status": "hovering", "new": true});
        json.as_object_mut().unwrap().remove("sys");
        let read = StatusDocument::from_json(json.to_string().as_bytes()).unwrap();
        assert_eq!(read.reason.as_deref(), Some("lightning"));
        assert_eq!(read.upload.status.as_deref(), Some("hovering"));
        assert_eq!(read.upload.last_done, None);
    }

    #[test]
    fn what_is_no_status_says_where() {
        for json in ["", "[]", "{}", r#"{"v":1,"state":"connected"}"#, "disconnected"] {
            assert!(StatusDocument::from_json(json.as_bytes()).is_err(), "{json}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            phase in proptest::sample::select(&Phase::ALL[..]),
            (since, done) in (0u64..4_000_000_000_000, proptest::option::of(0u64..4_000_000_000_000)),
            (frames, ms, code) in any::<(u64, u32, Option<i32>)>(),
            (reason, object) in ("[a-z-]{0,9}", proptest::option::of(".{0,30}")),
            fps in proptest::option::of(0.0f64..1000.0),
        ) {
            let document = StatusDocument {
                phase,
                state: phase.state().into(),
                reason: Some(reason),
                since: since * 1_000_000,
                video: VideoSection { frames, fps: fps.map(tenths), ..VideoSection::default() },
                stalls: StallSection { total_s: seconds(u64::from(ms) * 1_000_000), ..StallSection::default() },
                upload: UploadSection { object, last_done: done.map(|ms| ms * 1_000_000), ..UploadSection::default() },
                error: ErrorSection { code, ..ErrorSection::default() },
                ..document()
            };
            let json = serde_json::to_vec(&document).unwrap();
            prop_assert_eq!(StatusDocument::from_json(&json).unwrap(), document);
        }
    }
}
