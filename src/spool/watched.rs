//! A disk whose calls go through a [`Lane`], so that none of them blocks for ever.
//!
//! The arguments of a call are copied, because the call may outlive its caller. `TimedOut` is an error like any other: the write
//! may be complete, torn or absent.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::disk::{Disk, DiskFile, HeldLock, LastJob, Listed, Lock, Space};
use super::lane::{Kind, Lane};
use super::records::to_u64;

/// Maximum number of bytes of one write call. Even the slowest card writes this many before the lane's timeout.
const PIECE: usize = 1 << 20;
/// Timeout for space queries, which only ask how full the disk is.
const GLANCE: Duration = Duration::from_millis(200);
/// Timeout for the last job in a folder and for releasing a lock.
const MOMENT: Duration = Duration::from_millis(500);

/// A [`Disk`] whose calls go through a [`Lane`] and end with `TimedOut` if the disk does not answer. Clones share the lane.
#[derive(Clone, Debug)]
pub struct WatchedDisk {
    inner: Arc<dyn Disk>,
    lane: Lane,
    /// The result of the last space query.
    space: Arc<Mutex<Option<Space>>>,
}

impl WatchedDisk {
    /// Calls `inner` on the threads of `lane`.
    pub fn new(inner: Arc<dyn Disk>, lane: Lane) -> Self {
        Self {
            inner,
            lane,
            space: Arc::default(),
        }
    }

    fn call<T: Send + 'static>(
        &self,
        kind: Kind,
        path: &Path,
        call: impl FnOnce(&dyn Disk, &Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (disk, path) = (Arc::clone(&self.inner), path.to_owned());
        self.lane.run(kind, move || call(&*disk, &path))
    }

    fn known(&self) -> MutexGuard<'_, Option<Space>> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_space(&self, path: &Path, at_most: Option<Duration>) -> io::Result<Space> {
        let (disk, path) = (Arc::clone(&self.inner), path.to_owned());
        let found = self.lane.run_or_undo(Kind::Read, at_most, move || disk.space(&path), |_| {});
        let mut known = self.known();
        match (found, *known) {
            (Ok(space), _) => *known = Some(space),
            // A disk that is only busy is about as full as at the last query.
            (Err(e), Some(_)) if e.kind() == io::ErrorKind::TimedOut => {}
            (Err(e), _) => return Err(e),
        }
        known.ok_or_else(|| io::ErrorKind::TimedOut.into())
    }

    fn watched(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(WatchedFile {
            inner: Some(file),
            lane: self.lane.clone(),
        })
    }
}

impl Disk for WatchedDisk {
    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        self.call(Kind::Read, path, |disk, path| disk.canonical(path))
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        self.call(Kind::Write, path, |disk, path| disk.create_dir(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(String, Listed)>> {
        self.call(Kind::Read, path, |disk, path| disk.list(path))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let (disk, path) = (Arc::clone(&self.inner), path.to_owned());
        let (undo_disk, undo_path) = (Arc::clone(&disk), path.clone());
        let undo = move |_| {
            // The caller believes that no file was created: its next attempt would fail with `AlreadyExists`.
            let _ = undo_disk.remove_file(&undo_path);
        };
        let file = self.lane.run_or_undo(Kind::Write, None, move || disk.create(&path), undo)?;
        Ok(self.watched(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.call(Kind::Read, path, |disk, path| disk.open(path))?;
        Ok(self.watched(file))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.call(Kind::Write, path, |disk, path| disk.remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.call(Kind::Write, path, |disk, path| disk.remove_dir(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let to = to.to_owned();
        self.call(Kind::Write, from, move |disk, from| disk.rename(from, &to))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.call(Kind::Write, path, |disk, path| disk.sync_dir(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        // A lock that no caller waits for any more is dropped, which releases it.
        let lock = self.call(Kind::Write, path, |disk, path| disk.lock(path))?;
        Ok(match lock {
            Lock::Held(inner) => Lock::Held(Box::new(WatchedLock {
                inner: Some(inner.into()),
                lane: self.lane.clone(),
            })),
            other => other,
        })
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        // A slow sync in front is no hung disk. Without an earlier result to fall back on, wait as long as for any other call.
        let is_known = self.known().is_some();
        self.read_space(path, is_known.then_some(GLANCE))
    }

    fn glance(&self, path: &Path) -> io::Result<Space> {
        self.read_space(path, Some(GLANCE))
    }

    fn last(&self, job: LastJob) {
        let disk = self.clone();
        self.lane.last(MOMENT, move || job(&disk));
    }
}

#[derive(Debug)]
struct WatchedFile {
    inner: Option<Arc<dyn DiskFile>>,
    lane: Lane,
}

impl WatchedFile {
    fn call<T: Send + 'static>(
        &self,
        kind: Kind,
        call: impl FnOnce(&dyn DiskFile) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let Some(file) = self.inner.clone() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        self.lane.run(kind, move || call(&*file))
    }
}

impl DiskFile for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.call(Kind::Read, |file| file.len())
    }

    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        let most = to.len();
        let read = self.call(Kind::Read, move |file| {
            let mut buffer = vec![0; most];
            let n = file.read_at(&mut buffer, offset)?;
            buffer.truncate(n);
            Ok(buffer)
        })?;
        let n = read.len().min(most);
        if let (Some(to), Some(read)) = (to.get_mut(..n), read.get(..n)) {
            to.copy_from_slice(read);
        }
        Ok(n)
    }

    fn write_all_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let mut rest = Bytes::from(parts.concat());
        let mut at = offset;
        while !rest.is_empty() {
            let (piece, here) = (rest.split_to(PIECE.min(rest.len())), at);
            at = at.saturating_add(to_u64(piece.len()));
            self.call(Kind::Write, move |file| file.write_all_at(&[&piece], here))?;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call(Kind::Write, move |file| file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.call(Kind::Write, |file| file.sync_data())
    }
}

impl Drop for WatchedFile {
    fn drop(&mut self) {
        // close(2) can block on a hung disk as well, so it runs on the lane, and nobody waits for it.
        if let Some(file) = self.inner.take() {
            self.lane.last(Duration::ZERO, move || drop(file));
        }
    }
}

struct WatchedLock {
    inner: Option<Arc<dyn HeldLock>>,
    lane: Lane,
}

impl HeldLock for WatchedLock {
    fn is_removed(&self, path: &Path) -> bool {
        let Some(lock) = self.inner.clone() else { return false };
        let path = path.to_owned();
        // No answer is not a removal: files on this disk are tried again.
        self.lane.run(Kind::Read, move || Ok(lock.is_removed(&path))).unwrap_or(false)
    }
}

impl Drop for WatchedLock {
    fn drop(&mut self) {
        if let Some(lock) = self.inner.take() {
            self.lane.last(MOMENT, move || drop(lock));
        }
    }
}
