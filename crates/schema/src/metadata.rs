//! The custom metadata of a chunk's object, as a struct and as the map of strings that Cloud Storage stores.
//!
//! PURE. The keys are public: the dashboard and users' own tools read them (`docs/reference.md`). At most 8 KiB for keys and
//! values together (Cloud Storage quotas, custom metadata).

use std::collections::BTreeMap;

use crate::crc32c::{from_base64, to_base64};
use crate::limits::MAX_METADATA_BYTES;
use crate::reason::{ClockKind, GapReason};
use crate::time::{parse_rfc3339, rfc3339_ms};
use crate::{Container, limits};

/// Key of the property `device-id`.
pub const DEVICE_ID: &str = "device-id";
/// Key of the property `session-id`.
pub const SESSION_ID: &str = "session-id";
/// Key of the sequence number in the session.
pub const SEQUENCE: &str = "sequence";
/// Key of the capture start, RFC 3339.
pub const START_TIME: &str = "start-time";
/// Key of the capture end, RFC 3339.
pub const END_TIME: &str = "end-time";
/// Key of the length in ms.
pub const DURATION_MS: &str = "duration-ms";
/// Key of the container time of the first key unit in ns.
pub const PTS_START_NS: &str = "pts-start-ns";
/// Key of the container's name.
pub const CONTAINER: &str = "container";
/// Key of the size of the header in bytes.
pub const INIT_BYTES: &str = "init-bytes";
/// Key of the CRC32C of the header, in base64 of its big-endian bytes, as in Cloud Storage's own object fields.
pub const INIT_CRC32C: &str = "init-crc32c";
/// Key of the end of the first key frame, an offset in the object in bytes.
pub const PREVIEW_BYTES: &str = "preview-bytes";
/// Key of the flag whether the chunk begins with a key unit, `true` or `false`.
pub const KEY_FRAME: &str = "key-frame";
/// Key of the flag whether the sink received every byte between the previous chunk and this one, `true` or `false`.
pub const CONTINUOUS: &str = "continuous";
/// Key of the reason for missing bytes.
pub const GAP_REASON: &str = "gap-reason";
/// Key of the clock that the capture start is from.
pub const CLOCK: &str = "clock";
/// Key of the clock's step at the chunk's start in ms.
pub const CLOCK_STEP_MS: &str = "clock-step-ms";
/// Key of the session that this one follows; at sequence 0 only.
pub const PREVIOUS_SESSION: &str = "previous-session";
/// Key of the codecs, RFC 6381.
pub const CODECS: &str = "codecs";

/// All of our own keys. A user's value is never stored under one of them, even if we have no value for it.
const OWN_KEYS: [&str; 18] = [
    DEVICE_ID,
    SESSION_ID,
    SEQUENCE,
    START_TIME,
    END_TIME,
    DURATION_MS,
    PTS_START_NS,
    CONTAINER,
    INIT_BYTES,
    INIT_CRC32C,
    PREVIEW_BYTES,
    KEY_FRAME,
    CONTINUOUS,
    GAP_REASON,
    CLOCK,
    CLOCK_STEP_MS,
    PREVIOUS_SESSION,
    CODECS,
];

/// Upper bound in bytes for our own keys and values, without the value of `device-id`.
pub const OWN_METADATA: usize = 768;

/// Why bytes are missing before a chunk, as stored in the object's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gap {
    /// A reason of this version.
    Known(GapReason),
    /// A reason of another version, or no reason although the chunk is not continuous.
    Other(String),
}

impl Gap {
    /// Returns the value of the metadata key `gap-reason`.
    pub fn name(&self) -> &str {
        match self {
            Self::Known(reason) => reason.name(),
            Self::Other(name) => name,
        }
    }
}

/// The metadata of one chunk. Times in ns. The map holds them in ms, so parsed values have no fraction of a millisecond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMetadata {
    /// Property `device-id`.
    pub device: String,
    /// Property `session-id`.
    pub session: String,
    /// Sequence number in the session, from 0.
    pub sequence: u64,
    /// Capture start, ns since the Unix epoch.
    pub start: u64,
    /// Capture end, ns since the Unix epoch.
    pub end: u64,
    /// Length in ns, rounded to the nearest millisecond in the map.
    pub duration: u64,
    /// Container time of the first key unit in ns.
    pub pts_start: Option<u64>,
    /// The container.
    pub container: Container,
    /// Bytes of the header in front.
    pub init_bytes: u64,
    /// CRC32C of the header; `None` if the chunk was stored by a version that did not write it.
    pub init_crc32c: Option<u32>,
    /// End of the first key frame in the object, bytes.
    pub preview_bytes: Option<u64>,
    /// Whether the chunk begins with a key unit.
    pub key_frame: bool,
    /// Why bytes are missing before it; `None`: continuous.
    pub gap: Option<Gap>,
    /// The clock that `start` is from.
    pub clock: ClockKind,
    /// Size of the clock's step at the start, ms.
    pub clock_step_ms: Option<i64>,
    /// RFC 6381 list, video first.
    pub codecs: Option<String>,
    /// Property `previous-session`: the session that this one follows; only at sequence 0.
    pub previous_session: Option<String>,
}

/// Why a map is not the metadata of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// A key that every chunk has is absent: the object is not one of ours.
    #[error("the metadata key {0} is missing: this object was not stored by gcssink")]
    Missing(&'static str),
    /// A value that the key cannot have.
    #[error("the metadata key {key} has the value \"{}\", which is not {expected}", limits::shown(.value))]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What the value must be.
        expected: &'static str,
    },
}

impl ObjectMetadata {
    /// Returns the map for the object. `user` is the property `metadata`; its keys never replace ours.
    pub fn to_map(&self, user: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let flag = |b: bool| if b { "true" } else { "false" }.to_owned();
        let mut map = user.clone();
        map.retain(|key, _| !OWN_KEYS.contains(&key.as_str()));
        let mut put = |key: &str, value: String| {
            map.insert(key.to_owned(), value);
        };
        put(DEVICE_ID, self.device.clone());
        put(SESSION_ID, self.session.clone());
        put(SEQUENCE, self.sequence.to_string());
        put(START_TIME, rfc3339_ms(self.start));
        put(END_TIME, rfc3339_ms(self.end));
        put(DURATION_MS, duration_ms(self.duration));
        put(CONTAINER, self.container.name().to_owned());
        put(INIT_BYTES, self.init_bytes.to_string());
        if let Some(crc32c) = self.init_crc32c {
            put(INIT_CRC32C, to_base64(crc32c));
        }
        put(KEY_FRAME, flag(self.key_frame));
        put(CONTINUOUS, flag(self.gap.is_none()));
        put(CLOCK, self.clock.name().to_owned());
        if let Some(pts) = self.pts_start {
            put(PTS_START_NS, pts.to_string());
        }
        if let Some(end) = self.preview_bytes {
            put(PREVIEW_BYTES, end.to_string());
        }
        if let Some(gap) = &self.gap {
            put(GAP_REASON, gap.name().to_owned());
        }
        if let Some(step) = self.clock_step_ms {
            put(CLOCK_STEP_MS, step.to_string());
        }
        if let Some(codecs) = &self.codecs {
            put(CODECS, codecs.clone());
        }
        if let Some(previous) = &self.previous_session {
            put(PREVIOUS_SESSION, previous.clone());
        }
        map
    }

    /// Parses the map of an object. Ignores other keys, and keeps reasons of newer versions as they are.
    ///
    /// # Errors
    /// [`MetadataError`] with the first key that is missing or has a value that gcssink never writes.
    pub fn from_map(map: &BTreeMap<String, String>) -> Result<Self, MetadataError> {
        let time = "an RFC 3339 time since 1970";
        let container = required(map, CONTAINER)?;
        let clock = required(map, CLOCK)?;
        let gap = match flag(map, CONTINUOUS)? {
            true => None,
            false => Some(match map.get(GAP_REASON) {
                Some(name) => GapReason::from_name(name).map_or_else(|| Gap::Other(name.clone()), Gap::Known),
                None => Gap::Other(String::new()),
            }),
        };
        Ok(Self {
            device: required(map, DEVICE_ID)?.to_owned(),
            session: required(map, SESSION_ID)?.to_owned(),
            sequence: number(map, SEQUENCE)?.ok_or(MetadataError::Missing(SEQUENCE))?,
            start: parse_rfc3339(required(map, START_TIME)?).ok_or_else(|| wrong(map, START_TIME, time))?,
            end: parse_rfc3339(required(map, END_TIME)?).ok_or_else(|| wrong(map, END_TIME, time))?,
            duration: number::<u64>(map, DURATION_MS)?
                .ok_or(MetadataError::Missing(DURATION_MS))?
                .saturating_mul(1_000_000),
            pts_start: number(map, PTS_START_NS)?,
            container: Container::from_name(container).ok_or_else(|| wrong(map, CONTAINER, "a container of gcssink"))?,
            init_bytes: number(map, INIT_BYTES)?.ok_or(MetadataError::Missing(INIT_BYTES))?,
            init_crc32c: crc32c(map, INIT_CRC32C)?,
            preview_bytes: number(map, PREVIEW_BYTES)?,
            key_frame: flag(map, KEY_FRAME)?,
            gap,
            clock: ClockKind::from_name(clock).ok_or_else(|| wrong(map, CLOCK, "system, ntp, corrected or suspect"))?,
            clock_step_ms: number(map, CLOCK_STEP_MS)?,
            codecs: map.get(CODECS).cloned(),
            previous_session: map.get(PREVIOUS_SESSION).cloned(),
        })
    }
}

/// Formats a length (ns) as the value of `duration-ms`, rounded to the nearest millisecond.
pub fn duration_ms(duration: u64) -> String {
    (duration.saturating_add(500_000) / 1_000_000).to_string()
}

fn required<'a>(map: &'a BTreeMap<String, String>, key: &'static str) -> Result<&'a str, MetadataError> {
    map.get(key).map(String::as_str).ok_or(MetadataError::Missing(key))
}

fn wrong(map: &BTreeMap<String, String>, key: &'static str, expected: &'static str) -> MetadataError {
    MetadataError::Value {
        key,
        value: map.get(key).cloned().unwrap_or_default(),
        expected,
    }
}

fn number<T: std::str::FromStr>(map: &BTreeMap<String, String>, key: &'static str) -> Result<Option<T>, MetadataError> {
    map.get(key)
        .map(|value| value.parse().map_err(|_| wrong(map, key, "a whole number")))
        .transpose()
}

fn crc32c(map: &BTreeMap<String, String>, key: &'static str) -> Result<Option<u32>, MetadataError> {
    // `from_base64` ignores the bits after the value; reject texts that gcssink never writes.
    let decode = |value: &String| from_base64(value).filter(|crc32c| to_base64(*crc32c) == *value);
    map.get(key)
        .map(|value| decode(value).ok_or_else(|| wrong(map, key, "base64 of four bytes")))
        .transpose()
}

fn flag(map: &BTreeMap<String, String>, key: &'static str) -> Result<bool, MetadataError> {
    match required(map, key)? {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(wrong(map, key, "true or false")),
    }
}

/// Checks that Cloud Storage accepts the user's metadata, and that it leaves room for ours.
///
/// # Errors
/// Names the key, or the size and the limit, and what to do.
pub fn check_user_metadata(user: &BTreeMap<String, String>, device: &str) -> Result<(), String> {
    if user.contains_key("") {
        return Err(
            "the property metadata has an empty key, which Cloud Storage does not take: remove it or give it a name".to_owned(),
        );
    }
    if let Some((key, _)) = user.iter().find(|(key, value)| key.contains('\0') || value.contains('\0')) {
        let key = limits::shown(key);
        return Err(format!(
            "the property metadata has a NUL character in {key} or its value: remove it"
        ));
    }
    let size: usize = user.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() + device.len() + OWN_METADATA;
    if size > MAX_METADATA_BYTES {
        return Err(format!(
            "the property metadata makes {size} bytes of custom metadata with the element's own {OWN_METADATA}; Cloud Storage takes {MAX_METADATA_BYTES}: shorten it"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn metadata() -> ObjectMetadata {
        ObjectMetadata {
            device: "store42/cam3".into(),
            session: "0a1b2c3d4e".into(),
            sequence: 12,
            start: 1_795_329_912_345_000_000,
            end: 1_795_329_922_345_400_000,
            duration: 10_000_400_000,
            pts_start: Some(3_600_000_000_000),
            container: Container::MpegTs,
            init_bytes: 376,
            init_crc32c: Some(0xe306_9283),
            preview_bytes: Some(52_000),
            key_frame: true,
            gap: None,
            clock: ClockKind::System,
            clock_step_ms: None,
            codecs: Some("avc1.640028".into()),
            previous_session: Some("0a1b2c3d4d".into()),
        }
    }

    #[test]
    fn metadata_tells_where_a_chunk_belongs() {
        let map = metadata().to_map(&BTreeMap::from([
            ("site".into(), "north".into()),
            ("sequence".into(), "x".into()),
        ]));
        let get = |k: &str| map.get(k).map(String::as_str);
        assert_eq!(get("sequence"), Some("12"));
        assert_eq!(get("start-time"), Some("2026-11-22T06:45:12.345Z"));
        assert_eq!(get("end-time"), Some("2026-11-22T06:45:22.345Z"));
        assert_eq!(get("duration-ms"), Some("10000"));
        assert_eq!(get("pts-start-ns"), Some("3600000000000"));
        assert_eq!(get("init-crc32c"), Some("4waSgw=="), "as gcloud storage hash writes it");
        assert_eq!(get("continuous"), Some("true"));
        assert_eq!(get("gap-reason"), None);
        assert_eq!(get("site"), Some("north"));
    }

    #[test]
    fn the_users_metadata_never_stands_under_a_key_of_ours_even_where_we_have_no_value() {
        let user: BTreeMap<String, String> = OWN_KEYS.iter().map(|key| ((*key).to_owned(), "mine".to_owned())).collect();
        let bare = ObjectMetadata {
            pts_start: None,
            init_crc32c: None,
            preview_bytes: None,
            gap: None,
            clock_step_ms: None,
            codecs: None,
            previous_session: None,
            ..metadata()
        };
        assert_eq!(bare.to_map(&user), bare.to_map(&BTreeMap::new()));
        let full = ObjectMetadata {
            gap: Some(Gap::Other("x".into())),
            clock_step_ms: Some(1),
            ..metadata()
        };
        let keys: Vec<String> = full.to_map(&user).into_keys().collect();
        assert_eq!(keys.len(), OWN_KEYS.len(), "each key of ours is in the list: {keys:?}");
    }

    #[test]
    fn metadata_that_cloud_storage_or_gstreamer_refuses_is_refused_at_the_start() {
        for (key, value) in [("", "x"), ("a\0b", "x"), ("a", "x\0")] {
            let user = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            assert!(check_user_metadata(&user, "cam").unwrap_err().contains("metadata"), "{key:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_at_the_start_is_never_refused_at_the_upload(user: BTreeMap<String, String>) {
            if check_user_metadata(&user, "cam").is_ok() {
                prop_assert_eq!(limits::check_metadata(&metadata().to_map(&user)), Ok(()));
            }
        }
    }

    #[test]
    fn our_own_keys_fit_the_room_kept_for_them() {
        let worst = ObjectMetadata {
            device: String::new(),
            sequence: u64::MAX,
            init_bytes: u64::MAX,
            preview_bytes: Some(u64::MAX),
            pts_start: Some(u64::MAX),
            duration: u64::MAX,
            gap: Some(Gap::Other("x".repeat(crate::reason::MAX_START_REASON))),
            clock_step_ms: Some(i64::MIN),
            codecs: Some("hvc1.A31.FFFFFFFF.H255.FF.FF.FF.FF.FF.FF,mp4a.40.34".into()),
            ..metadata()
        };
        let map = worst.to_map(&BTreeMap::new());
        let size: usize = map.iter().map(|(k, v)| k.len() + v.len()).sum();
        assert!(size <= OWN_METADATA, "{size}");
    }

    #[test]
    fn too_much_metadata_is_refused_with_the_number() {
        let user = BTreeMap::from([("note".into(), "x".repeat(8000))]);
        assert!(check_user_metadata(&user, "cam").unwrap_err().contains("8192"));
        assert!(check_user_metadata(&BTreeMap::new(), "cam").is_ok());
    }

    #[test]
    fn an_object_of_others_names_the_key_that_is_missing_or_wrong() {
        let read = |edit: &dyn Fn(&mut BTreeMap<String, String>)| {
            let mut map = metadata().to_map(&BTreeMap::new());
            edit(&mut map);
            ObjectMetadata::from_map(&map).map_err(|e| e.to_string())
        };
        for key in [
            DEVICE_ID,
            SESSION_ID,
            SEQUENCE,
            START_TIME,
            END_TIME,
            DURATION_MS,
            CONTAINER,
            INIT_BYTES,
            CLOCK,
        ] {
            let error = read(&|map| drop(map.remove(key))).unwrap_err();
            assert!(error.contains(key) && error.contains("missing"), "{error}");
            if key != DEVICE_ID && key != SESSION_ID {
                let error = read(&|map| drop(map.insert(key.into(), "-\n".into()))).unwrap_err();
                assert!(error.contains(key) && !error.contains('\n'), "{error}");
            }
        }
    }

    #[test]
    fn a_reason_of_a_newer_version_is_still_a_gap() {
        let mut map = metadata().to_map(&BTreeMap::new());
        map.insert(CONTINUOUS.into(), "false".into());
        map.insert(GAP_REASON.into(), "lightning".into());
        let read = ObjectMetadata::from_map(&map).unwrap();
        assert_eq!(read.gap, Some(Gap::Other("lightning".into())));
        assert_eq!(
            read.to_map(&BTreeMap::new()).get(GAP_REASON).map(String::as_str),
            Some("lightning")
        );
    }

    prop_compose! {
        fn any_metadata()(
            (device, session) in ("[a-z/0-9é ]{0,20}", "[0-9a-v]{10}"),
            (sequence, init_bytes, preview_bytes, pts_start) in any::<(u64, u64, Option<u64>, Option<u64>)>(),
            init_crc32c in any::<Option<u32>>(),
            (start, end) in (0u64..4_000_000_000_000, 0u64..4_000_000_000_000),
            duration in 0u64..u64::MAX / 1_000_000,
            container in proptest::sample::select(&Container::ALL[..]),
            gap in proptest::option::of(proptest::sample::select(&GapReason::ALL[..])),
            clock in proptest::sample::select(&ClockKind::ALL[..]),
            (key_frame, clock_step_ms) in any::<(bool, Option<i64>)>(),
            codecs in proptest::option::of("[a-z0-9.,]{1,40}"),
            previous_session in proptest::option::of("[0-9a-v]{10}"),
        ) -> ObjectMetadata {
            ObjectMetadata {
                device, session, sequence, init_bytes, init_crc32c, preview_bytes, pts_start, container, clock, key_frame,
                clock_step_ms, codecs, previous_session,
                start: start * 1_000_000,
                end: end * 1_000_000,
                duration: duration * 1_000_000,
                gap: gap.map(Gap::Known),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(metadata in any_metadata()) {
            let map = metadata.to_map(&BTreeMap::from([("site".to_owned(), "north".to_owned())]));
            prop_assert_eq!(ObjectMetadata::from_map(&map), Ok(metadata));
        }

        #[test]
        fn any_map_is_survived(map in proptest::collection::btree_map("[a-z-]{0,12}", ".{0,20}", 0..20)) {
            let _ = ObjectMetadata::from_map(&map);
        }
    }
}
