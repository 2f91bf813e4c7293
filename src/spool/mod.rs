//! Chunks wait on disk until Cloud Storage has them.
//!
//! What was synced survives SIGKILL at any instruction, and the loss of everything that was not synced. It is uploaded once,
//! under its own bucket, endpoint, name and metadata. `docs/spool.md` lists the promises (P1…) that the tests cite.
//!
//! - [`format`], [`entry`], `destination`, [`paths`], [`recovery`] PURE: the bytes, what is known of a chunk, where it goes, names, and
//!   what becomes of what is found.
//! - [`disk`]: what is asked of a disk. `sim` in tests: one that crashes and fails.
//! - [`Spool`]: one folder and its limit. [`Session`]: one lock. [`OpenChunk`]: a chunk that is being written. [`Stored`]: a
//!   chunk that may be uploaded; only closing a chunk durably makes one. [`Partial`]: a half-written chunk of an earlier
//!   process.
//! - [`Leftovers`]: what earlier processes left, taken over session by session. [`adopt()`]: all of it at once.
//! - [`lane`]: one way to a disk that may hang; [`watched`]: a disk whose every call goes there.
//! - `quota`, `usage`: how much disk is used, by the sinks of this process and by the others that share the folder.
//! - [`boot`]: which boot of the machine this is.
//!
//! All of it blocks on the disk: call it from threads that may wait. No GStreamer, no tokio.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

mod adopt;
mod destination;
pub mod disk;
mod earlier;
pub mod entry;
mod error;
mod folder;
pub mod format;
mod inspect;
pub mod lane;
mod open;
pub mod paths;
mod quota;
mod reader;
mod records;
pub mod recovery;
mod session;
#[cfg(test)]
pub mod sim;
mod stored;
#[cfg(test)]
mod tests;
mod usage;
pub mod watched;

pub use adopt::{Adopted, Adoption, Found, Leftover, Leftovers, MOST_AT_ONCE, Notice, adopt};
pub use destination::{Destination, DestinationId};
pub use earlier::EarlierChunks;
pub use entry::{ClosedEntry, Entry, name_mark};
pub use error::{Limit, SpoolError};
pub use open::OpenChunk;
pub use reader::ChunkReader;
pub use recovery::{Boots, Summary};
pub use session::Session;
pub use stored::{Partial, ShelvedFile, Stored};

use crate::base::registry::Registry;
use disk::{Disk, Listed, Lock};
use folder::Folder;
use paths::{LOCK, QUARANTINE};
use quota::{Charge, Quota, Refused, blocks};
use usage::{USAGE, Usage};

/// At least this much of the file system stays free if no `max-spool-bytes` is set.
const KEEP_BYTES: u64 = 1 << 30;
/// One part in this many stays free, too.
const KEEP_SHARE: u64 = 10;

/// The accounts of this process by their folder.
static QUOTAS: Registry<PathBuf, Quota> = Registry::new();

/// One spool folder, as one sink uses it.
#[derive(Debug)]
pub struct Spool {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    quota: Arc<Quota>,
    /// The sink's number in the quota.
    sink: u64,
    /// Folders whose locks this sink holds, with what each is in the quota.
    watched: Mutex<Vec<(Weak<Folder>, String)>>,
}

impl Drop for Spool {
    fn drop(&mut self) {
        // A limit and an input end with the sink that set them: the quota outlives it while others use the folder.
        self.quota.set_limit(self.sink, 0);
        self.quota.set_input(self.sink, 0);
    }
}

impl Spool {
    /// Opens the folder of the property `spool-dir` and creates it if absent. `max`: property `max-spool-bytes`, 0 = this sink sets
    /// no limit. All spools of the process on one folder share one quota, whatever path leads there. The smallest limit applies to
    /// all of them; without any, max(10 %, 1 GiB) of the file system stay free.
    ///
    /// # Errors
    /// The folder cannot be made, read or written.
    pub fn open(disk: Arc<dyn Disk>, root: &Path, max: u64) -> Result<Arc<Self>, SpoolError> {
        make_root(&*disk, root)?;
        // Two paths to one folder have to find one quota.
        let root = disk.canonical(root).map_err(|e| SpoolError::io("open", root, e))?;
        let quota = match QUOTAS.get(&root) {
            Some(quota) => quota,
            None => {
                // `count` takes what it cannot read for empty: a folder that cannot be read has to fail here.
                list_root(&*disk, &root)?;
                let all = || count(&*disk, &root);
                // Where nothing can be written, a full disk for one, our own figures have to do.
                let counted = Arc::new(match Usage::join(Arc::clone(&disk), &root, all) {
                    // Opened again when the disk answers: a quota made now would never share its figures.
                    Err(e) if e.kind() == ErrorKind::TimedOut => return Err(SpoolError::io("share the usage of", &root, e)),
                    Err(e) => Quota::alone(all(), e.to_string()),
                    Ok((usage, others)) => Quota::new(others, Some(usage)),
                });
                // Two sinks may count at the same time: the first result is kept, nothing was written before it.
                QUOTAS.get_or(root.clone(), || counted)
            }
        };
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let sink = NEXT.fetch_add(1, Ordering::Relaxed);
        quota.set_limit(sink, max);
        quota.share();
        Ok(Arc::new(Self {
            disk,
            root,
            quota,
            sink,
            watched: Mutex::default(),
        }))
    }

    /// The folder, without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Bytes of disk in use, in blocks of 4 KiB, without what other processes hold.
    pub fn used(&self) -> u64 {
        self.quota.used()
    }

    /// Bytes of disk in the folders whose locks this sink holds, in blocks of 4 KiB: what waits of this sink.
    pub fn held(&self) -> u64 {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        // Not asked of the folders: whoever holds one last asks the disk.
        self.quota.used_in(watched.iter().map(|(_, key)| key.as_str()))
    }

    /// Returns how many bytes may still be written, by the limit and by the file system; 0 if that cannot be asked.
    pub fn room(&self) -> u64 {
        let Ok(space) = self.disk.glance(&self.root) else { return 0 };
        match self.quota.room() {
            Some(limited) => limited.min(space.available),
            None => space.available.saturating_sub(keep(space.total)),
        }
    }

    /// Sets how many bytes a second this sink receives, in place of what it has set before. 0 = it has ended.
    pub fn set_input(&self, rate: u64) {
        self.quota.set_input(self.sink, rate);
    }

    /// Returns how many bytes a second all sinks of this process with this folder receive.
    pub fn input(&self) -> u64 {
        self.quota.input()
    }

    /// Asks whether the disk answers.
    ///
    /// # Errors
    /// It does not, or the folder cannot be synced.
    pub fn probe(&self) -> Result<(), SpoolError> {
        let synced = self.disk.sync_dir(&self.root);
        synced.map_err(|e| SpoolError::io("sync", &self.root, e))
    }

    /// Tells the other processes with this folder what is used here, and asks what they use, if it is time for that.
    pub fn share_usage(&self) {
        self.quota.share();
    }

    /// Returns why this process does not share its usage with others, once for all its sinks.
    fn take_unshared(&self) -> Option<Notice> {
        let (root, error) = (self.root.clone(), self.quota.take_unshared()?);
        Some(Notice::Unshared { root, error })
    }

    /// Counts unowned files: all that are there, except the sessions of living processes.
    pub fn recount(&self) {
        self.quota.recount(|| {
            count_in(&*self.disk, &self.root, |folder| {
                // A lock that can be taken has no living holder. It is released at once.
                matches!(self.disk.lock(&folder.join(LOCK)), Ok(Lock::Held(_)))
            })
        });
    }

    /// Replaces the limit of this sink, 0 = none; see [`Spool::open`]. Removes nothing that is stored.
    pub fn set_max(&self, max: u64) {
        self.quota.set_limit(self.sink, max);
    }

    /// Returns the folders that somebody has removed since the last call. One `stat` for each folder that holds chunks.
    pub fn removed_folders(&self) -> Vec<PathBuf> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let folders: Vec<Arc<Folder>> = watched.iter().filter_map(|(folder, _)| folder.upgrade()).collect();
        watched.retain(|(folder, _)| folder.strong_count() > 0);
        drop(watched);
        let removed: Vec<PathBuf> = folders.iter().filter(|f| f.take_removed()).map(|f| f.dir.clone()).collect();
        if !removed.is_empty() {
            // Our file among those of the other processes may be gone as well.
            let _ = self.quota.ask();
        }
        removed
    }

    /// Whether this sink holds the lock of a session folder.
    fn holds(&self, device_dir: &str, session: &str) -> bool {
        let folders: Vec<Arc<Folder>> = {
            let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            watched.iter().filter_map(|(folder, _)| folder.upgrade()).collect()
        };
        let is_it = |folder: &Arc<Folder>| folder.device_dir == device_dir && folder.session == session;
        folders.iter().any(is_it)
    }

    fn watch(&self, folder: &Arc<Folder>) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        // Weak: a folder is released with the last of its chunks.
        watched.push((Arc::downgrade(folder), folder.key.clone()));
    }

    /// Begins a session: makes its folders and takes its lock.
    ///
    /// # Errors
    /// The folders cannot be made, or another holder has that session.
    pub fn session(self: &Arc<Self>, device: &str, session: &str) -> Result<Session, SpoolError> {
        Session::begin(self, device, session)
    }

    /// Counts a file's new length, if there is room.
    fn charge(&self, folder: &str, charge: &mut Charge, len: u64, slack: u64) -> Result<(), SpoolError> {
        let needed = Quota::growth(*charge, len, slack);
        let full = |limit| SpoolError::Full {
            root: self.root.clone(),
            needed,
            limit,
        };
        // Without a limit only the file system knows the room, and other programs fill it too.
        if needed > 0 && self.quota.max() == 0 {
            let space = self
                .disk
                .space(&self.root)
                .map_err(|e| SpoolError::io("ask the room of", &self.root, e))?;
            let (available, keep) = (space.available, keep(space.total));
            if available < keep.saturating_add(needed) {
                return Err(full(Limit::Free { available, keep }));
            }
        }
        let mut done = self.quota.resize(folder, charge, len, slack);
        if matches!(done, Err(Refused::Full(..))) && self.quota.take_recount() {
            // The user may have emptied the quarantine, or removed what earlier sessions left.
            self.recount();
            done = self.quota.resize(folder, charge, len, slack);
        }
        done.map_err(|refused| match refused {
            Refused::Full(used, max) => full(Limit::Max { used, max }),
            Refused::Io(e) => SpoolError::io("share the usage of", &self.root, e),
        })
    }
}

/// Bytes of a file system that stay free.
fn keep(total: u64) -> u64 {
    (total / KEEP_SHARE).max(KEEP_BYTES)
}

/// Makes the folder and those above it, durably.
fn make_root(disk: &dyn Disk, root: &Path) -> Result<(), SpoolError> {
    let mut missing = Vec::new();
    let mut at = root;
    loop {
        match disk.create_dir(at) {
            Ok(made) => {
                sync_above(disk, at, made)?;
                break;
            }
            Err(e) if e.kind() == ErrorKind::NotFound => missing.push(at),
            Err(e) => return Err(SpoolError::io("make", at, e)),
        }
        match at.parent() {
            Some(above) if !above.as_os_str().is_empty() => at = above,
            _ => break,
        }
    }
    for path in missing.into_iter().rev() {
        let made = disk.create_dir(path).map_err(|e| SpoolError::io("make", path, e))?;
        sync_above(disk, path, made)?;
    }
    Ok(())
}

/// Syncs the parent also if the folder existed: a process may have made it just now and died before its own sync. In that case an
/// error is ignored, because the parent may be unreadable for us.
fn sync_above(disk: &dyn Disk, path: &Path, made: bool) -> Result<(), SpoolError> {
    let above = match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => return Ok(()),
    };
    match disk.sync_dir(above) {
        Err(e) if made => Err(SpoolError::io("sync", above, e)),
        _ => Ok(()),
    }
}

/// The folder can be read.
fn list_root(disk: &dyn Disk, root: &Path) -> Result<(), SpoolError> {
    disk.list(root).map(drop).map_err(|e| SpoolError::io("read", root, e))
}

/// Blocks in use. What cannot be read is not counted.
fn count(disk: &dyn Disk, root: &Path) -> u64 {
    count_in(disk, root, |_| true)
}

/// The same of those session folders that count, and of the quarantine.
fn count_in(disk: &dyn Disk, root: &Path, counts: impl Fn(&Path) -> bool) -> u64 {
    let mut all = 0u64;
    for (name, listed) in disk.list(root).unwrap_or_default() {
        match listed {
            Listed::Dir if name == QUARANTINE => all = all.saturating_add(count_files(disk, &root.join(&name))),
            // Its files are empty: their names say everything.
            Listed::Dir if name == USAGE => {}
            Listed::Dir => {
                let device = root.join(&name);
                let sessions = disk.list(&device).unwrap_or_default();
                for (session, _) in sessions.iter().filter(|(_, l)| *l == Listed::Dir) {
                    let folder = device.join(session);
                    if counts(&folder) {
                        all = all.saturating_add(count_files(disk, &folder));
                    }
                }
            }
            Listed::File(_) | Listed::Other => {}
        }
    }
    all
}

/// Blocks of the files in one folder.
fn count_files(disk: &dyn Disk, folder: &Path) -> u64 {
    let files = disk.list(folder).unwrap_or_default();
    let lengths = files.into_iter().map(|(_, listed)| match listed {
        Listed::File(len) => blocks(len),
        Listed::Dir | Listed::Other => 0,
    });
    lengths.sum()
}
