//! The camera's clock: a GstReferenceTimestampMeta on a buffer maps running time to UTC. Muxers drop the meta, so the mapping
//! goes downstream as the custom event `gcssink-clock` {running-time, utc: guint64}.
//!
//! The state is touched by the streaming thread alone; atomics are its cells.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use crate::structures::clock as names;

/// Seconds between the epochs of NTP (1900) and Unix (1970), RFC 5905.
const NTP_TO_UNIX: u64 = 2_208_988_800;
/// A mapping that moves less is the same, ns.
const MOVED: u64 = 1_000_000;
/// A mapping is sent at most so often, ns.
const GAP: u64 = 1_000_000_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Running time of a buffer less its time stamp.
    offset: AtomicI64,
    /// The segment is one of time at normal speed.
    is_usable: AtomicBool,
    /// UTC less running time, as it was sent.
    sent: AtomicI64,
    /// When; 0: not since the last segment.
    sent_at: AtomicU64,
}

/// Whether a mapping is worth an event.
fn is_due(sent: Option<(i64, u64)>, mapping: i64, now: u64) -> bool {
    sent.is_none_or(|(before, at)| mapping.abs_diff(before) >= MOVED && now.saturating_sub(at) >= GAP)
}

/// What the metas of a buffer say, ns since the Unix epoch.
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

impl Clock {
    /// Nothing is known any more.
    pub(super) fn reset(&self) {
        self.is_usable.store(false, Relaxed);
        self.sent_at.store(0, Relaxed);
    }

    /// What was sent is gone.
    pub(super) fn flush(&self) {
        self.sent_at.store(0, Relaxed);
    }

    /// A new segment.
    pub(super) fn segment(&self, segment: &gst::Segment) {
        self.sent_at.store(0, Relaxed);
        let offset = segment.downcast_ref::<gst::ClockTime>().and_then(|time| {
            let is_plain = (time.rate() - 1.0).abs() < f64::EPSILON;
            let start = i64::try_from(time.start()?.nseconds()).ok()?;
            let skipped = i64::try_from(time.offset().map_or(0, gst::ClockTime::nseconds)).ok()?;
            let base = i64::try_from(time.base()?.nseconds()).ok()?;
            is_plain.then(|| base.saturating_sub(start).saturating_sub(skipped))
        });
        self.offset.store(offset.unwrap_or(0), Relaxed);
        self.is_usable.store(offset.is_some(), Relaxed);
    }

    /// The event that has to go in front of this buffer, where there is one.
    pub(super) fn look(&self, buffer: &gst::BufferRef, now: u64) -> Option<gst::Event> {
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
        self.sent_at.store(now.max(1), Relaxed);
        let structure = gst::Structure::builder(names::NAME)
            .field(names::RUNNING_TIME, running)
            .field(names::UTC, utc)
            .build();
        // Sticky: it holds for sinks that come later too.
        Some(gst::event::CustomDownstreamSticky::new(structure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;
    const S: u64 = 1_000_000_000;

    #[test]
    fn a_mapping_is_sent_when_it_is_new_and_when_it_has_moved_but_not_more_than_once_a_second() {
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
        let clock = Clock::default();
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
        let event = clock.look(&buffer, 1).expect("the first mapping is sent");
        let structure = event.structure().unwrap();
        assert_eq!(structure.get::<u64>(names::RUNNING_TIME), Ok(10 * S));
        assert_eq!(structure.get::<u64>(names::UTC), Ok(utc));
        assert!(clock.look(&buffer, 5 * S).is_none(), "it is the same");
        clock.flush();
        assert!(clock.look(&buffer, 6 * S).is_some(), "a flush has dropped what was sent");
    }
}
