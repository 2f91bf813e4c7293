//! Figures of the element: the properties `stats` and `status`, the event `gcssink-health`.

use super::session::Session;
use crate::base::lock::lock;
use crate::upload::report::Snapshot;
use gcstreamer_schema::structures::{health as names_of_health, stats as names};
use gcstreamer_schema::units;

/// How long memory and spool last at the rate of this stream.
pub(super) fn memory_left(session: &Session) -> String {
    let engine = &session.engine;
    let max = engine.config().uploads.max_memory;
    let snapshot = engine.queue.snapshot();
    let rate = snapshot.input.max(1);
    let lasts = |room: u64| units::duration((room / rate).saturating_mul(1_000_000_000));
    match &engine.spool {
        None => format!(
            "max-memory-bytes ({}) covers about {} more of an outage at {}; a spool-dir on disk would cover more",
            units::bytes(max),
            lasts(max.saturating_sub(snapshot.memory)),
            units::rate(rate)
        ),
        Some(spool) => {
            let room = spool.room();
            format!(
                "the spool has room for {} more, about {} of an outage at {}",
                units::bytes(room),
                lasts(room),
                units::rate(rate)
            )
        }
    }
}

/// The upstream event `gcssink-health`: stats, status, last object.
pub(super) fn health(session: &Session) -> gst::Structure {
    let mut structure = figures(session);
    structure.set_name(names_of_health::NAME);
    structure.set(names_of_health::STATUS, session.engine.queue.status().name());
    if let Some(object) = lock(&session.reported.last_object).as_deref() {
        structure.set(names_of_health::OBJECT, object);
    }
    structure
}

/// The figures before there was a session.
pub(super) fn none() -> gst::Structure {
    structure(&Snapshot::default(), 0, 0, (0, 0))
}

/// The figures of a session at this moment.
pub(super) fn figures(session: &Session) -> gst::Structure {
    let engine = &session.engine;
    let snapshot = engine.queue.snapshot();
    let spool = engine.spool.as_ref().map_or((0, 0), |spool| {
        // 0 while nothing has come.
        let seconds = spool.room().checked_div(snapshot.input).unwrap_or(0);
        (spool.used(), seconds)
    });
    structure(&snapshot, engine.key_units(), engine.flow.throttled(), spool)
}

/// `spool` is what it holds, in bytes, and how many seconds more it would last.
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
