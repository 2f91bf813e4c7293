//! A spool with what many earlier sessions left, made fast: nothing is synced.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use gstgcstreamer::spool::disk::{Disk, DiskFile, LastJob, Listed, Lock, Space, StdDisk};
use gstgcstreamer::spool::{ClosedEntry, Entry, Spool};

#[derive(Debug)]
struct Unsynced(StdDisk);

#[derive(Debug)]
struct File(Arc<dyn DiskFile>);

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(to, offset)
    }
    fn write_all_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.0.write_all_at(parts, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for Unsynced {
    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        self.0.canonical(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        self.0.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<(String, Listed)>> {
        self.0.list(path)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File(self.0.create(path)?)))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File(self.0.open(path)?)))
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.0.remove_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, path: &Path) -> io::Result<Lock> {
        self.0.lock(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.0.space(path)
    }
    fn last(&self, job: LastJob) {
        job(self);
    }
}

/// The id of the session with this number; they sort as their numbers do.
pub fn session_id(number: usize) -> String {
    format!("0a{number:08}")
}

/// Makes `sessions` sessions of `chunks` chunks each, that go to `bucket` at `endpoint`.
pub fn leave(dir: &Path, endpoint: &str, bucket: &str, sessions: std::ops::Range<usize>, chunks: u64) {
    let spool = Spool::open(Arc::new(Unsynced(StdDisk)), dir, 1_000_000_000).unwrap();
    for number in sessions {
        let id = session_id(number);
        let session = spool.session("old", &id).unwrap();
        for sequence in 0..chunks {
            let object = Bytes::from(format!("chunk {sequence} of {id}"));
            let entry = Entry {
                session: id.clone(),
                sequence,
                device: "old".into(),
                bucket: bucket.into(),
                endpoint: Some(endpoint.into()),
                anonymous: true,
                name: format!("old/{id}_{sequence:06}.ts"),
                own_name: true,
                container: "mpegts".into(),
                input_offset: sequence * 100_000,
                start: 1_795_329_912_000_000_000 + u64::try_from(number).unwrap() * 1_000_000_000,
                clock: "system".into(),
                boot_id: "boot".into(),
                ..Entry::default()
            };
            let mut open = session.create(&entry).unwrap();
            open.append(0, std::slice::from_ref(&object)).unwrap();
            let closed = ClosedEntry {
                entry,
                size: object.len() as u64,
                crc32c: crc32c::crc32c(&object),
            };
            open.finish(&closed).unwrap();
        }
    }
}
