//! The JSON status, schema 1: every key is always present, `null` means unknown. `docs/status.schema.json` describes it.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::event::{Answer, Problem};
use super::input::Format;
use super::phase::{Phase, Reason};
use super::video::Stalls;
use gcstreamer_schema::status::{
    CommandSection, ConfigSection, ErrorSection, StallSection, StatusDocument, SystemSection, UploadSection, VERSION,
    VideoSection, seconds, tenths,
};
use gcstreamer_schema::structures::UploadStatus;

/// Returns the SHA-256 in hexadecimal.
pub(in crate::iotcorestatus) fn sha256_hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The device that reports, its software and its machine. Constant within a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `device-id`.
    pub device: String,
    /// Our own session id, used if no gcssink has one.
    pub session: String,
    /// Version of the plugin.
    pub version: String,
    /// Version of GStreamer.
    pub gst: String,
    /// Name of the machine.
    pub host: String,
}

/// The stream. Times in ns.
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
    /// Buffers per second, over the last ten seconds.
    pub fps: Option<f64>,
    /// kbit/s, over the last ten seconds.
    pub kbps: Option<f64>,
    /// Seconds between key frames, over the last ten seconds.
    pub key_interval: Option<f64>,
    /// Age of the last buffer.
    pub last_frame_age: Option<u64>,
}

/// Upload health; `None` means unknown. Times in ns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upload {
    /// The last stored object.
    pub object: Option<String>,
    /// When it was confirmed, since the Unix epoch.
    pub last_done: Option<u64>,
    /// Bytes of closed chunks that wait.
    pub backlog_bytes: Option<u64>,
    /// Closed chunks that wait.
    pub backlog_chunks: Option<u64>,
    /// Age of the oldest of them.
    pub oldest_pending: Option<u64>,
    /// Bytes dropped.
    pub dropped_bytes: Option<u64>,
    /// Repeated attempts.
    pub retries: Option<u64>,
    /// As the property `status` of gcssink.
    pub status: Option<UploadStatus>,
}

/// The last config received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
    /// Whether it was accepted.
    pub ok: bool,
}

/// One status. Times in ns, `since`, `ts` and `last_done` since the Unix epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Phase of the pipeline.
    pub phase: Phase,
    /// Its reason.
    pub reason: Option<Reason>,
    /// Start of the phase; for a stall, time of the last frame.
    pub since: u64,
    /// When this status was written.
    pub ts: u64,
    /// Number of this status within the session, from 1.
    pub seq: u64,
    /// Session of the gcssink, or our own.
    pub session: String,
    /// The reporter.
    pub identity: Identity,
    /// Heartbeat interval.
    pub interval: u64,
    /// Whether chunks are recorded; unknown without a gcssink.
    pub recording: Option<bool>,
    /// The stream.
    pub video: Video,
    /// Stalls of this session.
    pub stalls: Stalls,
    /// Length of the current stall.
    pub stalled_for: Option<u64>,
    /// The uploads.
    pub upload: Upload,
    /// The last config.
    pub config: Option<Config>,
    /// Outcome of the last command.
    pub command: Option<Answer>,
    /// The problem that explains the phase.
    pub error: Option<Problem>,
    /// Age of the session.
    pub uptime: u64,
}

impl Status {
    /// Returns the bare state: `connected` or `disconnected`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        self.phase.state()
    }

    /// Returns the JSON with its keys sorted.
    #[must_use]
    pub fn to_json(&self) -> Value {
        // Infallible in practice: every field serializes, and every key is a string.
        serde_json::to_value(self.document()).unwrap_or_default()
    }

    /// Returns the document as it is published.
    #[must_use]
    pub fn document(&self) -> StatusDocument {
        StatusDocument {
            v: VERSION,
            state: self.state().to_owned(),
            phase: self.phase,
            reason: self.reason.map(|reason| reason.name().to_owned()),
            since: self.since,
            ts: self.ts,
            seq: self.seq,
            session: self.session.clone(),
            device: self.identity.device.clone(),
            interval_s: seconds(self.interval),
            recording: self.recording,
            video: self.video_section(),
            stalls: StallSection {
                count: self.stalls.count,
                total_s: seconds(self.stalls.total),
                longest_s: seconds(self.stalls.longest),
                now_s: self.stalled_for.map(seconds),
            },
            upload: self.upload_section(),
            config: self
                .config
                .as_ref()
                .map_or_else(ConfigSection::default, |config| ConfigSection {
                    sha256: Some(config.sha256.clone()),
                    ok: Some(config.ok),
                }),
            command: self
                .command
                .as_ref()
                .map_or_else(CommandSection::default, |answer| CommandSection {
                    name: Some(answer.name.clone()),
                    id: answer.id.clone(),
                    ok: Some(answer.ok),
                    msg: answer.msg.clone(),
                }),
            error: self.error.as_ref().map_or_else(ErrorSection::default, |error| ErrorSection {
                src: Some(error.src.clone()),
                domain: Some(error.domain.clone()),
                code: Some(error.code),
                msg: Some(error.msg.clone()),
            }),
            sys: SystemSection {
                uptime_s: seconds(self.uptime),
                version: self.identity.version.clone(),
                gst: self.identity.gst.clone(),
                host: self.identity.host.clone(),
            },
        }
    }

    fn video_section(&self) -> VideoSection {
        let video = &self.video;
        VideoSection {
            media: video.format.media.clone(),
            width: video.format.width,
            height: video.format.height,
            frames: video.frames,
            bytes: video.bytes,
            key_frames: video.key_frames,
            gaps: video.gaps,
            fps: video.fps.map(tenths),
            kbps: video.kbps.map(tenths),
            key_interval_s: video.key_interval.map(tenths),
            last_frame_age_s: video.last_frame_age.map(seconds),
        }
    }

    fn upload_section(&self) -> UploadSection {
        let upload = &self.upload;
        UploadSection {
            object: upload.object.clone(),
            last_done: upload.last_done,
            backlog_bytes: upload.backlog_bytes,
            backlog_chunks: upload.backlog_chunks,
            oldest_pending_s: upload.oldest_pending.map(seconds),
            dropped_bytes: upload.dropped_bytes,
            retries: upload.retries,
            status: upload.status.map(|status| status.name().to_owned()),
        }
    }
}
