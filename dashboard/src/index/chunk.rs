//! A chunk as the bucket lists it: name and metadata checked, before anything else may use it.
//!
//! No I/O. Names and metadata are untrusted text. An object is not a chunk if its name does not match the template, or if its
//! metadata is not [`ObjectMetadata`] or contradicts the name.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use gcstreamer_schema::metadata::ObjectMetadata;
use gcstreamer_schema::name::Template;
use gcstreamer_storage::Listed;

/// Longest chunk, ns: a day. Metadata that claim more are damaged; a player would take the chunk for everything that follows.
const MAX_DURATION: u64 = 86_400_000_000_000;

/// Highest sequence number that gcssink assigns. JSON numbers are exact up to this one, and adding to it cannot overflow.
pub(super) const MAX_SEQUENCE: u64 = 1 << 53;

/// A clock step up to this counts as drift, ms.
const MAX_DRIFT_MS: i64 = 2000;

/// A stored chunk. Times in ns since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Object name.
    pub name: Arc<str>,
    /// Generation of the object.
    pub generation: i64,
    /// Size of the object, bytes.
    pub size: u64,
    /// When the object was created, by the bucket's clock, ns since the Unix epoch; 0 if unknown.
    pub created: u64,
    /// Number of the attempt in the name. It is over 0 if an object that is not the whole chunk had taken the names before.
    pub retry: u32,
    /// Its metadata. `device` is empty: a list of chunks belongs to one camera, and the id would be in memory once per chunk.
    pub meta: ObjectMetadata,
}

impl Chunk {
    /// Reads an object of a listing. `None`: it is not a chunk of this camera.
    pub fn of(template: &Template, camera: &str, object: Listed) -> Option<Self> {
        let parts = template.read(&object.name)?;
        let mut meta = ObjectMetadata::from_map(&object.metadata).ok()?;
        let agrees = |stated: Option<&str>, is: &str| stated.is_none_or(|stated| stated == is);
        let is_ours = meta.device == camera
            && agrees(parts.device.as_deref(), &meta.device)
            && agrees(parts.session.as_deref(), &meta.session)
            && parts.sequence.is_none_or(|sequence| sequence == meta.sequence)
            && meta.sequence <= MAX_SEQUENCE;
        if !is_ours || meta.init_bytes > object.size {
            return None;
        }
        if meta.end <= meta.start {
            meta.end = meta.start.saturating_add(meta.duration);
        }
        if meta.end - meta.start > MAX_DURATION || meta.duration > MAX_DURATION || meta.end == meta.start {
            return None;
        }
        meta.device = String::new();
        let created = object.created.and_then(|at: SystemTime| at.duration_since(UNIX_EPOCH).ok());
        Some(Self {
            name: object.name.into(),
            generation: object.generation,
            size: object.size,
            created: created.and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0),
            retry: parts.retry,
            meta,
        })
    }

    /// Returns whether `next` is the next chunk of the same session, with nothing missing between them.
    pub fn is_followed_by(&self, next: &Self) -> bool {
        self.meta.session == next.meta.session
            && self.meta.sequence.checked_add(1) == Some(next.meta.sequence)
            && next.meta.gap.is_none()
    }

    /// Returns whether the camera's clock was set forward before this chunk, by more than clocks drift.
    pub fn steps(&self) -> bool {
        self.meta.clock_step_ms.is_some_and(|by| by > MAX_DRIFT_MS)
    }

    /// Returns when the chunk ended, ns since the Unix epoch: by the camera's clock, but at most when the bucket created the
    /// object.
    pub fn ended(&self) -> u64 {
        if self.created > 0 {
            self.meta.end.min(self.created)
        } else {
            self.meta.end
        }
    }

    /// Returns about how many bytes of memory the chunk takes.
    pub fn cost(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.meta.session.len() + self.meta.codecs.as_ref().map_or(0, String::len) + 64
    }
}

/// Sorts chunks by time and removes duplicates.
///
/// Of a chunk that was stored under several names the last name counts: the earlier ones are taken by broken or partial objects
/// that the recorder may not delete.
pub fn sorted(mut chunks: Vec<Chunk>) -> Vec<Chunk> {
    let key = |chunk: &Chunk| {
        let (session, sequence) = (chunk.meta.session.clone(), chunk.meta.sequence);
        (chunk.meta.start, session, sequence, Reverse(chunk.retry), chunk.generation)
    };
    chunks.sort_by_cached_key(key);
    let place = |chunk: &Chunk| (chunk.meta.start, chunk.meta.sequence);
    chunks.dedup_by(|a, b| {
        let is_again = place(a) == place(b) && a.meta.session == b.meta.session && a.retry < b.retry;
        is_again || a.name == b.name && a.generation == b.generation
    });
    chunks
}

/// Returns the chunk that the time `from..to` between two chunks belongs to. Of `chunks`, sorted by [`sorted`], this is the last
/// one that ends at or before `from` and whose successor begins at or after `to` with nothing missing before it.
pub fn joined(chunks: &[Chunk], from: u64, to: u64) -> Option<&Chunk> {
    let later = chunks.iter().filter(|chunk| chunk.meta.start >= to && !chunk.steps());
    let later: HashMap<(&str, u64), &Chunk> = later
        .map(|chunk| ((chunk.meta.session.as_str(), chunk.meta.sequence), chunk))
        .collect();
    let is_joined = |chunk: &&Chunk| {
        let next = chunk.meta.sequence.checked_add(1);
        let next = next.and_then(|next| later.get(&(chunk.meta.session.as_str(), next)));
        chunk.meta.end <= from && next.is_some_and(|next| chunk.is_followed_by(next))
    };
    chunks.iter().filter(is_joined).max_by_key(|chunk| chunk.meta.end)
}

#[cfg(test)]
pub(crate) mod tests {
    use gcstreamer_schema::metadata::Gap;
    use gcstreamer_schema::{ClockKind, Container};

    use super::*;

    pub(crate) const SECOND: u64 = 1_000_000_000;
    pub(crate) const BASE: u64 = 1_795_329_600 * SECOND;

    /// A chunk of session `s` (a digit) that begins `start` seconds after [`BASE`].
    #[allow(clippy::cast_possible_truncation)]
    pub(crate) fn chunk(s: u8, sequence: u64, start: f64, seconds: f64) -> Chunk {
        let ns = |seconds: f64| std::time::Duration::from_secs_f64(seconds).as_nanos() as u64;
        let session = format!("{s}a1b2c3d4e");
        Chunk {
            name: format!("cam/{session}_{sequence:06}.flv").into(),
            generation: 1000 + i64::try_from(sequence).unwrap(),
            size: 1000,
            created: BASE + ns(start + seconds),
            retry: 0,
            meta: ObjectMetadata {
                previous_session: None,
                device: String::new(),
                session,
                sequence,
                start: BASE + ns(start),
                end: BASE + ns(start + seconds),
                duration: ns(seconds),
                pts_start: Some(ns(start)),
                container: Container::Flv,
                init_bytes: 10,
                init_crc32c: Some(7),
                preview_bytes: Some(100),
                key_frame: true,
                gap: (sequence == 0).then_some(Gap::Known(gcstreamer_schema::GapReason::Start)),
                clock: ClockKind::System,
                clock_step_ms: None,
                codecs: Some("avc1.42C01E,mp4a.40.2".into()),
            },
        }
    }

    fn listed(device: &str, name: &str) -> Listed {
        let meta = ObjectMetadata {
            device: device.into(),
            ..chunk(0, 3, 0.0, 10.0).meta
        };
        Listed {
            name: name.into(),
            generation: 5,
            size: 1000,
            metadata: meta.to_map(&Default::default()),
            ..Listed::default()
        }
    }

    fn template() -> Template {
        Template::parse(crate::settings::DEFAULT_LOCATION).unwrap()
    }

    const NAME: &str = "/2026/11/22/20261122T064000.000Z_0a1b2c3d4e_000003.flv";

    #[test]
    fn a_chunk_is_what_name_and_metadata_agree_on() {
        for camera in ["cam", "store42/cam3", "<script>alert(1)</script>", "a b"] {
            let name = format!("{camera}{NAME}");
            assert!(Chunk::of(&template(), camera, listed(camera, &name)).is_some(), "{camera}");
            assert!(Chunk::of(&template(), "other", listed(camera, &name)).is_none());
            assert!(
                Chunk::of(&template(), camera, listed("other", &name)).is_none(),
                "metadata of another camera"
            );
        }
        let wrong_sequence = format!("cam{}", NAME.replace("000003", "000004"));
        assert!(Chunk::of(&template(), "cam", listed("cam", &wrong_sequence)).is_none());
        assert!(Chunk::of(&template(), "cam", listed("cam", "cam/readme.txt")).is_none());
    }

    #[test]
    fn of_a_chunk_that_was_stored_again_the_last_name_counts() {
        let name = format!("cam{NAME}");
        let names = [name.clone(), name.replace(".flv", "-r2.flv"), name.replace(".flv", "-r1.flv")];
        let chunks = names.map(|name| Chunk::of(&template(), "cam", listed("cam", &name)).unwrap());
        let kept = sorted(chunks.to_vec());
        assert_eq!(kept.iter().map(|chunk| chunk.retry).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn what_a_drifting_clock_leaves_out_belongs_to_the_chunk_before_it() {
        let mut chunks = vec![
            chunk(0, 0, 0.0, 10.0),
            chunk(1, 4, 1.0, 5.0),
            chunk(0, 1, 10.2, 10.0),
            chunk(0, 2, 40.0, 10.0),
        ];
        chunks[3].meta.gap = Some(Gap::Known(gcstreamer_schema::GapReason::Stalled));
        // Times in ms.
        let at = |chunks: &[Chunk], from: u64, to: u64| {
            let found = joined(chunks, BASE + from * 1_000_000, BASE + to * 1_000_000);
            found.map(|chunk| chunk.meta.sequence)
        };
        assert_eq!(at(&chunks, 10_050, 10_150), Some(0));
        assert_eq!(at(&chunks, 10_050, 10_250), None, "there is one of the time itself");
        assert_eq!(at(&chunks, 25_000, 25_100), None, "the camera stalled");
        chunks[3].meta.gap = None;
        assert_eq!(at(&chunks, 25_000, 25_100), Some(1));
        chunks[3].meta.clock_step_ms = Some(20_000);
        assert_eq!(
            at(&chunks, 25_000, 25_100),
            None,
            "the clock was set forward: nothing is of that time"
        );
        chunks.remove(2);
        assert_eq!(at(&chunks, 10_050, 10_150), None, "one is missing");
    }

    #[test]
    fn broken_metadata_is_no_chunk() {
        let name = format!("cam{NAME}");
        for (key, value) in [
            ("start-time", "yesterday"),
            ("sequence", "-1"),
            ("sequence", "9007199254740993"),
            ("container", "avi"),
            ("init-bytes", "5000"),
            ("duration-ms", "99999999999"),
        ] {
            let mut object = listed("cam", &name);
            object.metadata.insert(key.into(), value.into());
            if key == "duration-ms" {
                object.metadata.insert("end-time".into(), "2026-11-22T06:40:00.000Z".into());
                object.metadata.insert("start-time".into(), "2026-11-22T06:40:00.000Z".into());
            }
            assert!(Chunk::of(&template(), "cam", object).is_none(), "{key}");
        }
        // Three years in an object of ten seconds: a player would take it for everything that follows.
        for (length, is_chunk) in [("86400000", true), ("86400001", false), ("99999999999", false)] {
            let mut object = listed("cam", &name);
            object.metadata.insert("duration-ms".into(), length.into());
            assert_eq!(Chunk::of(&template(), "cam", object).is_some(), is_chunk, "{length} ms");
        }
        assert!(
            Chunk::of(
                &template(),
                "cam",
                Listed {
                    name,
                    generation: 1,
                    size: 1,
                    ..Listed::default()
                }
            )
            .is_none()
        );
    }
}
