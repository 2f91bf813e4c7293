//! What time it is, as the engine, the queue and the spool ask it. Tests put their own functions here.
//!
//! Plain function pointers: the clock is read for every buffer, and a test needs no state beyond tokio's paused time.

use tokio::time::Instant;

use crate::base::boot;
use crate::base::wall;

/// Three clocks. Copied into whatever needs one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Never goes back; what deadlines and intervals are measured with. tokio's, so that tasks can wait for it.
    pub monotonic: fn() -> Instant,
    /// UTC as this machine believes it, ns since the Unix epoch; may step.
    pub wall: fn() -> u64,
    /// ns since the machine started, suspension included; untouched by steps of the wall clock.
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
