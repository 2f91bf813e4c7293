//! What the element says of itself in numbers: the properties `stats` and `status`, the event `gcssink-health`.

use std::sync::atomic::Ordering;

use super::imp::GcsSink;
use super::session::Session;
use crate::sync::lock;
use crate::upload::health::Status;
use crate::upload::report::Snapshot;
use gcstreamer_schema::structures::{health, stats as names};

impl GcsSink {
    /// How long memory and spool last at the rate of this stream.
    pub(super) fn memory_left(&self) -> String {
        let max = self.max_memory();
        let Some(session) = self.session() else { return String::new() };
        let snapshot = session.uploads.snapshot();
        let rate = input_rate(&snapshot, session.uploads.now());
        let left = max.saturating_sub(snapshot.memory) / rate;
        match &session.spool {
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
    pub(super) fn health(&self) -> Option<gst::Structure> {
        let mut structure = self.session().map(|session| figures(&session))?;
        structure.set_name(health::NAME);
        structure.set(health::STATUS, self.status().name());
        if let Some(object) = lock(&self.last_object).as_deref() {
            structure.set(health::OBJECT, object);
        }
        Some(structure)
    }

    pub(super) fn status(&self) -> Status {
        self.session().map_or(Status::Stopped, |s| s.uploads.status())
    }

    /// Property `stats`: of the session that runs, or else of the last one.
    pub(super) fn stats(&self) -> gst::Structure {
        let running = self.session().map(|session| figures(&session));
        let ended = || lock(&self.last_stats).clone();
        running
            .or_else(ended)
            .unwrap_or_else(|| structure(&Snapshot::default(), 0, 0, (0, 0)))
    }
}

/// The figures of a session at this moment.
pub(super) fn figures(session: &Session) -> gst::Structure {
    let snapshot = session.uploads.snapshot();
    let spool = session.spool.as_ref().map_or((0, 0), |spool| {
        let is_known = snapshot.stats.bytes_received > 0;
        let rate = input_rate(&snapshot, session.uploads.now());
        (spool.used(), if is_known { spool.room() / rate } else { 0 })
    });
    let key_units = session.key_units.load(Ordering::Relaxed);
    structure(&snapshot, key_units, session.flow.throttled(), spool)
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
        .field(names::OLDEST_PENDING, snapshot.pending.oldest)
        .field(names::SPOOL_SECONDS_LEFT, seconds_left)
        .field(names::THROTTLED, throttled)
        .field(names::RETRIES, stats.retries)
        .field(names::UPLOADS_IN_FLIGHT, snapshot.in_flight)
        .field(names::UPLOAD_RATE, snapshot.rate)
        .build()
}

/// Bytes a second that come in, at least 1.
fn input_rate(snapshot: &Snapshot, now: u64) -> u64 {
    (snapshot.stats.bytes_received.saturating_mul(1_000_000_000) / now.max(1)).max(1)
}
