//! Chunks that this process left in a running session: an element that went to READY and is started again keeps its session id
//! and its lock.
//!
//! They are listed before the first new chunk is created, and inspected later, some at a time, because a long outage leaves
//! 100,000 chunks.

use std::sync::Arc;

use super::adopt::{Adoption, MOST_AT_ONCE};
use super::error::SpoolError;
use super::folder::Folder;

/// Chunks that a running session left on disk before its element was restarted, the oldest first. Keeps the session's lock.
#[derive(Debug)]
pub struct EarlierChunks {
    folder: Arc<Folder>,
    /// Sequence numbers and lengths of all listed files, the oldest first.
    files: Vec<(u64, u64)>,
    /// How many of `files` were taken over.
    taken: usize,
}

impl super::Session {
    /// Lists the chunks that this session left before its element was restarted. Call it before the first chunk is created: all
    /// files in the folder are charged to the quota as existing ones.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn earlier(&self) -> Result<EarlierChunks, SpoolError> {
        let folder = Arc::clone(&self.folder);
        let files = folder.own_files()?;
        Ok(EarlierChunks { folder, files, taken: 0 })
    }
}

impl EarlierChunks {
    /// Returns the id of the session.
    pub fn session(&self) -> &str {
        &self.folder.session
    }

    /// Returns whether all chunks were taken over.
    pub fn is_empty(&self) -> bool {
        self.taken >= self.files.len()
    }

    /// Returns the number of chunks that are still to be taken over, and their length in bytes.
    pub fn rest(&self) -> (u64, u64) {
        let rest = self.files.get(self.taken..).unwrap_or_default().iter();
        rest.fold((0, 0), |(count, sum), (_, len)| (count + 1, sum + len))
    }

    /// Inspects and takes over the next [`MOST_AT_ONCE`] chunks. If the disk does not answer, or the process has no descriptor
    /// left, takes nothing, and the next call tries the same chunks.
    pub fn take_next(&mut self) -> Adoption {
        let mut adoption = Adoption::default();
        let rest = self.files.get(self.taken..).unwrap_or_default();
        // The slice includes the chunks behind them: a half-written chunk ends where the next one begins.
        adoption.look_at(&self.folder, rest, MOST_AT_ONCE);
        match adoption.interrupted {
            Some(_) => adoption.sessions.clear(),
            None => self.taken += rest.len().min(MOST_AT_ONCE),
        }
        adoption
    }
}
