//! All that is known of a closed chunk, and the metadata that follows from it.
//!
//! PURE.

use std::collections::BTreeMap;

use gcstreamer_schema::metadata::{Gap, ObjectMetadata};
use gcstreamer_schema::{ClockKind, Container, GapReason};

/// All that is known of a closed chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkInfo {
    /// Sequence number in the session, from 0.
    pub sequence: u64,
    /// Capture start, ns since the Unix epoch.
    pub start: u64,
    /// Length in ns: from the first picture to the next chunk's, of the last chunk to the end of its last frame.
    pub duration: u64,
    /// Container time of the first picture, or of the first sound without one, in ns; `None` if it has none.
    pub pts_start: Option<u64>,
    /// Running time of the first buffer in ns.
    pub running: Option<u64>,
    /// The container.
    pub container: Container,
    /// Bytes of the header in front.
    pub init_bytes: u64,
    /// CRC32C of the header.
    pub init_crc32c: u32,
    /// End of the first key frame in the object; `None` without one.
    pub preview_bytes: Option<u64>,
    /// Whether it begins with a key unit.
    pub key_frame: bool,
    /// Why bytes may be missing before it; `None` if none are.
    pub gap: Option<GapReason>,
    /// Whose clock `start` is from.
    pub clock: ClockKind,
    /// By how much the clock stepped at its start, ms.
    pub clock_step_ms: Option<i64>,
    /// RFC 6381 list.
    pub codecs: Option<String>,
    /// The stream has sound and no pictures.
    pub audio_only: bool,
    /// Bytes of the object: header and payload.
    pub size: u64,
}

impl ChunkInfo {
    /// Returns the custom metadata of the chunk's object. `user` is the property `metadata`, whose keys never hide ours.
    pub fn metadata(&self, device: &str, session: &str, user: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let metadata = ObjectMetadata {
            device: device.to_owned(),
            session: session.to_owned(),
            sequence: self.sequence,
            start: self.start,
            end: self.start.saturating_add(self.duration),
            duration: self.duration,
            pts_start: self.pts_start,
            container: self.container,
            init_bytes: self.init_bytes,
            init_crc32c: Some(self.init_crc32c),
            preview_bytes: self.preview_bytes,
            key_frame: self.key_frame,
            gap: self.gap.map(Gap::Known),
            clock: self.clock,
            clock_step_ms: self.clock_step_ms,
            codecs: self.codecs.clone(),
            previous_session: None,
        };
        metadata.to_map(user)
    }
}
