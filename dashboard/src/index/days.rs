//! Whole UTC days of a camera, for spans of weeks and the calendar: from names, and from metadata for the hours whose names do
//! not tell enough.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gcstreamer_storage::{Fields, ListQuery};

use super::names::{Named, Outline};
use super::runs::Run;
use super::timeline::Timeline;
use super::{AHEAD, HOUR, Index, IndexError, MAX_CAMERAS, MAX_PAGES, PARALLEL, edges, freshness, hour_key};
use crate::lock::lock;

/// The names of a UTC day, and until when they are valid (ns since the Unix epoch).
#[derive(Clone, Debug)]
pub(super) struct Day {
    names: Arc<Vec<Named>>,
    until: u64,
}

/// ns of a day.
pub(super) const DAY: u64 = 24 * HOUR;
/// Most names of days in memory; one takes about 40 bytes.
const MAX_NAMES: usize = 1_000_000;

impl Index {
    /// Returns what was recorded of a camera in the UTC days that `from..to` touches, with the gaps that reach over both ends.
    /// This is cheap for weeks: of hours without a break it reads names only.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn outline(&self, camera: &str, from: u64, to: u64) -> Result<Timeline, IndexError> {
        let now = self.clock.now();
        let (first, end) = (from - from % DAY, to.min(now.saturating_add(AHEAD)).next_multiple_of(DAY));
        if self.template.resolution() > 1_000_000_000 {
            // Names show no time of day, so lengths cannot be told from them: read the metadata.
            return self.overview(camera, first, end).await;
        }
        let days = (0..).map(|index| first + index * DAY).take_while(|day| *day < end);
        let found: Vec<Arc<Vec<Named>>> = stream::iter(days)
            .map(|day| self.day(camera, day))
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        let outline = Outline::of(found.iter().flat_map(|day| day.iter().cloned()).collect());
        let mut hours = outline.open_hours();
        hours.extend(self.known_hours(camera, outline.hours()));
        // `bordered` expects the time around the window, too.
        hours.extend(self.hours(camera, first.saturating_sub(edges::AROUND), first));
        if end < now {
            hours.extend(self.hours(camera, end, end + edges::AROUND));
        }
        let found: Vec<Arc<Vec<Run>>> = stream::iter(hours.clone())
            .map(|hour| self.hour_runs(camera, hour))
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        let mut runs = outline.runs(&hours);
        runs.extend(found.iter().flat_map(|hour| hour.iter().cloned()));
        self.bordered(camera, runs, first, end).await
    }

    /// Returns those of the hours whose runs are in memory: using them costs no listing.
    fn known_hours(&self, camera: &str, hours: BTreeSet<u64>) -> BTreeSet<u64> {
        let now = self.clock.now();
        let runs = lock(&self.runs);
        let is_known = |hour: &u64| {
            let key = hour_key(camera, &self.template.hour_prefix(camera, *hour));
            runs.get(&key).is_some_and(|known| now < known.until)
        };
        hours.into_iter().filter(is_known).collect()
    }

    async fn day(&self, camera: &str, day: u64) -> Result<Arc<Vec<Named>>, IndexError> {
        let key = (camera.to_owned(), day);
        let slot = self.cache.slot(&format!("day\0{camera}\0{day}"));
        let _turn = slot.lock().await;
        let now = self.clock.now();
        let known = lock(&self.days).get(&key).cloned();
        if let Some(known) = known.filter(|known| now < known.until) {
            return Ok(known.names);
        }
        let prefix = self.template.day_prefix(camera, day);
        let mut query = ListQuery {
            prefix,
            fields: Fields::Names,
            ..ListQuery::default()
        };
        let mut names = Vec::new();
        let mut pages = 0..MAX_PAGES;
        loop {
            // Pages count, not chunks: the objects of other programs need listings, too.
            if pages.next().is_none() {
                return Err(IndexError::TooMany(query.prefix));
            }
            let page = self.list(&query).await?;
            names.extend(
                page.objects
                    .iter()
                    .filter_map(|object| Named::of(&self.template, camera, &object.name)),
            );
            match page.next {
                Some(next) => query.page = Some(next),
                None => break,
            }
        }
        // If names do not begin with the day, the listing has other days, too.
        names.retain(|chunk| chunk.start / DAY == day / DAY);
        let names = Arc::new(names);
        let until = now.saturating_add(freshness::day_good_for(day, now));
        let mut days = lock(&self.days);
        let held = days.values().map(|day| day.names.len()).sum::<usize>();
        if held + names.len() > MAX_NAMES || days.len() >= MAX_CAMERAS {
            days.clear();
        }
        days.insert(
            key,
            Day {
                names: names.clone(),
                until,
            },
        );
        Ok(names)
    }
}
