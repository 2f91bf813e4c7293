//! Counters of the streaming thread: a few atomics and two clock readings per buffer, no lock.
//!
//! One thread writes at a time, the one that holds the pad's stream lock; any thread may read.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::Instant;

use tokio::sync::Notify;

use super::report::{Counts, Flow, Now, Push};

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Returns the time on a monotonic scale of the process, ns; never 0.
pub(super) fn mono() -> u64 {
    u64::try_from(EPOCH.elapsed().as_nanos())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

/// Returns the current moment on both scales.
pub(super) fn now() -> Now {
    Now {
        mono: mono(),
        wall: crate::base::wall::now(),
    }
}

/// Adds without a locked bus cycle: there is only one writer.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

/// A longer distance between key frames, ns, counts only if time has passed as well: cameras rarely have such distances, so it
/// may be a jump of the clock. Shorter ones always count, because a file is read faster than it plays.
const LONG_KEY_INTERVAL: u64 = 60_000_000_000;

/// Pushes of at least this length are recorded, ns. A push that waits for a muxer's other stream or for a clock is usually
/// shorter.
const LONG_PUSH: u64 = 1_000_000_000;

/// The counters of one element, and the signal that wakes its timer.
#[derive(Debug, Default)]
pub(super) struct Counters {
    frames: AtomicU64,
    bytes: AtomicU64,
    key_frames: AtomicU64,
    /// Presentation time of the last key frame plus 1, ns; 0 before the first.
    last_key: AtomicU64,
    /// When it arrived.
    last_key_at: AtomicU64,
    key_gaps: AtomicU64,
    key_span: AtomicU64,
    /// ns; 0 before the second key frame.
    last_key_gap: AtomicU64,
    /// 0 before the first buffer.
    last_frame: AtomicU64,
    /// When the current push began; 0 if there is none.
    pushing_since: AtomicU64,
    /// The last push that took [`LONG_PUSH`]; 0 before the first.
    long_push_began: AtomicU64,
    long_push_ended: AtomicU64,
    flow: AtomicU8,
    /// The next buffer wakes the timer.
    armed: AtomicBool,
    /// Wakes the timer: there is something to report.
    pub wake: Notify,
}

impl Counters {
    /// Sets everything to 0, at the start of a session.
    pub(super) fn reset(&self) {
        for counter in [
            &self.frames,
            &self.bytes,
            &self.key_frames,
            &self.last_key,
            &self.last_key_at,
            &self.key_gaps,
            &self.key_span,
            &self.last_key_gap,
            &self.last_frame,
            &self.pushing_since,
            &self.long_push_began,
            &self.long_push_ended,
        ] {
            counter.store(0, Relaxed);
        }
        self.flow.store(0, Relaxed);
    }

    /// Counts buffers that arrived at `now` and are about to be pushed.
    pub(super) fn enter(&self, now: u64, frames: u64, bytes: u64, key_frames: u64) {
        add(&self.frames, frames);
        add(&self.bytes, bytes);
        if key_frames > 0 {
            add(&self.key_frames, key_frames);
        }
        self.last_frame.store(now, Relaxed);
        self.pushing_since.store(now, Relaxed);
        if self.armed.load(Relaxed) {
            self.armed.store(false, Relaxed);
            self.wake.notify_one();
        }
    }

    /// Counts the distance to the previous key frame. `pts` is in ns. A `pts` that goes back (a seek), or that is further ahead
    /// than time has passed (a jump of the camera's clock), starts a new series.
    pub(super) fn key_frame(&self, pts: u64, now: u64) {
        let last = self.last_key.load(Relaxed);
        let this = pts.saturating_add(1);
        self.last_key.store(this, Relaxed);
        let passed = now.saturating_sub(self.last_key_at.load(Relaxed));
        self.last_key_at.store(now, Relaxed);
        let is_jump = |gap: u64| gap > LONG_KEY_INTERVAL && gap / 2 > passed;
        if last > 0 && this > last && !is_jump(this - last) {
            let gap = this - last;
            add(&self.key_gaps, 1);
            add(&self.key_span, gap);
            self.last_key_gap.store(gap, Relaxed);
        }
    }

    /// Records what downstream returned for the push, at `now`.
    pub(super) fn leave(&self, now: u64, flow: Result<gst::FlowSuccess, gst::FlowError>) {
        let began = self.pushing_since.load(Relaxed);
        if began > 0 && now.saturating_sub(began) >= LONG_PUSH {
            self.long_push_began.store(began, Relaxed);
            // After `long_push_began`, with `Release`: a reader that sees this end sees that beginning.
            self.long_push_ended.store(now, Release);
        }
        // Last: a reader that no longer sees the push must see its end, or the push would look like silence of the camera.
        self.pushing_since.store(0, Release);
        let code = match flow {
            // Flushing is not a failure: a seek or a stop begins with it.
            Ok(_) | Err(gst::FlowError::Flushing) => 0,
            Err(gst::FlowError::Eos) => 1,
            Err(gst::FlowError::NotLinked) => 2,
            Err(gst::FlowError::NotNegotiated) => 3,
            Err(_) => 4,
        };
        if self.flow.load(Relaxed) != code {
            self.flow.store(code, Relaxed);
            self.wake.notify_one();
        }
    }

    /// Sets whether the next buffer wakes the timer.
    pub(super) fn arm(&self, on: bool) {
        self.armed.store(on, Relaxed);
    }

    /// Reads all counters, one after the other: a buffer may be included in some of them only.
    pub(super) fn snapshot(&self) -> Counts {
        let some = |counter: &AtomicU64| Some(counter.load(Relaxed)).filter(|n| *n > 0);
        // In the reverse order of the writer.
        let pushing_since = Some(self.pushing_since.load(Acquire)).filter(|n| *n > 0);
        let long_push = Some(self.long_push_ended.load(Acquire)).filter(|n| *n > 0).map(|ended| Push {
            began: self.long_push_began.load(Relaxed),
            ended,
        });
        Counts {
            frames: self.frames.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            key_frames: self.key_frames.load(Relaxed),
            key_gaps: self.key_gaps.load(Relaxed),
            key_span: self.key_span.load(Relaxed),
            last_key_gap: some(&self.last_key_gap),
            last_frame: some(&self.last_frame),
            pushing_since,
            long_push,
            flow: match self.flow.load(Relaxed) {
                0 => Flow::Ok,
                1 => Flow::Eos,
                2 => Flow::NotLinked,
                3 => Flow::NotNegotiated,
                _ => Flow::Error,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    /// Returns the distances counted for key frames of these presentation times and arrivals, in seconds.
    fn gaps(frames: &[(u64, u64)]) -> (u64, u64) {
        let counters = Counters::default();
        for (pts, now) in frames {
            counters.key_frame(pts * S, now * S);
        }
        let counts = counters.snapshot();
        (counts.key_gaps, counts.key_span / S)
    }

    #[test]
    fn a_push_is_long_if_it_took_a_second_itself_whenever_it_is_looked_at() {
        let counters = Counters::default();
        for n in 0..100 {
            // Each push waits for a clock, and one is in progress at every snapshot.
            counters.enter(S + n * 100_000_000, 1, 1, 0);
            assert_eq!(counters.snapshot().long_push, None);
            counters.leave(S + n * 100_000_000 + 99_000_000, Ok(gst::FlowSuccess::Ok));
        }
        counters.enter(20 * S, 1, 1, 0);
        assert_eq!(counters.snapshot().long_push, None);
        counters.leave(25 * S, Ok(gst::FlowSuccess::Ok));
        let long = Push {
            began: 20 * S,
            ended: 25 * S,
        };
        counters.enter(26 * S, 1, 1, 0);
        counters.leave(26 * S, Ok(gst::FlowSuccess::Ok));
        assert_eq!(counters.snapshot().long_push, Some(long));
        // The end of a file in pull mode ends no push.
        counters.leave(90 * S, Err(gst::FlowError::Eos));
        assert_eq!(counters.snapshot().long_push, Some(long));
    }

    #[test]
    fn a_jump_of_the_cameras_clock_is_no_distance_between_key_frames() {
        let day = 86_400;
        assert_eq!(gaps(&[(0, 100), (2, 102), (day, 104), (day + 2, 106)]), (2, 4), "ahead");
        assert_eq!(gaps(&[(day, 100), (day + 2, 102), (0, 104), (2, 106)]), (2, 4), "back");
        assert_eq!(gaps(&[(0, 100), (90, 190), (180, 281)]), (2, 180), "a picture every 90 s");
        assert_eq!(gaps(&[(0, 100), (30, 100), (60, 100)]), (2, 60), "a file, read at once");
    }
}
