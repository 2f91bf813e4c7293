//! What a spool asks of the disk in memory.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{NameOp, Node, Pending, SimDisk, overwrite};
use crate::spool::disk::{Disk, DiskFile, HeldLock, LastJob, Listed, Lock, Space};

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    id: usize,
    path: PathBuf,
}

struct SimLock(SimDisk, usize);

impl HeldLock for SimLock {
    fn is_removed(&self, path: &Path) -> bool {
        self.0.lock().names.get(path) != Some(&Node::File(self.1))
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.lock().locks.remove(&self.1);
    }
}

impl Disk for SimDisk {
    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        let mut world = self.lock();
        world.begin("mkdir", path)?;
        match world.names.get(path) {
            Some(Node::Dir) => Ok(false),
            Some(Node::File(_)) => Err(ErrorKind::AlreadyExists.into()),
            None => {
                world.parent(path)?;
                world.change(NameOp::Add(path.to_owned(), Node::Dir));
                Ok(true)
            }
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(String, Listed)>> {
        let mut world = self.lock();
        world.begin("list", path)?;
        if world.names.get(path) != Some(&Node::Dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let children = world.names.iter().filter(|(p, _)| p.parent() == Some(path));
        let listed = |node: &Node| match node {
            Node::Dir => Listed::Dir,
            Node::File(id) => Listed::File(world.inodes[*id].now.len() as u64),
        };
        let name = |p: &Path| p.file_name().unwrap().to_str().unwrap().to_owned();
        Ok(children.map(|(p, node)| (name(p), listed(node))).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.lock();
        world.begin("create", path)?;
        world.parent(path)?;
        if world.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let id = world.make(path);
        let (disk, path) = (self.clone(), path.to_owned());
        Ok(Arc::new(SimFile { disk, id, path }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.lock();
        world.begin("open", path)?;
        world.readable(path)?;
        let id = world.file(path)?;
        let (disk, path) = (self.clone(), path.to_owned());
        Ok(Arc::new(SimFile { disk, id, path }))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut world = self.lock();
        world.begin("unlink", path)?;
        world.file(path)?;
        world.change(NameOp::Remove(path.to_owned()));
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.lock();
        world.begin("rmdir", path)?;
        if world.names.get(path) != Some(&Node::Dir) {
            return Err(ErrorKind::NotFound.into());
        }
        if world.names.keys().any(|p| p.parent() == Some(path)) {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        world.change(NameOp::Remove(path.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.lock();
        world.begin("rename", from)?;
        let node = Node::File(world.file(from)?);
        world.parent(to)?;
        world.change(NameOp::Move(from.to_owned(), to.to_owned(), node));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut guard = self.lock();
        guard.begin("sync-dir", path)?;
        let world = &mut *guard;
        let durable = &mut world.durable;
        world.pending.retain(|op| {
            let touched = op.touches(path);
            if touched {
                op.apply(durable);
            }
            !touched
        });
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let mut world = SimDisk::lock(self);
        world.begin("lock", path)?;
        if world.parent(path).is_err() {
            return Ok(Lock::Gone);
        }
        world.readable(path)?;
        let id = match world.file(path) {
            Ok(id) => id,
            Err(_) => world.make(path),
        };
        if !world.locks.insert(id) {
            return Ok(Lock::Busy);
        }
        Ok(Lock::Held(Box::new(SimLock(self.clone(), id))))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let mut world = SimDisk::lock(self);
        world.begin("statvfs", path)?;
        Ok(world.space)
    }

    fn last(&self, job: LastJob) {
        job(self);
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut world = SimDisk::lock(&self.disk);
        world.begin("len", &self.path)?;
        Ok(world.inodes[self.id].now.len() as u64)
    }

    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = SimDisk::lock(&self.disk);
        world.begin("read", &self.path)?;
        let now = &world.inodes[self.id].now;
        let from = usize::try_from(offset).unwrap().min(now.len());
        let n = to.len().min(now.len() - from);
        to[..n].copy_from_slice(&now[from..from + n]);
        Ok(n)
    }

    fn write_all_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let mut world = SimDisk::lock(&self.disk);
        let mut bytes = parts.concat();
        let begun = world.begin("write", &self.path);
        if world.dead {
            return begun;
        }
        if begun.is_err() {
            let kept = world.roll(bytes.len() as u64);
            bytes.truncate(usize::try_from(kept).unwrap());
        }
        let offset = usize::try_from(offset).unwrap();
        let inode = &mut world.inodes[self.id];
        overwrite(&mut inode.now, offset, &bytes);
        inode.pending.push(Pending::Write {
            offset,
            bytes,
            given_up: false,
        });
        begun
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut world = SimDisk::lock(&self.disk);
        world.begin("truncate", &self.path)?;
        let len = usize::try_from(len).unwrap();
        let inode = &mut world.inodes[self.id];
        inode.now.resize(len, 0);
        inode.pending.push(Pending::Len(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = SimDisk::lock(&self.disk);
        let begun = world.begin("sync", &self.path);
        if world.dead {
            return begun;
        }
        let inode = &mut world.inodes[self.id];
        if begun.is_err() {
            for pending in &mut inode.pending {
                if let Pending::Write { given_up, .. } = pending {
                    *given_up = true;
                }
            }
            return begun;
        }
        for pending in std::mem::take(&mut inode.pending) {
            if let Pending::Write {
                given_up: true,
                offset,
                bytes,
            } = &pending
            {
                // The length is metadata and survives; the bytes do not.
                let len = inode.durable.len().max(offset + bytes.len());
                inode.durable.resize(len, 0);
            } else {
                pending.apply(&mut inode.durable);
            }
        }
        Ok(())
    }
}
