//! Caches listings in bounded memory and, for finished hours, on disk.
//!
//! Touches files below `--cache-dir` only. A file that is unreadable or damaged is a cache miss, never an error: the bucket is
//! the source of truth.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use gcstreamer_schema::metadata::ObjectMetadata;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::chunk::Chunk;
use super::freshness::FINISHED;
use crate::lock::lock;

/// Most bytes of chunks in memory.
const MAX_MEMORY: usize = 64 << 20;
/// Longest file that is read, bytes.
const MAX_FILE: u64 = 64 << 20;

/// Most bytes of files below `--cache-dir`: 2,800 hours of 10 s chunks. The shipped pod has 1 GiB.
const MAX_DISK: u64 = 512 << 20;
/// The files are counted again after 1/16 of the limit was written, not at every write: counting reads the whole folder.
const RECOUNT: u64 = 16;

/// The folder that caches finished hours.
#[derive(Clone, Debug)]
pub struct Disk {
    folder: PathBuf,
    /// Names bucket and endpoint, so that several dashboards can share one folder.
    identity: String,
    /// Most bytes of files.
    limit: u64,
    /// Bytes written since the files were counted. `None`: not counted yet; an earlier process may have left any number of files.
    written: Arc<Mutex<Option<u64>>>,
}

#[derive(Debug)]
struct Entry {
    chunks: Arc<Vec<Chunk>>,
    until: u64,
    used: u64,
    cost: usize,
}

#[derive(Debug, Default)]
struct Memory {
    entries: HashMap<String, Entry>,
    cost: usize,
    uses: u64,
    slots: HashMap<String, Weak<tokio::sync::Mutex<()>>>,
}

/// The chunks of listings by key: in memory up to a limit, and finished hours on disk, too.
#[derive(Debug)]
pub struct Cache {
    memory: Mutex<Memory>,
    disk: Option<Disk>,
}

impl Cache {
    /// Creates an empty cache.
    pub fn new(disk: Option<Disk>) -> Self {
        Self {
            memory: Mutex::default(),
            disk,
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    /// Returns the lock of a key. Callers lock it before they ask the bucket, so that concurrent viewers cause one request.
    pub fn slot(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut memory = self.memory();
        if let Some(slot) = memory.slots.get(key).and_then(Weak::upgrade) {
            return slot;
        }
        // Dead locks are removed in bulk: doing so at each call would walk the whole map each time.
        if memory.slots.len() > 4096 {
            memory.slots.retain(|_, slot| slot.strong_count() > 0);
        }
        let slot = Arc::new(tokio::sync::Mutex::new(()));
        memory.slots.insert(key.to_owned(), Arc::downgrade(&slot));
        slot
    }

    /// Returns the listing of a key if it is still valid at `now` (ns since the Unix epoch).
    pub async fn get(&self, key: &str, now: u64) -> Option<Arc<Vec<Chunk>>> {
        {
            let mut memory = self.memory();
            memory.uses += 1;
            let uses = memory.uses;
            if let Some(entry) = memory.entries.get_mut(key) {
                entry.used = uses;
                // Not from the disk if it has expired: the file was written together with it.
                return (now < entry.until).then(|| entry.chunks.clone());
            }
        }
        let (until, chunks) = self.disk.as_ref()?.read(key).await.filter(|(until, _)| now < *until)?;
        let chunks = Arc::new(chunks);
        self.keep(key, chunks.clone(), until);
        Some(chunks)
    }

    /// Stores a listing that is valid for `good_for` ns from `now` on. Writes it to disk if `good_for` is that of a finished
    /// hour.
    pub async fn put(&self, key: &str, chunks: Arc<Vec<Chunk>>, now: u64, good_for: u64) {
        self.keep(key, chunks.clone(), now.saturating_add(good_for));
        if let Some(disk) = self.disk.as_ref().filter(|_| good_for == FINISHED) {
            disk.write(key, &chunks, now.saturating_add(good_for)).await;
        }
    }

    /// Drops the listing of a key, in memory and on disk.
    pub fn forget(&self, key: &str) {
        let mut memory = self.memory();
        if let Some(entry) = memory.entries.remove(key) {
            memory.cost -= entry.cost;
        }
        drop(memory);
        if let Some(disk) = &self.disk {
            // Synchronous, since it is one small file. An error is harmless: the listing is read once more and dropped again.
            let _ = std::fs::remove_file(disk.path(key));
        }
    }

    fn keep(&self, key: &str, chunks: Arc<Vec<Chunk>>, until: u64) {
        let cost = key.len() + 128 + chunks.iter().map(Chunk::cost).sum::<usize>();
        let mut memory = self.memory();
        memory.uses += 1;
        let entry = Entry {
            chunks,
            until,
            used: memory.uses,
            cost,
        };
        memory.cost += cost;
        if let Some(old) = memory.entries.insert(key.to_owned(), entry) {
            memory.cost -= old.cost;
        }
        // The newest stays, even if it alone is over the limit: otherwise each request would list it again.
        while memory.cost > MAX_MEMORY && memory.entries.len() > 1 {
            let oldest = memory
                .entries
                .iter()
                .min_by_key(|(_, entry)| entry.used)
                .map(|(key, _)| key.clone());
            let Some(entry) = oldest.and_then(|key| memory.entries.remove(&key)) else {
                break;
            };
            memory.cost -= entry.cost;
        }
    }
}

/// A chunk as it is written to a file.
#[derive(Serialize, Deserialize)]
struct Line {
    name: String,
    generation: i64,
    size: u64,
    created: u64,
    retry: u32,
    metadata: std::collections::BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct File {
    /// [`VERSION`] of the writer; files of other versions are misses.
    version: u32,
    key: String,
    /// Valid until then, ns since the Unix epoch.
    until: u64,
    chunks: Vec<Line>,
}

/// Version of the file format. 3 added `retry` and removed duplicates; 5 added `until`.
const VERSION: u32 = 5;

impl Disk {
    /// Creates a cache in `folder`, which must exist. `identity` names bucket and endpoint.
    pub fn new(folder: &Path, identity: String) -> Self {
        Self {
            folder: folder.to_owned(),
            identity,
            limit: MAX_DISK,
            written: Arc::default(),
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        let digest = Sha256::digest(format!("{}\0{key}", self.identity));
        let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("{name}.json"))
    }

    /// Reads a listing, and until when it is valid.
    async fn read(&self, key: &str) -> Option<(u64, Vec<Chunk>)> {
        let path = self.path(key);
        let key = key.to_owned();
        let read = move || {
            let length = std::fs::metadata(&path).ok()?.len();
            if length > MAX_FILE {
                return None;
            }
            let file: File = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
            // The key is compared, too: the file's name is only half of its digest.
            if file.version != VERSION || file.key != key {
                return None;
            }
            let chunks: Option<Vec<Chunk>> = file.chunks.into_iter().map(chunk_of).collect();
            Some((file.until, chunks?))
        };
        tokio::task::spawn_blocking(read).await.ok()?
    }

    /// Accounts for a file of this many bytes that is about to be written.
    ///
    /// Before the first file of a process, and each time 1/[`RECOUNT`] of the limit was written, counts the files and deletes the
    /// oldest ones until the folder is below its limit.
    fn make_room(&self, bytes: u64) -> std::io::Result<()> {
        let mut written = lock(&self.written);
        let part = self.limit / RECOUNT;
        let since = written.map(|since| since.saturating_add(bytes));
        if let Some(since) = since.filter(|since| *since < part) {
            *written = Some(since);
            return Ok(());
        }
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let is_ours = path.file_name().and_then(|name| name.to_str()).is_some_and(is_our_name);
            // Another process may delete files at the same time.
            if let Some(known) = std::fs::metadata(&path).ok().filter(|known| is_ours && known.is_file()) {
                files.push((known.modified()?, known.len(), path));
            }
        }
        // Also makes room for the bytes that are written until the next count.
        for path in surplus(files, self.limit - part - bytes.min(self.limit - part)) {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        *written = Some(0);
        Ok(())
    }

    async fn write(&self, key: &str, chunks: &Arc<Vec<Chunk>>, until: u64) {
        let (path, key, chunks, disk) = (self.path(key), key.to_owned(), chunks.clone(), self.clone());
        let write = move || -> std::io::Result<()> {
            let file = File {
                version: VERSION,
                key,
                until,
                chunks: chunks.iter().map(line_of).collect(),
            };
            let text = serde_json::to_vec(&file).map_err(std::io::Error::other)?;
            disk.make_room(u64::try_from(text.len()).unwrap_or(u64::MAX))?;
            // Written under another name and renamed, so that no reader sees half a file. The process id keeps dashboards that
            // share the folder apart.
            let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
            std::fs::write(&temporary, text)?;
            std::fs::rename(&temporary, &path)
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!("cache-dir cannot be written ({error}); finished hours are listed again after a restart");
        }
    }
}

/// Returns whether a file's name is one of [`Disk::path`], or of a temporary file that a crash left. No other file is deleted.
fn is_our_name(name: &str) -> bool {
    let (digest, end) = name.split_at_checked(32).unwrap_or_default();
    digest.bytes().all(|byte| byte.is_ascii_hexdigit()) && (end == ".json" || end.ends_with(".tmp"))
}

/// Returns the oldest files, as many as must be deleted for the rest to take at most `limit` bytes. Takes (time of the last
/// change, bytes, path) of each file.
fn surplus(mut files: Vec<(std::time::SystemTime, u64, PathBuf)>, limit: u64) -> Vec<PathBuf> {
    files.sort();
    let mut held: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    let over = files.into_iter().take_while(|(_, bytes, _)| {
        let is_over = held > limit;
        held = held.saturating_sub(*bytes);
        is_over
    });
    over.map(|(_, _, path)| path).collect()
}

fn line_of(chunk: &Chunk) -> Line {
    Line {
        name: chunk.name.to_string(),
        generation: chunk.generation,
        size: chunk.size,
        created: chunk.created,
        retry: chunk.retry,
        metadata: chunk.meta.to_map(&Default::default()),
    }
}

fn chunk_of(line: Line) -> Option<Chunk> {
    Some(Chunk {
        name: line.name.into(),
        generation: line.generation,
        size: line.size,
        created: line.created,
        retry: line.retry,
        meta: ObjectMetadata::from_map(&line.metadata).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::chunk::tests::chunk;
    use super::*;

    fn chunks(count: u64) -> Arc<Vec<Chunk>> {
        Arc::new((0..count).map(|sequence| chunk(0, sequence, sequence as f64, 1.0)).collect())
    }

    #[tokio::test]
    async fn a_listing_is_good_until_its_time_is_over() {
        let cache = Cache::new(None);
        cache.put("k", chunks(2), 100, 10).await;
        assert_eq!(cache.get("k", 109).await, Some(chunks(2)));
        assert_eq!(cache.get("k", 110).await, None);
    }

    #[tokio::test]
    async fn memory_is_bounded_and_the_least_used_goes_first() {
        let cache = Cache::new(None);
        let many = chunks(50_000);
        let cost: usize = many.iter().map(Chunk::cost).sum();
        let count = MAX_MEMORY / cost + 3;
        for index in 0..count {
            cache.put(&index.to_string(), many.clone(), 0, FINISHED).await;
            assert!(cache.get("0", 1).await.is_some(), "used all the time");
        }
        assert!(cache.memory().cost <= MAX_MEMORY && cache.memory().entries.len() < count);
        assert!(cache.get("1", 1).await.is_none());
    }

    #[tokio::test]
    async fn the_folder_of_finished_hours_stays_below_its_limit_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("readme.json"), vec![0; 300_000]).unwrap();
        let held = || -> u64 {
            let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
            let ours = entries.filter(|entry| entry.file_name() != "readme.json");
            ours.map(|entry| entry.metadata().unwrap().len()).sum()
        };
        let limited = |limit: u64| Disk {
            limit,
            ..Disk::new(folder.path(), "bucket".into())
        };
        let cache = Cache::new(Some(limited(400_000)));
        for hour in 0..60 {
            cache.put(&format!("hour {hour}"), chunks(60), 0, FINISHED).await;
            assert!(held() <= 400_000, "{} bytes after hour {hour}", held());
        }
        assert!(held() > 250_000, "{} bytes: most of it is used", held());
        let next = Cache::new(Some(limited(100_000)));
        assert!(next.get("hour 59", 1).await.is_some(), "the newest is there");
        next.put("another", chunks(1), 0, FINISHED).await;
        assert!(held() <= 100_000, "{} bytes are left of the dashboard before", held());
        assert!(folder.path().join("readme.json").exists());
    }

    #[tokio::test]
    async fn finished_hours_survive_a_restart_and_broken_files_are_a_miss() {
        let folder = tempfile::tempdir().unwrap();
        let disk = || Some(Disk::new(folder.path(), "bucket".into()));
        Cache::new(disk()).put("finished", chunks(3), 0, FINISHED).await;
        Cache::new(disk()).put("running", chunks(3), 0, 10).await;
        let next = Cache::new(disk());
        assert_eq!(next.get("finished", FINISHED).await, None, "it may have been deleted since");
        assert_eq!(next.get("finished", FINISHED - 1).await, Some(chunks(3)));
        assert_eq!(next.get("finished", FINISHED).await, None);
        assert_eq!(next.get("running", 1).await, None);
        next.forget("finished");
        assert_eq!(
            (next.get("finished", 1).await, Cache::new(disk()).get("finished", 1).await),
            (None, None)
        );
        Cache::new(disk()).put("finished", chunks(3), 0, FINISHED).await;
        let other = Cache::new(Some(Disk::new(folder.path(), "other bucket".into())));
        assert_eq!(other.get("finished", 1).await, None);
        let path = disk().unwrap().path("finished");
        std::fs::write(path, "{\"version\":1").unwrap();
        assert_eq!(Cache::new(disk()).get("finished", 1).await, None);
    }
}
