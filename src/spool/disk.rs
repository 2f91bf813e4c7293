//! What the spool asks of a disk, and the real one.
//!
//! The trait is as small as the promises allow, so that a simulated disk can lose everything that was not synced
//! (`sim`, in tests).

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The kind of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// A folder.
    Dir,
    /// A file, with its length in bytes.
    File(u64),
    /// Something else: a link, a pipe.
    Other,
}

/// Room of a file system in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Total size.
    pub total: u64,
    /// Available to this user.
    pub available: u64,
}

/// A lock that is ours until this is dropped.
pub trait HeldLock: Send + Sync {
    /// Whether somebody has removed the lock file at `path`, moved it away, or put another in its place. An unmounted file
    /// system does not count: what is on it comes back.
    fn is_removed(&self, path: &Path) -> bool;
}

/// An attempt to take a lock file.
pub enum Lock {
    /// It is ours until this is dropped.
    Held(Box<dyn HeldLock>),
    /// Another holder has it.
    Busy,
    /// The file or its folder was removed in the meantime.
    Gone,
}

/// What is still to be done for a folder that is released.
pub type LastJob = Box<dyn FnOnce(&dyn Disk) + Send>;

/// Files and folders. Blocking.
pub trait Disk: fmt::Debug + Send + Sync {
    /// The path without links and dots, of something that exists.
    ///
    /// # Errors
    /// Of the file system.
    fn canonical(&self, path: &Path) -> io::Result<PathBuf>;

    /// Makes a folder for us alone (0700); false if it was there. Not durable before [`Disk::sync_dir`] of its parent.
    ///
    /// # Errors
    /// Of the file system; something else has that name.
    fn create_dir(&self, path: &Path) -> io::Result<bool>;

    /// What is in a folder; names that are no UTF-8 are `Other`.
    ///
    /// # Errors
    /// Of the file system.
    fn list(&self, path: &Path) -> io::Result<Vec<(String, Listed)>>;

    /// Makes a file for us alone (0600). Not durable before [`Disk::sync_dir`].
    ///
    /// # Errors
    /// Of the file system; `AlreadyExists`.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file to read and write.
    ///
    /// # Errors
    /// Of the file system.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file.
    ///
    /// # Errors
    /// Of the file system.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    ///
    /// # Errors
    /// Of the file system; it is not empty.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Moves a file within the file system.
    ///
    /// # Errors
    /// Of the file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// The names in this folder are durable when this returns.
    ///
    /// # Errors
    /// Of the file system.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes a lock file without waiting, and creates it if absent. The lock ends with the process.
    ///
    /// # Errors
    /// Of the file system.
    fn lock(&self, path: &Path) -> io::Result<Lock>;

    /// Room of the file system that the path is on.
    ///
    /// # Errors
    /// Of the file system.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// The same for a figure that nothing depends on: a disk that may hang is waited for only a moment, and may answer with what was
    /// known before.
    ///
    /// # Errors
    /// Of the file system; `TimedOut`: nothing is known.
    fn glance(&self, path: &Path) -> io::Result<Space> {
        self.space(path)
    }

    /// Carries out a last job for a folder that is released. A disk that may hang is waited for only a moment.
    fn last(&self, job: LastJob);
}

/// An open file. Blocking.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// Of the file system.
    fn len(&self) -> io::Result<u64>;

    /// Whether it is empty.
    ///
    /// # Errors
    /// Of the file system.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads at an offset; how many bytes, 0 at the end.
    ///
    /// # Errors
    /// Of the file system.
    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of the parts, one after the other, from an offset on. After an error any part of it may be written.
    ///
    /// # Errors
    /// Of the file system.
    fn write_all_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()>;

    /// Cuts or lengthens it.
    ///
    /// # Errors
    /// Of the file system.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The bytes and the length are durable when this returns. After an error none of what was written since the last
    /// success can be trusted, and asking again does not help: the kernel has given those pages up.
    ///
    /// # Errors
    /// Of the file system.
    fn sync_data(&self) -> io::Result<()>;
}

/// The machine's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdDisk;

/// Most parts that one call takes (IOV_MAX of Linux).
const MAX_PARTS: usize = 1024;

impl Disk for StdDisk {
    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        path.canonicalize()
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        loop {
            match DirBuilder::new().mode(0o700).create(path) {
                Ok(()) => {
                    // The umask can only take bits away; without them we could not enter it ourselves.
                    if_possible(std::fs::set_permissions(path, Permissions::from_mode(0o700)))?;
                    return Ok(true);
                }
                Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
                Err(_) if path.is_dir() => return Ok(false),
                // Somebody removed it after our call had found it there, as processes do with empty folders of a spool.
                Err(_) if matches!(path.symlink_metadata(), Err(e) if e.kind() == ErrorKind::NotFound) => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(String, Listed)>> {
        let mut all = Vec::new();
        for found in std::fs::read_dir(path)? {
            let found = found?;
            // Of the entry itself: a link to a file is not followed, and is `Other`.
            let meta = match found.metadata() {
                Ok(meta) => meta,
                // Removed since it was listed.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let name = found.file_name();
            let listed = match name.to_str() {
                Some(_) if meta.is_dir() => Listed::Dir,
                Some(_) if meta.is_file() => Listed::File(meta.len()),
                _ => Listed::Other,
            };
            all.push((name.to_string_lossy().into_owned(), listed));
        }
        Ok(all)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = options().create_new(true).mode(0o600).open(path)?;
        // The umask may have taken bits without which the next start could not open it.
        if_possible(file.set_permissions(Permissions::from_mode(0o600)))?;
        Ok(Arc::new(StdFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(StdFile(options().open(path)?)))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let gone = |e: &io::Error| e.kind() == ErrorKind::NotFound;
        let file = match options().create(true).truncate(false).mode(0o600).open(path) {
            Ok(file) => file,
            Err(e) if gone(&e) => return Ok(Lock::Gone),
            Err(e) => return Err(e),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Lock::Busy),
            Err(TryLockError::Error(e)) => return Err(e),
        }
        if !stands_at(&file, path)? {
            return Ok(Lock::Gone);
        }
        if_possible(file.set_permissions(Permissions::from_mode(0o600)))?;
        Ok(Lock::Held(Box::new(file)))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let fs = rustix::fs::statvfs(path)?;
        Ok(Space {
            total: fs.f_blocks.saturating_mul(fs.f_frsize),
            // Not f_bfree: that counts what is kept for root.
            available: fs.f_bavail.saturating_mul(fs.f_frsize),
        })
    }

    fn last(&self, job: LastJob) {
        job(self);
    }
}

/// The modes of the mount apply where they cannot be set: the files of a vfat or SMB mount belong to whoever mounted it, and what was made
/// there may be written all the same.
fn if_possible(set: io::Result<()>) -> io::Result<()> {
    match set {
        Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => Ok(()),
        set => set,
    }
}

impl HeldLock for File {
    fn is_removed(&self, path: &Path) -> bool {
        // An error is no removal: what is on the disk may come back.
        let Ok(ours) = self.metadata() else { return false };
        if ours.nlink() == 0 {
            return true;
        }
        // Moved away, if what stands at the path now, or the nearest folder above, is on the same file system.
        match path.ancestors().find_map(|at| std::fs::symlink_metadata(at).ok()) {
            Some(there) => there.dev() == ours.dev() && there.ino() != ours.ino(),
            None => false,
        }
    }
}

/// Whether this is the file of that name: it may have been removed between its opening and its locking.
fn stands_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// A link in the place of a file is not followed.
fn options() -> OpenOptions {
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits();
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(nofollow.cast_signed());
    options
}

#[derive(Debug)]
struct StdFile(File);

impl DiskFile for StdFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(to, offset) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn write_all_at(&self, parts: &[&[u8]], mut offset: u64) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().filter(|p| !p.is_empty()).map(|p| IoSlice::new(p)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            let some = rest.get(..MAX_PARTS).unwrap_or(rest);
            match rustix::io::pwritev(&self.0, some, offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    offset = offset.saturating_add(u64::try_from(n).unwrap_or(u64::MAX));
                    IoSlice::advance_slices(&mut rest, n);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        // fdatasync includes the length, which is all that reading the bytes back needs (fdatasync(2)).
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_that_was_removed_or_replaced_is_known_from_the_one_in_the_folder() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("lock");
        let first = File::create(&path).unwrap();
        assert!(stands_at(&first, &path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(!stands_at(&first, &path).unwrap());
        let second = File::create(&path).unwrap();
        assert!(!stands_at(&first, &path).unwrap() && stands_at(&second, &path).unwrap());
    }
}
