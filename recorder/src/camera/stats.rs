//! The property `stats` of a sink, and the totals of a camera over all its sinks.

use gcstreamer_schema::structures::{properties, stats};
use gst::prelude::*;

/// Figures of one sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkStats {
    /// Key units that it has received.
    pub key_units: u64,
    /// Payload in memory, bytes.
    pub bytes_in_memory: u64,
    /// Bytes on disk that wait.
    pub bytes_in_spool: u64,
    /// Chunks that wait.
    pub chunks_pending: u64,
    /// Age of the oldest of them, ns.
    pub oldest_pending: u64,
    /// Attempts to upload that were repeated.
    pub retries: u64,
    /// Bytes of chunks that were dropped.
    pub bytes_dropped: u64,
    /// How long the spool lasts at what comes in now, s; 0 while nothing has come.
    pub spool_seconds_left: u64,
}

/// Reads the figures of a sink.
pub fn of(sink: &gst::Element) -> SinkStats {
    let structure: gst::Structure = sink.property(properties::STATS);
    let get = |field| structure.get::<u64>(field).unwrap_or(0);
    SinkStats {
        key_units: get(stats::KEY_UNITS),
        bytes_in_memory: get(stats::BYTES_IN_MEMORY),
        bytes_in_spool: get(stats::BYTES_IN_SPOOL),
        chunks_pending: get(stats::CHUNKS_PENDING),
        oldest_pending: get(stats::OLDEST_PENDING),
        retries: get(stats::RETRIES),
        bytes_dropped: get(stats::BYTES_DROPPED),
        spool_seconds_left: get(stats::SPOOL_SECONDS_LEFT),
    }
}

/// Adds what has grown between two looks to a total; a figure that went back started again.
pub fn grow(total: &mut u64, before: u64, now: u64) {
    *total = total.saturating_add(if now >= before { now - before } else { now });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_grow_with_every_sink_and_never_go_back() {
        let mut total = 0;
        for (before, now) in [(0, 10), (10, 15), (15, 15), (15, 3)] {
            grow(&mut total, before, now);
        }
        assert_eq!(total, 18);
    }
}
