//! The camera's clock: a GstReferenceTimestampMeta on a buffer maps running time to UTC. Muxers drop the meta, so the mapping
//! goes downstream as the custom event `gcssink-clock` {running-time, utc: guint64}.
//!
//! Only the streaming thread uses the state; it is atomic because the element is shared.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use gcstreamer_schema::structures::clock as names;

/// Seconds between the epochs of NTP (1900) and Unix (1970), RFC 5905.
const NTP_TO_UNIX: u64 = 2_208_988_800;
/// A mapping that moves by less counts as unchanged, ns.
const MIN_MOVE: u64 = 1_000_000;
/// Shortest time between two events, ns.
const MIN_GAP: u64 = 1_000_000_000;

/// The mapping of one stream.
#[derive(Debug, Default)]
pub(super) struct CameraClock {
    /// Running time of a buffer minus its timestamp, ns.
    offset: AtomicI64,
    /// The segment is in time format, at normal speed.
    is_usable: AtomicBool,
    /// UTC minus running time as last sent, ns.
    sent: AtomicI64,
    /// When it was sent; 0 if not since the last segment or flush.
    sent_at: AtomicU64,
}

/// Returns whether a mapping is worth an event. `sent` is the last mapping and when it was sent.
fn is_due(sent: Option<(i64, u64)>, mapping: i64, now: u64) -> bool {
    sent.is_none_or(|(before, at)| mapping.abs_diff(before) >= MIN_MOVE && now.saturating_sub(at) >= MIN_GAP)
}

/// Returns the UTC time in the metas of a buffer, ns since the Unix epoch.
fn utc_of(buffer: &gst::BufferRef) -> Option<u64> {
    buffer.iter_meta::<gst::ReferenceTimestampMeta>().find_map(|meta| {
        let time = meta.timestamp().nseconds();
        match meta.reference().structure(0)?.name().as_str() {
            "timestamp/x-ntp" => time.checked_sub(NTP_TO_UNIX * 1_000_000_000),
            "timestamp/x-unix" => Some(time),
            _ => None,
        }
    })
}

impl CameraClock {
    /// Forgets everything, at the start of a session.
    pub(super) fn reset(&self) {
        self.is_usable.store(false, Relaxed);
        self.sent_at.store(0, Relaxed);
    }

    /// Makes the next mapping be sent unconditionally: a flush has dropped the last event.
    pub(super) fn flush(&self) {
        self.sent_at.store(0, Relaxed);
    }

    /// Takes a new segment. The next mapping is sent unconditionally.
    pub(super) fn segment(&self, segment: &gst::Segment) {
        self.sent_at.store(0, Relaxed);
        let offset = segment.downcast_ref::<gst::ClockTime>().and_then(|time| {
            // At another speed UTC and running time differ by more than a constant.
            let is_plain = (time.rate() - 1.0).abs() < f64::EPSILON;
            let start = i64::try_from(time.start()?.nseconds()).ok()?;
            let skipped = i64::try_from(time.offset().map_or(0, gst::ClockTime::nseconds)).ok()?;
            let base = i64::try_from(time.base()?.nseconds()).ok()?;
            is_plain.then(|| base.saturating_sub(start).saturating_sub(skipped))
        });
        self.offset.store(offset.unwrap_or(0), Relaxed);
        self.is_usable.store(offset.is_some(), Relaxed);
    }

    /// Returns the event to push before this buffer, if any.
    pub(super) fn event_before(&self, buffer: &gst::BufferRef, now: u64) -> Option<gst::Event> {
        let utc = utc_of(buffer)?;
        if !self.is_usable.load(Relaxed) {
            return None;
        }
        let stamp = i64::try_from(buffer.pts().or(buffer.dts())?.nseconds()).ok()?;
        let running = stamp.checked_add(self.offset.load(Relaxed))?;
        let mapping = i64::try_from(utc).ok()?.checked_sub(running)?;
        let running = u64::try_from(running).ok()?;
        let sent_at = self.sent_at.load(Relaxed);
        let sent = (sent_at > 0).then(|| (self.sent.load(Relaxed), sent_at));
        if !is_due(sent, mapping, now) {
            return None;
        }
        self.sent.store(mapping, Relaxed);
        // 0 means that none was sent.
        self.sent_at.store(now.max(1), Relaxed);
        let structure = gst::Structure::builder(names::NAME)
            .field(names::RUNNING_TIME, running)
            .field(names::UTC, utc)
            .build();
        // Sticky, so that sinks linked later receive it too.
        Some(gst::event::CustomDownstreamSticky::new(structure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;
    const S: u64 = 1_000_000_000;

    #[test]
    fn a_mapping_is_sent_when_it_is_new_and_when_it_has_moved_but_at_most_once_a_second() {
        assert!(is_due(None, 5, 0));
        assert!(!is_due(Some((0, S)), MS - 1, 9 * S), "it has not moved");
        assert!(!is_due(Some((0, S)), MS, 2 * S - 1), "too soon");
        assert!(is_due(Some((0, S)), MS, 2 * S));
        assert!(is_due(Some((0, S)), -MS, 2 * S));
        assert!(is_due(Some((i64::MIN, S)), i64::MAX, 2 * S));
    }

    #[test]
    fn the_running_time_is_that_of_the_segment() {
        gst::init().unwrap();
        let clock = CameraClock::default();
        let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
        segment.set_start(gst::ClockTime::from_seconds(100));
        segment.set_base(gst::ClockTime::from_seconds(7));
        clock.segment(segment.upcast_ref());
        let mut buffer = gst::Buffer::new();
        let utc = 1_795_329_912 * S;
        {
            let buffer = buffer.get_mut().unwrap();
            buffer.set_pts(gst::ClockTime::from_seconds(103));
            let caps = gst::Caps::new_empty_simple("timestamp/x-ntp");
            let time = gst::ClockTime::from_nseconds(utc + NTP_TO_UNIX * S);
            gst::ReferenceTimestampMeta::add(buffer, &caps, time, gst::ClockTime::NONE);
        }
        let event = clock.event_before(&buffer, 1).expect("the first mapping is sent");
        let structure = event.structure().unwrap();
        assert_eq!(structure.get::<u64>(names::RUNNING_TIME), Ok(10 * S));
        assert_eq!(structure.get::<u64>(names::UTC), Ok(utc));
        assert!(clock.event_before(&buffer, 5 * S).is_none(), "it is the same");
        clock.flush();
        assert!(
            clock.event_before(&buffer, 6 * S).is_some(),
            "a flush has dropped what was sent"
        );
    }
}
