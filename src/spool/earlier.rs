//! What an earlier life of a session of this process left: an element that went to READY and comes back keeps its session id and its lock.
//!
//! Listed before the first chunk of the new life is created, inspected later and some at a time, as a long outage leaves 100,000.

use std::sync::Arc;

use super::adopt::{Adoption, MOST_AT_ONCE};
use super::error::SpoolError;
use super::folder::Folder;

/// Chunks that an earlier life of a running session left on disk, the oldest first. Keeps the session's lock.
#[derive(Debug)]
pub struct EarlierChunks {
    folder: Arc<Folder>,
    /// Sequence numbers and lengths of the files whose turn has not come, the oldest first.
    files: Vec<(u64, u64)>,
    /// Of all that were taken.
    taken: usize,
}

impl super::Session {
    /// Lists what an earlier life of this session left. To be asked before the first chunk is created.
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
    /// The session.
    pub fn session(&self) -> &str {
        &self.folder.session
    }

    /// Whether the turn of all has come.
    pub fn is_empty(&self) -> bool {
        self.taken >= self.files.len()
    }

    /// Chunks whose turn has not come, and their length in bytes.
    pub fn rest(&self) -> (u64, u64) {
        let rest = self.files.get(self.taken..).unwrap_or_default().iter();
        rest.fold((0, 0), |(count, sum), (_, len)| (count + 1, sum + len))
    }

    /// Inspects the next [`MOST_AT_ONCE`]. If the disk does not answer, or the process has no descriptor left, nothing is taken, and the
    /// same come next.
    pub fn take_next(&mut self) -> Adoption {
        let mut adoption = Adoption::default();
        let rest = self.files.get(self.taken..).unwrap_or_default();
        // With those behind them: a half-written chunk ends where the next one begins.
        adoption.look_at(&self.folder, rest, MOST_AT_ONCE);
        match adoption.interrupted {
            Some(_) => adoption.sessions.clear(),
            None => self.taken += rest.len().min(MOST_AT_ONCE),
        }
        adoption
    }
}
