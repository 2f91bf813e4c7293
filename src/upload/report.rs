//! Reports of the uploads, and their counters. Types only; the shell turns them into messages.

use super::chunk::Summary;
use super::health::HealthEvent;
use crate::flow::pending::Pending;

/// Why a chunk was dropped that was set aside.
pub(super) const DAMAGED: &str = "damaged";

/// Why a chunk was dropped that whoever wrote it to disk has lost by a defect.
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
        /// Property `device-id` of the sink that recorded it, which may be another than the one that stored it.
        device: String,
        /// Generation; 0 where the server may not be asked.
        generation: i64,
        /// CRC32C.
        crc32c: u32,
        /// From closing to confirmation, ns; of a recovered chunk, from its recovery.
        latency: u64,
    },
    /// A chunk was dropped.
    Dropped {
        /// The chunk.
        summary: Summary,
        /// `overflow`, `retry-timeout`, `drain-timeout`, `shutdown-timeout`, `damaged`, `defect`.
        reason: &'static str,
    },
    /// The first chunk of the session that `retry-timeout` has given up; its `Dropped` follows.
    GivenUp {
        /// The chunk.
        summary: Summary,
        /// Property `retry-timeout`, ns.
        timeout: u64,
        /// What the last failure said; empty if nothing has failed.
        why: String,
    },
    /// The end of a chunk was dropped; its beginning stays on disk for the next start. The fields are those of what is lost.
    Cut {
        /// What is lost of the chunk.
        summary: Summary,
        /// `drain-timeout`, `shutdown-timeout`.
        reason: &'static str,
    },
    /// The status or an outage.
    HealthEvent(HealthEvent, Pending),
    /// Something the user should know.
    Warning(String),
    /// The disk takes nothing: what it said.
    Disk {
        /// What is wrong with it.
        fault: DiskFault,
        /// For the user.
        text: String,
    },
    /// The disk takes chunks again.
    DiskWorks,
    /// Chunks stay on disk for the next start, and others that the disk did not take are lost.
    Left {
        /// What stays.
        left: Pending,
        /// What is lost.
        lost: Pending,
    },
    /// So many chunks of earlier sessions were found on disk.
    Recovered(Pending),
    /// The server's clock differs from ours by this many seconds (ours minus the server's).
    ClockOff(i64),
}

/// Why a disk takes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// There is no room, by our limit or by the disk's.
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
    /// Bytes that came in.
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
    /// What waits, without what is parked.
    pub pending: Pending,
    /// Chunks on disk that belong to an endpoint which gets no credentials from this sink.
    pub parked: u64,
    /// Uploads in flight.
    pub in_flight: u64,
    /// Bytes per second that came in over the last minutes.
    pub input: u64,
    /// Bytes per second over the last ten seconds.
    pub rate: f64,
}
