//! Advises on settings of a camera while it is recorded: logs each advice once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Open, Runner, spawn};
use crate::camera::advice;
use crate::camera::watch::PipelineEvent;

/// How long the frame rate must stay below the declared one before this is logged: a scene that is hard to encode lowers it for a
/// moment.
const FEW_FOR: Duration = Duration::from_secs(10);
/// The time between two attempts to read the camera's clock.
const CLOCK_AGAIN: Duration = Duration::from_secs(5);
/// The most attempts to read the camera's clock: a camera that has sent no RTCP report within that minute sends none.
const CLOCK_TRIES: u8 = 12;

/// The advice already given.
#[derive(Debug, Default)]
pub(super) struct Advised {
    key_interval: bool,
    frame_rate: bool,
    clock: bool,
}

/// Measurements of one recording.
#[derive(Debug, Default)]
pub(super) struct SettingsWatch {
    /// When the frame rate fell below the declared one; `None`: it is not below.
    few_since: Option<Instant>,
    clock_tries: u8,
    clock_at: Option<Instant>,
}

impl Runner {
    /// Logs advice that follows from the current recording.
    pub(super) fn check_settings(&mut self) {
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
            open.settings_watch.few_since = match advice::is_slow(real, declared) {
                true => open.settings_watch.few_since.or(Some(Instant::now())),
                false => None,
            };
            let is_long = open.settings_watch.few_since.is_some_and(|since| since.elapsed() >= FEW_FOR);
            if let Some(text) = advice::frame_rate(real, declared).filter(|_| is_long) {
                self.advised.frame_rate = true;
                tracing::warn!(camera = id, "{text}");
            }
        }
        if !self.advised.clock {
            ask_for_clock(open);
        }
    }

    /// Handles a measurement of the camera's clock minus ours, in seconds.
    pub(super) fn on_clock(&mut self, error: f64) {
        // One measurement in each recording is enough.
        if let Some(open) = self.open.iter_mut().find(|open| open.ended.is_none()) {
            open.settings_watch.clock_tries = CLOCK_TRIES;
        }
        if let Some(text) = advice::clock(error).filter(|_| !self.advised.clock) {
            self.advised.clock = true;
            tracing::warn!(camera = self.job.camera.id, "{text}");
        }
    }
}

fn ask_for_clock(open: &mut Open) {
    let settings_watch = &mut open.settings_watch;
    let due = settings_watch
        .clock_at
        .or(open.first_picture)
        .is_some_and(|at| at.elapsed() >= CLOCK_AGAIN);
    if settings_watch.clock_tries >= CLOCK_TRIES || !due {
        return;
    }
    settings_watch.clock_tries += 1;
    settings_watch.clock_at = Some(Instant::now());
    let recording = Arc::clone(&open.recording);
    spawn("clock", move || {
        if let Some(error) = recording.clock_error() {
            recording.event_sender.send(PipelineEvent::Clock(error));
        }
    });
}
