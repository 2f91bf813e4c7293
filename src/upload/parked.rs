//! When each destination without credentials was last tried, by any sink of the process. Shared because several sinks may find
//! the same chunks one after the other, as the fragments of a `splitmuxsink` do, and the limit of one attempt an hour applies to
//! all of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::scheduler::PARKED_PAUSE;
use crate::spool::DestinationId;

/// Most destinations remembered. Beyond that an arbitrary one is forgotten, and the next sink tries it again.
const MAX_REMEMBERED: usize = 1024;

static TRIED: Mutex<BTreeMap<DestinationId, Instant>> = Mutex::new(BTreeMap::new());

/// Notes that a destination is being tried now.
pub(super) fn tried(destination: DestinationId) {
    let mut tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
    tried.retain(|_, at| at.elapsed() < Duration::from_nanos(PARKED_PAUSE));
    if tried.len() >= MAX_REMEMBERED {
        tried.pop_first();
    }
    tried.insert(destination, Instant::now());
}

/// Notes that a destination has stored a chunk: it may be tried again at once.
pub(super) fn works(destination: DestinationId) {
    TRIED.lock().unwrap_or_else(PoisonError::into_inner).remove(&destination);
}

/// Returns how long to wait before the next try, ns.
pub(super) fn wait(destination: DestinationId) -> u64 {
    let tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
    let since = tried
        .get(&destination)
        .map(|at| u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX));
    since.map_or(0, |since| PARKED_PAUSE.saturating_sub(since))
}
