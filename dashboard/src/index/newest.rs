//! The newest chunk of each camera, with as few and as short listings as the order of names allows.
//!
//! The newest chunk is the one that ended last; [`Chunk::ended`] is limited by the bucket's clock. A camera whose clock was ahead
//! leaves names of the future. They must not hide what it records once its clock is right, so they are listed only if no chunk
//! named for now is young.

use gcstreamer_schema::name::NameFields;
use gcstreamer_storage::ListQuery;

use super::badge::patience;
use super::{AHEAD, Chunk, EARLIEST, HOUR, Index, IndexError, LATELY, MAX_CAMERAS, NEWEST_FOR, NOTHING_FOR, Newest};
use crate::lock::lock;

/// How far back the search goes if names do not sort by time, days.
const DAYS: u64 = 62;

impl Index {
    /// Returns the newest chunk of a camera, from the cache if that is still valid.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn newest(&self, camera: &str) -> Result<Option<Chunk>, IndexError> {
        let slot = self.cache.slot(&format!("newest\0{camera}"));
        let _turn = slot.lock().await;
        let now = self.clock.now();
        let known = lock(&self.newest).get(camera).cloned();
        if let Some(known) = &known {
            let good_for = if known.chunk.is_some() { NEWEST_FOR } else { NOTHING_FOR };
            if now.saturating_sub(known.asked) < good_for {
                return Ok(known.chunk.clone());
            }
        }
        let chunk = match known.and_then(|known| known.chunk) {
            Some(last) => self.newer(camera, last, now).await?,
            None => self.find_newest(camera, now).await?,
        };
        let newest = Newest {
            chunk: chunk.clone(),
            asked: now,
        };
        let mut all = lock(&self.newest);
        // Bounded: requests may name any number of ids that do not exist.
        if all.len() >= MAX_CAMERAS {
            all.clear();
        }
        all.insert(camera.to_owned(), newest);
        Ok(chunk)
    }

    /// Returns the newest chunk from `last` on. If names sort by time, this is one short listing.
    async fn newer(&self, camera: &str, last: Chunk, now: u64) -> Result<Option<Chunk>, IndexError> {
        let Some(soon) = self.name(camera, now + LATELY) else {
            let chunks = self.chunks(camera, self.from(camera, last.name.to_string(), now)).await?;
            let newest = newest_of(chunks.into_iter().chain([last]));
            let is_known = newest.as_ref().is_some_and(|chunk| is_young(chunk, now));
            if is_known || self.names_sort_by_time(camera) || self.names_sort_by_session(camera) {
                return Ok(newest);
            }
            // Newer chunks may have names that sort before it, e.g. with the day in front of the month.
            return self.of_this_hour(camera, newest, now).await;
        };
        // From now, not from a chunk of the future: its name sorts after everything that a corrected clock records.
        let is_ahead = last.meta.start > now;
        let begin = self.name(camera, now.saturating_sub(LATELY)).filter(|_| is_ahead);
        let begin = begin.unwrap_or_else(|| last.name.to_string());
        let future = if *last.name > *soon {
            last.name.to_string()
        } else {
            soon.clone()
        };
        self.by_now(camera, begin, soon, future, Some(last), now).await
    }

    /// Returns the newest chunk with a name from `begin` to `soon`. If that is not young, also looks at names from `future` on.
    async fn by_now(
        &self,
        camera: &str,
        begin: String,
        soon: String,
        future: String,
        last: Option<Chunk>,
        now: u64,
    ) -> Result<Option<Chunk>, IndexError> {
        let until_soon = ListQuery {
            end_offset: Some(soon),
            ..self.from(camera, begin, now)
        };
        let newest = newest_of(self.chunks(camera, until_soon).await?.into_iter().chain(last));
        if newest.as_ref().is_some_and(|chunk| is_young(chunk, now)) {
            return Ok(newest);
        }
        let ahead = self.chunks(camera, self.from(camera, future, now)).await?;
        Ok(newest_of(ahead.into_iter().chain(newest)))
    }

    /// Returns a query for the names of a camera from this name on, up to [`AHEAD`] from now.
    fn from(&self, camera: &str, name: String, now: u64) -> ListQuery {
        ListQuery {
            prefix: self.device_prefix(camera),
            start_offset: Some(name),
            end_offset: Some(self.template.hour_prefix(camera, now + AHEAD)).filter(|_| self.names_tell_hours(camera)),
            ..ListQuery::default()
        }
    }

    /// Returns whether the prefix of names shows the hour, or at least some of the time.
    fn names_tell_hours(&self, camera: &str) -> bool {
        self.template.hour_prefix(camera, EARLIEST) != self.device_prefix(camera)
    }

    /// Returns whether names have no time but sort by session and sequence number. Session ids begin with the time, so this is
    /// the order of time.
    fn names_sort_by_session(&self, camera: &str) -> bool {
        let name = |session, seq| {
            let fields = NameFields {
                device: camera,
                session,
                seq,
                ext: "",
                start: EARLIEST,
            };
            self.template.format(&fields).ok()
        };
        !self.names_tell_hours(camera) && name("0", 9) < name("1", 0) && name("0", 0) < name("0", 1)
    }

    /// Returns the newest of `newest`, of the chunks of this hour, and of the hour before. Lists an hour only while the newest so
    /// far is not young.
    async fn of_this_hour(&self, camera: &str, mut newest: Option<Chunk>, now: u64) -> Result<Option<Chunk>, IndexError> {
        for hour in [now, now.saturating_sub(HOUR)] {
            if newest.as_ref().is_some_and(|chunk| is_young(chunk, now)) {
                break;
            }
            newest = newest_of(self.hour(camera, hour).await?.iter().cloned().chain(newest));
        }
        Ok(newest)
    }

    /// Returns the newest chunk of the last [`DAYS`] days, for names that do not sort by time.
    async fn of_these_days(&self, camera: &str, now: u64) -> Result<Option<Chunk>, IndexError> {
        if !self.names_tell_hours(camera) {
            let begin = self.device_prefix(camera);
            return Ok(newest_of(self.chunks(camera, self.from(camera, begin, now)).await?));
        }
        for day in 0..DAYS {
            let query = ListQuery {
                prefix: self.template.day_prefix(camera, now.saturating_sub(day * 24 * HOUR)),
                ..ListQuery::default()
            };
            let newest = newest_of(self.chunks(camera, query).await?);
            if newest.is_some() {
                return Ok(newest);
            }
        }
        Ok(None)
    }

    async fn find_newest(&self, camera: &str, now: u64) -> Result<Option<Chunk>, IndexError> {
        let lately = self.lately(camera, now).await?;
        let newest = self.of_this_hour(camera, lately, now).await?;
        if newest.is_some() {
            return Ok(newest);
        }
        if !self.names_sort_by_time(camera) {
            return self.of_these_days(camera, now).await;
        }
        let (begin, end) = (EARLIEST / HOUR, (now + AHEAD) / HOUR);
        if !self.has_any(camera, begin, end).await? {
            return Ok(None);
        }
        let last = self.last_hour_of_chunks(camera, begin, end).await?;
        Ok(last.and_then(|chunks| newest_of(chunks.iter().cloned())))
    }

    /// Returns the newest chunk of the last two minutes. That is a dozen objects; a whole hour has hundreds, for each camera of
    /// the first screen.
    async fn lately(&self, camera: &str, now: u64) -> Result<Option<Chunk>, IndexError> {
        let names = self
            .name(camera, now.saturating_sub(LATELY))
            .zip(self.name(camera, now + LATELY));
        match names {
            Some((begin, soon)) => self.by_now(camera, begin, soon.clone(), soon, None, now).await,
            None => Ok(None),
        }
    }

    /// Returns the first name that a chunk beginning at `start` can have. `None` unless names are the default ones: only those
    /// are known to sort by time down to the second.
    fn name(&self, camera: &str, start: u64) -> Option<String> {
        let earliest = NameFields {
            device: camera,
            session: "",
            seq: 0,
            ext: "",
            start,
        };
        self.template.format(&earliest).ok().filter(|_| self.has_default_names())
    }

    /// Returns whether names begin as the default `{device}/%Y/%m/%d/%Y%m%dT%H…`, with the id in front of the year.
    pub(super) fn has_default_names(&self) -> bool {
        self.template.day_prefix("{device}", 0) == "{device}/1970/01/01/19700101T"
    }
}

fn newest_of(chunks: impl IntoIterator<Item = Chunk>) -> Option<Chunk> {
    chunks.into_iter().max_by_key(|chunk| (chunk.ended(), chunk.meta.sequence))
}

/// Returns whether a chunk is so young that its camera must still be recording.
fn is_young(chunk: &Chunk, now: u64) -> bool {
    now.saturating_sub(chunk.ended()) < patience(chunk)
}
