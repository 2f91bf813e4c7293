//! Reports and counters of the uploads. Types only; the shell turns them into messages.

use super::chunk::Summary;
use super::health::HealthEvent;
use crate::flow::pending::Pending;

/// Reason for dropping a chunk that was moved to the quarantine.
pub(super) const DAMAGED: &str = "damaged";

/// Reason for dropping a chunk that the spool writer lost through a defect.
pub(super) const DEFECT: &str = "defect";

/// Something for the application.
#[derive(Clone, Debug)]
pub enum Report {
    /// The server has confirmed a chunk.
    Uploaded {
        /// The chunk.
        summary: Summary,
        /// Object name.
        object: String,
        /// Property `device-id` of the sink that recorded it, which may differ from the sink that stored it.
        device: String,
        /// Generation; 0 if reading the object is not permitted.
        generation: i64,
        /// CRC32C.
        crc32c: u32,
        /// From closing to confirmation, ns; for a recovered chunk from its recovery.
        latency: u64,
    },
    /// A chunk was dropped.
    Dropped {
        /// The chunk.
        summary: Summary,
        /// `overflow`, `retry-timeout`, `drain-timeout`, `shutdown-timeout`, `damaged`, `defect`.
        reason: &'static str,
    },
    /// The first chunk of the session dropped by `retry-timeout`; its `Dropped` follows.
    GivenUp {
        /// The chunk.
        summary: Summary,
        /// Property `retry-timeout`, ns.
        timeout: u64,
        /// Error text of the last failure; empty if nothing has failed.
        why: String,
    },
    /// The end of a chunk was dropped; its beginning stays on disk for the next start. The fields describe the lost end.
    Cut {
        /// The lost end of the chunk.
        summary: Summary,
        /// `drain-timeout`, `shutdown-timeout`.
        reason: &'static str,
    },
    /// A change of the status, or an outage; with what is pending.
    HealthEvent(HealthEvent, Pending),
    /// Something the user should know.
    Warning(String),
    /// The disk accepts nothing.
    Disk {
        /// What is wrong with it.
        fault: DiskFault,
        /// The error text.
        text: String,
    },
    /// The disk accepts chunks again.
    DiskWorks,
    /// Chunks stay on disk for the next start, and others that the disk did not accept are lost.
    Left {
        /// What stays.
        left: Pending,
        /// What is lost.
        lost: Pending,
    },
    /// Chunks of earlier sessions were found on disk.
    Recovered(Pending),
    /// The server's clock differs from ours by this many seconds (ours minus the server's).
    ClockOff(i64),
}

/// Why a disk accepts nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// There is no room, by `max-spool-bytes` or on the disk itself.
    Full,
    /// It reports an error.
    Fails,
    /// It does not answer.
    Hung,
}

/// The counters of the property `stats`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Chunks opened.
    pub created: u64,
    /// Chunks the server has confirmed.
    pub uploaded: u64,
    /// Chunks dropped.
    pub dropped: u64,
    /// Chunks of earlier sessions that were found on disk.
    pub recovered: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes of confirmed objects.
    pub bytes_uploaded: u64,
    /// Bytes dropped.
    pub bytes_dropped: u64,
    /// Failed attempts.
    pub retries: u64,
}

/// Everything at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snapshot {
    /// The counters.
    pub stats: Stats,
    /// Bytes in memory.
    pub memory: u64,
    /// What waits, without parked chunks.
    pub pending: Pending,
    /// Parked chunks: their endpoint gets no credentials from this sink.
    pub parked: u64,
    /// Uploads in flight.
    pub in_flight: u64,
    /// Bytes per second received over the last minutes.
    pub input: u64,
    /// Bytes per second uploaded over the last ten seconds.
    pub rate: f64,
}
