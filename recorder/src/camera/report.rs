//! The published state of each camera: its runner writes it; `/status`, `/metrics` and the table read it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use super::state::{StartReason, State};
use super::watch::Stored;
use gstgcstreamer::base::lock::lock;

/// A snapshot of one camera.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Key `id`.
    pub id: String,
    /// Key `name`.
    pub name: Option<String>,
    /// Its state.
    pub state: State,
    /// When the state began.
    pub since: SystemTime,
    /// The cause, for people; empty while all is well.
    pub reason: String,
    /// Name of the video codec.
    pub codec: Option<&'static str>,
    /// Pixels.
    pub size: Option<(u32, u32)>,
    /// Frames per second.
    pub fps: Option<f64>,
    /// Seconds between key frames.
    pub key_interval: Option<f64>,
    /// Codec of the sound that is recorded.
    pub audio: Option<&'static str>,
    /// Name of the container.
    pub container: &'static str,
    /// When the last picture arrived.
    pub last_frame: Option<SystemTime>,
    /// End of the newest stored chunk.
    pub last_stored: Option<SystemTime>,
    /// Bytes received from the camera.
    pub received_bytes: u64,
    /// Bytes stored.
    pub stored_bytes: u64,
    /// Bytes that wait for upload.
    pub backlog_bytes: u64,
    /// Age of the oldest chunk that waits for upload.
    pub oldest_pending: Duration,
    /// Bytes of chunks that were dropped because memory or spool was full.
    pub dropped_bytes: u64,
    /// Time until the spool is full at the current data rate; `None` without a spool or while the camera is not recorded.
    pub spool_left: Option<Duration>,
    /// Time without recording, by reason.
    pub gaps: BTreeMap<StartReason, Duration>,
    /// Attempts after the first, by reason.
    pub reconnects: BTreeMap<StartReason, u64>,
    /// Whether the first attempt has had a result.
    pub was_tried: bool,
}

impl Report {
    /// Creates the report of a camera before its first result.
    pub fn new(id: &str, name: Option<&str>, container: &'static str, state: State, reason: &str) -> Self {
        Self {
            id: id.to_owned(),
            name: name.map(str::to_owned),
            state,
            since: SystemTime::now(),
            reason: reason.to_owned(),
            codec: None,
            size: None,
            fps: None,
            key_interval: None,
            audio: None,
            container,
            last_frame: None,
            last_stored: None,
            received_bytes: 0,
            stored_bytes: 0,
            backlog_bytes: 0,
            oldest_pending: Duration::ZERO,
            dropped_bytes: 0,
            spool_left: None,
            gaps: BTreeMap::new(),
            reconnects: BTreeMap::new(),
            was_tried: state == State::Stopped,
        }
    }
}

/// The reports of all cameras by id, and totals that include removed cameras, so that they never decrease.
#[derive(Debug, Default)]
pub struct Board {
    reports: Mutex<BTreeMap<String, (Report, Instant)>>,
    /// For each camera of `reports`: the end of its newest stored chunk, and its stored bytes. They are not counted by the
    /// camera's runner because the sink of another camera may store its chunks. Lock after `reports`.
    stored: Mutex<BTreeMap<String, (SystemTime, u64)>>,
    /// Number of the newest runner of each camera. Lock before `reports`.
    runs: Mutex<BTreeMap<String, u64>>,
    retries: AtomicU64,
    stuck: AtomicU64,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (Report, Instant)>> {
        lock(&self.reports)
    }

    /// Replaces a camera's report. Fills in `last_stored` and `stored_bytes`.
    pub fn put(&self, mut report: Report) {
        let mut reports = self.lock();
        if let Some((until, bytes)) = lock(&self.stored).get(&report.id) {
            (report.last_stored, report.stored_bytes) = (Some(*until), *bytes);
        }
        reports.insert(report.id.clone(), (report, Instant::now()));
    }

    /// Replaces the report of a camera that is switched off. If it is already reported as such, only its name and container
    /// change, so that `since` and the counters stay.
    pub fn switch_off(&self, off: Report) {
        let mut reports = self.lock();
        match reports.get_mut(&off.id) {
            Some((last, _)) if last.state == off.state && last.reason == off.reason => {
                (last.name, last.container) = (off.name, off.container);
            }
            _ => {
                // `put` takes the same lock.
                drop(reports);
                self.put(off);
            }
        }
    }

    /// Counts a stored chunk. Ignores chunks of cameras that are not in the configuration.
    pub fn note_stored(&self, stored: &Stored) {
        let mut reports = self.lock();
        let Some((report, _)) = reports.get_mut(&stored.device) else {
            return;
        };
        let end = SystemTime::UNIX_EPOCH.checked_add(stored.until);
        let mut totals = lock(&self.stored);
        let (until, bytes) = totals.entry(stored.device.clone()).or_insert((SystemTime::UNIX_EPOCH, 0));
        *until = end.map_or(*until, |end| newest(*until, end, SystemTime::now()));
        *bytes = bytes.saturating_add(stored.size);
        (report.last_stored, report.stored_bytes) = (Some(*until), *bytes);
    }

    /// Registers a new runner of a camera and returns its number. Reports of earlier runners, which may still be ending, are
    /// ignored from now on.
    pub fn begin(&self, id: &str) -> u64 {
        let mut runs = lock(&self.runs);
        let run = runs.entry(id.to_owned()).or_default();
        *run += 1;
        *run
    }

    /// Replaces the report of a camera, unless a newer runner than `run` has begun.
    pub fn put_of(&self, run: u64, report: Report) {
        let runs = lock(&self.runs);
        if runs.get(&report.id) == Some(&run) {
            self.put(report);
        }
    }

    /// Removes a camera, unless a newer runner than `run` has begun.
    pub fn remove_of(&self, run: u64, id: &str) {
        let runs = lock(&self.runs);
        if runs.get(id) == Some(&run) {
            self.remove(id);
        }
    }

    /// Adds `more` repeated uploads to the total.
    pub fn count_retries(&self, more: u64) {
        self.retries.fetch_add(more, Ordering::Relaxed);
    }

    /// Adds a pipeline that did not end in time to the total.
    pub fn count_stuck(&self) {
        self.stuck.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of repeated uploads of all cameras.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Returns the number of pipelines of all cameras that did not end in time.
    pub fn stuck(&self) -> u64 {
        self.stuck.load(Ordering::Relaxed)
    }

    /// Removes a camera.
    pub fn remove(&self, id: &str) {
        let mut reports = self.lock();
        lock(&self.stored).remove(id);
        reports.remove(id);
    }

    /// Returns all reports in the order of their ids.
    pub fn all(&self) -> Vec<Report> {
        self.lock().values().map(|(report, _)| report.clone()).collect()
    }

    /// Returns the age of the oldest report, except those of stopped cameras.
    pub fn oldest(&self) -> Duration {
        let reports = self.lock();
        let running = reports.values().filter(|(report, _)| report.state != State::Stopped);
        running.map(|(_, at)| at.elapsed()).max().unwrap_or_default()
    }
}

/// Returns the later of two ends of chunks, at most `now`. An end in the future (from before our clock was set back, or from a
/// camera whose clock is ahead) would hide that nothing is stored any more.
fn newest(old: SystemTime, new: SystemTime, now: SystemTime) -> SystemTime {
    old.min(now).max(new.min(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dated_ahead_of_the_clock_hides_nothing_that_is_stored_later() {
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let mut shown = SystemTime::UNIX_EPOCH;
        for (new, now, expected) in [
            (9_990, 10_000, 9_990),
            // An older chunk, reported late.
            (9_000, 10_001, 9_990),
            // The clock is set ahead, and back.
            (17_200, 17_205, 17_200),
            (10_020, 10_030, 10_030),
            (10_040, 10_050, 10_040),
            // A camera whose clock is always ahead.
            (10_200, 10_060, 10_060),
            (10_210, 10_070, 10_070),
        ] {
            shown = newest(shown, at(new), at(now));
            assert_eq!(shown, at(expected), "{new} at {now}");
        }
    }

    #[test]
    fn a_chunk_counts_for_the_camera_that_recorded_it_whoever_stores_it() {
        let board = Board::default();
        let report = |id: &str| Report::new(id, None, "fmp4", State::Recording, "");
        let stored = |device: &str, second, size| Stored {
            device: device.to_owned(),
            until: Duration::from_secs(second),
            size,
        };
        board.put(report("a"));
        board.put(report("b"));
        for (device, second) in [("a", 20), ("a", 10), ("gone", 30), ("recorder", 30)] {
            board.note_stored(&stored(device, second, 5));
        }
        board.remove("b");
        board.put(report("b"));
        // A runner's report does not contain what is stored.
        board.put(report("a"));
        let found: Vec<_> = board
            .all()
            .into_iter()
            .map(|r| (r.id, r.last_stored, r.stored_bytes))
            .collect();
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(20);
        assert_eq!(found, [("a".to_owned(), Some(until), 10), ("b".to_owned(), None, 0)]);
    }

    #[test]
    fn what_a_camera_said_before_it_was_started_again_does_not_hide_how_it_fares_now() {
        let board = Board::default();
        let report = |state| Report::new("cam", None, "fmp4", state, "");
        let first = board.begin("cam");
        board.put_of(first, report(State::Recording));
        let second = board.begin("cam");
        board.put_of(second, report(State::Connecting));
        board.put_of(first, report(State::Stopped));
        board.remove_of(first, "cam");
        let states: Vec<State> = board.all().into_iter().map(|report| report.state).collect();
        assert_eq!(states, [State::Connecting]);
        board.remove_of(second, "cam");
        assert!(board.all().is_empty());
    }

    #[test]
    fn a_camera_that_stays_switched_off_keeps_since_and_what_was_seen_of_it() {
        let board = Board::default();
        let off = |name: &str| Report::new("a", Some(name), "fmp4", State::Stopped, "enabled = false");
        let was_seen = Report {
            since: SystemTime::UNIX_EPOCH,
            codec: Some("H.264"),
            ..off("Door")
        };
        board.put(was_seen.clone());
        board.switch_off(off("Gate"));
        let expected = Report {
            name: Some("Gate".to_owned()),
            ..was_seen
        };
        assert_eq!(board.all(), [expected]);
        // A camera that was stopped for another reason is switched off now.
        board.put(Report::new("a", None, "fmp4", State::Stopped, "uploads are refused"));
        board.switch_off(off("Gate"));
        assert_eq!(board.all()[0].reason, "enabled = false");
    }
}
