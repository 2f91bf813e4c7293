//! The JSON status, schema 1: every key is always there, `null` is unknown. `docs/status.schema.json` describes it.
//!
//! PURE.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::report::{Format, Phase, Problem, Reason, Stalls};
use crate::upload::health::Status as UploadStatus;
use gcstreamer_schema::time::rfc3339_ms;

/// Version of the schema.
pub const VERSION: u32 = 1;

/// SHA-256, hexadecimal.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Who reports; does not change within a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `device-id`.
    pub device: String,
    /// An id of our own where no gcssink has one.
    pub session: String,
    /// Version of the plugin.
    pub version: String,
    /// Version of GStreamer.
    pub gst: String,
    /// Name of the machine.
    pub host: String,
}

/// What passes. Times in ns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Video {
    /// From the caps.
    pub format: Format,
    /// Buffers since the session began.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those without the flag DELTA_UNIT.
    pub key_frames: u64,
    /// GAP events.
    pub gaps: u64,
    /// Buffers a second, of the last ten seconds.
    pub fps: Option<f64>,
    /// kbit/s, of the last ten seconds.
    pub kbps: Option<f64>,
    /// Seconds between key frames, of the last ten seconds.
    pub key_interval: Option<f64>,
    /// Age of the last buffer.
    pub last_frame_age: Option<u64>,
}

/// How the uploads go; `None` is unknown. Times in ns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upload {
    /// The last stored object.
    pub object: Option<String>,
    /// When it was confirmed, since the Unix epoch.
    pub last_done: Option<u64>,
    /// Bytes that wait.
    pub backlog_bytes: Option<u64>,
    /// Chunks that wait.
    pub backlog_chunks: Option<u64>,
    /// Age of the oldest of them.
    pub oldest_pending: Option<u64>,
    /// Bytes that were dropped.
    pub dropped_bytes: Option<u64>,
    /// Attempts that had to be repeated.
    pub retries: Option<u64>,
    /// As the property `status` of gcssink.
    pub status: Option<UploadStatus>,
}

/// The last config that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
    /// Whether it was taken.
    pub ok: bool,
}

/// What became of the last command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The command.
    pub name: String,
    /// As the sender called it.
    pub id: Option<String>,
    /// Whether it was done.
    pub ok: bool,
    /// Why not.
    pub msg: Option<String>,
}

/// Everything that is told. Times in ns, `since`, `ts` and `last_done` since the Unix epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// What the pipeline does.
    pub phase: Phase,
    /// Why.
    pub reason: Option<Reason>,
    /// Since when: for a stall since the last frame.
    pub since: u64,
    /// When this was written.
    pub ts: u64,
    /// Counts the statuses of a session, from 1.
    pub seq: u64,
    /// Session of the gcssink, else our own.
    pub session: String,
    /// Who reports.
    pub identity: Identity,
    /// Heartbeat.
    pub interval: u64,
    /// Whether chunks are made; unknown without a gcssink.
    pub recording: Option<bool>,
    /// What passes.
    pub video: Video,
    /// Stalls of the session.
    pub stalls: Stalls,
    /// Length of the present one.
    pub stalled_for: Option<u64>,
    /// The uploads.
    pub upload: Upload,
    /// The last config.
    pub config: Option<Config>,
    /// The last command.
    pub command: Option<Answer>,
    /// What went wrong.
    pub error: Option<Problem>,
    /// How long the session lasts.
    pub uptime: u64,
}

/// Seconds with three digits.
#[allow(clippy::cast_precision_loss, reason = "rounded to milliseconds")]
fn seconds(ns: u64) -> f64 {
    (ns / 1_000_000) as f64 / 1000.0
}

/// One digit is enough for a rate.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

impl Status {
    /// `connected` or `disconnected`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        self.phase.state()
    }

    /// The JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "v": VERSION,
            "state": self.state(),
            "phase": self.phase.name(),
            "reason": self.reason.map(Reason::name),
            "since": rfc3339_ms(self.since),
            "ts": rfc3339_ms(self.ts),
            "seq": self.seq,
            "session": self.session,
            "device": self.identity.device,
            "interval_s": seconds(self.interval),
            "recording": self.recording,
            "video": self.video_json(),
            "stalls": {
                "count": self.stalls.count,
                "total_s": seconds(self.stalls.total),
                "longest_s": seconds(self.stalls.longest),
                "now_s": self.stalled_for.map(seconds),
            },
            "upload": self.upload_json(),
            "config": {
                "sha256": self.config.as_ref().map(|c| c.sha256.as_str()),
                "ok": self.config.as_ref().map(|c| c.ok),
            },
            "command": {
                "name": self.command.as_ref().map(|c| c.name.as_str()),
                "id": self.command.as_ref().and_then(|c| c.id.as_deref()),
                "ok": self.command.as_ref().map(|c| c.ok),
                "msg": self.command.as_ref().and_then(|c| c.msg.as_deref()),
            },
            "error": {
                "src": self.error.as_ref().map(|e| e.src.as_str()),
                "domain": self.error.as_ref().map(|e| e.domain.as_str()),
                "code": self.error.as_ref().map(|e| e.code),
                "msg": self.error.as_ref().map(|e| e.msg.as_str()),
            },
            "sys": {
                "uptime_s": seconds(self.uptime),
                "version": self.identity.version,
                "gst": self.identity.gst,
                "host": self.identity.host,
            },
        })
    }

    fn video_json(&self) -> Value {
        let video = &self.video;
        json!({
            "media": video.format.media,
            "width": video.format.width,
            "height": video.format.height,
            "frames": video.frames,
            "bytes": video.bytes,
            "key_frames": video.key_frames,
            "gaps": video.gaps,
            "fps": video.fps.map(tenths),
            "kbps": video.kbps.map(tenths),
            "key_interval_s": video.key_interval.map(tenths),
            "last_frame_age_s": video.last_frame_age.map(seconds),
        })
    }

    fn upload_json(&self) -> Value {
        let upload = &self.upload;
        json!({
            "object": upload.object,
            "last_done": upload.last_done.map(rfc3339_ms),
            "backlog_bytes": upload.backlog_bytes,
            "backlog_chunks": upload.backlog_chunks,
            "oldest_pending_s": upload.oldest_pending.map(seconds),
            "dropped_bytes": upload.dropped_bytes,
            "retries": upload.retries,
            "status": upload.status.map(UploadStatus::name),
        })
    }
}
