//! Measures what a camera sends, for `probe`, with the left side of a recording's pipeline: no muxer, no sink.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use gst::prelude::*;
use tokio::sync::mpsc::unbounded_channel;

use super::absence::Absence;
use super::advice;
use super::ending::{self, Deadline};
use super::files::unusable_password;
use super::recording::{KINDS_WAIT, Recording, Setup};
use super::sink::Storage;
use super::state::{Failure, StartReason};
use super::watch::{EventSender, Picture, PipelineEvent};
use crate::config::{Camera, Secret};

/// How long to wait for the first picture.
const FIRST_PICTURE: Duration = Duration::from_secs(15);
/// How long to wait for the first picture if slices arrive: the parser outputs none before the next key frame.
const FIRST_KEY: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Seconds from 1900, where NTP begins, to 1970.
const NTP_TO_UNIX: i64 = 2_208_988_800;
/// Value of the clock error, in ms, if none was measured.
const NONE: i64 = i64::MIN;

/// The result of a measurement; `None` means unknown.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Why the measurement failed or ended early.
    pub failure: Option<Failure>,
    /// Codec and size.
    pub picture: Option<Picture>,
    /// Pictures received per second.
    pub fps: Option<f64>,
    /// Pictures per second that the stream declares.
    pub declared_fps: Option<f64>,
    /// Seconds between key frames.
    pub key_interval: Option<f64>,
    /// Bit rate of pictures and sound, kbit/s.
    pub kbit: Option<f64>,
    /// Codec of the sound that would be recorded.
    pub sound: Option<&'static str>,
    /// Why sound would not be recorded.
    pub soundless: Option<String>,
    /// The camera's clock minus ours, in s.
    pub clock_error: Option<f64>,
    /// How long pictures were measured.
    pub time: Duration,
}

/// Connects, measures for `time` from the first picture on, and closes the session. Blocks until then.
pub fn measure(camera: &Camera, storage: &Arc<Storage>, time: Duration) -> Measured {
    let (to, mut news) = unbounded_channel();
    let password = match camera.password.as_ref().map(Secret::read).transpose() {
        Ok(password) => password,
        Err(text) => {
            return Measured {
                failure: Some(unusable_password(&text)),
                ..Measured::default()
            };
        }
    };
    let setup = Setup {
        camera: camera.clone(),
        password,
        storage: Arc::clone(storage),
        reason: StartReason::RecorderStarted,
        previous_session: None,
        memory: crate::config::LEAST_MEMORY,
        absence: Arc::new(Absence::default()),
        is_storing: false,
        distrusts_sets: false,
    };
    let mut measured = Measured::default();
    let recording = match Recording::begin(setup, EventSender { attempt: 1, to }) {
        Ok(recording) => recording,
        Err(failure) => {
            measured.failure = Some(failure);
            return measured;
        }
    };
    let clock = watch_clock(&recording.source);
    let began = Instant::now();
    recording.play();
    let mut first: Option<(Instant, u64, u64)> = None;
    let (mut failed, mut closing) = (None, None);
    while failed.is_none() {
        while let Ok((_, news)) = news.try_recv() {
            match news {
                PipelineEvent::Failed(failure) => drop(failed.get_or_insert(failure)),
                PipelineEvent::Closing => drop(closing.get_or_insert_with(Instant::now)),
                PipelineEvent::Soundless(why) => measured.soundless = Some(why),
                _ => {}
            }
        }
        let watch = &recording.watch;
        match first {
            None if watch.frames() > 0 => first = Some((Instant::now(), watch.frames(), watch.bytes())),
            None => {
                let ended = closing.and_then(|at| recording.ended(at.elapsed()));
                failed = failed.or(ended).or_else(|| pictureless(&recording, began.elapsed()));
            }
            Some((at, ..)) if at.elapsed() >= time => break,
            _ => {}
        }
        std::thread::sleep(POLL);
    }
    measured.failure = failed;
    read(&recording, first, &mut measured);
    measured.clock_error = Some(clock.load(Ordering::Relaxed)).filter(|ms| *ms != NONE).map(seconds);
    ending::end(&recording, &Deadline::default());
    measured
}

/// Returns the failure if no picture has arrived after `waited`; `None` if it is too early to tell.
fn pictureless(recording: &Recording, waited: Duration) -> Option<Failure> {
    if waited < FIRST_PICTURE {
        return recording.unsupported(KINDS_WAIT);
    }
    let text = match recording.watch.slices() {
        0 => format!("no picture within {} s", FIRST_PICTURE.as_secs()),
        _ if waited < FIRST_KEY => return None,
        _ => format!("no key frame within {} s: {}", FIRST_KEY.as_secs(), advice::KEY_FRAMES),
    };
    Some(Failure::Frozen(text))
}

fn seconds(ms: i64) -> f64 {
    let length = Duration::from_millis(ms.unsigned_abs()).as_secs_f64();
    if ms < 0 { -length } else { length }
}

fn read(recording: &Recording, first: Option<(Instant, u64, u64)>, measured: &mut Measured) {
    let watch = &recording.watch;
    measured.picture = watch.picture();
    measured.sound = recording.sound_label().filter(|_| watch.sound_ages().is_some());
    measured.declared_fps = recording.declared_fps();
    let Some((at, frames, bytes)) = first else { return };
    measured.time = at.elapsed();
    let a_second = |count: u64| {
        let passed = u32::try_from(measured.time.as_millis().max(1)).unwrap_or(u32::MAX);
        f64::from(u32::try_from(count).unwrap_or(u32::MAX)) * 1000.0 / f64::from(passed)
    };
    measured.fps = Some(a_second(watch.frames().saturating_sub(frames)));
    // 125 bytes are a kbit.
    measured.kbit = Some(a_second(watch.bytes().saturating_sub(bytes) / 125));
    measured.key_interval = watch.pace().key_interval.map(|ns| Duration::from_nanos(ns).as_secs_f64());
}

/// Measures the camera's clock minus ours, in ms, from its RTCP. The value stays [`NONE`] if the camera sends none or GStreamer
/// is older than 1.22.
fn watch_clock(source: &gst::Element) -> Arc<AtomicI64> {
    let error = Arc::new(AtomicI64::new(NONE));
    if !source.has_property("add-reference-timestamp-meta") {
        return error;
    }
    source.set_property("add-reference-timestamp-meta", true);
    let into = Arc::clone(&error);
    source.connect_pad_added(move |_, pad| {
        let into = Arc::clone(&into);
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data
                && let Some(meta) = buffer.meta::<gst::ReferenceTimestampMeta>()
                && let Ok(now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)
            {
                let ms = |ns: u128| i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX);
                let camera = ms(u128::from(meta.timestamp().nseconds())).saturating_sub(NTP_TO_UNIX * 1000);
                into.store(camera.saturating_sub(ms(now.as_nanos())), Ordering::Relaxed);
            }
            gst::PadProbeReturn::Ok
        });
    });
    error
}
