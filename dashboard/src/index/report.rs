//! What the cameras report over MQTT, and what it means for their badges.
//!
//! PURE. A report counts while the camera's `availability` is `online` and its status is younger than three of its intervals.
//! The bucket outweighs a report: a camera that reports "all well" while nothing arrives in the bucket is late.

use std::collections::BTreeMap;

use gcstreamer_schema::GapReason;
use gcstreamer_schema::name::check_device;
use gcstreamer_schema::status::{Phase, StatusDocument};
use gcstreamer_schema::topics::{DEFAULT_PREFIX, OFFLINE, ONLINE, Topic, device_of};

use super::badge::{Badge, patience};
use super::chunk::Chunk;

/// Most cameras that are remembered: a broker may hold messages of any number of topics.
const MAX_CAMERAS: usize = 20_000;
/// Most levels of an id (the parts between its slashes). The badge of a camera with more levels comes from the bucket alone.
const MAX_LEVELS: usize = 8;
const SECOND: u64 = 1_000_000_000;

/// The last messages of one camera.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The last `availability`. `None`: none was received, or it was neither `online` nor `offline`.
    pub online: Option<bool>,
    /// The last status.
    pub status: Option<StatusDocument>,
    /// When the status was received, ns since the Unix epoch by our clock. If the broker had retained it: when it was written.
    pub at: u64,
}

/// The last messages of all cameras, by device id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reports {
    /// Whether the broker is connected. If not, [`Reports::of`] and [`Reports::cameras`] return nothing.
    pub is_connected: bool,
    all: BTreeMap<String, Report>,
}

impl Reports {
    /// Returns the topic filters to subscribe to: `status` and `availability` only, since anyone may publish messages of any size
    /// below `set`. There is one filter for each number of levels, because `+` stands for exactly one level and an id may have
    /// several.
    pub fn filters() -> Vec<String> {
        let ids = (1..=MAX_LEVELS).map(|levels| DEFAULT_PREFIX.replace("{device}", &vec!["+"; levels].join("/")));
        ids.flat_map(|prefix| [Topic::Status, Topic::Availability].map(|topic| topic.below(&prefix)))
            .collect()
    }

    /// Stores a message received at `now` (ns since the Unix epoch). Ignores messages that are not a camera's.
    pub fn on_message(&mut self, topic: &str, payload: &[u8], retained: bool, now: u64) {
        let Some((prefix, topic)) = Topic::read(topic) else { return };
        // `gcstreamer/recorder/NAME` is a recorder, not a camera.
        let device =
            device_of(DEFAULT_PREFIX, prefix).filter(|device| check_device(device).is_ok() && !device.starts_with("recorder/"));
        let Some(device) = device.filter(|device| self.all.contains_key(*device) || self.all.len() < MAX_CAMERAS) else {
            return;
        };
        let is_cleared = payload.is_empty();
        match topic {
            Topic::Availability => {
                let stated = [(ONLINE, true), (OFFLINE, false)]
                    .into_iter()
                    .find(|(word, _)| word.as_bytes() == payload);
                self.all.entry(device.to_owned()).or_default().online = stated.map(|(_, online)| online);
            }
            Topic::Status if is_cleared => {
                self.all.remove(device);
            }
            Topic::Status => {
                let Ok(status) = StatusDocument::from_json(payload) else {
                    return;
                };
                let report = self.all.entry(device.to_owned()).or_default();
                // A retained status may be old, so the time it was written counts. The camera's clock may be ahead: cap it at
                // ours.
                report.at = if retained { status.ts.min(now) } else { now };
                report.status = Some(status);
            }
            Topic::State | Topic::Event(_) | Topic::Set(_) => {}
        }
    }

    /// Returns the last messages of a camera. `None` if there are none, or if the broker is not connected.
    pub fn of(&self, camera: &str) -> Option<&Report> {
        self.all.get(camera).filter(|_| self.is_connected)
    }

    /// Returns the cameras that have a status; none if the broker is not connected.
    pub fn cameras(&self) -> impl Iterator<Item = &String> {
        let known = self
            .all
            .iter()
            .filter(|(_, report)| self.is_connected && report.status.is_some());
        known.map(|(camera, _)| camera)
    }
}

/// A badge, its reason, and how long the oldest recording has waited for its upload, seconds.
pub type ReportedBadge = (Badge, String, Option<u64>);

/// Returns the badge of a camera at `now` (ns since the Unix epoch) by its report and its newest chunk. `None`: there is no
/// status, or the bucket outweighs it; the bucket alone gives the badge then.
pub fn badge_of(report: &Report, newest: Option<&Chunk>, now: u64) -> Option<ReportedBadge> {
    let status = report.status.as_ref()?;
    if newest.is_some_and(|chunk| is_overtaken(report, status, chunk, now)) {
        return None;
    }
    let since = gcstreamer_schema::time::rfc3339_ms(status.since);
    let plain = |badge, reason: String| Some((badge, reason, None));
    // Checked before `online`: a camera that was stopped on purpose is offline, too.
    if matches!(status.phase, Phase::Stopped | Phase::Eos) {
        return plain(Badge::Stopped, format!("stopped on purpose at {since}"));
    }
    if report.online == Some(false) {
        return plain(
            Badge::Offline,
            "its connection to the broker ended without an MQTT DISCONNECT: power, network or process".into(),
        );
    }
    if is_old(status, report.at, now) {
        let silence = now.saturating_sub(report.at);
        return plain(
            Badge::Unknown,
            format!(
                "its last report is {} s old; one is expected every {} s",
                silence / SECOND,
                status.interval_s
            ),
        );
    }
    // From here on the backlog is shown, too: earlier recordings may still wait for their upload.
    let plain = |badge, reason: String| Some((badge, reason, backlog(status)));
    let lost = |what: &str| plain(Badge::CameraLost, format!("{what} since {since}"));
    match status.phase {
        Phase::Streaming if status.reason.as_deref() == Some(GapReason::RecordStopped.name()) => {
            plain(Badge::NotRecording, "the recording was stopped by a command".into())
        }
        Phase::Streaming => Some(streaming(status, newest, now)),
        Phase::Stalled => lost("no pictures"),
        Phase::SourceLost => lost("the stream ended, no pictures"),
        Phase::Starting => lost("no picture yet, it tries"),
        Phase::NotRecording => plain(
            Badge::NotRecording,
            format!("pictures arrive but nothing has been recorded since {since}"),
        ),
        Phase::Paused => plain(Badge::NotRecording, format!("paused since {since}")),
        Phase::Error => {
            let stated = status
                .error
                .msg
                .as_deref()
                .or(status.reason.as_deref())
                .unwrap_or("no reason is given");
            plain(Badge::NotRecording, format!("an error at {since}: {stated}"))
        }
        Phase::Blocked => Some((
            Badge::Late,
            format!("pictures arrive but downstream has not accepted any since {since}"),
            backlog(status),
        )),
        Phase::Stopped | Phase::Eos => None,
    }
}

/// Returns which time a camera has recorded but not uploaded at `now`: from the beginning of the oldest waiting recording to now,
/// or to the end of the pictures. `None`: nothing waits, or the report does not say.
pub fn waiting(report: &Report, now: u64) -> Option<(u64, u64)> {
    let status = report.status.as_ref()?;
    let age = std::time::Duration::try_from_secs_f64(status.upload.oldest_pending_s?).ok()?;
    let age = u64::try_from(age.as_nanos()).ok().filter(|age| *age > 0)?;
    let begin = report.at.checked_sub(age)?;
    // If the reports have stopped, it is unknown whether anything was recorded after the last one.
    let end = match status.phase {
        Phase::Streaming if report.online == Some(false) || is_old(status, report.at, now) => report.at,
        Phase::Streaming => now,
        _ => status.since,
    };
    Some((begin, end.min(now))).filter(|(begin, end)| begin < end)
}

/// Returns whether a camera that was reported as stopped or offline has recorded since: it runs without MQTT now, or cannot reach
/// the broker.
fn is_overtaken(report: &Report, status: &StatusDocument, newest: &Chunk, now: u64) -> bool {
    let (ended, length) = (newest.ended(), newest.meta.end - newest.meta.start);
    let began = ended.saturating_sub(length);
    let is_since = match status.phase {
        Phase::Stopped | Phase::Eos => began > report.at,
        // A chunk that began while the report was still valid proves nothing: it may have been recorded before the power failed
        // and stored later.
        _ => report.online == Some(false) && began > report.at && is_old(status, report.at, began),
    };
    is_since && now.saturating_sub(ended) < patience(newest)
}

/// Returns whether a report received at `at` is older than three of its intervals at `now`.
fn is_old(status: &StatusDocument, at: u64, now: u64) -> bool {
    // The status may be from anyone: its interval may be negative, or too long for a duration.
    let interval = std::time::Duration::try_from_secs_f64(status.interval_s * 3.0).unwrap_or(std::time::Duration::MAX);
    u128::from(now.saturating_sub(at)) > interval.as_nanos()
}

fn backlog(status: &StatusDocument) -> Option<u64> {
    let seconds = status.upload.oldest_pending_s?;
    std::time::Duration::try_from_secs_f64(seconds).ok().map(|age| age.as_secs())
}

fn streaming(status: &StatusDocument, newest: Option<&Chunk>, now: u64) -> ReportedBadge {
    let waiting = backlog(status);
    let age = newest.map(|chunk| now.saturating_sub(chunk.ended()));
    match (status.upload.status.as_deref(), newest) {
        (Some(word @ ("degraded" | "offline")), _) => {
            let bytes = status.upload.backlog_bytes.map(gcstreamer_schema::units::bytes);
            let bytes = bytes.map(|bytes| format!(", {bytes} wait")).unwrap_or_default();
            (Badge::Late, format!("pictures come, the upload is {word}{bytes}"), waiting)
        }
        (_, Some(chunk)) if age.is_some_and(|age| age < patience(chunk)) => (Badge::Recording, String::new(), waiting),
        (_, Some(_)) => (Badge::Late, "pictures come, and nothing new is in the bucket".into(), waiting),
        (_, None) => (
            Badge::Late,
            "pictures come, and the bucket has nothing of them yet".into(),
            waiting,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::chunk::tests::{BASE, chunk};
    use super::*;

    const NOW: u64 = BASE + 15 * SECOND;

    fn status(phase: &str, upload: &str) -> String {
        let at = gcstreamer_schema::time::rfc3339_ms(BASE + 10 * SECOND);
        format!(
            r#"{{"v":1,"state":"connected","phase":"{phase}","reason":null,"since":"{at}","ts":"{at}","seq":1,"session":"0a1b2c3d4e",
            "device":"a/b","interval_s":60.0,"recording":true,"upload":{{"status":"{upload}","oldest_pending_s":95.5,"backlog_bytes":5000000}}}}"#
        )
    }

    fn heard(availability: &str, phase: &str, upload: &str) -> Reports {
        let mut reports = Reports {
            is_connected: true,
            ..Reports::default()
        };
        reports.on_message("gcstreamer/a/b/availability", availability.as_bytes(), true, NOW);
        reports.on_message("gcstreamer/a/b/status", status(phase, upload).as_bytes(), true, NOW);
        reports
    }

    fn badge_from(availability: &str, phase: &str, upload: &str) -> ReportedBadge {
        let newest = chunk(0, 5, 0.0, 10.0);
        badge_of(heard(availability, phase, upload).of("a/b").unwrap(), Some(&newest), NOW).unwrap()
    }

    #[test]
    fn the_badges_are_those_of_the_table() {
        for (availability, phase, upload, badge) in [
            ("online", "streaming", "online", Badge::Recording),
            ("online", "streaming", "degraded", Badge::Late),
            ("online", "streaming", "offline", Badge::Late),
            ("online", "stalled", "online", Badge::CameraLost),
            ("online", "source-lost", "online", Badge::CameraLost),
            ("online", "not-recording", "starting", Badge::NotRecording),
            ("online", "error", "online", Badge::NotRecording),
            ("offline", "streaming", "online", Badge::Offline),
            ("offline", "stopped", "stopped", Badge::Stopped),
            ("offline", "eos", "stopped", Badge::Stopped),
        ] {
            assert_eq!(
                badge_from(availability, phase, upload).0,
                badge,
                "{availability} {phase} {upload}"
            );
        }
        let (_, reason, waiting) = badge_from("online", "streaming", "offline");
        assert_eq!(
            (reason.as_str(), waiting),
            ("pictures come, the upload is offline, 5 MB wait", Some(95))
        );
        assert!(
            badge_from("online", "stalled", "online")
                .1
                .ends_with("since 2026-11-22T06:40:10.000Z")
        );
    }

    #[test]
    fn a_recording_that_was_stopped_by_a_command_is_not_late() {
        let stopped = status("streaming", "online").replace(r#""reason":null"#, r#""reason":"record-stopped""#);
        let mut reports = heard("online", "streaming", "online");
        reports.on_message("gcstreamer/a/b/status", stopped.as_bytes(), false, BASE + 500 * SECOND);
        let (badge, reason, _) =
            badge_of(reports.of("a/b").unwrap(), Some(&chunk(0, 5, 0.0, 10.0)), BASE + 500 * SECOND).unwrap();
        assert_eq!(
            (badge, reason.as_str()),
            (Badge::NotRecording, "the recording was stopped by a command")
        );
    }

    #[test]
    fn a_camera_that_records_without_reports_is_classified_by_the_bucket() {
        // Reported at 10 s, every 60 s. The chunk begins at `start`; the badge is asked for `after` seconds after its end.
        let badge = |availability: &str, phase: &str, start: u64, after: u64| {
            let newest = chunk(0, 5, start as f64, 10.0);
            let now = newest.meta.end + after * SECOND;
            badge_of(heard(availability, phase, "online").of("a/b").unwrap(), Some(&newest), now).map(|(badge, ..)| badge)
        };
        assert_eq!(badge("offline", "stopped", 0, 5), Some(Badge::Stopped));
        assert_eq!(badge("offline", "stopped", 100, 5), None, "started again");
        assert_eq!(
            badge("offline", "stopped", 100, 70),
            Some(Badge::Stopped),
            "and it stores no more"
        );
        assert_eq!(
            badge("offline", "streaming", 100, 5),
            Some(Badge::Offline),
            "it may have been waiting"
        );
        assert_eq!(badge("offline", "streaming", 300, 5), None, "its way to the broker is closed");
        assert_eq!(badge("offline", "streaming", 300, 70), Some(Badge::Offline));
    }

    #[test]
    fn what_is_recorded_and_not_uploaded_reaches_to_now_or_to_the_last_picture() {
        let of = |availability: &str, phase: &str, now: u64| {
            let found = waiting(heard(availability, phase, "offline").of("a/b").unwrap(), now);
            found.map(|(from, to)| (BASE.saturating_sub(from) / SECOND, to.saturating_sub(BASE) / SECOND))
        };
        // Written at 10 s, when the oldest recording was 95.5 s old. The phase began at 10 s.
        assert_eq!(of("online", "streaming", NOW), Some((85, 15)));
        assert_eq!(of("online", "stalled", NOW), Some((85, 10)));
        assert_eq!(of("offline", "streaming", NOW), Some((85, 10)), "its power may have gone");
        assert_eq!(
            of("online", "streaming", BASE + 500 * SECOND),
            Some((85, 10)),
            "an old report"
        );
        let mut nothing = heard("online", "streaming", "online").of("a/b").unwrap().clone();
        nothing.status.as_mut().unwrap().upload.oldest_pending_s = None;
        assert_eq!(waiting(&nothing, NOW), None);
        for odd in [0.0, -1.0, f64::NAN, 1e300] {
            nothing.status.as_mut().unwrap().upload.oldest_pending_s = Some(odd);
            assert_eq!(waiting(&nothing, NOW), None, "{odd}");
        }
    }

    #[test]
    fn a_state_older_than_three_intervals_is_unknown() {
        let reports = heard("online", "streaming", "online");
        let at = |seconds: u64| {
            badge_of(
                reports.of("a/b").unwrap(),
                Some(&chunk(0, 5, 0.0, 10.0)),
                BASE + seconds * SECOND,
            )
            .unwrap()
            .0
        };
        // Written at 10 s, every 60 s.
        assert_eq!((at(60), at(191)), (Badge::Recording, Badge::Unknown));
    }

    #[test]
    fn what_the_bucket_has_is_believed_more_than_a_report_that_all_is_well() {
        let reports = heard("online", "streaming", "online");
        let report = reports.of("a/b").unwrap();
        assert_eq!(badge_of(report, None, NOW).unwrap().0, Badge::Late);
        let old = chunk(0, 5, 0.0, 1.0);
        assert_eq!(badge_of(report, Some(&old), BASE + 60 * SECOND).unwrap().0, Badge::Late);
    }

    #[test]
    fn nothing_is_believed_without_a_connection_and_foreign_topics_are_ignored() {
        let mut reports = heard("online", "streaming", "online");
        for topic in [
            "gcstreamer/recorder/site/status",
            "other/a/b/status",
            "gcstreamer/../x/status",
            "gcstreamer/a/b/event/gap",
        ] {
            reports.on_message(topic, status("stalled", "online").as_bytes(), true, NOW);
        }
        reports.on_message("gcstreamer/a/b/status", b"{\"v\":", false, NOW);
        reports.on_message("gcstreamer/a/b/availability", b"\xff\xfe", false, NOW);
        assert_eq!(reports.cameras().collect::<Vec<_>>(), ["a/b"]);
        assert_eq!(
            badge_of(reports.of("a/b").unwrap(), Some(&chunk(0, 5, 0.0, 10.0)), NOW)
                .unwrap()
                .0,
            Badge::Recording
        );
        reports.is_connected = false;
        assert_eq!((reports.of("a/b"), reports.cameras().count()), (None, 0));
    }
}
