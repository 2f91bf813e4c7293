//! What the streaming thread counts: a few atomics and one look at the clock for each buffer, no lock.
//!
//! Only one thread counts at a time, that which holds the pad's stream lock; others read.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use tokio::sync::Notify;

use super::report::{Flow, Now, Tally};

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// ns on a scale of the process that only grows; never 0.
pub(super) fn mono() -> u64 {
    u64::try_from(EPOCH.elapsed().as_nanos())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

/// Now, on both scales.
pub(super) fn now() -> Now {
    Now {
        mono: mono(),
        wall: crate::wall::now(),
    }
}

/// There is one writer: an addition needs no bus lock.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Counters {
    frames: AtomicU64,
    bytes: AtomicU64,
    key_frames: AtomicU64,
    /// Presentation time of the last key frame, ns; 0: none yet, else one more.
    last_key: AtomicU64,
    key_gaps: AtomicU64,
    key_span: AtomicU64,
    last_key_gap: AtomicU64,
    /// 0: none yet.
    last_frame: AtomicU64,
    /// 0: none is under way.
    pushing_since: AtomicU64,
    flow: AtomicU8,
    /// The next buffer is news.
    armed: AtomicBool,
    /// There is something to look at.
    pub wake: Notify,
}

impl Counters {
    /// A session begins.
    pub(super) fn reset(&self) {
        for counter in [
            &self.frames,
            &self.bytes,
            &self.key_frames,
            &self.last_key,
            &self.key_gaps,
            &self.key_span,
            &self.last_key_gap,
            &self.last_frame,
            &self.pushing_since,
        ] {
            counter.store(0, Relaxed);
        }
        self.flow.store(0, Relaxed);
    }

    /// Buffers have come, and are pushed now.
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

    /// A key frame with this presentation time, ns. One that goes back, as after a seek, is the first of a new row.
    pub(super) fn key(&self, pts: u64) {
        let last = self.last_key.load(Relaxed);
        let this = pts.saturating_add(1);
        self.last_key.store(this, Relaxed);
        if last > 0 && this > last {
            let gap = this - last;
            add(&self.key_gaps, 1);
            add(&self.key_span, gap);
            self.last_key_gap.store(gap, Relaxed);
        }
    }

    /// Downstream has answered.
    pub(super) fn leave(&self, flow: Result<gst::FlowSuccess, gst::FlowError>) {
        self.pushing_since.store(0, Relaxed);
        let code = match flow {
            // Flushing says nothing of what is behind us.
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

    /// The next buffer wakes the timer, or not.
    pub(super) fn arm(&self, on: bool) {
        self.armed.store(on, Relaxed);
    }

    /// What has passed so far.
    pub(super) fn tally(&self) -> Tally {
        let some = |counter: &AtomicU64| Some(counter.load(Relaxed)).filter(|n| *n > 0);
        Tally {
            frames: self.frames.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            key_frames: self.key_frames.load(Relaxed),
            key_gaps: self.key_gaps.load(Relaxed),
            key_span: self.key_span.load(Relaxed),
            last_key_gap: some(&self.last_key_gap),
            last_frame: some(&self.last_frame),
            pushing_since: some(&self.pushing_since),
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
