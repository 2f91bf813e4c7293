//! The state of a camera as the first screen shows it, from the bucket alone.
//!
//! PURE. Without MQTT ([`super::report`]) the bucket shows three states: something was stored lately, something was stored
//! earlier, or nothing ever was. The board must not claim more than it knows.

use serde::Serialize;

use super::chunk::Chunk;

/// State of a camera.
// The order of the variants is the order of the first screen: cameras in trouble come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Badge {
    /// It is in a list of cameras, and the bucket has nothing of it.
    NeverSeen,
    /// Its connection to the broker ended without an MQTT DISCONNECT.
    Offline,
    /// No pictures come from the camera.
    CameraLost,
    /// Pictures come, but none is recorded.
    NotRecording,
    /// Nothing was stored for longer than [`patience`], or the last report is too old. The cause is unknown.
    Unknown,
    /// Pictures come, but they do not reach the bucket in time.
    Late,
    /// Its list says that it is not to be recorded, or it was stopped on purpose.
    Stopped,
    /// The newest chunk is younger than [`patience`].
    Recording,
}

/// The state of one camera.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CameraState {
    /// Device id.
    pub id: String,
    /// Name for people; the id if it has none.
    pub name: String,
    /// Its state.
    pub badge: Badge,
    /// The reason of the badge, in words; empty for [`Badge::Recording`].
    pub reason: String,
    /// End of the newest chunk.
    #[serde(with = "gcstreamer_schema::time::option")]
    pub last_stored: Option<u64>,
    /// Seconds since then.
    pub age_s: Option<u64>,
    /// Age of the oldest recording that waits for its upload, seconds; known from MQTT only.
    pub backlog_s: Option<u64>,
    /// Seconds missing since midnight in the camera's zone; `None`: not counted yet.
    pub missing_s_today: Option<u64>,
}

const SECOND: u64 = 1_000_000_000;

/// Returns how old the end of the newest chunk may be while the camera counts as recording, ns: three chunk lengths and 30 s.
pub fn patience(newest: &Chunk) -> u64 {
    let length = newest.meta.end.saturating_sub(newest.meta.start);
    length.saturating_mul(3).saturating_add(30 * SECOND)
}

/// Returns the badge of a camera at `now` (ns since the Unix epoch), and the reason, by its newest chunk. `is_in_bucket`: the
/// search for cameras found it.
pub fn badge_of(newest: Option<&Chunk>, is_enabled: bool, is_in_bucket: bool, now: u64) -> (Badge, String) {
    match newest {
        _ if !is_enabled => (Badge::Stopped, "not enabled in its list of cameras".into()),
        None if is_in_bucket => (
            Badge::Unknown,
            "nothing that is stored of it can be shown: it is dated after tomorrow (check its clock), or not of gcssink".into(),
        ),
        None => (Badge::NeverSeen, "the bucket has nothing of this camera".into()),
        Some(chunk) if now.saturating_sub(chunk.ended()) < patience(chunk) => (Badge::Recording, String::new()),
        Some(chunk) => {
            let since = gcstreamer_schema::time::rfc3339_ms(chunk.ended());
            (Badge::Unknown, format!("nothing stored since {since}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chunk::tests::{BASE, chunk};
    use super::*;

    #[test]
    fn a_camera_is_recording_as_long_as_its_newest_chunk_is_young() {
        let newest = chunk(0, 5, 0.0, 10.0);
        let at = |seconds: u64| badge_of(Some(&newest), true, true, BASE + seconds * SECOND).0;
        // The chunk ended at 10 s; three chunks and 30 s are 60 s.
        assert_eq!(
            (at(10), at(69), at(70), at(86_400)),
            (Badge::Recording, Badge::Recording, Badge::Unknown, Badge::Unknown)
        );
        assert_eq!(at(0), Badge::Recording, "its clock is ahead of ours");
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_keep_a_dead_camera_recording() {
        let mut newest = chunk(0, 5, 0.0, 10.0);
        (newest.meta.start, newest.meta.end) = (BASE + 80_000 * SECOND, BASE + 80_010 * SECOND);
        let at = |seconds: u64| badge_of(Some(&newest), true, true, BASE + seconds * SECOND).0;
        // Stored at 10 s, and dated 22 hours later.
        assert_eq!(
            (at(69), at(70), at(80_011)),
            (Badge::Recording, Badge::Unknown, Badge::Unknown)
        );
        let (badge, reason) = badge_of(None, true, true, BASE);
        assert!(badge == Badge::Unknown && reason.contains("check its clock"));
    }

    #[test]
    fn a_camera_that_never_uploaded_is_not_absent() {
        assert_eq!(badge_of(None, true, false, BASE).0, Badge::NeverSeen);
        assert_eq!(badge_of(None, false, false, BASE).0, Badge::Stopped);
        let (_, reason) = badge_of(Some(&chunk(0, 5, 0.0, 10.0)), true, true, BASE + 3600 * SECOND);
        assert_eq!(reason, "nothing stored since 2026-11-22T06:40:10.000Z");
    }
}
