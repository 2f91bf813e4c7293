//! Identifies the current boot of the machine, and measures the time since.
//!
//! With these, a chunk recorded before the clock was set gets its correct time once the clock is right.

use std::io;

/// Returns the id of this boot: equal for all processes until the machine restarts.
///
/// # Errors
/// The kernel does not provide it.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Returns the time since this boot in ns, suspension included. Steps of the wall clock do not affect it.
pub fn boot_ns() -> u64 {
    // CLOCK_MONOTONIC stops in suspend: chunks from before it would get a date that is too late.
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_runs_on_and_the_boot_stays_the_same() {
        let (id, before) = (boot_id().unwrap(), boot_ns());
        assert_eq!(id.len(), 36);
        assert_eq!(boot_id().unwrap(), id);
        assert!(before > 0 && boot_ns() >= before);
    }
}
