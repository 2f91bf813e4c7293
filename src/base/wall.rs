//! The wall clock as a number: ns since the Unix epoch, 0 before it.

use std::time::SystemTime;

/// Returns the present time.
pub(crate) fn now() -> u64 {
    since_epoch(SystemTime::now())
}

/// Returns `time` as a number.
pub(crate) fn since_epoch(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
