//! Locks that stay usable after a panic in another holder. Each holder must leave the guarded value consistent at each step.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes the lock, even if it is poisoned.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
