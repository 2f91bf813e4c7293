//! The last chunk before a window of time and the first one after it, however far away. They are the ends of gaps that reach
//! beyond the window.
//!
//! If the window begins and ends with a recording, nothing is looked for. The search for the chunk before goes backwards, four
//! times as far at each step, and then bisects: an outage of a night costs about eight short listings, and one more every ten
//! minutes to confirm it.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gcstreamer_storage::{Fields, ListQuery, Listed};

use super::runs::Run;
use super::timeline::{Piece, Timeline};
use super::{AHEAD, Chunk, HOUR, Index, IndexError, MAX_CAMERAS, MAX_PAGES, PARALLEL, is_of};
use crate::lock::lock;

/// The first hour that is searched, that of 2020-01-01. A clock that shows less was never set (`clock=suspect`), so an earlier
/// chunk does not tell when recording stopped.
const BEGIN: u64 = 438_288;
/// Length of the first step backwards, hours.
const STEP: u64 = 4;
/// Time on both sides of a window that is listed along with it, ns.
pub(super) const AROUND: u64 = HOUR;
/// How long an answer is valid, ns. It expires because chunks of an outage may still arrive.
const GOOD_FOR: u64 = 10 * 60_000_000_000;
/// Most hours that the search backwards skips because their objects have names of chunks but are none, such as copies without
/// metadata.
const NAMED_HOURS: usize = 24;
/// Objects of the first page of the search for the first chunk: enough unless other programs write into the folder.
const LOOKED_AT: u32 = 10;

/// A chunk beside a window, and until when the answer is valid (ns since the Unix epoch).
#[derive(Clone, Debug)]
pub(super) struct Edge {
    chunk: Option<Chunk>,
    until: u64,
}

/// Camera, hour since the Unix epoch, and the direction: true for the last chunk before the hour, false for the first one from it
/// on.
pub(super) type Key = (String, u64, bool);

impl Index {
    /// Returns what was recorded of a camera between `from` and `to` (ns since the Unix epoch), with the gaps that reach over
    /// both ends. Finished hours whose runs are in memory cost no listing, even if their chunks have left the cache.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn overview(&self, camera: &str, from: u64, to: u64) -> Result<Timeline, IndexError> {
        let (begin, end) = (from.saturating_sub(AROUND), to.saturating_add(AROUND));
        let found: Vec<Arc<Vec<Run>>> = stream::iter(self.hours(camera, begin, end))
            .map(|hour| self.hour_runs(camera, hour))
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        let touching = |run: &&Run| run.start < end && run.end > begin;
        let runs: Vec<Run> = found.iter().flat_map(|hour| hour.iter()).filter(touching).cloned().collect();
        self.bordered(camera, runs, from, to).await
    }

    /// Returns the timeline of runs that cover the window and [`AROUND`] on both sides, with the gaps that reach over both ends.
    pub(super) async fn bordered(&self, camera: &str, mut runs: Vec<Run>, from: u64, to: u64) -> Result<Timeline, IndexError> {
        let is_open = runs.iter().all(|run| run.end < to);
        if is_open && let Some(after) = self.after(camera, to.saturating_add(AROUND)).await? {
            runs.push((&after).into());
        }
        // Without any run there is no gap to complete: before a camera's first chunk nothing is missing, and after its last one
        // that is unknown.
        let is_late = runs.iter().all(|run| run.start > from) && !runs.is_empty();
        if is_late && let Some(before) = self.before(camera, from.saturating_sub(AROUND)).await? {
            runs.push((&before).into());
        }
        runs.sort();
        let pieces: Vec<Piece<'_>> = runs.iter().map(Run::piece).collect();
        Ok(Timeline::of_pieces(&pieces).within(from, to))
    }

    /// Returns the last chunk that begins before `at` (ns since the Unix epoch). If names do not sort by time, searches the hour
    /// of `at` only.
    pub(super) async fn before(&self, camera: &str, at: u64) -> Result<Option<Chunk>, IndexError> {
        let hour = self.hour(camera, at).await?;
        let last = |chunks: &[Chunk], at: u64| {
            let earlier = chunks.iter().filter(|chunk| chunk.meta.start < at);
            earlier.max_by_key(|chunk| chunk.meta.end).cloned()
        };
        if let Some(found) = last(&hour, at) {
            return Ok(Some(found));
        }
        if !self.names_sort_by_time(camera) {
            return Ok(None);
        }
        let high = at / HOUR;
        self.edge((camera.to_owned(), high, true), async |known: Option<Chunk>| {
            // An expired answer is confirmed by one listing: is there anything between it and the window now?
            let from = known.as_ref().map_or(BEGIN, |chunk| chunk.meta.start / HOUR + 1);
            if !self.has_any(camera, from, high).await? {
                return Ok(known);
            }
            let hour = self.last_hour_of_chunks(camera, BEGIN, high).await?;
            Ok(hour.and_then(|hour| last(&hour, u64::MAX)))
        })
        .await
    }

    /// Returns the chunks of the last hour before `high` (hours since the Unix epoch) that has any. Skips up to [`NAMED_HOURS`]
    /// hours whose objects only have names of chunks.
    pub(super) async fn last_hour_of_chunks(
        &self,
        camera: &str,
        begin: u64,
        mut high: u64,
    ) -> Result<Option<Arc<Vec<Chunk>>>, IndexError> {
        for _ in 0..NAMED_HOURS {
            let Some(hour) = self.last_hour(camera, begin, high).await? else {
                break;
            };
            let chunks = self.hour(camera, hour * HOUR).await?;
            if !chunks.is_empty() {
                return Ok(Some(chunks));
            }
            high = hour;
        }
        Ok(None)
    }

    /// Returns the first chunk that begins at `at` (ns since the Unix epoch) or later. `None`: there is none, or names do not
    /// sort by time.
    async fn after(&self, camera: &str, at: u64) -> Result<Option<Chunk>, IndexError> {
        if at >= self.clock.now() || !self.names_sort_by_time(camera) {
            return Ok(None);
        }
        self.edge((camera.to_owned(), at / HOUR, false), async |_| {
            let query = ListQuery {
                prefix: self.device_prefix(camera),
                start_offset: Some(self.template.hour_prefix(camera, at)),
                end_offset: Some(self.template.hour_prefix(camera, self.clock.now() + AHEAD)),
                max_results: Some(LOOKED_AT),
                ..ListQuery::default()
            };
            let first = self
                .first_of(query, MAX_PAGES, |object| Chunk::of(&self.template, camera, object))
                .await?;
            let Some(first) = first else { return Ok(None) };
            if self.template.resolution() <= 1_000_000_000 {
                return Ok(Some(first));
            }
            // Names show only the hour or the day, so the first name need not be that of the first chunk.
            let hour = self.hour(camera, first.meta.start).await?;
            let later = hour.iter().filter(|chunk| chunk.meta.start >= at).cloned();
            Ok(later.chain([first]).min_by_key(|chunk| chunk.meta.start))
        })
        .await
        .map(|found| found.filter(|chunk| chunk.meta.start >= at))
    }

    /// Returns the cached chunk of the key. If it has expired, calls `look` with it (`None` if there was none) and caches the
    /// result.
    async fn edge(
        &self,
        key: Key,
        look: impl AsyncFnOnce(Option<Chunk>) -> Result<Option<Chunk>, IndexError>,
    ) -> Result<Option<Chunk>, IndexError> {
        // One search at a time for each camera: 50 viewers cause one.
        let slot = self.cache.slot(&format!("edge\0{}", key.0));
        let _turn = slot.lock().await;
        let now = self.clock.now();
        let known = lock(&self.edges).get(&key).cloned();
        if let Some(known) = known.as_ref().filter(|known| now < known.until) {
            return Ok(known.chunk.clone());
        }
        let chunk = look(known.and_then(|known| known.chunk)).await?;
        let mut edges = lock(&self.edges);
        if edges.len() >= MAX_CAMERAS {
            edges.clear();
        }
        let until = now.saturating_add(GOOD_FOR);
        edges.insert(
            key,
            Edge {
                chunk: chunk.clone(),
                until,
            },
        );
        Ok(chunk)
    }

    /// Returns the last hour in `begin..high` (hours since the Unix epoch) that has an object with the name of a chunk.
    async fn last_hour(&self, camera: &str, begin: u64, mut high: u64) -> Result<Option<u64>, IndexError> {
        let mut step = STEP;
        let mut low = high.saturating_sub(step).max(begin);
        while !self.has_any(camera, low, high).await? {
            if low <= begin {
                return Ok(None);
            }
            step = step.saturating_mul(4);
            (low, high) = (low.saturating_sub(step).max(begin), low);
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.has_any(camera, middle, high).await? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(Some(low))
    }

    /// Returns whether an object has the name of a chunk that begins in one of the hours `low..high`.
    pub(super) async fn has_any(&self, camera: &str, low: u64, high: u64) -> Result<bool, IndexError> {
        if low >= high {
            return Ok(false);
        }
        let query = ListQuery {
            prefix: self.device_prefix(camera),
            start_offset: Some(self.template.hour_prefix(camera, low * HOUR)),
            end_offset: Some(self.template.hour_prefix(camera, high * HOUR)),
            max_results: Some(1),
            fields: Fields::Names,
            ..ListQuery::default()
        };
        let is_named = |object: Listed| is_of(&self.template, camera, &object.name).then_some(());
        Ok(self.first_of(query, MAX_PAGES, is_named).await?.is_some())
    }

    /// Returns whether the names of a camera's chunks sort by their hours. Names with the day in front of the month do not, nor
    /// do names without a time.
    pub(super) fn names_sort_by_time(&self, camera: &str) -> bool {
        // From each to the next at least one of month, day and hour decreases, so any other order of the fields shows:
        // 2020-12-31 23:00, 2021-01-01 00:00, 2021-02-03 04:00, 2021-11-02 03:00, 2022-01-01 02:00.
        let hours = [447_071, 447_072, 447_868, 454_395, 455_834];
        let names = hours.map(|hour| self.template.hour_prefix(camera, hour * HOUR));
        names.windows(2).all(|pair| pair[0] < pair[1])
    }
}
