//! The shared state of the server: the index, the cameras of the lists, and the board that all viewers share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gcstreamer_schema::cameras::Camera;
use gcstreamer_schema::time;
use gcstreamer_storage::{ClientPool, GcsReader, UrlSigner};
use jiff::tz::TimeZone;

use crate::clock::Clock;
use crate::export::Exports;
use crate::iap::Gate;
use crate::index::badge::{Badge, CameraState, badge_of};
use crate::index::cache::Disk;
use crate::index::report;
use crate::index::timeline::{Range, Timeline, day_bounds};
use crate::index::{Index, IndexError};
use crate::lock::lock;
use crate::media::Media;
use crate::mqtt::{Broker, Known};
use crate::settings::{Auth, Settings};

/// How long a board is valid, ns.
// Of the bucket nothing newer can be shown sooner: newest chunks are cached for the same time (`NEWEST_FOR`).
const BOARD_FOR: u64 = 2_000_000_000;
/// Time after which the missing seconds of today are counted again, ns.
const MISSING_FOR: u64 = 60_000_000_000;
/// How long a count is shown if it is not renewed, ns.
const MISSING_SHOWN: u64 = 5 * MISSING_FOR;
/// Most cameras whose state is determined at once.
const PARALLEL: usize = 32;

/// Everything the server needs.
#[derive(Debug)]
pub struct App {
    /// The chunks of the bucket.
    pub index: Index,
    /// The bytes of chunks.
    pub media: Media,
    /// Signs addresses in the bucket; `Some` with `--delivery redirect`.
    pub signer: Option<UrlSigner>,
    /// The running exports and known plans.
    pub exports: Exports,
    /// Who may see it.
    pub auth: Auth,
    /// Checks the header of Identity-Aware Proxy; `Some` with `Auth::Iap`.
    pub gate: Option<Gate>,
    /// Whether the server listens on a loopback address.
    pub is_loopback: bool,
    /// When the server was started, ns since the Unix epoch.
    pub since: u64,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// What cameras report over MQTT.
    pub known: Known,
    /// The broker that they report to.
    pub broker: Option<Broker>,
    /// The cameras of the lists, by id. If an id occurs twice, the first entry counts.
    listed: BTreeMap<String, Camera>,
    board: tokio::sync::Mutex<Board>,
    /// By id: when the missing seconds of today were counted (ns since the Unix epoch), and how many they are.
    missing: Mutex<BTreeMap<String, (u64, u64)>>,
    /// Locked while missing seconds are counted.
    counting: tokio::sync::Mutex<()>,
}

/// The last board and the last failure to make one, each with its time (ns since the Unix epoch).
#[derive(Debug, Default)]
struct Board {
    states: Option<(u64, Arc<Vec<CameraState>>)>,
    /// Returned to callers who asked before it happened.
    failure: Option<(u64, IndexError)>,
}

impl App {
    /// Creates the app. Sends no request to the bucket.
    pub fn new(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        // The template belongs to it: under another one the same objects yield other chunks.
        let identity = format!("{:?}\0{}\0{:?}", settings.endpoint, settings.bucket, settings.template);
        let disk = settings.cache_dir.as_deref().map(|folder| Disk::new(folder, identity));
        let reader = GcsReader::new(&ClientPool::global(), settings.endpoint, settings.credentials)
            .with_request_timeout(settings.request_timeout);
        Self {
            index: Index::new(reader, settings.bucket, settings.template, clock.clone(), disk),
            media: Media::default(),
            signer: None,
            exports: Exports::default(),
            gate: match &settings.auth {
                Auth::Iap(iap) => Some(Gate::new(iap.clone())),
                Auth::None | Auth::Token(_) => None,
            },
            auth: settings.auth,
            is_loopback: settings.listen.ip().is_loopback(),
            since: clock.now(),
            clock,
            known: Known::default(),
            broker: settings.broker,
            listed: by_id(settings.cameras),
            board: tokio::sync::Mutex::default(),
            missing: Mutex::default(),
            counting: tokio::sync::Mutex::default(),
        }
    }

    /// Makes the server redirect players to the bucket, by addresses that `signer` signs.
    #[must_use]
    pub fn redirecting(self, signer: UrlSigner) -> Self {
        Self {
            signer: Some(signer),
            ..self
        }
    }

    /// Returns the state of all cameras, those in trouble first. All callers who wait while an attempt fails get its error.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn board(&self) -> Result<Arc<Vec<CameraState>>, IndexError> {
        let asked = self.clock.now();
        let mut board = self.board.lock().await;
        let now = self.clock.now();
        if let Some((_, states)) = board.states.as_ref().filter(|(at, _)| now.saturating_sub(*at) < BOARD_FOR) {
            return Ok(states.clone());
        }
        // An attempt failed while this call waited for the lock: do not make another one. With a silent bucket each takes the
        // request timeout, and the waiting calls would add up.
        if let Some((_, error)) = board.failure.as_ref().filter(|(at, _)| *at > asked) {
            return Err(error.clone());
        }
        let polled = self.poll_index(now).await;
        match &polled {
            Ok(states) => board.states = Some((now, states.clone())),
            Err(error) => board.failure = Some((self.clock.now(), error.clone())),
        }
        polled
    }

    async fn poll_index(&self, now: u64) -> Result<Arc<Vec<CameraState>>, IndexError> {
        // Cameras of the lists, cameras that report, and cameras that only the bucket knows.
        let in_bucket: BTreeSet<String> = self.index.cameras().await?.into_iter().collect();
        let mut cameras = in_bucket.clone();
        cameras.extend(self.listed.keys().cloned());
        cameras.extend(self.known.reports().cameras().cloned());
        let states = stream::iter(cameras)
            .map(|id| {
                let is_in_bucket = in_bucket.contains(&id);
                self.state(id, is_in_bucket, now)
            })
            .buffer_unordered(PARALLEL);
        let mut states: Vec<CameraState> = states.try_collect().await?;
        // By id within a badge: the states arrive in any order, and cameras must not change places from board to board.
        states.sort_by(|a, b| (a.badge, &a.id).cmp(&(b.badge, &b.id)));
        Ok(Arc::new(states))
    }

    async fn state(&self, id: String, is_in_bucket: bool, now: u64) -> Result<CameraState, IndexError> {
        let (newest, fault) = match self.index.newest(&id).await {
            Ok(newest) => (newest, None),
            // A camera with too many objects must not hide the others.
            Err(error @ IndexError::TooMany(_)) => (None, Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let listed = self.listed.get(&id);
        let is_enabled = listed.is_none_or(|camera| camera.enabled);
        // The broker may still retain the last report of a camera that is not enabled any more: it does not count.
        let reported = self
            .known
            .reports()
            .of(&id)
            .filter(|_| is_enabled)
            .and_then(|report| report::badge_of(report, newest.as_ref(), now));
        let (badge, reason, backlog_s) = reported.unwrap_or_else(|| match fault.filter(|_| is_enabled) {
            Some(fault) => (Badge::Unknown, fault, None),
            None => {
                let (badge, reason) = badge_of(newest.as_ref(), is_enabled, is_in_bucket, now);
                (badge, reason, None)
            }
        });
        let age = newest.as_ref().map(|chunk| now.saturating_sub(chunk.ended()));
        let last_stored = newest.map(|chunk| chunk.ended());
        let counted = lock(&self.missing).get(&id).copied();
        let is_of_today = |at: u64| now.saturating_sub(at) < MISSING_SHOWN && at >= self.midnight(&id, now);
        let missing = counted.filter(|(at, _)| is_of_today(*at)).map(|(_, seconds)| seconds);
        Ok(CameraState {
            name: listed.and_then(|camera| camera.name.clone()).unwrap_or_else(|| id.clone()),
            id,
            badge,
            reason,
            last_stored,
            age_s: age.map(|age| age / 1_000_000_000),
            backlog_s,
            missing_s_today: missing.filter(|_| badge != Badge::NeverSeen),
        })
    }

    /// Counts the seconds missing since midnight in the camera's zone, for each camera whose count is old. Called while a viewer
    /// is connected. Returns at once if another call is counting.
    pub async fn count_missing(&self) {
        let Ok(_counting) = self.counting.try_lock() else { return };
        let Ok(board) = self.board().await else { return };
        let now = self.clock.now();
        let due = board
            .iter()
            // Of these nothing is missing: the bucket never had any of it, or it is not recorded on purpose.
            .filter(|state| state.badge != Badge::NeverSeen && state.badge != Badge::Stopped)
            // Skips a camera with too many objects: its timeline could not be listed either.
            .filter(|state| state.badge != Badge::Unknown || state.last_stored.is_some())
            .filter(|state| {
                let missing = lock(&self.missing);
                missing
                    .get(&state.id)
                    .is_none_or(|(at, _)| now.saturating_sub(*at) >= MISSING_FOR)
            });
        let due: Vec<(String, Badge)> = due.map(|state| (state.id.clone(), state.badge)).collect();
        let counts = stream::iter(due).map(|(id, badge)| async move {
            let midnight = self.midnight(&id, now);
            let timeline = self.timeline(&id, midnight, now).await?;
            // If a camera is not recording now, the time since its last chunk is missing, too: no chunk ends that gap yet.
            let running = if matches!(badge, Badge::Recording | Badge::Late) {
                0
            } else {
                timeline.ranges.last().map_or(now - midnight, |last| now - last.to)
            };
            let seconds = (timeline.sums().1 + running) / 1_000_000_000;
            // Stored one by one, so that each is shown as soon as it is known: the first pass takes many listings.
            lock(&self.missing).insert(id, (now, seconds));
            Ok::<_, IndexError>(())
        });
        let mut counts = counts.buffer_unordered(4);
        while let Some(counted) = counts.next().await {
            match counted {
                // A camera with too many objects must not stop the count of the others.
                Ok(()) | Err(IndexError::TooMany(_)) => {}
                // The board reports what is wrong with the bucket.
                Err(IndexError::Bucket(_)) => return,
            }
        }
    }

    /// Returns the time zones of the cameras of the lists, by device id.
    pub fn zones(&self) -> BTreeMap<&str, &str> {
        self.listed.keys().map(|id| (id.as_str(), self.zone_name(id))).collect()
    }

    /// Returns the IANA name of a camera's time zone: that of its list, or UTC.
    pub fn zone_name(&self, camera: &str) -> &str {
        let listed = self.listed.get(camera);
        listed.and_then(|listed| listed.time_zone.as_deref()).unwrap_or("UTC")
    }

    /// Returns when the day of `now` began in the camera's zone, ns since the Unix epoch.
    fn midnight(&self, camera: &str, now: u64) -> u64 {
        let zone = time::zone(self.zone_name(camera)).unwrap_or(TimeZone::UTC);
        let day = time::timestamp(now).to_zoned(zone.clone()).date();
        day_bounds(day, &zone).map_or(now, |(begin, _)| begin)
    }

    /// Returns what was recorded of a camera between `from` and `to` (ns since the Unix epoch). Reads mostly names if that is
    /// more than two days.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn timeline(&self, camera: &str, from: u64, to: u64) -> Result<Timeline, IndexError> {
        const DETAILED: u64 = 2 * 86_400_000_000_000;
        if to.saturating_sub(from) > DETAILED {
            return Ok(self.index.outline(camera, from, to).await?.within(from, to));
        }
        self.index.overview(camera, from, to).await
    }

    /// Returns what a camera reports to have recorded between `from` and `to` and not uploaded yet.
    pub fn pending(&self, camera: &str, from: u64, to: u64, timeline: &Timeline) -> Vec<Range> {
        let now = self.clock.now();
        let reports = self.known.reports();
        let waiting = reports.of(camera).and_then(|report| report::waiting(report, now));
        let waiting = waiting.map(|(begin, end)| timeline.unexplained(begin.max(from), end.min(to)));
        waiting.unwrap_or_default()
    }

    /// Returns the days of the month that begins with `first`, in that zone.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn days(
        &self,
        camera: &str,
        first: jiff::civil::Date,
        zone: &TimeZone,
    ) -> Result<Vec<crate::index::timeline::Day>, IndexError> {
        let bounds = day_bounds(first, zone).zip(day_bounds(first.last_of_month(), zone));
        let Some(((from, _), (_, to))) = bounds else {
            return Ok(Vec::new());
        };
        Ok(self.index.outline(camera, from, to).await?.days(first, zone))
    }
}

fn by_id(cameras: Vec<Camera>) -> BTreeMap<String, Camera> {
    let mut all = BTreeMap::new();
    for camera in cameras {
        all.entry(camera.id.clone()).or_insert(camera);
    }
    all
}
