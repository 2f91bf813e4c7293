//! Which cameras the bucket has: device ids, found from the names of objects.
//!
//! With the default template a camera is a folder that holds folders of years. It may be at any depth, because ids may contain
//! slashes. A folder of four digits is a year only if it holds chunks: `store/0042` is a camera, too. Folders are listed level by
//! level. A folder that is a camera is not listed again for an hour.
//!
//! With another template the search goes from name to name: after an object of one camera it skips to the next object that may be
//! of another one.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gcstreamer_schema::name::{check_device, common_prefix};
use gcstreamer_schema::time::{parse_rfc3339, rfc3339_ms};
use gcstreamer_storage::{Fields, ListQuery, Listed};

use super::{HOUR, Index, IndexError, PARALLEL, is_of};

/// Deepest folder that is listed: ids with more parts are not found.
const MAX_DEPTH: usize = 8;
/// Most folders that are listed in one search.
const MAX_FOLDERS: usize = 5000;
/// Most pages of one folder.
const PAGES: usize = 20;
/// Objects per request, with another template.
const SAMPLE: u32 = 100;
/// Most requests of one search, with another template.
const LOOKS: usize = 1000;
/// Time that each request of a search adds to the validity of its answer, ns: else a bucket of a thousand cameras would be
/// searched all the time.
const PER_LOOK: u64 = 3_000_000_000;
/// Sorts after every name that has the same prefix.
const LAST: char = '\u{10ffff}';
/// Years in which a chunk can begin: times are ns since 1970 in 64 bits. Other folders of four digits are not years.
const YEARS: std::ops::RangeInclusive<u16> = 1970..=2554;
/// Shortest validity of an answer, ns.
const GOOD_FOR: u64 = 60_000_000_000;

/// The result of the last search.
#[derive(Debug, Default)]
pub(super) struct Discovered {
    /// Valid until then, ns since the Unix epoch.
    until: u64,
    cameras: BTreeSet<String>,
    /// Folders that are cameras, and when each was listed last, ns since the Unix epoch.
    folders: HashMap<String, u64>,
    /// Folders whose listing was cut off at a limit.
    unread: HashSet<String>,
    /// Whether the last search ended at a limit, before it had listed everything.
    is_partial: bool,
}

/// The listing of one folder.
struct Folder {
    name: String,
    is_camera: bool,
    /// The folders in it, without those of years that hold chunks.
    inside: Vec<String>,
    /// Whether the listing is complete: no page is missing, and it is known of each year whether it holds chunks.
    is_whole: bool,
}

/// The warning of a search that ended before it had listed everything.
pub const PARTIAL: &str =
    "not all folders were looked at for cameras: the bucket has more than 5,000 of them, or more than 20,000 names in one";
/// What to do about [`PARTIAL`].
pub const PARTIAL_HINT: &str = "name the cameras by --cameras; those that are shown are complete";

impl Discovered {
    /// Removes what a complete listing of a folder no longer shows: the folder itself as a camera, and everything below folders
    /// that have been deleted.
    fn forget(&mut self, folder: &Folder) {
        if !folder.is_whole {
            return;
        }
        let here: HashSet<&str> = folder.inside.iter().map(String::as_str).collect();
        let is_gone = |name: &str| match name.strip_prefix(&folder.name) {
            None => false,
            Some("") => !folder.is_camera,
            Some(below) => {
                let end = below.find('/').map_or(name.len(), |at| name.len() - below.len() + at + 1);
                !name.get(..end).is_some_and(|child| here.contains(child))
            }
        };
        self.folders.retain(|name, _| !is_gone(name));
        self.cameras.retain(|camera| !is_gone(&format!("{camera}/")));
        self.unread.retain(|name| !is_gone(name));
    }
}

/// Returns the id of the camera of a folder. Removes one slash only: ids may end with a slash themselves.
fn camera_of(folder: &str) -> &str {
    folder.strip_suffix('/').unwrap_or(folder)
}

impl Index {
    /// Returns the device ids of all cameras, sorted. Searches the bucket if the last answer has expired.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn cameras(&self) -> Result<Vec<String>, IndexError> {
        let mut discovered = self.discovered.lock().await;
        let now = self.clock.now();
        if now >= discovered.until {
            let mut good_for = GOOD_FOR;
            // In the default template the id stands in front of the year, so folders are enough.
            if self.has_default_names() {
                self.list_folders(&mut discovered, now).await?;
            } else {
                let (found, listings) = self.list_objects().await?;
                Self::note(&mut discovered, listings >= LOOKS);
                if listings < LOOKS {
                    // The search was complete: cameras that it did not find have been deleted.
                    discovered.cameras.clear();
                }
                discovered.cameras.extend(found);
                good_for = GOOD_FOR.max(PER_LOOK.saturating_mul(u64::try_from(listings).unwrap_or(u64::MAX)));
            }
            discovered.until = now.saturating_add(good_for);
        }
        Ok(discovered.cameras.iter().cloned().collect())
    }

    /// Returns whether the last search for cameras ended at a limit, before it had listed everything.
    pub async fn is_partial(&self) -> bool {
        self.discovered.lock().await.is_partial
    }

    /// Records whether a search ended early. Logs a warning if the search before it did not.
    fn note(discovered: &mut Discovered, is_partial: bool) {
        if is_partial && !discovered.is_partial {
            tracing::warn!("{PARTIAL}; {PARTIAL_HINT}");
        }
        discovered.is_partial = is_partial;
    }

    async fn list_folders(&self, discovered: &mut Discovered, now: u64) -> Result<(), IndexError> {
        let mut level = vec![String::new()];
        let (mut listed, mut is_partial) = (0, false);
        // Inclusive: the root is a level, too.
        for _ in 0..=MAX_DEPTH {
            level.retain(|folder| {
                discovered
                    .folders
                    .get(folder)
                    .is_none_or(|at| now.saturating_sub(*at) >= HOUR)
            });
            is_partial |= level.len() > MAX_FOLDERS - listed;
            level.truncate(MAX_FOLDERS - listed);
            listed += level.len();
            let known = discovered.folders.clone();
            let mut folders = stream::iter(level)
                .map(|folder| self.list_folder(folder, &known))
                .buffer_unordered(PARALLEL);
            level = Vec::new();
            while let Some(folder) = folders.try_next().await? {
                discovered.forget(&folder);
                if folder.is_whole {
                    discovered.unread.remove(&folder.name);
                } else {
                    discovered.unread.insert(folder.name.clone());
                }
                if folder.is_camera {
                    discovered.cameras.insert(camera_of(&folder.name).to_owned());
                    discovered.folders.insert(folder.name, now);
                }
                // Do not collect more folders than can still be listed: a bucket may have any number of them.
                let room = MAX_FOLDERS.saturating_sub(listed + level.len());
                is_partial |= folder.inside.len() > room;
                level.extend(folder.inside.into_iter().take(room));
            }
            drop(folders);
            if level.is_empty() {
                break;
            }
        }
        Self::note(discovered, is_partial || !discovered.unread.is_empty());
        Ok(())
    }

    /// Lists a folder. Folders that are known to be cameras do not count as years.
    async fn list_folder(&self, folder: String, known: &HashMap<String, u64>) -> Result<Folder, IndexError> {
        let mut query = ListQuery {
            prefix: folder.clone(),
            delimiter: Some("/".into()),
            fields: Fields::Names,
            ..ListQuery::default()
        };
        let (mut inside, mut years) = (Vec::new(), Vec::new());
        let mut is_whole = false;
        for _ in 0..PAGES {
            let page = self.list(&query).await?;
            for prefix in page.prefixes {
                let name = prefix.get(folder.len()..).unwrap_or_default().trim_end_matches('/');
                // Not at the root: a year there has no folder in front of it that could be the id of a camera.
                let may_be_year = !folder.is_empty() && is_year(name) && !known.contains_key(&prefix);
                if may_be_year { &mut years } else { &mut inside }.push(prefix);
            }
            match page.next {
                Some(next) => query.page = Some(next),
                None => {
                    is_whole = true;
                    break;
                }
            }
        }
        let listings =
            stream::iter(years).map(async |year| Ok::<_, IndexError>((self.holds_chunks(&folder, &year).await?, year)));
        let listings: Vec<(Option<bool>, String)> = listings.buffer_unordered(PARALLEL).try_collect().await?;
        let is_camera = listings.iter().any(|(is_ours, _)| *is_ours == Some(true));
        let is_known = is_camera || listings.iter().all(|(is_ours, _)| is_ours.is_some());
        inside.extend(
            listings
                .into_iter()
                .filter(|(is_ours, _)| *is_ours == Some(false))
                .map(|(_, other)| other),
        );
        Ok(Folder {
            name: folder,
            is_camera,
            inside,
            is_whole: is_whole && is_known,
        })
    }

    /// Returns whether a folder of a year holds an object with the name of a chunk of this camera. `None`: no such object in the
    /// first [`PAGES`] pages, and there are more.
    async fn holds_chunks(&self, folder: &str, year: &str) -> Result<Option<bool>, IndexError> {
        let query = ListQuery {
            prefix: year.to_owned(),
            max_results: Some(10),
            fields: Fields::Names,
            ..ListQuery::default()
        };
        let camera = camera_of(folder);
        // No sink accepts such a device id, so there can be no chunks of it: save the request.
        if check_device(camera).is_err() {
            return Ok(Some(false));
        }
        let is_ours = |object: Listed| is_of(&self.template, camera, &object.name).then_some(());
        match self.first_of(query, PAGES, is_ours).await {
            Ok(found) => Ok(Some(found.is_some())),
            Err(IndexError::TooMany(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Searches for cameras with another template. Returns them, and the number of requests.
    ///
    /// If days stand in front of the cameras in names, the last two days are searched first: the limit of requests may end the
    /// search from the beginning long before it gets there.
    async fn list_objects(&self) -> Result<(BTreeSet<String>, usize), IndexError> {
        let (mut cameras, mut listings) = (BTreeSet::new(), 0);
        // If the id stood in front of the time, the prefixes of two ids would differ.
        let has_days_first = self.device_prefix("0") == self.device_prefix("1");
        if has_days_first {
            let yesterday = self.clock.now().saturating_sub(24 * HOUR);
            let from = self.template.day_prefix("0", yesterday);
            listings += self.list_from(Some(from), &mut cameras).await?;
        }
        listings += self.list_from(None, &mut cameras).await?;
        Ok((cameras, listings))
    }

    /// Adds the cameras of the objects from this name on. Returns the number of requests.
    ///
    /// After the last object of a page, skips all names that begin as those of its camera do in that year or on that day
    /// ([`Index::alike`]).
    async fn list_from(&self, from: Option<String>, cameras: &mut BTreeSet<String>) -> Result<usize, IndexError> {
        let mut query = ListQuery {
            start_offset: from,
            max_results: Some(SAMPLE),
            ..ListQuery::default()
        };
        for listings in 1..=LOOKS {
            let page = self.list(&query).await?;
            let mut known: Option<String> = None;
            for object in page.objects {
                if known.as_ref().is_some_and(|prefix| object.name.starts_with(prefix)) {
                    continue;
                }
                known = None;
                let camera = self.template.read(&object.name).and_then(|parts| parts.device);
                let Some(camera) = camera.filter(|camera| check_device(camera).is_ok()) else {
                    continue;
                };
                let name = object.name.clone();
                if let Some(chunk) = super::Chunk::of(&self.template, &camera, object) {
                    known = self
                        .alike(&camera, chunk.meta.start, &name)
                        .filter(|prefix| name.starts_with(prefix));
                    cameras.insert(camera);
                }
            }
            match (page.next, known) {
                (None, _) => return Ok(listings),
                (Some(_), Some(prefix)) => (query.page, query.start_offset) = (None, Some(format!("{prefix}{LAST}"))),
                (Some(next), None) => query.page = Some(next),
            }
        }
        Ok(LOOKS)
    }

    /// Returns a prefix that only names of this camera have: that of its names in the year of `start`, or that of its day and one
    /// more character of `name`. `None`: names do not show a time.
    ///
    /// The prefix of all its names would not do: it may be the beginning of another id, too (`front_` of `front_door`).
    fn alike(&self, camera: &str, start: u64, name: &str) -> Option<String> {
        let year = rfc3339_ms(start).get(..4).map(|year| format!("{year}-01-01T00:00:00Z"));
        let begin = year.as_deref().and_then(parse_rfc3339)?;
        // Stands for any id that begins with this one: a prefix that its names share is not specific enough.
        let other = format!("{camera}-");
        let in_year = |camera: &str| {
            let names = (0..=12).map(|month| self.template.hour_prefix(camera, begin + month * 30 * 24 * HOUR));
            names
                .reduce(|common, name| common_prefix(&common, &name).to_owned())
                .unwrap_or_default()
        };
        let on_day = |camera: &str| self.template.day_prefix(camera, start);
        let longer = |prefix: String| name.get(prefix.len()..)?.chars().next().map(|next| format!("{prefix}{next}"));
        let tells_more = |prefix: &String| prefix.len() > self.device_prefix(camera).len();
        let year = Some(in_year(camera)).filter(|prefix| tells_more(prefix) && *prefix != in_year(&other));
        let day = || Some(on_day(camera)).filter(|prefix| tells_more(prefix) && *prefix != on_day(&other));
        year.or_else(|| longer(day()?))
    }
}

/// Returns whether the name of a folder is a year in which a chunk can begin.
fn is_year(name: &str) -> bool {
    let is_number = name.len() == 4 && name.bytes().all(|byte| byte.is_ascii_digit());
    is_number && name.parse().is_ok_and(|year| YEARS.contains(&year))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_whose_folder_is_gone_is_none_and_one_below_another_folder_stays() {
        let mut discovered = Discovered::default();
        for camera in ["a", "store/cam1", "store/cam2", "store/more/cam3", "old/cam4"] {
            discovered.cameras.insert(camera.to_owned());
            discovered.folders.insert(format!("{camera}/"), 0);
        }
        let folder = |name: &str, is_camera, inside: &[&str], is_whole| Folder {
            name: name.to_owned(),
            is_camera,
            inside: inside.iter().map(|name| (*name).to_owned()).collect(),
            is_whole,
        };
        let all = discovered.cameras.clone();
        discovered.forget(&folder("", false, &["a/"], false));
        assert_eq!(discovered.cameras, all, "a folder that was not read to its end says nothing");
        discovered.forget(&folder("", false, &["a/", "store/"], true));
        discovered.forget(&folder("store/", false, &["store/cam2/", "store/more/"], true));
        discovered.forget(&folder("a/", false, &[], true));
        let left: Vec<&str> = discovered.cameras.iter().map(String::as_str).collect();
        assert_eq!(left, ["store/cam2", "store/more/cam3"]);
        assert_eq!(discovered.folders.len(), 2);
    }
}
