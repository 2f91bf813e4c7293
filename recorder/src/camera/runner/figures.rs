//! Reads the counters of a camera's recordings four times a second (pictures, sound, bytes) and finds recordings that do not end.
//!
//! May read properties of GStreamer elements. Anything that blocks runs in a thread of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::{Open, Runner, STUCK, spawn};
use crate::camera::bus;
use crate::camera::recording::KINDS_WAIT;
use crate::camera::sink::Limits;
use crate::camera::state::{Failure, State};
use crate::camera::stats::{self, grow};
use crate::camera::supervisor::{Attempt, Event};
use crate::camera::watch::SOUND_LOST;
use crate::spread;

/// How long to wait for announced sound after the first picture.
const SOUND_WAIT: Duration = Duration::from_secs(3);
/// How long sound that starts later must last before the recording starts again with it.
const SOUND_LASTS: Duration = Duration::from_secs(10);
/// The least time between two rebuilds for late sound.
// A rebuild reconnects to the camera, which costs pictures.
const SOUND_APART: Duration = Duration::from_secs(3600);

impl Open {
    fn take_limits(&mut self, limits: Limits) {
        if self.limits != Some(limits)
            && let Some(sink) = self.recording.sink()
        {
            limits.set_on(&sink);
            self.limits = Some(limits);
        }
    }
}

impl Runner {
    /// Reads the counters of all recordings and acts on them.
    pub(super) fn poll(&mut self) {
        for open in &mut self.open {
            bus::drain(&open.recording);
            open.take_limits(self.job.storage.limits);
            if let Some(sink) = open.recording.sink() {
                let now = stats::of(&sink);
                grow(&mut self.report.dropped_bytes, open.seen.bytes_dropped, now.bytes_dropped);
                let mut retries = 0;
                grow(&mut retries, open.seen.retries, now.retries);
                self.job.board.count_retries(retries);
                open.seen = now;
                open.note_session();
            }
            let bytes = open.recording.watch.bytes();
            grow(&mut self.report.received_bytes, open.bytes, bytes);
            open.bytes = bytes;
        }
        self.give_up_stuck();
        self.check_kinds();
        self.check_closing();
        self.check_arrivals();
        self.check_pictures();
        self.check_sets();
        self.spread_cuts();
        self.check_sound();
        self.check_files();
        self.check_password();
        self.check_settings();
        if let Some(open) = self.current()
            && let Some(sink) = open.recording.sink()
        {
            // Ended recordings release memory as their chunks are stored: give it to the current sink. Its own bytes are not part
            // of what is left.
            let (others, own) = (self.memory_left(), open.seen.bytes_in_memory);
            sink.set_property("max-memory-bytes", others.saturating_add(own).min(self.job.memory));
        }
    }

    fn give_up_stuck(&mut self) {
        let is_stuck = |open: &&mut Open| !open.is_gone && open.ended.is_some_and(|at| at.elapsed() > STUCK);
        let stuck: Vec<Attempt> = self
            .open
            .iter_mut()
            .filter(is_stuck)
            .map(|open| open.recording.attempt())
            .collect();
        for attempt in stuck {
            self.job.board.count_stuck();
            tracing::warn!(
                camera = self.job.camera.id,
                "a pipeline did not end within {} s and is left behind; restart the recorder if this repeats",
                STUCK.as_secs()
            );
            self.gone(attempt);
        }
    }

    fn check_kinds(&mut self) {
        let failed = self
            .current()
            .and_then(|open| Some((open.recording.attempt(), open.recording.unsupported(KINDS_WAIT)?)));
        if let Some((attempt, failure)) = failed {
            self.event(Event::Failed(attempt, failure));
        }
    }

    /// Fails an attempt whose camera closed the connection before its first picture. Waits first: packets that the source has
    /// already read may still become pictures, and such a stream reports its end by its own EOS.
    fn check_closing(&mut self) {
        let lost = self
            .current()
            .and_then(|open| Some((open.recording.attempt(), open.recording.ended(open.closing?.elapsed())?)));
        if let Some((attempt, failure)) = lost {
            self.event(Event::Failed(attempt, failure));
        }
    }

    /// Outside RTSP: counts bytes as an answer of the camera, even before a stream is found in them.
    fn check_arrivals(&mut self) {
        let arrived = self.current().filter(|open| open.recording.watch.take_arrival());
        if let Some(attempt) = arrived.map(|open| open.recording.attempt()) {
            self.event(Event::Answered(attempt));
        }
    }

    /// Uses the parameter sets of the SDP again if the stream turns out to carry none: without any the parser outputs no picture.
    fn check_sets(&mut self) {
        let is_stuck = self.distrusts_sets && self.supervisor.condition().state == State::NoKeyFrames;
        let stuck = self.current().filter(|open| {
            let (recording, watch) = (&open.recording, &open.recording.watch);
            is_stuck && recording.setup.distrusts_sets && watch.frames() == 0 && watch.slices() > 0
        });
        if let Some(attempt) = stuck.map(|open| open.recording.attempt()) {
            self.distrusts_sets = false;
            let text = "no parameter sets come in the stream: those of the description count again";
            self.event(Event::Failed(attempt, Failure::Changed(text.to_owned())));
        }
    }

    fn check_pictures(&mut self) {
        let Some(open) = self.open.iter_mut().find(|open| open.ended.is_none()) else {
            return;
        };
        let (attempt, watch, keys) = (open.recording.attempt(), &open.recording.watch, open.seen.key_units);
        let (frames, slices) = (watch.frames(), watch.slices());
        if (frames, slices, keys) == (open.frames, open.slices, open.keys) {
            return;
        }
        let (came, key) = (frames > open.frames || slices > open.slices, keys > open.keys);
        (open.frames, open.slices, open.keys) = (frames, slices, keys);
        let first = match frames {
            0 => Instant::now(),
            _ => *open.first_picture.get_or_insert_with(Instant::now),
        };
        let recording = Arc::clone(&open.recording);
        if frames > 0 && !recording.is_assembled() && (!recording.waits_for_sound() || first.elapsed() >= SOUND_WAIT) {
            // Outside RTSP no description announces the streams, so only now is it known that required sound is missing.
            if let Some(failure) = recording.fault().or_else(|| recording.lacks_demanded_sound()) {
                self.event(Event::Failed(attempt, failure));
                return;
            }
            spawn("build", move || recording.assemble());
        }
        self.event(match came {
            true => Event::Pictures { attempt, key },
            false => Event::KeyFrame(attempt),
        });
    }

    /// Cuts the first chunk at the camera's own moment (see [`spread`]), so that the chunks of a fleet do not all end in the same
    /// second.
    fn spread_cuts(&mut self) {
        let camera = &self.job.camera;
        let Some(open) = self.open.iter_mut().find(|open| open.ended.is_none() && !open.is_spread) else {
            return;
        };
        let due = spread::first_cut(&camera.id, camera.max_size_time);
        let Some(age) = open.first_picture.map(|first| first.elapsed()).filter(|age| *age >= due) else {
            return;
        };
        let Some(sink) = open.recording.sink().filter(|_| open.seen.key_units > 0) else {
            return;
        };
        open.is_spread = true;
        // An older first chunk has already been cut by its length.
        if age < camera.max_size_time {
            spawn("split", move || sink.emit_by_name::<()>("split-now", &[]));
        }
    }

    fn check_sound(&mut self) {
        let Some(recording) = self.current().map(|open| Arc::clone(&open.recording)) else {
            return;
        };
        if recording.has_lost_sound(SOUND_LOST) {
            tracing::warn!(
                camera = self.job.camera.id,
                "the camera's sound has stopped; the recording goes on without it"
            );
            spawn("sound", move || recording.close_sound());
            return;
        }
        let has_late_sound = recording.is_assembled()
            && recording.sound_label().is_none()
            && recording
                .watch
                .sound_ages()
                .is_some_and(|(first, last)| first >= SOUND_LASTS && last < SOUND_LOST);
        if has_late_sound && self.last_sound_rebuild.is_none_or(|at| at.elapsed() >= SOUND_APART) {
            self.last_sound_rebuild = Some(Instant::now());
            let failure = Failure::Changed("the camera sends sound now".to_owned());
            self.event(Event::Failed(recording.attempt(), failure));
        }
    }

    /// While a camera refuses the login, reads its password file again and again. A changed password is tried at once; the same
    /// one is not sent again before its pause is over, because cameras lock accounts.
    fn check_password(&mut self) {
        let is_due = self.job.camera.password.is_some() && self.files.is_due();
        if is_due && self.supervisor.condition().state == State::Refused && self.current().is_none() && self.reading.is_none() {
            self.read_files();
        }
    }
}
