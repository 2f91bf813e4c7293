//! What is worth changing about a camera while it is recorded: a line in the log, once each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Open, Runner, spawn};
use crate::camera::advice;
use crate::camera::watch::News;

/// Pictures are fewer than declared for this long before it is said: a scene that is hard to encode passes.
const FEW_FOR: Duration = Duration::from_secs(10);
/// How often the camera's clock is asked for until it has told it.
const CLOCK_AGAIN: Duration = Duration::from_secs(5);
/// A camera that has sent no report by then sends none.
const CLOCK_TRIES: u8 = 12;

/// What has been said.
#[derive(Debug, Default)]
pub(super) struct Advised {
    key_interval: bool,
    frame_rate: bool,
    clock: bool,
}

/// What is looked at of one recording.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// Since when fewer pictures come than are declared.
    few_since: Option<Instant>,
    clock_tries: u8,
    clock_at: Option<Instant>,
}

impl Runner {
    /// Looks at what the present recording measures.
    pub(super) fn look_at_settings(&mut self) {
        let id = &self.job.camera.id;
        let Some(open) = self
            .open
            .iter_mut()
            .find(|open| open.ended.is_none() && open.first_picture.is_some())
        else {
            return;
        };
        let pace = open.recording.watch.pace();
        let interval = pace.key_interval.map(|ns| Duration::from_nanos(ns).as_secs_f64());
        if let Some(text) = interval.filter(|_| !self.advised.key_interval).and_then(advice::key_interval) {
            self.advised.key_interval = true;
            tracing::warn!(camera = id, "{text}");
        }
        if !self.advised.frame_rate
            && let (Some(real), Some(declared)) = (pace.fps, open.recording.declared_fps())
        {
            open.looked.few_since = match advice::is_slow(real, declared) {
                true => open.looked.few_since.or(Some(Instant::now())),
                false => None,
            };
            let is_long = open.looked.few_since.is_some_and(|since| since.elapsed() >= FEW_FOR);
            if let Some(text) = advice::frame_rate(real, declared).filter(|_| is_long) {
                self.advised.frame_rate = true;
                tracing::warn!(camera = id, "{text}");
            }
        }
        if !self.advised.clock {
            ask_for_clock(open);
        }
    }

    /// The camera's clock less ours, s.
    pub(super) fn on_clock(&mut self, error: f64) {
        // Asked for once a recording.
        if let Some(open) = self.open.iter_mut().find(|open| open.ended.is_none()) {
            open.looked.clock_tries = CLOCK_TRIES;
        }
        if let Some(text) = advice::clock(error).filter(|_| !self.advised.clock) {
            self.advised.clock = true;
            tracing::warn!(camera = self.job.camera.id, "{text}");
        }
    }
}

fn ask_for_clock(open: &mut Open) {
    let looked = &mut open.looked;
    let due = looked
        .clock_at
        .or(open.first_picture)
        .is_some_and(|at| at.elapsed() >= CLOCK_AGAIN);
    if looked.clock_tries >= CLOCK_TRIES || !due {
        return;
    }
    looked.clock_tries += 1;
    looked.clock_at = Some(Instant::now());
    let recording = Arc::clone(&open.recording);
    spawn("clock", move || {
        if let Some(error) = recording.clock_error() {
            recording.teller.tell(News::Clock(error));
        }
    });
}
