//! The file system calls of the spool as a trait, and their implementation for the real disk.
//!
//! The trait has only the calls that the promises need, so that tests can implement a disk that loses everything that was not
//! synced (`sim`).

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
    /// Anything else, such as a link or a pipe.
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

/// A held lock. Dropping it releases the lock.
pub trait HeldLock: Send + Sync {
    /// Returns whether somebody has removed the lock file at `path`, moved it away, or replaced it. An unmounted file system does
    /// not count as removal, because its files return with it.
    fn is_removed(&self, path: &Path) -> bool;
}

/// The result of an attempt to lock a file.
pub enum Lock {
    /// The lock was taken. Dropping the value releases it.
    Held(Box<dyn HeldLock>),
    /// Another holder has it.
    Busy,
    /// The file or its folder was removed in the meantime.
    Gone,
}

/// The last calls for a folder before its lock is released.
pub type LastJob = Box<dyn FnOnce(&dyn Disk) + Send>;

/// A file system. All calls block.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Returns the path of an existing file or folder, without links, `.` and `..`.
    ///
    /// # Errors
    /// An error of the file system.
    fn canonical(&self, path: &Path) -> io::Result<PathBuf>;

    /// Makes a folder with mode 0700. Returns false if it existed. Not durable before [`Disk::sync_dir`] of its parent.
    ///
    /// # Errors
    /// An error of the file system, or something other than a folder has that name.
    fn create_dir(&self, path: &Path) -> io::Result<bool>;

    /// Lists a folder. Names that are not UTF-8 are listed as `Other`.
    ///
    /// # Errors
    /// An error of the file system.
    fn list(&self, path: &Path) -> io::Result<Vec<(String, Listed)>>;

    /// Creates a file with mode 0600. Its name is not durable before [`Disk::sync_dir`].
    ///
    /// # Errors
    /// `AlreadyExists`, or another error of the file system.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// An error of the file system.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file.
    ///
    /// # Errors
    /// An error of the file system.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    ///
    /// # Errors
    /// The folder is not empty, or another error of the file system.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Renames a file within the file system, atomically. Replaces a file at `to`.
    ///
    /// # Errors
    /// An error of the file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Syncs a folder: the names in it are durable when this returns.
    ///
    /// # Errors
    /// An error of the file system.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Locks a file without waiting, and creates it if absent. The lock ends with the process.
    ///
    /// # Errors
    /// An error of the file system.
    fn lock(&self, path: &Path) -> io::Result<Lock>;

    /// Returns the room of the file system that contains the path.
    ///
    /// # Errors
    /// An error of the file system.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// As [`Disk::space`], for estimates only: waits only briefly for a disk that may hang, and may return an earlier result.
    ///
    /// # Errors
    /// `TimedOut`: no earlier result is known. Or another error of the file system.
    fn glance(&self, path: &Path) -> io::Result<Space> {
        self.space(path)
    }

    /// Runs the last job of a folder. Waits only briefly for a disk that may hang; the job then runs when the disk answers.
    fn last(&self, job: LastJob);
}

/// An open file. All calls block.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Returns the length in bytes.
    ///
    /// # Errors
    /// An error of the file system.
    fn len(&self) -> io::Result<u64>;

    /// Returns whether the file is empty.
    ///
    /// # Errors
    /// An error of the file system.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads at an offset. Returns the number of bytes read, 0 at the end of the file.
    ///
    /// # Errors
    /// An error of the file system.
    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all parts one after the other, from `offset` on. After an error, any of these bytes may be written or not.
    ///
    /// # Errors
    /// An error of the file system.
    fn write_all_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()>;

    /// Truncates or extends the file.
    ///
    /// # Errors
    /// An error of the file system.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Syncs the file: its bytes and its length are durable when this returns. After an error, nothing written since the last
    /// success is durable, and a second sync does not help: the kernel has dropped those pages and reports success.
    ///
    /// # Errors
    /// An error of the file system.
    fn sync_data(&self) -> io::Result<()>;
}

/// The machine's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdDisk;

/// Maximum number of parts of one pwritev(2) call (IOV_MAX of Linux).
const MAX_PARTS: usize = 1024;

impl Disk for StdDisk {
    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        path.canonicalize()
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        loop {
            match DirBuilder::new().mode(0o700).create(path) {
                Ok(()) => {
                    // The umask may have removed bits that this process needs to enter the folder.
                    if_possible(std::fs::set_permissions(path, Permissions::from_mode(0o700)))?;
                    return Ok(true);
                }
                Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
                Err(_) if path.is_dir() => return Ok(false),
                // Removed between the two calls, as processes do with empty folders of a spool: try again.
                Err(_) if matches!(path.symlink_metadata(), Err(e) if e.kind() == ErrorKind::NotFound) => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(String, Listed)>> {
        let mut all = Vec::new();
        for found in std::fs::read_dir(path)? {
            let found = found?;
            // `metadata` of a directory entry does not follow links, so a link is listed as `Other`.
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
        // The umask may have removed bits that the next start needs to open the file.
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
            // Not f_bfree, which includes the blocks reserved for root.
            available: fs.f_bavail.saturating_mul(fs.f_frsize),
        })
    }

    fn last(&self, job: LastJob) {
        job(self);
    }
}

/// Ignores an error of setting a mode if the file system refuses it: the files of a vfat or SMB mount belong to the user of the
/// mount, and its modes apply. The file can be written anyway.
fn if_possible(set: io::Result<()>) -> io::Result<()> {
    match set {
        Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => Ok(()),
        set => set,
    }
}

impl HeldLock for File {
    fn is_removed(&self, path: &Path) -> bool {
        // An error is not a removal: the file may still be on the disk.
        let Ok(ours) = self.metadata() else { return false };
        if ours.nlink() == 0 {
            return true;
        }
        // The nearest existing ancestor distinguishes a removal from an unmount: if it is on the same file system, the file was
        // moved or replaced; if it is on another one, the file's own file system is not mounted.
        match path.ancestors().find_map(|at| std::fs::symlink_metadata(at).ok()) {
            Some(there) => there.dev() == ours.dev() && there.ino() != ours.ino(),
            None => false,
        }
    }
}

/// Returns whether the open file is the one at `path`. It may have been removed or replaced between open and lock; such a lock
/// excludes no other process.
fn stands_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Returns the options to open a file for reading and writing. A link in its place is not followed (P9).
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
