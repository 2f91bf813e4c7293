//! What the bucket holds: cameras, their chunks by the hour, the newest of each.
//!
//! The bucket is the only source: nothing is remembered that a listing does not show. Names of the default template hold the
//! hour, so a day is 24 short listings in parallel instead of nine long ones in a row. The decisions (what a chunk is, what a gap
//! is, which hours to list again) are pure and in files of their own; this file lists and caches.
//!
//! - `discover`, `first`, `newest`, `edges`: from few short listings: which cameras there are, the first object that fulfils
//!   a condition, the newest chunk of each camera, the chunks around a window of time.
//! - `days`, with `names` PURE: whole days, from names where these are enough.
//! - `cache`, with `freshness` PURE: cached listings, and how long each is valid.
//! - `chunk`: a listed object, checked. `reading`: its bytes.
//! - `runs`, `timeline` PURE: what was recorded and what is missing. `badge`, `report` PURE: the state of a camera, from the
//!   bucket and from what the camera reports over MQTT.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gcstreamer_schema::name::{Template, common_prefix};
use gcstreamer_storage::{GcsReader, ListQuery, Page, WriteError};
use tokio::sync::Semaphore;

pub mod badge;
pub mod cache;
pub mod chunk;
mod days;
mod discover;
mod edges;
mod first;
pub mod freshness;
pub mod names;
mod newest;
mod reading;
pub mod report;
mod runs;
pub mod timeline;

pub use chunk::Chunk;
pub use discover::{PARTIAL, PARTIAL_HINT};

use crate::clock::Clock;
use crate::lock::lock;
use cache::{Cache, Disk};
use runs::Run;

/// ns of an hour.
pub const HOUR: u64 = 3_600_000_000_000;
/// Most list requests at once: the three requests for each of 300 cameras then take 15 round trips.
const PARALLEL: usize = 64;
/// How far from now, back and ahead, the newest chunk of a recording camera is looked for first, ns.
const LATELY: u64 = 120_000_000_000;
/// Most pages of one listing: 100,000 objects.
const MAX_PAGES: usize = 100;
/// How far a camera's clock may be ahead, ns: chunks that begin later are not listed.
const AHEAD: u64 = 25 * HOUR;
/// Earliest beginning of a chunk, ns since the Unix epoch: a camera whose clock was never set starts at 1970.
const EARLIEST: u64 = 0;

/// Why the bucket could not be listed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IndexError {
    /// The request failed.
    #[error(transparent)]
    Bucket(#[from] WriteError),
    /// There are more than 100,000 objects, the most that one listing reads.
    #[error("more than 100,000 objects begin with \"{0}\"; ask for less time at once")]
    TooMany(String),
}

/// Answers questions about the bucket by listings.
#[derive(Debug)]
pub struct Index {
    reader: GcsReader,
    bucket: String,
    template: Template,
    clock: Arc<dyn Clock>,
    requests: AtomicU64,
    parallel: Semaphore,
    cache: Cache,
    newest: Mutex<HashMap<String, Newest>>,
    discovered: tokio::sync::Mutex<discover::Discovered>,
    days: Mutex<HashMap<(String, u64), days::Day>>,
    edges: Mutex<HashMap<edges::Key, edges::Edge>>,
    runs: Mutex<HashMap<String, Runs>>,
}

/// The runs of an hour, and until when they are valid (ns since the Unix epoch).
#[derive(Clone, Debug)]
struct Runs {
    runs: Arc<Vec<Run>>,
    until: u64,
}

/// Most runs in memory; one takes about 120 bytes.
const MAX_RUNS: usize = 500_000;

/// Returns the cache key of an hour of a camera.
fn hour_key(camera: &str, prefix: &str) -> String {
    format!("{camera}\0{prefix}")
}

/// Returns whether a name is that of a chunk of this camera.
fn is_of(template: &Template, camera: &str, name: &str) -> bool {
    template.read(name).and_then(|parts| parts.device).as_deref() == Some(camera)
}

/// Returns the first UTC hour whose chunks may overlap the time from `from` on: a chunk of the hour before may reach into this
/// one.
fn first_hour(from: u64) -> u64 {
    (from - from % HOUR).saturating_sub(HOUR)
}

/// The newest chunk of a camera, and when the bucket was asked for it (ns since the Unix epoch).
#[derive(Clone, Debug)]
struct Newest {
    chunk: Option<Chunk>,
    asked: u64,
}

/// Most entries of each cache by camera: newest chunks, days of names, edges.
const MAX_CAMERAS: usize = 20_000;
/// How long an answer about the newest chunk is valid, ns.
const NEWEST_FOR: u64 = 2_000_000_000;
/// As [`NEWEST_FOR`], for a camera without any chunk.
// Longer: a search from nothing takes several listings, one from a known chunk mostly a single short one.
const NOTHING_FOR: u64 = 60_000_000_000;

impl Index {
    /// Creates an index of this bucket. `cache_dir` caches finished hours on disk.
    pub fn new(reader: GcsReader, bucket: String, template: Template, clock: Arc<dyn Clock>, cache_dir: Option<Disk>) -> Self {
        Self {
            reader,
            bucket,
            template,
            clock,
            requests: AtomicU64::new(0),
            parallel: Semaphore::new(PARALLEL),
            cache: Cache::new(cache_dir),
            newest: Mutex::default(),
            discovered: tokio::sync::Mutex::default(),
            days: Mutex::default(),
            edges: Mutex::default(),
            runs: Mutex::default(),
        }
    }

    /// Returns the name of the bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Returns the number of list requests made so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, WriteError> {
        // The semaphore is never closed, so this always gets a permit.
        let _permit = self.parallel.acquire().await;
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.reader.list(&self.bucket, query).await
    }

    /// Lists all chunks of a camera whose names match the query. Returns them sorted.
    async fn chunks(&self, camera: &str, mut query: ListQuery) -> Result<Vec<Chunk>, IndexError> {
        let mut chunks = Vec::new();
        for _ in 0..MAX_PAGES {
            let page = self.list(&query).await?;
            chunks.extend(
                page.objects
                    .into_iter()
                    .filter_map(|object| Chunk::of(&self.template, camera, object)),
            );
            match page.next {
                Some(next) => query.page = Some(next),
                None => return Ok(chunk::sorted(chunks)),
            }
        }
        Err(IndexError::TooMany(query.prefix))
    }

    /// Returns the chunks of a camera that begin in the UTC hour of `at`, from the cache if that is still valid.
    async fn hour(&self, camera: &str, at: u64) -> Result<Arc<Vec<Chunk>>, IndexError> {
        let prefix = self.template.hour_prefix(camera, at);
        // If names do not hold the hour, one listing serves all hours, and it never counts as finished.
        let is_hourly = self.is_hourly(camera, at);
        let begins = at - at % HOUR;
        let key = hour_key(camera, &prefix);
        // One listing at a time for each hour: 50 viewers cause one.
        let slot = self.cache.slot(&key);
        let _turn = slot.lock().await;
        let now = self.clock.now();
        if let Some(found) = self.cache.get(&key, now).await {
            return Ok(found);
        }
        let query = ListQuery {
            prefix,
            ..ListQuery::default()
        };
        let chunks = Arc::new(self.chunks(camera, query).await?);
        let (now, good_for) = if is_hourly {
            (now, freshness::good_for(begins, &chunks, now))
        } else {
            // Valid from the end of the listing: listing everything of a camera may take longer than `RUNNING`.
            (self.clock.now(), freshness::RUNNING)
        };
        self.keep_runs(&key, &chunks, now.saturating_add(good_for));
        self.cache.put(&key, chunks.clone(), now, good_for).await;
        Ok(chunks)
    }

    /// Returns whether names hold the hour, so that two hours have different prefixes.
    fn is_hourly(&self, camera: &str, at: u64) -> bool {
        self.template.hour_prefix(camera, at) != self.template.hour_prefix(camera, at.saturating_add(HOUR))
    }

    fn keep_runs(&self, key: &str, chunks: &[Chunk], until: u64) -> Arc<Vec<Run>> {
        let runs = Arc::new(runs::of(chunks));
        let mut hours = lock(&self.runs);
        let held = hours.values().map(|hour| hour.runs.len() + 1).sum::<usize>();
        if held + runs.len() >= MAX_RUNS {
            hours.clear();
        }
        let hour = Runs {
            runs: runs.clone(),
            until,
        };
        hours.insert(key.to_owned(), hour);
        runs
    }

    /// Returns the runs of the chunks of a camera that begin in the UTC hour of `at`. They are valid as long as the hour's
    /// listing, and stay in memory when the listing is evicted.
    async fn hour_runs(&self, camera: &str, at: u64) -> Result<Arc<Vec<Run>>, IndexError> {
        let key = hour_key(camera, &self.template.hour_prefix(camera, at));
        let known = || lock(&self.runs).get(&key).cloned();
        let now = self.clock.now();
        if let Some(known) = known().filter(|known| now < known.until) {
            return Ok(known.runs);
        }
        let chunks = self.hour(camera, at).await?;
        if let Some(known) = known().filter(|known| now < known.until) {
            return Ok(known.runs);
        }
        // The listing came from the disk or was still cached, so `keep_runs` was not called and its expiry is not known here. If
        // the hour is finished, one hour is safe; else the runs serve this call only.
        let is_finished = freshness::good_for(at - at % HOUR, &chunks, now) == freshness::FINISHED;
        Ok(self.keep_runs(&key, &chunks, if is_finished { now.saturating_add(HOUR) } else { now }))
    }

    /// Returns the UTC hours whose chunks may overlap `from..to`, one for each distinct listing: names may hold the day only, or
    /// no time.
    fn hours(&self, camera: &str, from: u64, to: u64) -> Vec<u64> {
        let first = first_hour(from);
        let last = to.min(self.clock.now().saturating_add(AHEAD));
        let hours = (0..).map(|index| first + index * HOUR).take_while(|hour| *hour < last);
        let mut listed = HashSet::new();
        hours
            .filter(|hour| listed.insert(self.template.hour_prefix(camera, *hour)))
            .collect()
    }

    /// Returns the chunks of a camera that overlap `from..to` (ns since the Unix epoch), sorted.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn span(&self, camera: &str, from: u64, to: u64) -> Result<Vec<Chunk>, IndexError> {
        let found: Vec<Arc<Vec<Chunk>>> = stream::iter(self.hours(camera, from, to))
            .map(|hour| self.hour(camera, hour))
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        let touching = |chunk: &&Chunk| chunk.meta.start < to && chunk.meta.end > from;
        let mut chunks: Vec<Chunk> = found.iter().flat_map(|hour| hour.iter()).filter(touching).cloned().collect();
        if chunks.iter().all(|chunk| chunk.meta.start > from) {
            // A chunk may be hours long: an earlier one may reach into the range.
            chunks.extend(self.before(camera, first_hour(from)).await?.filter(|chunk| touching(&chunk)));
        }
        Ok(chunk::sorted(chunks))
    }

    /// As [`Index::span`]. If no chunk overlaps but the timeline shows the time as recorded, returns the chunk before it: clocks
    /// drift, so two consecutive chunks may leave a little time between them.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn shown(&self, camera: &str, from: u64, to: u64) -> Result<Vec<Chunk>, IndexError> {
        let chunks = self.span(camera, from, to).await?;
        if !chunks.is_empty() {
            return Ok(chunks);
        }
        let around = self.span(camera, from.saturating_sub(HOUR), to.saturating_add(HOUR)).await?;
        Ok(chunk::joined(&around, from, to).cloned().into_iter().collect())
    }

    /// Returns the common prefix of all names of a camera.
    fn device_prefix(&self, camera: &str) -> String {
        // Two times whose names differ at the earliest possible place: 2084 and 1970.
        let (a, b) = (
            self.template.hour_prefix(camera, 1_000_000 * HOUR),
            self.template.hour_prefix(camera, 100 * HOUR),
        );
        common_prefix(&a, &b).to_owned()
    }

    /// Returns the chunk of this name and generation, with its camera. `None`: there is no such object, or it is not a chunk.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn find(&self, name: &str, generation: i64) -> Result<Option<(String, Chunk)>, IndexError> {
        let Some(parts) = self.template.read(name) else {
            return Ok(None);
        };
        let (Some(camera), start) = (parts.device, parts.start.unwrap_or(0)) else {
            return Ok(None);
        };
        let is_it = |chunk: &&Chunk| &*chunk.name == name && chunk.generation == generation;
        // Only if names hold the hour: otherwise this would list everything of the camera.
        if self.is_hourly(&camera, start)
            && let Some(found) = self.hour(&camera, start).await?.iter().find(is_it)
        {
            return Ok(Some((camera, found.clone())));
        }
        // The object may be newer than the cached listing: list it alone.
        let query = ListQuery {
            prefix: name.to_owned(),
            max_results: Some(1),
            ..ListQuery::default()
        };
        // Listings are sorted by name, so the name itself precedes the longer names that begin with it.
        let first = self.first_of(query, MAX_PAGES, Some).await?;
        let chunk = first.and_then(|object| Chunk::of(&self.template, &camera, object));
        Ok(chunk.filter(|chunk| is_it(&chunk)).map(|chunk| (camera, chunk)))
    }
}
