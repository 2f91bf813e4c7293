//! One attempt: a pipeline from the camera to the bucket, built once and never repaired.
//!
//! ```text
//! source ─► depay ─► parse ─► queue ║ ─► iotcorestatus ─► mux ─► gcssink
//!        └► depay ─► parse ─► queue ║ ──────────────────► mux
//! ```
//!
//! Only the left side exists at first, and the queues are blocked at ║. [`Recording::assemble`] builds the right side once the
//! pictures are known and sound has arrived or its waiting time is over, because muxers accept no new stream once they have
//! started. A camera that sends nothing therefore creates no session of `gcssink`.
//!
//! [`Recording::play`], [`Recording::assemble`] and `end` block on GStreamer: the runner calls them in threads of their own.
//!
//! `branches` is the left side, `build` the right one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use gst::prelude::*;

use super::absence::Absence;
use super::bus;
use super::clock;
use super::ending::{Closed, Start};
use super::login::{Login, Misled};
use super::sink::Storage;
use super::source::{self, Choice};
use super::state::{Failure, StartReason};
use super::supervisor::Attempt;
use super::watch::{EventSender, PipelineEvent, Watch};
use crate::config::{Audio, Camera, Password, Transport};
use gstgcstreamer::base::lock::lock;

mod branches;
mod build;

/// Failure text for a camera that closed its connection.
const ENDED: &str = "the camera has ended the stream";
/// How long to wait for a stream of pictures after the camera has closed its connection.
// The jitter buffer delays the first packets, over TCP by its latency of 500 ms. Packets that were read before the connection
// closed still come out of it.
pub(super) const PADS_WAIT: Duration = Duration::from_millis(750);
/// Outside RTSP: how long to wait for a stream that can be recorded after one that cannot. No description announces the streams
/// there.
pub(super) const KINDS_WAIT: Duration = Duration::from_secs(3);

/// Everything that a recording needs.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The camera.
    pub camera: Camera,
    /// Its password, if it has one.
    pub password: Option<Password>,
    /// Bucket, spool and broker.
    pub storage: Arc<Storage>,
    /// The property `start-reason`.
    pub reason: StartReason,
    /// The property `previous-session`.
    pub previous_session: Option<String>,
    /// The property `max-memory-bytes`.
    pub memory: u64,
    /// Reports the camera to the broker until this recording does.
    pub absence: Arc<Absence>,
    /// Whether the stream is stored. `probe` only measures it.
    pub is_storing: bool,
    /// Whether the parameter sets of the SDP are ignored, because they are not those of the stream.
    pub distrusts_sets: bool,
}

/// The pipeline of one attempt.
#[derive(Debug)]
pub struct Recording {
    pub(super) setup: Setup,
    pub(super) pipeline: gst::Pipeline,
    pub(super) source: gst::Element,
    pub(super) event_sender: EventSender,
    /// Counts what passes.
    pub watch: Arc<Watch>,
    choice: Arc<Choice>,
    pub(super) parts: Mutex<Parts>,
    /// The change to PLAYING, which may be in progress.
    pub(super) start: Start,
    /// The source has posted an ERROR.
    pub(super) has_failed: AtomicBool,
    /// Its end has begun: errors that elements post from now on are no failures of the attempt.
    pub(super) ending: Arc<AtomicBool>,
    /// Stop uploading its chunks: later recordings need the memory.
    pub(super) given_up: AtomicBool,
    /// Set when an EOS has reached the sink, from us or from a camera that ended its stream. The sink only uploads from then on.
    pub(super) closed: Arc<Closed>,
    /// Set when the right side is built or has failed to build.
    pub(super) built: Closed,
}

/// Elements that are added while the pipeline runs.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) video: Option<Branch>,
    pub(super) sound: Option<Branch>,
    pub(super) sink: Option<gst::Element>,
    /// Reports to the broker.
    pub(super) status: Option<gst::Element>,
    /// The muxer's pad for sound.
    sound_pad: Option<gst::Pad>,
    assembled: bool,
    /// The label `audio` of metrics.
    sound_label: Option<&'static str>,
}

/// One track up to its queue.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) bin: gst::Bin,
    /// The pad of the source that feeds it.
    pub(super) feed: gst::Pad,
    /// The queue's source pad, and the probe that blocks it.
    gate: gst::Pad,
    block: Option<gst::PadProbeId>,
}

impl Branch {
    pub(super) fn open(&mut self) {
        if let Some(block) = self.block.take() {
            self.gate.remove_probe(block);
        }
    }
}

fn internal(error: &impl std::fmt::Display) -> Failure {
    Failure::Internal(format!("the pipeline cannot be built: {error}"))
}

impl Recording {
    /// Creates the left side of the pipeline, not yet started. Everything that happens later is sent through `event_sender`.
    ///
    /// # Errors
    /// An element is not installed, or the pipeline cannot be built.
    pub fn begin(setup: Setup, event_sender: EventSender) -> Result<Arc<Self>, Failure> {
        let choice = Arc::new(Choice::default());
        let password = setup.password.as_ref().map(Password::clear);
        let watch = Arc::new(Watch::default());
        let source = source::make(&setup.camera, password, &choice, &event_sender, &watch)?;
        let pipeline = gst::Pipeline::with_name(&format!("camera-{}", event_sender.attempt));
        pipeline.add(&source).map_err(|e| internal(&e))?;
        let recording = Arc::new(Self {
            setup,
            pipeline,
            source,
            event_sender,
            watch,
            choice,
            parts: Mutex::default(),
            start: Start::default(),
            has_failed: AtomicBool::new(false),
            ending: Arc::new(AtomicBool::new(false)),
            given_up: AtomicBool::new(false),
            closed: Arc::default(),
            built: Closed::default(),
        });
        // Weak: the recording owns the source, so a strong reference would keep both for ever.
        let weak = Arc::downgrade(&recording);
        recording.source.connect_pad_added(move |_, pad| {
            if let Some(recording) = weak.upgrade() {
                recording.on_pad(pad);
            }
        });
        bus::listen(&recording);
        Ok(recording)
    }

    /// Starts the pipeline, unless its end has begun. Blocks on name resolution and sockets.
    pub fn play(&self) {
        let is_over = || self.is_ending();
        self.start.run(is_over, || {
            if self.pipeline.set_state(gst::State::Playing).is_err() && !is_over() {
                // The supervisor takes the first failure of an attempt. An ERROR message of the element is posted before
                // `set_state` returns, so its more precise text wins.
                let text = "the pipeline does not start".to_owned();
                self.event_sender.send(PipelineEvent::Failed(Failure::Internal(text)));
            }
        });
    }

    pub(super) fn parts(&self) -> MutexGuard<'_, Parts> {
        lock(&self.parts)
    }

    /// Returns the attempt's number.
    pub fn attempt(&self) -> Attempt {
        self.event_sender.attempt
    }

    /// Returns the sink, once the pipeline is built.
    pub fn sink(&self) -> Option<gst::Element> {
        self.parts().sink.clone()
    }

    /// Returns the label `audio` of metrics: the codec that is recorded.
    pub fn sound_label(&self) -> Option<&'static str> {
        self.parts().sound_label
    }

    /// Returns the frame rate that the stream declares, in frames per second.
    pub(super) fn declared_fps(&self) -> Option<f64> {
        let queue = self.parts().video.as_ref()?.bin.by_name("queue")?;
        let caps = queue.static_pad("sink")?.current_caps()?;
        let rate = caps.structure(0)?.get::<gst::Fraction>("framerate").ok()?;
        (rate.numer() > 0 && rate.denom() > 0).then(|| f64::from(rate.numer()) / f64::from(rate.denom()))
    }

    /// Returns the camera's clock minus ours, in seconds. Blocks until a packet arrives.
    pub(super) fn clock_error(&self) -> Option<f64> {
        let feed = self.parts().video.as_ref().map(|branch| branch.feed.clone())?;
        clock::error(&self.source, &feed)
    }

    /// Whether the right side has been built.
    pub fn is_assembled(&self) -> bool {
        self.parts().assembled
    }

    /// Whether sound is announced or required (`audio = "require"`) and has not arrived yet.
    pub fn waits_for_sound(&self) -> bool {
        let is_wanted = self.choice.has_sound() || self.setup.camera.audio == Audio::Require;
        is_wanted && self.watch.sound_ages().is_none()
    }

    /// Returns a failure if sound is required and has not arrived. Call it after the waiting time for announced sound.
    pub fn lacks_demanded_sound(&self) -> Option<Failure> {
        let is_lacking = self.setup.camera.audio == Audio::Require && self.watch.sound_ages().is_none();
        is_lacking.then(|| {
            let text = "the camera announces sound and sends none, and audio = \"require\"; switch its microphone on";
            Failure::Unsupported(text.to_owned())
        })
    }

    /// Outside RTSP: returns a failure if only streams that cannot be recorded have arrived, for at least `time`.
    pub fn unsupported(&self, time: Duration) -> Option<Failure> {
        self.fault().filter(|_| self.choice.has_others_alone(time))
    }

    /// Outside RTSP: returns the failure for data in which no stream was found.
    pub(super) fn no_streams(&self) -> Failure {
        self.choice.no_streams()
    }

    /// Returns a failure if the camera closed its connection at least [`PADS_WAIT`] ago and no stream of pictures has arrived.
    pub(super) fn ended(&self, ago: Duration) -> Option<Failure> {
        (ago >= PADS_WAIT && self.has_no_pictures()).then(|| {
            let unsupported = self.unsupported(Duration::ZERO);
            unsupported.unwrap_or_else(|| Failure::Closed(ENDED.to_owned()))
        })
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Returns what is wrong with the streams that the camera offers, if anything.
    pub fn fault(&self) -> Option<Failure> {
        self.choice.fault(&self.setup.camera)
    }

    /// Returns what was wrong with the camera's answers, in the cases that the source does not report.
    pub(super) fn misled(&self) -> Option<Misled> {
        self.choice.login.misled()
    }

    /// Returns the record of the requests to the camera.
    pub(super) fn login(&self) -> &Login {
        &self.choice.login
    }

    /// Whether a message of the source is about a connection that ended before its first picture. Always `false` unless the
    /// transport is TCP: over UDP the stream may continue without the control connection.
    pub(super) fn lost_before_pictures(&self, message: &gst::MessageRef) -> bool {
        let is_tcp = self.setup.camera.transport == Transport::Tcp;
        let is_source = message
            .src()
            .is_some_and(|src| src == self.source.upcast_ref::<gst::Object>());
        is_tcp && is_source && !self.is_ending() && self.has_no_pictures()
    }

    /// Whether no stream of pictures has arrived.
    pub(super) fn has_no_pictures(&self) -> bool {
        self.parts().video.is_none()
    }

    /// Reports the streams as opened, or what is wrong with them. Called when the source has set up all of them.
    pub(super) fn on_opened(&self) {
        self.choice.login.note_open();
        match self.fault() {
            Some(failure) => self.event_sender.send(PipelineEvent::Failed(failure)),
            None => self.event_sender.send(PipelineEvent::Opened),
        }
        if let Some(why) = self.choice.soundless() {
            self.event_sender.send(PipelineEvent::Soundless(why));
        }
    }

    /// Whether sound is recorded but has been missing for at least `after` while pictures arrived.
    pub fn has_lost_sound(&self, after: Duration) -> bool {
        self.parts().sound_pad.is_some() && self.watch.silence() >= after
    }

    /// Ends the sound track and continues without sound, because the muxer would wait for it for ever.
    pub fn close_sound(&self) {
        // The lock is released before GStreamer is called: a message that is posted meanwhile may need it (`bus`).
        let (pad, branch) = {
            self.watch.is_soundless.store(true, Ordering::Relaxed);
            let mut parts = self.parts();
            parts.sound_label = None;
            let outer = parts.sound.as_ref().and_then(|branch| branch.bin.static_pad("src"));
            (parts.sound_pad.take(), outer)
        };
        let (Some(pad), Some(branch)) = (pad, branch) else { return };
        let _ = branch.unlink(&pad);
        let _ = self.add_nothing(&branch);
        pad.send_event(gst::event::Eos::new());
    }
}
