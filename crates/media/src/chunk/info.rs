//! What an object says of itself: its custom metadata.
//!
//! PURE. The keys are those of the project's public contract (`docs/objects.md`); all values are strings, as Cloud Storage
//! wants them. At most 8 KiB for keys and values together (Cloud Storage quotas).

use std::collections::BTreeMap;

use super::GapReason;
use super::clock::ClockKind;
use super::name::rfc3339_ms;
use crate::container::Container;
use crate::gcs::MAX_METADATA_BYTES as MAX_METADATA;

/// Room that our own keys and values take at most, beside `device-id`.
pub const OWN_METADATA: usize = 768;

/// Key of the length in ms.
pub const DURATION_MS: &str = "duration-ms";
/// Key of the capture end.
pub const END_TIME: &str = "end-time";
/// Key of the end of the first key picture.
pub const PREVIEW_BYTES: &str = "preview-bytes";

/// All that is known of a closed chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkInfo {
    /// Sequence number in the session, from 0.
    pub sequence: u64,
    /// Capture start, ns since the Unix epoch.
    pub start: u64,
    /// Length in ns: from the first picture to the next chunk's, of the last chunk to the end of its last frame.
    pub duration: u64,
    /// Container time of the key unit in ns, where the container has times.
    pub pts_start: Option<u64>,
    /// Running time of the first buffer in ns.
    pub running: Option<u64>,
    /// The container.
    pub container: Container,
    /// Bytes of the header in front.
    pub init_bytes: u64,
    /// End of the first key picture in the object; `None` without one.
    pub preview_bytes: Option<u64>,
    /// Whether it begins with a key unit.
    pub key_frame: bool,
    /// Why bytes may be missing before it; `None` where none are.
    pub gap: Option<GapReason>,
    /// Whose clock `start` is from.
    pub clock: ClockKind,
    /// By how much the clock stepped at its start, ms.
    pub clock_step_ms: Option<i64>,
    /// RFC 6381 list.
    pub codecs: Option<String>,
    /// There is sound and no picture.
    pub audio_only: bool,
    /// Bytes of the object: header and payload.
    pub size: u64,
}

impl ChunkInfo {
    /// The custom metadata; `user` is the property `metadata`, whose keys never hide ours.
    pub fn metadata(&self, device: &str, session: &str, user: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let flag = |b: bool| if b { "true" } else { "false" }.to_owned();
        let mut map = user.clone();
        let mut put = |key: &str, value: String| {
            map.insert(key.to_owned(), value);
        };
        put("device-id", device.to_owned());
        put("session-id", session.to_owned());
        put("sequence", self.sequence.to_string());
        put("start-time", rfc3339_ms(self.start));
        put(END_TIME, rfc3339_ms(self.start.saturating_add(self.duration)));
        put(DURATION_MS, (self.duration.saturating_add(500_000) / 1_000_000).to_string());
        put("container", self.container.name().to_owned());
        put("init-bytes", self.init_bytes.to_string());
        put("key-frame", flag(self.key_frame));
        put("continuous", flag(self.gap.is_none()));
        put("clock", self.clock.name().to_owned());
        if let Some(pts) = self.pts_start {
            put("pts-start-ns", pts.to_string());
        }
        if let Some(end) = self.preview_bytes {
            put(PREVIEW_BYTES, end.to_string());
        }
        if let Some(reason) = self.gap {
            put("gap-reason", reason.name().to_owned());
        }
        if let Some(step) = self.clock_step_ms {
            put("clock-step-ms", step.to_string());
        }
        if let Some(codecs) = &self.codecs {
            put("codecs", codecs.clone());
        }
        map
    }
}

/// Checks that the user's metadata leaves room for ours.
///
/// # Errors
/// The number, the limit and what to do.
pub fn check_metadata(user: &BTreeMap<String, String>, device: &str) -> Result<(), String> {
    let size: usize = user.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() + device.len() + OWN_METADATA;
    if size > MAX_METADATA {
        return Err(format!(
            "the property metadata makes {size} bytes of custom metadata with the element's own {OWN_METADATA}; Cloud Storage takes {MAX_METADATA}: shorten it"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> ChunkInfo {
        ChunkInfo {
            sequence: 12,
            start: 1_795_329_912_345_000_000,
            duration: 10_000_400_000,
            pts_start: Some(3_600_000_000_000),
            running: None,
            container: Container::MpegTs,
            init_bytes: 376,
            preview_bytes: Some(52_000),
            key_frame: true,
            gap: None,
            clock: ClockKind::System,
            clock_step_ms: None,
            codecs: Some("avc1.640028".into()),
            audio_only: false,
            size: 1,
        }
    }

    #[test]
    fn metadata_tells_where_a_chunk_belongs() {
        let map = info().metadata(
            "store42/cam3",
            "0a1b2c3d4e",
            &BTreeMap::from([("site".into(), "north".into()), ("sequence".into(), "x".into())]),
        );
        let get = |k: &str| map.get(k).map(String::as_str);
        assert_eq!(get("sequence"), Some("12"));
        assert_eq!(get("start-time"), Some("2026-11-22T06:45:12.345Z"));
        assert_eq!(get("end-time"), Some("2026-11-22T06:45:22.345Z"));
        assert_eq!(get("duration-ms"), Some("10000"));
        assert_eq!(get("pts-start-ns"), Some("3600000000000"));
        assert_eq!(get("continuous"), Some("true"));
        assert_eq!(get("gap-reason"), None);
        assert_eq!(get("site"), Some("north"));
    }

    #[test]
    fn our_own_keys_fit_the_room_kept_for_them() {
        let worst = ChunkInfo {
            sequence: u64::MAX,
            init_bytes: u64::MAX,
            preview_bytes: Some(u64::MAX),
            pts_start: Some(u64::MAX),
            duration: u64::MAX,
            gap: Some(GapReason::RecordStopped),
            clock_step_ms: Some(i64::MIN),
            codecs: Some("hvc1.A31.FFFFFFFF.H255.FF.FF.FF.FF.FF.FF,mp4a.40.34".into()),
            ..info()
        };
        let size: usize = worst
            .metadata("", "0123456789", &BTreeMap::new())
            .iter()
            .map(|(k, v)| k.len() + v.len())
            .sum();
        assert!(size <= OWN_METADATA, "{size}");
    }

    #[test]
    fn too_much_metadata_is_refused_with_the_number() {
        let user = BTreeMap::from([("note".into(), "x".repeat(8000))]);
        assert!(check_metadata(&user, "cam").unwrap_err().contains("8192"));
        assert!(check_metadata(&BTreeMap::new(), "cam").is_ok());
    }
}
