//! A simulated disk for tests. It calls a hook before some of its calls; the hook may wait, fail or panic.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::spool::disk::{Disk, DiskFile, LastJob, Listed, Lock, Space};
use crate::spool::sim::SimDisk;

/// A call before which the hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Making a file.
    Create,
    /// Listing a folder.
    List,
    /// A write to a file.
    Write,
    /// A sync of a file.
    Sync,
}

/// Called before a call to the disk, with the path of the file or folder.
pub(super) trait Hook: fmt::Debug + Send + Sync {
    /// An error becomes the result of the call.
    fn before(&self, call: Call, path: &Path) -> io::Result<()>;
}

/// Whether the path is that of a chunk file.
pub(super) fn is_chunk(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "chunk")
}

/// A simulated disk that calls `hook` before it creates, lists, writes or syncs.
#[derive(Debug)]
pub(super) struct HookedDisk<H> {
    pub(super) disk: SimDisk,
    pub(super) hook: Arc<H>,
}

impl<H> Clone for HookedDisk<H> {
    fn clone(&self) -> Self {
        Self {
            disk: self.disk.clone(),
            hook: Arc::clone(&self.hook),
        }
    }
}

impl<H> HookedDisk<H> {
    pub(super) fn new(hook: H) -> Self {
        Self {
            disk: SimDisk::new(1),
            hook: Arc::new(hook),
        }
    }
}

impl<H: Hook + 'static> HookedDisk<H> {
    fn file(&self, file: Arc<dyn DiskFile>, path: &Path) -> Arc<dyn DiskFile> {
        Arc::new(HookedFile {
            file,
            path: path.to_owned(),
            hook: Arc::<H>::clone(&self.hook),
        })
    }
}

#[derive(Debug)]
struct HookedFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    hook: Arc<dyn Hook>,
}

impl<H: Hook + 'static> Disk for HookedDisk<H> {
    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        self.disk.canonical(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        self.disk.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<(String, Listed)>> {
        self.hook.before(Call::List, path)?;
        self.disk.list(path)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.hook.before(Call::Create, path)?;
        Ok(self.file(self.disk.create(path)?, path))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.disk.open(path)?, path))
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Lock> {
        self.disk.lock(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }
    fn last(&self, job: LastJob) {
        job(self);
    }
}

impl DiskFile for HookedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(to, offset)
    }
    fn write_all_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.hook.before(Call::Write, &self.path)?;
        self.file.write_all_at(parts, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.hook.before(Call::Sync, &self.path)?;
        self.file.sync_data()
    }
}
