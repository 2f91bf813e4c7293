//! Which cameras the bucket has: device ids, found from the names of objects.
//!
//! With the default template a camera is a folder that holds folders of years, at any depth: ids hold slashes. A folder of four digits is
//! a year only where it holds chunks: `store/0042` is a camera, too. Folders are listed level by level; what was found to be a camera is
//! not looked into again for an hour. With another template they are found from name to
//! name: behind one of a camera the next is looked for that is of another.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gcstreamer_schema::name::{check_device, common_prefix};
use gcstreamer_schema::time::{parse_rfc3339, rfc3339_ms};
use gcstreamer_storage::{Fields, ListQuery, Listed};

use super::{HOUR, Index, IndexError, PARALLEL, is_of};

/// Deepest folder that is looked into: ids of so many parts.
const MAX_DEPTH: usize = 8;
/// Most folders that are listed in one search.
const MAX_FOLDERS: usize = 5000;
/// Pages of one folder.
const PAGES: usize = 20;
/// Objects that are looked at at once with another template, and how often at most.
const SAMPLE: u32 = 100;
const LOOKS: usize = 1000;
/// A search that asked the bucket this often is good for that much longer, ns: a bucket of a thousand cameras is not asked all the time.
const PER_LOOK: u64 = 3_000_000_000;
/// Behind all names that begin alike.
const LAST: char = '\u{10ffff}';
/// Years that chunks can be of: times are ns since 1970, of 64 bits. Other folders of four digits need no look inside.
const YEARS: std::ops::RangeInclusive<u16> = 1970..=2554;
/// How long an answer is good for, ns.
const GOOD_FOR: u64 = 60_000_000_000;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Discovered {
    /// Until when that is good, ns since the Unix epoch.
    until: u64,
    cameras: BTreeSet<String>,
    /// Folders that are cameras, and when they were looked into.
    folders: HashMap<String, u64>,
    /// Folders that were not read to their end.
    unread: HashSet<String>,
    /// Whether the last search ended before it had looked everywhere.
    is_partial: bool,
}

/// The folders in a folder but those of years, which make it a camera.
struct Folder {
    name: String,
    is_camera: bool,
    inside: Vec<String>,
    /// Whether that are all, and of each year it is known whether it holds chunks.
    is_whole: bool,
}

/// What a search for cameras says that ended before it had looked everywhere.
pub const PARTIAL: &str =
    "not all folders were looked at for cameras: the bucket has more than 5,000 of them, or more than 20,000 names in one";
/// What to do then.
pub const PARTIAL_HINT: &str = "name the cameras by --cameras; those that are shown are complete";

impl Discovered {
    /// Forgets what a folder does not hold any more: itself as a camera, and what was known below folders that are gone.
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

/// The id of the camera that a folder is of: all before its last slash, as ids may end with one.
fn camera_of(folder: &str) -> &str {
    folder.strip_suffix('/').unwrap_or(folder)
}

impl Index {
    /// The device ids of all cameras, sorted.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn cameras(&self) -> Result<Vec<String>, IndexError> {
        let mut discovered = self.discovered.lock().await;
        let now = self.clock.now();
        if now >= discovered.until {
            let mut good_for = GOOD_FOR;
            // Ids of the default template stand in front of the year.
            if self.has_default_names() {
                self.look_into_folders(&mut discovered, now).await?;
            } else {
                let (found, looks) = self.look_at_objects().await?;
                Self::note(&mut discovered, looks >= LOOKS);
                if looks < LOOKS {
                    // All were looked at: what is not there any more is no camera.
                    discovered.cameras.clear();
                }
                discovered.cameras.extend(found);
                good_for = GOOD_FOR.max(PER_LOOK.saturating_mul(u64::try_from(looks).unwrap_or(u64::MAX)));
            }
            discovered.until = now.saturating_add(good_for);
        }
        Ok(discovered.cameras.iter().cloned().collect())
    }

    /// Whether the last search for cameras ended before it had looked everywhere.
    pub async fn is_partial(&self) -> bool {
        self.discovered.lock().await.is_partial
    }

    /// Says once that a search ended early, until one has looked everywhere.
    fn note(discovered: &mut Discovered, is_partial: bool) {
        if is_partial && !discovered.is_partial {
            tracing::warn!("{PARTIAL}; {PARTIAL_HINT}");
        }
        discovered.is_partial = is_partial;
    }

    async fn look_into_folders(&self, discovered: &mut Discovered, now: u64) -> Result<(), IndexError> {
        let mut level = vec![String::new()];
        let (mut listed, mut is_partial) = (0, false);
        // The root is a level, too.
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
                .map(|folder| self.look_into(folder, &known))
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
                // A bucket may hold folders without end, of which no more than these are ever listed.
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

    /// Lists a folder. What is known to be a camera is no year.
    async fn look_into(&self, folder: String, known: &HashMap<String, u64>) -> Result<Folder, IndexError> {
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
        let looks = stream::iter(years).map(async |year| Ok::<_, IndexError>((self.holds_chunks(&folder, &year).await?, year)));
        let looks: Vec<(Option<bool>, String)> = looks.buffer_unordered(PARALLEL).try_collect().await?;
        let is_camera = looks.iter().any(|(is_ours, _)| *is_ours == Some(true));
        let is_known = is_camera || looks.iter().all(|(is_ours, _)| is_ours.is_some());
        inside.extend(
            looks
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

    /// Whether an object of that year has the name of a chunk of this camera. `None`: none of so many has, and there are more.
    async fn holds_chunks(&self, folder: &str, year: &str) -> Result<Option<bool>, IndexError> {
        let query = ListQuery {
            prefix: year.to_owned(),
            max_results: Some(10),
            fields: Fields::Names,
            ..ListQuery::default()
        };
        let camera = camera_of(folder);
        // What no sink would take as its device is not asked for either.
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

    /// With another template: some objects, and behind what the names of a camera begin with in a year, or on a day, the next ones. Where days
    /// stand in front of the cameras, those of the last two days come first.
    async fn look_at_objects(&self) -> Result<(BTreeSet<String>, usize), IndexError> {
        let (mut cameras, mut looks) = (BTreeSet::new(), 0);
        let has_days_first = self.device_prefix("0") == self.device_prefix("1");
        if has_days_first {
            let yesterday = self.clock.now().saturating_sub(24 * HOUR);
            let from = self.template.day_prefix("0", yesterday);
            looks += self.look_from(Some(from), &mut cameras).await?;
        }
        looks += self.look_from(None, &mut cameras).await?;
        Ok((cameras, looks))
    }

    /// Adds the cameras of objects from this name on. Returns how often the bucket was asked.
    async fn look_from(&self, from: Option<String>, cameras: &mut BTreeSet<String>) -> Result<usize, IndexError> {
        let mut query = ListQuery {
            start_offset: from,
            max_results: Some(SAMPLE),
            ..ListQuery::default()
        };
        for looks in 1..=LOOKS {
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
                (None, _) => return Ok(looks),
                (Some(_), Some(prefix)) => (query.page, query.start_offset) = (None, Some(format!("{prefix}{LAST}"))),
                (Some(next), None) => query.page = Some(next),
            }
        }
        Ok(LOOKS)
    }

    /// What the names of a camera begin with in the year of `start`, or on its day with one more character: as much as tells the camera and
    /// something behind it. What all its names begin with may be the beginning of another id, too (`front_` of `front_door`). `None`: names
    /// tell no time.
    fn alike(&self, camera: &str, start: u64, name: &str) -> Option<String> {
        let year = rfc3339_ms(start).get(..4).map(|year| format!("{year}-01-01T00:00:00Z"));
        let begin = year.as_deref().and_then(parse_rfc3339)?;
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

/// Whether a folder has the name of a year that chunks can be of.
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
