//! Rates of the stream, and how often and how long it stalled.

use std::collections::VecDeque;

use super::input::Counts;

/// Length of the window that rates are measured over, ns.
const WINDOW: u64 = 10_000_000_000;
/// Shortest time between two points of the window, ns.
const STEP: u64 = 900_000_000;

/// The counts at one moment.
#[derive(Clone, Copy, Debug)]
struct Point {
    at: u64,
    frames: u64,
    bytes: u64,
    key_gaps: u64,
    key_span: u64,
}

/// Rates over the window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub frames: Option<f64>,
    pub kbit: Option<f64>,
    pub key_interval: Option<f64>,
}

/// The points of the last ten seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct RateWindow {
    points: VecDeque<Point>,
}

impl RateWindow {
    /// Adds a point, at most one per [`STEP`].
    pub(super) fn note(&mut self, counts: &Counts, now: u64) {
        // Before the first buffer there is no rate.
        if counts.frames == 0 || self.points.back().is_some_and(|m| now < m.at.saturating_add(STEP)) {
            return;
        }
        self.points.push_back(Point {
            at: now,
            frames: counts.frames,
            bytes: counts.bytes,
            key_gaps: counts.key_gaps,
            key_span: counts.key_span,
        });
        // The first point stays until the second is old enough: the window is never shorter than its length.
        while self.points.get(1).is_some_and(|m| m.at.saturating_add(WINDOW) <= now) {
            self.points.pop_front();
        }
    }

    /// Returns the rates up to `now`; unknown until one step has passed.
    #[allow(clippy::cast_precision_loss, reason = "rates are for display")]
    pub(super) fn rates(&self, counts: &Counts, now: u64) -> Rates {
        let Some(first) = self.points.front().filter(|m| now >= m.at.saturating_add(STEP)) else {
            return Rates::default();
        };
        let seconds = now.saturating_sub(first.at) as f64 / 1e9;
        let frames = counts.frames.saturating_sub(first.frames) as f64;
        let bytes = counts.bytes.saturating_sub(first.bytes) as f64;
        let gaps = counts.key_gaps.saturating_sub(first.key_gaps);
        // If the window holds no distance between key frames, the last one known.
        let key_interval = if gaps == 0 {
            counts.last_key_gap.map(|gap| gap as f64)
        } else {
            Some(counts.key_span.saturating_sub(first.key_span) as f64 / gaps as f64)
        };
        Rates {
            frames: Some(frames / seconds),
            kbit: Some(bytes * 8.0 / 1000.0 / seconds),
            key_interval: key_interval.map(|ns| ns / 1e9),
        }
    }
}

/// Stalls of this session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// Stalls that have begun.
    pub count: u64,
    /// Sum of those that are over, ns.
    pub total: u64,
    /// Longest that is over, ns.
    pub longest: u64,
    /// When the current stall began, on the monotonic scale.
    pub since: Option<u64>,
}

impl Stalls {
    pub(super) fn begin(&mut self, since: u64) {
        if self.since.is_none() {
            self.count += 1;
            self.since = Some(since);
        }
    }

    /// Ends the current stall. Returns its length in ns; `None` if there is none.
    pub(super) fn end(&mut self, now: u64) -> Option<u64> {
        let length = now.saturating_sub(self.since.take()?);
        self.total = self.total.saturating_add(length);
        self.longest = self.longest.max(length);
        Some(length)
    }
}
