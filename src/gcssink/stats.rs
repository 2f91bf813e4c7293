//! What the element says of itself in numbers: the properties `stats` and `status`, the event `gcssink-health`.

use std::sync::atomic::Ordering;

use super::imp::GcsSink;
use super::session::Session;
use crate::sync::lock;
use crate::upload::health::Status;
use crate::upload::report::Snapshot;

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
        structure.set_name("gcssink-health");
        structure.set("status", self.status().name());
        if let Some(object) = lock(&self.last_object).as_deref() {
            structure.set("object", object);
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
