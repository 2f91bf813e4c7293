//! Computes the properties `stats` and `status` and the event `gcssink-health`.

use super::session::Session;
use crate::base::lock::lock;
use crate::upload::chunk::Keep;
use crate::upload::queue::Overflow;
use crate::upload::report::Snapshot;
use crate::upload::spool_folder::SpoolFolder;
use gcstreamer_schema::structures::{health as names_of_health, stats as names};
use gcstreamer_schema::units;

/// Describes how long the memory lasts at the rate of this stream, or the spool at the rate of all streams that share it.
pub(super) fn memory_left(session: &Session) -> String {
    let engine = &session.engine;
    let max = engine.config().uploads.max_memory;
    let snapshot = engine.queue.snapshot();
    match &engine.spool {
        None => format!(
            "max-memory-bytes ({}) covers about {} more of an outage at {}; a spool-dir on disk would cover more",
            units::bytes(max),
            lasts(max.saturating_sub(snapshot.memory), snapshot.input),
            units::rate(snapshot.input)
        ),
        Some(spool) => {
            let (room, input) = (spool.room(), spool.input(snapshot.input));
            format!(
                "the spool has room for {} more, about {} of an outage at {}",
                units::bytes(room),
                lasts(room, input),
                units::rate(input)
            )
        }
    }
}

/// Describes where chunks wait during an outage, for how long there is room, and what happens then.
pub(super) fn backlog(session: &Session) -> String {
    let engine = &session.engine;
    let max = engine.config().uploads.max_memory;
    let input = engine.queue.snapshot().input;
    let memory = units::bytes(max);
    let on_disk = |dir: &str, spool: &SpoolFolder| {
        let (room, input) = (spool.room(), spool.input(input));
        let (time, rate) = (lasts(room, input), units::rate(input));
        let room = units::bytes(room);
        format!("in spool-dir {dir}, which has room for {room} (about {time} at {rate})")
    };
    match (&engine.spool, &session.spool_dir, session.keep) {
        (Some(spool), Some(dir), Keep::Overflow) => {
            format!("in memory ({memory}), then {}", on_disk(dir, spool))
        }
        (Some(spool), Some(dir), _) => on_disk(dir, spool),
        _ => match engine.overflow() {
            Overflow::Block => format!("in memory ({memory}), and the pipeline waits while that is full"),
            Overflow::DropOldest => format!(
                "in memory: {memory}, about {} at {}; then the oldest chunk is dropped. A spool-dir on disk would cover more",
                lasts(max, input),
                units::rate(input)
            ),
            Overflow::Error => format!(
                "in memory: {memory}, about {} at {}; then the recording ends with an ERROR (overflow-policy)",
                lasts(max, input),
                units::rate(input)
            ),
        },
    }
}

/// Describes how long `room` bytes last at `input` bytes per second.
fn lasts(room: u64, input: u64) -> String {
    units::duration((room / input.max(1)).saturating_mul(1_000_000_000))
}

/// Returns the upstream event `gcssink-health`: stats, status, last object.
pub(super) fn health(session: &Session) -> gst::Structure {
    let mut structure = figures(session);
    structure.set_name(names_of_health::NAME);
    structure.set(names_of_health::STATUS, session.engine.queue.status().name());
    if let Some(object) = lock(&session.reported.last_object).as_deref() {
        structure.set(names_of_health::OBJECT, object);
    }
    structure
}

/// Returns the figures before the first session.
pub(super) fn none() -> gst::Structure {
    structure(&Snapshot::default(), 0, 0, (0, 0))
}

/// Returns the present figures of a session.
pub(super) fn figures(session: &Session) -> gst::Structure {
    let engine = &session.engine;
    let snapshot = engine.queue.snapshot();
    let spool = engine.spool.as_ref().map_or((0, 0), |spool| {
        // The rate is 0 until data has arrived.
        let seconds = spool.room().checked_div(spool.input(snapshot.input)).unwrap_or(0);
        (spool.held(), seconds)
    });
    structure(&snapshot, engine.key_units(), engine.flow.throttled(), spool)
}

/// Builds the structure. `spool`: bytes of this sink in the spool, and the seconds for which the room of the spool lasts.
fn structure(snapshot: &Snapshot, key_units: u64, throttled: u64, spool: (u64, u64)) -> gst::Structure {
    let stats = snapshot.stats;
    let (in_spool, seconds_left) = spool;
    gst::Structure::builder(names::NAME)
        .field(names::CHUNKS_CREATED, stats.created)
        .field(names::CHUNKS_UPLOADED, stats.uploaded)
        .field(names::CHUNKS_DROPPED, stats.dropped)
        .field(names::CHUNKS_RECOVERED, stats.recovered)
        .field(names::KEY_UNITS, key_units)
        .field(names::BYTES_RECEIVED, stats.bytes_received)
        .field(names::BYTES_UPLOADED, stats.bytes_uploaded)
        .field(names::BYTES_DROPPED, stats.bytes_dropped)
        .field(names::BYTES_IN_MEMORY, snapshot.memory)
        .field(names::BYTES_IN_SPOOL, in_spool)
        .field(names::CHUNKS_PENDING, snapshot.pending.chunks)
        .field(names::CHUNKS_PARKED, snapshot.parked)
        .field(names::OLDEST_PENDING, snapshot.pending.oldest)
        .field(names::SPOOL_SECONDS_LEFT, seconds_left)
        .field(names::THROTTLED, throttled)
        .field(names::RETRIES, stats.retries)
        .field(names::UPLOADS_IN_FLIGHT, snapshot.in_flight)
        .field(names::UPLOAD_RATE, snapshot.rate)
        .build()
}
