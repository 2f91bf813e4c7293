//! What the element says of itself in numbers: the properties `stats` and `status`, the event `gcssink-health`.

use super::session::Session;
use crate::sync::lock;
use crate::upload::report::Snapshot;

/// How long memory and spool last at the rate of this stream.
pub(super) fn memory_left(session: &Session) -> String {
    let engine = &session.engine;
    let max = engine.config().uploads.max_memory;
    let snapshot = engine.queue.snapshot();
    let rate = input_rate(&snapshot, engine.queue.now());
    let left = max.saturating_sub(snapshot.memory) / rate;
    match &engine.spool {
        None => format!(
            "max-memory-bytes ({max}) covers about {left} s more of an outage at {rate} bytes/s; a spool-dir on disk would cover more"
        ),
        Some(spool) => {
            let room = spool.room();
            format!(
                "the spool has room for {room} bytes more, about {} s of an outage at {rate} bytes/s",
                room / rate
            )
        }
    }
}

/// The upstream event `gcssink-health`: stats, status, last object.
pub(super) fn health(session: &Session) -> gst::Structure {
    let mut structure = figures(session);
    structure.set_name("gcssink-health");
    structure.set("status", session.engine.queue.status().name());
    if let Some(object) = lock(&session.reported.last_object).as_deref() {
        structure.set("object", object);
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
        let is_known = snapshot.stats.bytes_received > 0;
        let rate = input_rate(&snapshot, engine.queue.now());
        (spool.used(), if is_known { spool.room() / rate } else { 0 })
    });
    structure(&snapshot, engine.key_units(), engine.flow.throttled(), spool)
}

/// `spool` is what it holds, in bytes, and how many seconds more it would last.
fn structure(snapshot: &Snapshot, key_units: u64, throttled: u64, spool: (u64, u64)) -> gst::Structure {
    let stats = snapshot.stats;
    let (in_spool, seconds_left) = spool;
    gst::Structure::builder("gcssink-stats")
        .field("chunks-created", stats.created)
        .field("chunks-uploaded", stats.uploaded)
        .field("chunks-dropped", stats.dropped)
        .field("chunks-recovered", stats.recovered)
        .field("key-units", key_units)
        .field("bytes-received", stats.bytes_received)
        .field("bytes-uploaded", stats.bytes_uploaded)
        .field("bytes-dropped", stats.bytes_dropped)
        .field("bytes-in-memory", snapshot.memory)
        .field("bytes-in-spool", in_spool)
        .field("chunks-pending", snapshot.pending.chunks)
        .field("chunks-parked", snapshot.parked)
        .field("oldest-pending-ns", snapshot.pending.oldest)
        .field("spool-seconds-left", seconds_left)
        .field("throttled-ns", throttled)
        .field("retries", stats.retries)
        .field("uploads-in-flight", snapshot.in_flight)
        .field("upload-rate", snapshot.rate)
        .build()
}

/// Bytes a second that come in, at least 1.
fn input_rate(snapshot: &Snapshot, now: u64) -> u64 {
    (snapshot.stats.bytes_received.saturating_mul(1_000_000_000) / now.max(1)).max(1)
}
