//! Reads the property `stats` of a sink, and adds up the totals of a camera over all its sinks.

use gcstreamer_schema::structures::{properties, stats};
use gst::prelude::*;

/// Counters of one sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkStats {
    /// Key units that it has received.
    pub key_units: u64,
    /// Payload in memory, bytes.
    pub bytes_in_memory: u64,
    /// Bytes on disk that wait for upload.
    pub bytes_in_spool: u64,
    /// Chunks that wait for upload.
    pub chunks_pending: u64,
    /// Age of the oldest of them, ns.
    pub oldest_pending: u64,
    /// Repeated attempts to upload.
    pub retries: u64,
    /// Bytes of chunks that were dropped.
    pub bytes_dropped: u64,
    /// Seconds until the spool is full at the current data rate; 0 before any data.
    pub spool_seconds_left: u64,
}

/// Reads the counters of a sink.
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

/// Adds the growth of a counter between two readings to `total`. A counter that is smaller than before has restarted at 0.
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
