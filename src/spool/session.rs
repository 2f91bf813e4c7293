//! A session of this process.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::entry::Entry;
use super::error::SpoolError;
use super::folder::{END_ROOM, Folder};
use super::format::{Kind, MAGIC, record};
use super::open::OpenChunk;
use super::paths::{device_dir, is_session};
use super::quota::Charge;
use super::records::to_u64;
use super::{Spool, make_root};

/// Number of attempts to lock a new session folder, and the pause between them. Another sink may hold the lock briefly while it
/// looks for chunks to adopt.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// A session of this process. Its lock is released when the session and all its chunks are dropped; then empty folders are
/// removed.
#[derive(Debug)]
pub struct Session {
    pub(super) folder: Arc<Folder>,
}

impl Session {
    pub(super) fn begin(spool: &Arc<Spool>, device: &str, session: &str) -> Result<Self, SpoolError> {
        let folder = Self::make(spool, &device_dir(device), session)?;
        Ok(Self { folder })
    }

    /// Makes the folder and its lock again if somebody has removed them. Returns whether they were removed.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn renew(&mut self) -> Result<bool, SpoolError> {
        if !self.folder.is_removed() {
            return Ok(false);
        }
        let spool = Arc::clone(&self.folder.spool);
        make_root(&*spool.disk, &spool.root)?;
        self.folder = Self::make(&spool, &self.folder.device_dir, &self.folder.session)?;
        Ok(true)
    }

    fn make(spool: &Arc<Spool>, name: &str, session: &str) -> Result<Arc<Folder>, SpoolError> {
        let above = spool.root.join(name);
        let dir = above.join(session);
        if !is_session(session) {
            return Err(SpoolError::misuse(&dir, "a session has at most 20 letters and digits"));
        }
        let disk = &spool.disk;
        let make = |path: &Path| disk.create_dir(path).map_err(|e| (e.kind(), SpoolError::io("make", path, e)));
        for _ in 0..TRIES {
            // Another sink may remove the empty device folder between the two calls.
            match make(&above).and_then(|_| make(&dir)) {
                Ok(_) => {}
                Err((ErrorKind::NotFound, _)) => continue,
                Err((_, e)) => return Err(e),
            }
            match Folder::take(spool, name, session) {
                Ok(Some(folder)) => {
                    // The names of both folders must be durable too: closing a chunk syncs only the session's folder.
                    for path in [&spool.root, &above] {
                        disk.sync_dir(path).map_err(|e| SpoolError::io("sync", path, e))?;
                    }
                    return Ok(folder);
                }
                // Another sink inspects the new folder for chunks to adopt.
                Ok(None) => std::thread::sleep(PAUSE),
                Err(e) => return Err(SpoolError::io("lock", &dir, e)),
            }
        }
        Err(SpoolError::Busy { path: dir })
    }

    /// Returns the spool of the session.
    pub fn spool(&self) -> &Arc<Spool> {
        &self.folder.spool
    }

    /// Returns the session's folder.
    pub fn dir(&self) -> &Path {
        &self.folder.dir
    }

    /// Copies an open chunk to this session's folder if somebody has removed the folder in which it was begun. Its bytes can
    /// still be read from the open file. Returns whether it was copied.
    ///
    /// # Errors
    /// No room, or an error of the disk: the chunk is unchanged.
    pub fn rescue(&self, chunk: &mut OpenChunk, entry: &Entry) -> Result<bool, SpoolError> {
        let disk = &self.folder.spool.disk;
        // Checked as well, because somebody may have removed the lock file alone.
        let is_lost = || matches!(disk.open(&chunk.path()), Err(e) if e.kind() == ErrorKind::NotFound);
        if Arc::ptr_eq(&self.folder, chunk.folder()) || !chunk.folder().is_removed() || !is_lost() {
            return Ok(false);
        }
        let mut fresh = self.create(entry)?;
        let copied = chunk.reader().for_each(chunk.len_on_file(), |bytes| {
            let at = fresh.len_on_file();
            fresh.append(at, &[bytes])
        });
        if let Err(e) = copied {
            fresh.give_up();
            return Err(e);
        }
        chunk.uncount();
        *chunk = fresh;
        Ok(true)
    }

    /// Begins a chunk: creates its file and writes its entry.
    ///
    /// # Errors
    /// No room, an error of the disk, an entry of another session, or a sequence number that exists. Leaves no file behind: if
    /// the disk does not answer, the file is removed when it does.
    pub fn create(&self, entry: &Entry) -> Result<OpenChunk, SpoolError> {
        let folder = &self.folder;
        let sequence = entry.sequence;
        let path = folder.path(sequence);
        if entry.session != folder.session {
            return Err(SpoolError::misuse(
                &path,
                format!("the entry is of session {}", entry.session),
            ));
        }
        let json = entry.to_json().map_err(|e| SpoolError::misuse(&path, e.to_string()))?;
        let head = record(Kind::Head, folder.salt(sequence), &json);
        let head = head.ok_or_else(|| SpoolError::misuse(&path, format!("an entry of {} bytes is too long", json.len())))?;
        let len = to_u64(MAGIC.len() + head.len());
        let room = len.saturating_add(END_ROOM);
        let mut charge = Charge::default();
        folder.spool.charge(&folder.key, &mut charge, len, room)?;
        let made = folder.create(sequence).map_err(|e| (e, false));
        let made = made.and_then(|file| file.write_all_at(&[&MAGIC, &head], 0).map(|()| file).map_err(|e| (e, true)));
        match made {
            Ok(file) => Ok(OpenChunk::new(file, folder.clone(), sequence, charge, len)),
            Err((e, ours)) => {
                if ours {
                    // Only a file that this call has created: if `create` failed, the file of that number may be an earlier
                    // chunk.
                    folder.remove_unwanted(sequence);
                }
                folder.spool.quota.remove(&folder.key, &mut charge);
                Err(SpoolError::io("create", &path, e))
            }
        }
    }
}
