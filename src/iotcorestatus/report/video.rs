//! Rates of what passes, and how often and how long nothing did.

use std::collections::VecDeque;

use super::Tally;

/// Rates are those of the last so many ns.
const WINDOW: u64 = 10_000_000_000;
/// Between two samples of the window, ns.
const STEP: u64 = 900_000_000;

/// What the caps say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// Media type, e.g. `video/x-h264`.
    pub media: Option<String>,
    /// Pixels.
    pub width: Option<u64>,
    /// Pixels.
    pub height: Option<u64>,
}

/// A tally at a time.
#[derive(Clone, Copy, Debug)]
struct Mark {
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

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    marks: VecDeque<Mark>,
}

impl Window {
    /// Notes the tally, at most once in [`STEP`].
    pub(super) fn note(&mut self, tally: &Tally, now: u64) {
        // Before the first buffer there is no rate.
        if tally.frames == 0 || self.marks.back().is_some_and(|m| now < m.at.saturating_add(STEP)) {
            return;
        }
        self.marks.push_back(Mark {
            at: now,
            frames: tally.frames,
            bytes: tally.bytes,
            key_gaps: tally.key_gaps,
            key_span: tally.key_span,
        });
        while self.marks.get(1).is_some_and(|m| m.at.saturating_add(WINDOW) <= now) {
            self.marks.pop_front();
        }
    }

    /// Rates until now; unknown before a second has passed.
    #[allow(clippy::cast_precision_loss, reason = "rates for people")]
    pub(super) fn rates(&self, tally: &Tally, now: u64) -> Rates {
        let Some(first) = self.marks.front().filter(|m| now >= m.at.saturating_add(STEP)) else {
            return Rates::default();
        };
        let seconds = now.saturating_sub(first.at) as f64 / 1e9;
        let frames = tally.frames.saturating_sub(first.frames) as f64;
        let bytes = tally.bytes.saturating_sub(first.bytes) as f64;
        let gaps = tally.key_gaps.saturating_sub(first.key_gaps);
        // Where the window holds none: the last one there was.
        let key_interval = if gaps == 0 {
            tally.last_key_gap.map(|gap| gap as f64)
        } else {
            Some(tally.key_span.saturating_sub(first.key_span) as f64 / gaps as f64)
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
    /// How many began.
    pub count: u64,
    /// Of those that are over, ns.
    pub total: u64,
    /// Longest that is over, ns.
    pub longest: u64,
    /// When the present one began, on the scale of the session.
    pub since: Option<u64>,
}

impl Stalls {
    pub(super) fn begin(&mut self, since: u64) {
        if self.since.is_none() {
            self.count += 1;
            self.since = Some(since);
        }
    }

    /// Ends the present one; how long it was.
    pub(super) fn end(&mut self, now: u64) -> Option<u64> {
        let length = now.saturating_sub(self.since.take()?);
        self.total = self.total.saturating_add(length);
        self.longest = self.longest.max(length);
        Some(length)
    }
}
