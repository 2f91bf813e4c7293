//! Stores chunks on disk until Cloud Storage has them.
//!
//! Synced bytes survive SIGKILL at any instruction, and a power failure that loses everything else. A chunk is uploaded once,
//! under its own bucket, endpoint, name and metadata. `docs/spool.md` lists the promises (P1…) that the tests cite.
//!
//! - [`mod@format`], [`entry`], `destination`, [`paths`], [`recovery`] PURE: the bytes of a file, the values of a chunk, its
//!   destination, the names of files and folders, and the decision what to do with each file at a start.
//! - [`disk`]: the file system calls that the spool needs. `sim` in tests: a disk that crashes and fails.
//! - [`Spool`]: one folder and its limit. [`Session`]: one lock. [`OpenChunk`]: a chunk that is being written. [`Stored`]: a
//!   chunk that may be uploaded; only closing a chunk durably creates one. [`Partial`]: a half-written chunk of an earlier
//!   process.
//! - [`Leftovers`]: the sessions of earlier processes, taken over one by one. [`adopt()`]: all of them at once.
//! - [`lane`]: threads for the calls to a disk that may hang; [`watched`]: a disk whose every call runs there.
//! - `session`, `folder`, `open`, `stored`, `adopt`: where these types are. `earlier`: chunks that this process left itself.
//! - `reader`, `records`, `inspect`: read a chunk file. `error`: what can go wrong.
//! - `quota`, `usage`: how much disk is used, by the sinks of this process and by the others that share the folder.
//! - `boot`: which boot of the machine this is.
//!
//! All of it blocks on the disk: call it from threads that may block. No GStreamer, no tokio.

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

/// Without `max-spool-bytes`, at least this many bytes of the file system stay free.
const KEEP_BYTES: u64 = 1 << 30;
/// Without `max-spool-bytes`, at least one part in this many of the file system stays free.
const KEEP_SHARE: u64 = 10;

/// The quotas of this process by their folder.
static QUOTAS: Registry<PathBuf, Quota> = Registry::new();

/// One spool folder, as one sink uses it.
#[derive(Debug)]
pub struct Spool {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    quota: Arc<Quota>,
    /// The sink's number in the quota.
    sink: u64,
    /// Folders whose locks this sink holds, and the key of each in the quota.
    watched: Mutex<Vec<(Weak<Folder>, String)>>,
}

impl Drop for Spool {
    fn drop(&mut self) {
        // The quota outlives this sink while others use the folder; its limit and its input rate must not.
        self.quota.set_limit(self.sink, 0);
        self.quota.set_input(self.sink, 0);
    }
}

impl Spool {
    /// Opens the folder of the property `spool-dir` and creates it if absent. `max`: property `max-spool-bytes`, 0 = this sink
    /// sets no limit. All spools of the process on one folder share one quota, whatever path leads there. The smallest limit
    /// applies to all of them; without any, max(10 %, 1 GiB) of the file system stays free.
    ///
    /// # Errors
    /// The folder cannot be created, read or written, or the disk does not answer.
    pub fn open(disk: Arc<dyn Disk>, root: &Path, max: u64) -> Result<Arc<Self>, SpoolError> {
        make_root(&*disk, root)?;
        // Two paths to one folder must find the same quota.
        let root = disk.canonical(root).map_err(|e| SpoolError::io("open", root, e))?;
        let quota = match QUOTAS.get(&root) {
            Some(quota) => quota,
            None => {
                // `count` treats an unreadable folder as empty, so an unreadable root must fail here.
                list_root(&*disk, &root)?;
                let all = || count(&*disk, &root);
                // If nothing can be written, for example on a full disk, this process relies on its own figures.
                let counted = Arc::new(match Usage::join(Arc::clone(&disk), &root, all) {
                    // An error: the caller opens the spool again when the disk answers. A quota made now would never be shared.
                    Err(e) if e.kind() == ErrorKind::TimedOut => return Err(SpoolError::io("share the usage of", &root, e)),
                    Err(e) => Quota::alone(all(), e.to_string()),
                    Ok((usage, others)) => Quota::new(others, Some(usage)),
                });
                // Two sinks may count at the same time. The first result is kept; both are right, because neither sink has
                // written yet.
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

    /// Returns the path of the folder, without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the bytes of disk in use, in blocks of 4 KiB, without those of other processes.
    pub fn used(&self) -> u64 {
        self.quota.used()
    }

    /// Returns the bytes of disk in the folders whose locks this sink holds, in blocks of 4 KiB.
    pub fn held(&self) -> u64 {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        // By key, without upgrading the folders: dropping the last reference to a folder calls the disk, which may hang.
        self.quota.used_in(watched.iter().map(|(_, key)| key.as_str()))
    }

    /// Returns how many bytes may still be written, by the limit and by the file system; 0 if the file system does not answer.
    pub fn room(&self) -> u64 {
        let Ok(space) = self.disk.glance(&self.root) else { return 0 };
        match self.quota.room() {
            Some(limited) => limited.min(space.available),
            None => space.available.saturating_sub(keep(space.total)),
        }
    }

    /// Replaces the input rate of this sink, bytes per second; 0 = it has ended.
    pub fn set_input(&self, rate: u64) {
        self.quota.set_input(self.sink, rate);
    }

    /// Returns the input rate of all sinks of this process with this folder, bytes per second.
    pub fn input(&self) -> u64 {
        self.quota.input()
    }

    /// Checks that the disk answers, by a sync of the folder.
    ///
    /// # Errors
    /// It does not answer, or the sync fails.
    pub fn probe(&self) -> Result<(), SpoolError> {
        let synced = self.disk.sync_dir(&self.root);
        synced.map_err(|e| SpoolError::io("sync", &self.root, e))
    }

    /// Exchanges usage figures with the other processes that use this folder, if an exchange is due.
    pub fn share_usage(&self) {
        self.quota.share();
    }

    /// Returns why this process does not share its usage with others; only once for all its sinks.
    fn take_unshared(&self) -> Option<Notice> {
        let (root, error) = (self.root.clone(), self.quota.take_unshared()?);
        Some(Notice::Unshared { root, error })
    }

    /// Counts the unowned files again: all files except those of sessions that a living process holds.
    pub fn recount(&self) {
        self.quota.recount(|| {
            count_in(&*self.disk, &self.root, |folder| {
                // A lock that can be taken has no living holder. The guard is dropped here, which releases it at once.
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
        // Released before the disk is asked, which may hang.
        drop(watched);
        let removed: Vec<PathBuf> = folders.iter().filter(|f| f.take_removed()).map(|f| f.dir.clone()).collect();
        if !removed.is_empty() {
            // The usage file of this process may be removed as well: an exchange finds that and makes a new one.
            let _ = self.quota.ask();
        }
        removed
    }

    /// Returns whether this sink holds the lock of a session folder.
    fn holds(&self, device_dir: &str, session: &str) -> bool {
        // The references end after the lock: the last one of a folder asks the disk.
        let folders: Vec<Arc<Folder>> = {
            let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            watched.iter().filter_map(|(folder, _)| folder.upgrade()).collect()
        };
        let is_it = |folder: &Arc<Folder>| folder.device_dir == device_dir && folder.session == session;
        folders.iter().any(is_it)
    }

    fn watch(&self, folder: &Arc<Folder>) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        // Weak, so that the last chunk of a folder still releases its lock.
        watched.push((Arc::downgrade(folder), folder.key.clone()));
    }

    /// Begins a session: makes its folders and takes its lock.
    ///
    /// # Errors
    /// The folders cannot be made, or another sink or process holds the session.
    pub fn session(self: &Arc<Self>, device: &str, session: &str) -> Result<Session, SpoolError> {
        Session::begin(self, device, session)
    }

    /// Charges a file's new length to the quota, if there is room.
    fn charge(&self, folder: &str, charge: &mut Charge, len: u64, slack: u64) -> Result<(), SpoolError> {
        let needed = Quota::growth(*charge, len, slack);
        let full = |limit| SpoolError::Full {
            root: self.root.clone(),
            needed,
            limit,
        };
        // Without a limit, only the file system knows how much room is left, because other programs use it too.
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

/// Returns how many bytes of a file system of `total` bytes stay free.
fn keep(total: u64) -> u64 {
    (total / KEEP_SHARE).max(KEEP_BYTES)
}

/// Makes the folder and its parents, durably.
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

/// Syncs the parent of `path`, even if the folder existed: another process may have made it and died before its sync. If the
/// folder existed, ignores an error, because the parent may not be readable for us.
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

/// Checks that the folder can be read.
fn list_root(disk: &dyn Disk, root: &Path) -> Result<(), SpoolError> {
    disk.list(root).map(drop).map_err(|e| SpoolError::io("read", root, e))
}

/// Returns the bytes in use, in blocks. Skips what cannot be read.
fn count(disk: &dyn Disk, root: &Path) -> u64 {
    count_in(disk, root, |_| true)
}

/// As [`count`], for the quarantine and the session folders for which `counts` is true.
fn count_in(disk: &dyn Disk, root: &Path, counts: impl Fn(&Path) -> bool) -> u64 {
    let mut all = 0u64;
    for (name, listed) in disk.list(root).unwrap_or_default() {
        match listed {
            Listed::Dir if name == QUARANTINE => all = all.saturating_add(count_files(disk, &root.join(&name))),
            // Its files are empty: the figures are in their names.
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

/// Returns the bytes of the files in one folder, in blocks.
fn count_files(disk: &dyn Disk, folder: &Path) -> u64 {
    let files = disk.list(folder).unwrap_or_default();
    let lengths = files.into_iter().map(|(_, listed)| match listed {
        Listed::File(len) => blocks(len),
        Listed::Dir | Listed::Other => 0,
    });
    lengths.sum()
}
