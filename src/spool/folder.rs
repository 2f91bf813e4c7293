//! A session's folder and its lock.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::Spool;
use super::disk::{DiskFile, HeldLock, Listed, Lock};
use super::entry::ClosedEntry;
use super::error::SpoolError;
use super::format::{Kind, Salt, record, sent_payload};
use super::paths::{LOCK, QUARANTINE, chunk_file, quarantined, sequence_of};
use super::quota::{Charge, blocks};
use super::records::{rewrite, to_u64};
use crate::base::lock::lock;

/// Maximum number of files of one name in the quarantine. A chunk is moved there again only after somebody has put it back.
const MAX_OF_ONE_NAME: usize = 1000;

/// Bytes reserved for the End record beyond the length of the Head's entry. The End's entry has more values than the Head's.
pub(super) const END_ROOM: u64 = 4096;

/// The folder of a session. This process holds its lock until the last reference is dropped.
pub(super) struct Folder {
    pub(super) spool: Arc<Spool>,
    pub(super) dir: PathBuf,
    /// Key in the quota. Unique for each value, because a folder that was removed and made again has two of them for a while.
    pub(super) key: String,
    pub(super) device_dir: String,
    pub(super) session: String,
    lock: Option<Box<dyn HeldLock>>,
    /// Sequence numbers of abandoned chunks whose files may still exist, because the disk hung or refused the removal.
    unwanted: Arc<Mutex<BTreeSet<u64>>>,
    /// The removal of the folder was reported.
    is_reported: AtomicBool,
}

impl std::fmt::Debug for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Folder").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Folder {
    /// Takes the lock of an existing session folder. Returns `None` if another holder has it, or if the folder was removed.
    pub(super) fn take(spool: &Arc<Spool>, device_dir: &str, session: &str) -> io::Result<Option<Arc<Self>>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let dir = spool.root.join(device_dir).join(session);
        let lock = match spool.disk.lock(&dir.join(LOCK))? {
            Lock::Held(lock) => lock,
            Lock::Busy | Lock::Gone => return Ok(None),
        };
        let folder = Arc::new(Self {
            spool: spool.clone(),
            key: format!("{device_dir}/{session}#{}", NEXT.fetch_add(1, Ordering::Relaxed)),
            device_dir: device_dir.to_owned(),
            session: session.to_owned(),
            dir,
            lock: Some(lock),
            unwanted: Arc::default(),
            is_reported: AtomicBool::new(false),
        });
        spool.watch(&folder);
        Ok(Some(folder))
    }

    /// Returns whether somebody has removed the folder or its lock file. If only the lock file was removed, the chunks still
    /// exist.
    pub(super) fn is_removed(&self) -> bool {
        let path = self.dir.join(LOCK);
        self.lock.as_ref().is_some_and(|lock| lock.is_removed(&path))
    }

    /// As [`Folder::is_removed`], but true only once.
    pub(super) fn take_removed(&self) -> bool {
        // Asks the disk only until the removal is reported. The swap ensures that one of two threads reports it.
        !self.is_reported.load(Ordering::Relaxed) && self.is_removed() && !self.is_reported.swap(true, Ordering::Relaxed)
    }

    /// Lists the chunks (sequence numbers and file lengths), the oldest first, and charges all files of the folder to this
    /// process. Call it once, before any file is created in the folder: otherwise files are charged twice.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn own_files(&self) -> Result<Vec<(u64, u64)>, SpoolError> {
        let listed = self.spool.disk.list(&self.dir);
        let all = listed.map_err(|e| SpoolError::io("read", &self.dir, e))?;
        let (mut bytes, mut files) = (0, Vec::new());
        for (name, listed) in all {
            let Listed::File(len) = listed else { continue };
            // Files that are not chunks take room too.
            bytes += blocks(len);
            files.extend(sequence_of(&name).map(|sequence| (sequence, len)));
        }
        self.spool.quota.own(&self.key, bytes);
        files.sort_unstable();
        Ok(files)
    }

    pub(super) fn path(&self, sequence: u64) -> PathBuf {
        self.dir.join(chunk_file(sequence))
    }

    /// Creates the file of a chunk. Removes an abandoned file of this number first.
    pub(super) fn create(&self, sequence: u64) -> io::Result<Arc<dyn DiskFile>> {
        let (disk, path) = (&self.spool.disk, self.path(sequence));
        let made = match disk.create(&path) {
            // Any other file of this number is a chunk that waits.
            Err(e) if e.kind() == ErrorKind::AlreadyExists && lock(&self.unwanted).contains(&sequence) => {
                disk.remove_file(&path)?;
                disk.create(&path)
            }
            made => made,
        }?;
        lock(&self.unwanted).remove(&sequence);
        Ok(made)
    }

    /// Removes the file of an abandoned chunk. If the disk does not answer, the removal happens before any later call. Otherwise
    /// the file would block the creation of the same chunk, and the next start would find it.
    pub(super) fn remove_unwanted(&self, sequence: u64) {
        // Inserted before the call: until the disk answers, `create` may find the file.
        lock(&self.unwanted).insert(sequence);
        let (path, unwanted) = (self.path(sequence), Arc::clone(&self.unwanted));
        self.spool.disk.last(Box::new(move |disk| {
            if disk.remove_file(&path).is_ok() {
                lock(&unwanted).remove(&sequence);
            }
        }));
    }

    pub(super) fn salt(&self, sequence: u64) -> Salt {
        Salt::of(&self.session, sequence)
    }

    pub(super) fn open(&self, sequence: u64) -> Result<Arc<dyn DiskFile>, SpoolError> {
        let path = self.path(sequence);
        self.spool.disk.open(&path).map_err(|e| SpoolError::io("open", &path, e))
    }

    /// Returns the bytes of an End record.
    pub(super) fn end_record(&self, closed: &ClosedEntry) -> Result<Vec<u8>, SpoolError> {
        let path = self.path(closed.entry.sequence);
        let json = closed.to_json().map_err(|e| SpoolError::misuse(&path, e.to_string()))?;
        let record = record(Kind::End, self.salt(closed.entry.sequence), &json);
        record.ok_or_else(|| SpoolError::misuse(&path, format!("an entry of {} bytes is too long", json.len())))
    }

    /// Syncs the file and the folder: the file's bytes and its name are durable when this returns.
    pub(super) fn sync(&self, file: &dyn DiskFile, sequence: u64) -> Result<(), SpoolError> {
        file.sync_data()
            .map_err(|e| SpoolError::io("sync", &self.path(sequence), e))?;
        self.sync_names()
    }

    /// Writes the records between two offsets again; see [`rewrite`].
    pub(super) fn rewrite(&self, file: &Arc<dyn DiskFile>, sequence: u64, from: u64, to: u64) -> Result<(), SpoolError> {
        let path = self.path(sequence);
        match rewrite(file, self.salt(sequence), from, to) {
            Ok(None) => Ok(()),
            Ok(Some(offset)) => Err(SpoolError::Damaged { path, offset }),
            Err(e) => Err(SpoolError::io("write", &path, e)),
        }
    }

    pub(super) fn sync_names(&self) -> Result<(), SpoolError> {
        self.spool
            .disk
            .sync_dir(&self.dir)
            .map_err(|e| SpoolError::io("sync", &self.dir, e))
    }

    /// Writes a Footer, which states that the End at `end_at` and everything before `tail` are durable. Returns the file's new
    /// length. The Footer only speeds up the next start, so it is not synced, and an error is ignored.
    pub(super) fn seal(&self, file: &dyn DiskFile, sequence: u64, end_at: u64, tail: u64) -> u64 {
        let Some(footer) = record(Kind::Footer, self.salt(sequence), &end_at.to_le_bytes()) else {
            return tail;
        };
        match file.write_all_at(&[&footer], tail) {
            Ok(()) => tail.saturating_add(to_u64(footer.len())),
            Err(_) => {
                // If this fails too, the next start treats the rest as a torn record.
                let _ = file.set_len(tail);
                tail
            }
        }
    }

    /// Writes a Sent record: the whole object was sent under a name. Does not sync.
    pub(super) fn write_sent(&self, file: &dyn DiskFile, sequence: u64, mark: u32, at: u64) -> Result<(), SpoolError> {
        let path = self.path(sequence);
        let record = record(Kind::Sent, self.salt(sequence), &sent_payload(mark));
        let record = record.ok_or_else(|| SpoolError::misuse(&path, "a mark is too long"))?;
        file.write_all_at(&[&record], at)
            .map_err(|e| SpoolError::io("write", &path, e))
    }

    /// Moves a chunk's file to the quarantine. Returns its new path.
    pub(super) fn quarantine(&self, sequence: u64, charge: &mut Charge) -> Result<PathBuf, SpoolError> {
        let (disk, root) = (&self.spool.disk, &self.spool.root);
        let aside = root.join(QUARANTINE);
        let from = self.path(sequence);
        let moved = || -> io::Result<PathBuf> {
            disk.create_dir(&aside)?;
            // Synced before the move: otherwise a power failure could keep the move and lose the folder, and the chunk with it.
            disk.sync_dir(root)?;
            let to = self.free_path(&aside, sequence)?;
            disk.rename(&from, &to)?;
            disk.sync_dir(&aside)?;
            disk.sync_dir(&self.dir)?;
            Ok(to)
        };
        let to = moved().map_err(|e| SpoolError::io("set aside", &from, e))?;
        self.spool.quota.set_aside(&self.key, charge);
        Ok(to)
    }

    /// Returns a free path in the quarantine. Tries names in turn and does not list the folder, because a list grows with each
    /// chunk that was ever moved there; the first name is almost always free.
    fn free_path(&self, aside: &Path, sequence: u64) -> io::Result<PathBuf> {
        for again in 0..MAX_OF_ONE_NAME {
            let path = aside.join(quarantined(&self.device_dir, &self.session, sequence, again));
            match self.spool.disk.open(&path) {
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(path),
                Ok(_) => {}
                Err(e) if is_something_else(&e) => {}
                // Any other error leaves it open whether a file is there, and the rename would replace that file. The next name
                // would fail in the same way.
                Err(e) => return Err(e),
            }
        }
        let what = format!("{} holds {MAX_OF_ONE_NAME} files of this name: remove some", aside.display());
        Err(io::Error::new(ErrorKind::AlreadyExists, what))
    }
}

/// Returns whether a file cannot be opened because a folder or a link is in its place.
fn is_something_else(error: &io::Error) -> bool {
    error.kind() == ErrorKind::IsADirectory || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

impl Drop for Folder {
    /// Removes the abandoned files, and the folders if they are empty. The lock is held meanwhile: a process that locks the
    /// removed lock file then finds that it is no longer the one in the folder. Removes nothing if somebody has removed the
    /// folder, because it may exist again with another holder's lock.
    fn drop(&mut self) {
        self.spool.quota.disown(&self.key);
        let unwanted = std::mem::take(&mut *lock(&self.unwanted));
        let unwanted: Vec<PathBuf> = unwanted.into_iter().map(|sequence| self.path(sequence)).collect();
        let (lock, dir) = (self.lock.take(), self.dir.clone());
        let device = self.spool.root.join(&self.device_dir);
        self.spool.disk.last(Box::new(move |disk| {
            let path = dir.join(LOCK);
            let is_removed = lock.as_ref().is_some_and(|lock| lock.is_removed(&path));
            if !is_removed {
                for path in unwanted {
                    let _ = disk.remove_file(&path);
                }
            }
            let only_ours = |files: Vec<(String, _)>| files.iter().all(|(name, _)| name == LOCK);
            if !is_removed && disk.list(&dir).is_ok_and(only_ours) {
                let _ = disk.remove_file(&path);
                let _ = disk.remove_dir(&dir);
                // Fails while the device has another session.
                let _ = disk.remove_dir(&device);
            }
            // Released last: until here no other process may take over the folder.
            drop(lock);
        }));
    }
}
