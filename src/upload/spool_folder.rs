//! The folder of a sink's spool, for callers that need its figures whether it is open or not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::oneshot;

use crate::spool::{EarlierChunks, Spool};

/// Notifies the adopter that the folder is open, with what an earlier life of its session left there.
pub(super) type IsOpen = oneshot::Receiver<EarlierChunks>;

/// The folder of a sink's spool, which may not be open yet because its disk does not answer.
#[derive(Debug)]
pub struct SpoolFolder {
    spool: OnceLock<Arc<Spool>>,
    max: AtomicU64,
}

impl SpoolFolder {
    /// Returns the spool, once it is open.
    pub(super) fn spool(&self) -> Option<Arc<Spool>> {
        self.spool.get().cloned()
    }

    /// Creates a folder that is not open yet. `max`: property `max-spool-bytes`.
    pub(super) fn new(max: u64) -> Self {
        Self {
            spool: OnceLock::new(),
            max: AtomicU64::new(max),
        }
    }

    /// Sets the open spool.
    pub(super) fn set(&self, spool: Arc<Spool>) {
        // The property may have changed while the folder was being opened.
        spool.set_max(self.max.load(Ordering::Relaxed));
        // Fails if the folder was opened before and its session could not be: it is the same spool.
        let _ = self.spool.set(spool);
    }

    /// Returns the property `max-spool-bytes`.
    pub(super) fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Changes that limit; see [`Spool::set_max`].
    pub fn set_max(&self, max: u64) {
        self.max.store(max, Ordering::Relaxed);
        if let Some(spool) = self.spool.get() {
            spool.set_max(max);
        }
    }

    /// Returns the bytes of disk in use by all sinks that share the folder; 0 while it is not open.
    pub fn used(&self) -> u64 {
        self.spool.get().map_or(0, |spool| spool.used())
    }

    /// Returns the bytes of disk in use by this sink; 0 while it is not open.
    pub fn held(&self) -> u64 {
        self.spool.get().map_or(0, |spool| spool.held())
    }

    /// Returns the bytes that may still be written; 0 while it is not open.
    pub fn room(&self) -> u64 {
        self.spool.get().map_or(0, |spool| spool.room())
    }

    /// Sets how many bytes a second this sink receives. Call it once a second; 0 = it has ended.
    pub fn set_input(&self, rate: u64) {
        if let Some(spool) = self.spool.get() {
            spool.set_input(rate);
        }
    }

    /// Returns how many bytes a second would fill the room without an uplink: what all sinks of this process with this folder
    /// receive. `own`: what this sink receives, which may not be counted yet.
    pub fn input(&self, own: u64) -> u64 {
        self.spool.get().map_or(own, |spool| spool.input().max(own))
    }
}
