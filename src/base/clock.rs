//! The clocks that the engine, the queue and the spool read. Tests substitute their own functions.
//!
//! Plain function pointers: the clock is read for every buffer, and a test needs no state beyond tokio's paused time.

use tokio::time::Instant;

use crate::base::boot;
use crate::base::wall;

/// Three clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Never goes back; the scale of deadlines and intervals. tokio's, so that tasks can wait for it.
    pub monotonic: fn() -> Instant,
    /// UTC by this machine's wall clock, ns since the Unix epoch; may step.
    pub wall: fn() -> u64,
    /// ns since the machine booted, suspension included; unaffected by steps of the wall clock.
    pub boot: fn() -> u64,
}

impl Clock {
    /// The clocks of this machine.
    pub const SYSTEM: Self = Self {
        monotonic: Instant::now,
        wall: wall::now,
        boot: boot::boot_ns,
    };
}

impl Default for Clock {
    fn default() -> Self {
        Self::SYSTEM
    }
}
