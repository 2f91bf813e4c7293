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

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use gst::prelude::*;

use super::absence::Absence;
use super::bus;
use super::clock;
use super::ending::{Closed, Start};
use super::form::Form;
use super::latm;
use super::login::{Login, Misled};
use super::plan::{self, Sound, Video};
use super::sink::{self, Storage};
use super::source::{self, Choice, is_installed};
use super::state::{Failure, StartReason};
use super::supervisor::Attempt;
use super::timestamps;
use super::torn;
use super::watch::{EventSender, Picture, PipelineEvent, Watch};
use crate::config::{Audio, Camera, Container, Password, Transport};
use gstgcstreamer::base::lock::lock;

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

    /// Handles a new pad of the source, which is one stream of the camera.
    fn on_pad(self: &Arc<Self>, pad: &gst::Pad) {
        if pad.direction() != gst::PadDirection::Src || self.is_ending() {
            return;
        }
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let Some(structure) = caps.structure(0) else { return };
        let is_rtp = structure.name() == "application/x-rtp";
        let text = |field| structure.get::<String>(field).unwrap_or_default();
        let (media, encoding) = match is_rtp {
            true => (text("media"), text("encoding-name")),
            false => {
                let name = structure.name().to_string();
                (name.split('/').next().unwrap_or_default().to_owned(), name)
            }
        };
        let video = if is_rtp {
            Video::of_rtp(&encoding)
        } else {
            Video::of_media(&encoding)
        };
        match media.as_str() {
            _ if is_rtp => {}
            "audio" => self.choice.note_waiting(),
            _ => self.choice.note_pictures(video, &encoding),
        }
        let added = match (media.as_str(), video) {
            ("video", Some(video)) if self.parts().video.is_none() => self.add_video(pad, video, is_rtp),
            // `select-stream` chose one stream of each kind, so a second pad is the same stream from another source (SSRC).
            ("video", _) if is_rtp => self.replace_feed(pad, true),
            ("audio", _) if is_rtp && self.parts().sound.is_some() => self.replace_feed(pad, false),
            ("audio", _) if self.wants_sound() => {
                let version = structure.get::<i32>("mpegversion").ok();
                self.add_sound(pad, (&encoding, version), is_rtp)
            }
            _ => self.add_nothing(pad),
        };
        if let Err(failure) = added {
            self.event_sender.send(PipelineEvent::Failed(failure));
        }
    }

    /// Feeds the branch from this pad instead of its present one.
    fn replace_feed(&self, pad: &gst::Pad, is_video: bool) -> Result<(), Failure> {
        let (old, bin) = {
            let mut parts = self.parts();
            let branch = if is_video {
                parts.video.as_mut()
            } else {
                parts.sound.as_mut()
            };
            let Some(branch) = branch else { return Ok(()) };
            (std::mem::replace(&mut branch.feed, pad.clone()), branch.bin.clone())
        };
        let to = bin.static_pad("sink").ok_or_else(|| internal(&"a pad is missing"))?;
        if old.unlink(&to).is_ok() {
            self.add_nothing(&old)?;
        }
        let other = |_| Failure::Changed("the camera sends another stream on the same connection".to_owned());
        pad.link(&to).map(drop).map_err(other)
    }

    fn wants_sound(&self) -> bool {
        self.setup.camera.audio != Audio::Off && self.parts().sound.is_none()
    }

    /// Discards the data of a pad. Without a link, the pad would return NOT_LINKED to the element behind it.
    fn add_nothing(&self, pad: &gst::Pad) -> Result<(), Failure> {
        let sink = gst::ElementFactory::make("fakesink")
            .property("sync", false)
            .property("async", false)
            .build()
            .map_err(|e| internal(&e))?;
        self.pipeline.add(&sink).map_err(|e| internal(&e))?;
        sink.sync_state_with_parent().map_err(|e| internal(&e))?;
        let to = sink.static_pad("sink").ok_or_else(|| internal(&"a pad is missing"))?;
        pad.link(&to).map(drop).map_err(|e| internal(&e))
    }

    /// Adds a branch that ends in a blocked queue. Calls `observe` with the pad in front of the queue.
    fn add_branch(
        &self,
        pad: &gst::Pad,
        line: &str,
        (video, is_rtp): (Option<Video>, bool),
        observe: impl FnOnce(&gst::Pad),
    ) -> Result<Branch, Failure> {
        let bin = gst::parse::bin_from_description(line, true).map_err(|e| internal(&e))?;
        if let Some(timestamper) = bin.by_name("timestamper") {
            timestamps::align(&timestamper);
        }
        if let Some(parser) = bin.by_name("parser")
            && let (Some(front), Some(back)) = (parser.static_pad("sink"), parser.static_pad("src"))
        {
            if let Some(video) = video {
                if is_rtp {
                    self.watch_slices(&front, video);
                }
                torn::drop_torn(&front, &back, video, is_rtp);
            }
            timestamps::separate(&back, &self.event_sender);
        }
        if let Some(depayloader) = bin.by_name("latm") {
            latm::strip_first_length(&depayloader);
        }
        let queue = bin.by_name("queue").ok_or_else(|| internal(&"no queue"))?;
        let (Some(front), Some(gate)) = (queue.static_pad("sink"), queue.static_pad("src")) else {
            return Err(internal(&"a pad is missing"));
        };
        answer_allocation(&front);
        observe(&front);
        let block = gate.add_probe(gst::PadProbeType::BLOCK_DOWNSTREAM, |_, _| gst::PadProbeReturn::Ok);
        if let Some(to) = bin
            .static_pad("sink")
            .filter(|_| is_rtp && video.is_some() && self.setup.distrusts_sets)
        {
            source::without_fields(&to, &["sprop-parameter-sets", "sprop-vps", "sprop-sps", "sprop-pps"]);
        }
        self.pipeline.add(&bin).map_err(|e| internal(&e))?;
        let link = || {
            bin.sync_state_with_parent().map_err(|e| internal(&e))?;
            let to = bin.static_pad("sink").ok_or_else(|| internal(&"a pad is missing"))?;
            pad.link(&to).map_err(|e| internal(&e))
        };
        if let Err(failure) = link() {
            // Remove the bin again: an unlinked branch would keep the pipeline from its end.
            let _ = bin.set_state(gst::State::Null);
            let _ = self.pipeline.remove(&bin);
            return Err(failure);
        }
        Ok(Branch {
            bin,
            feed: pad.clone(),
            gate,
            block,
        })
    }

    pub(super) fn add_video(&self, pad: &gst::Pad, video: Video, is_rtp: bool) -> Result<(), Failure> {
        let container = self.setup.camera.container;
        let line = video.line(is_rtp, container, &is_installed).map_err(Failure::Unsupported)?;
        let branch = self.add_branch(pad, &line, (Some(video), is_rtp), |front| self.watch_pictures(front, video))?;
        self.parts().video = Some(branch);
        if !is_rtp {
            self.event_sender.send(PipelineEvent::Opened);
        }
        Ok(())
    }

    /// Continues without sound and reports why.
    ///
    /// # Errors
    /// `audio = "require"` is set.
    fn leave_sound(&self, pad: &gst::Pad, why: String) -> Result<(), Failure> {
        if self.setup.camera.audio == Audio::Require {
            return Err(Failure::Unsupported(why));
        }
        self.event_sender.send(PipelineEvent::Soundless(why));
        self.add_nothing(pad)
    }

    fn add_sound(&self, pad: &gst::Pad, (encoding, version): (&str, Option<i32>), is_rtp: bool) -> Result<(), Failure> {
        let (line, label) = match plan::sound(encoding, version, is_rtp, self.setup.camera.container, &is_installed) {
            Sound::Recorded(line, label) => (line, label),
            Sound::Left(why) => return self.leave_sound(pad, why),
        };
        let branch = match self.add_branch(pad, &line, (None, is_rtp), |front| self.watch_sound(front)) {
            Ok(branch) => branch,
            Err(failure) => {
                let why = format!(
                    "the camera's sound is not recorded: {}; set the camera to AAC",
                    failure.text()
                );
                return self.leave_sound(pad, why);
            }
        };
        self.choice.note_sound();
        let outer = branch.bin.static_pad("src");
        let late = {
            let mut parts = self.parts();
            let late = parts.assembled;
            parts.sound_label = Some(label).filter(|_| !late);
            if late {
                self.watch.is_soundless.store(true, Ordering::Relaxed);
            }
            let branch = parts.sound.insert(branch);
            if late {
                branch.open();
            }
            late
        };
        match outer {
            // A muxer that runs accepts no new stream. The runner decides whether to start a recording with this sound.
            Some(outer) if late => self.add_nothing(&outer),
            _ => Ok(()),
        }
    }

    fn watch_sound(&self, front: &gst::Pad) {
        let (watch, event_sender, form) = (Arc::clone(&self.watch), self.event_sender.clone(), Form::default());
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        front.add_probe(kinds, move |_, info| {
            match &info.data {
                Some(gst::PadProbeData::Buffer(_)) if watch.closed.load(Ordering::Relaxed) => {
                    return gst::PadProbeReturn::Handled;
                }
                Some(gst::PadProbeData::Buffer(buffer)) if watch.on_sound(buffer.size() as u64) => {
                    event_sender.send(PipelineEvent::Flows)
                }
                Some(gst::PadProbeData::Event(event)) => {
                    if let gst::EventView::Caps(caps) = event.view()
                        && form.changes(caps.caps())
                        && !watch.is_soundless.load(Ordering::Relaxed)
                    {
                        watch.closed.store(true, Ordering::Relaxed);
                        event_sender.send(PipelineEvent::Failed(Failure::Changed(
                            "the camera's sound has changed".to_owned(),
                        )));
                        return gst::PadProbeReturn::Handled;
                    }
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Counts the slices in front of the parser. The parser holds back everything before the first parameter sets, so a camera
    /// that sends no key frame yet would look frozen behind it.
    fn watch_slices(&self, front: &gst::Pad, codec: Video) {
        let watch = Arc::clone(&self.watch);
        let on_buffer = move |buffer: &gst::BufferRef| {
            if buffer.map_readable().is_ok_and(|unit| torn::is_part(codec, &unit)) {
                watch.on_slice();
            }
        };
        front.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => on_buffer(buffer),
                Some(gst::PadProbeData::BufferList(list)) => list.iter().for_each(&on_buffer),
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    fn watch_pictures(&self, front: &gst::Pad, codec: Video) {
        let (watch, event_sender, ending) = (Arc::clone(&self.watch), self.event_sender.clone(), Arc::clone(&self.ending));
        // MPEG-TS carries the parameter sets in the stream. The others store them in a header, which their muxer cannot change
        // later.
        let keeps_header_apart = self.setup.camera.container != Container::MpegTs;
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        front.add_probe(kinds, move |_, info| {
            // After `closed` nothing but the EOS may reach the muxer: pictures of another size would follow in the same track.
            let is_end = matches!(&info.data, Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::Eos);
            if watch.closed.load(Ordering::Relaxed) && !is_end {
                return gst::PadProbeReturn::Handled;
            }
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    let is_key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
                    let time = buffer.pts().map(gst::ClockTime::nseconds);
                    if watch.on_picture(buffer.size() as u64, time, is_key) {
                        event_sender.send(PipelineEvent::Flows);
                    }
                }
                Some(gst::PadProbeData::Event(event)) => match event.view() {
                    gst::EventView::Caps(caps) => return on_caps(&watch, &event_sender, codec, caps.caps(), keeps_header_apart),
                    gst::EventView::Eos(_) if !ending.load(Ordering::Relaxed) => {
                        event_sender.send(PipelineEvent::Failed(Failure::Closed(ENDED.to_owned())));
                    }
                    _ => {}
                },
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Builds the right side and opens the queues. Blocks on the disk and on credentials, without holding a lock. Does nothing if
    /// it is already built, if there is no stream of pictures, or if the recording is ending.
    pub fn assemble(&self) {
        if let Some((video, sound)) = self.claim() {
            self.build_once(video.as_ref(), sound.as_ref());
        }
    }

    /// Claims the right to build the right side. Returns the source pads of the branches to the first caller, `None` to all later
    /// ones.
    pub(super) fn claim(&self) -> Option<(Option<gst::Pad>, Option<gst::Pad>)> {
        let mut parts = self.parts();
        if parts.assembled || self.is_ending() || parts.video.is_none() {
            return None;
        }
        parts.assembled = true;
        let outer = |branch: &Branch| branch.bin.static_pad("src");
        Some((parts.video.as_ref().and_then(outer), parts.sound.as_ref().and_then(outer)))
    }

    pub(super) fn build_once(&self, video: Option<&gst::Pad>, sound: Option<&gst::Pad>) {
        let build = || match video {
            Some(video) => self.build(video, sound),
            None => Err(internal(&"a pad is missing")),
        };
        // A panic must be reported as a failure: otherwise the queues stay blocked and the camera is reported as `no-key-frames`.
        let built = std::panic::catch_unwind(std::panic::AssertUnwindSafe(build));
        let built = built.unwrap_or_else(|_| Err(internal(&"a fault of the recorder itself, which standard error names")));
        self.built.set();
        if let Err(failure) = built {
            self.event_sender.send(PipelineEvent::Failed(failure));
        }
    }

    fn build(&self, video: &gst::Pad, sound: Option<&gst::Pad>) -> Result<(), Failure> {
        let (line, video_pad, sound_pad) = plan::muxer(self.setup.camera.container);
        let muxer = gst::parse::launch(line).map_err(|e| internal(&e))?;
        let sink = sink::make(&self.setup).map_err(|e| internal(&e))?;
        if let Some(pad) = sink.static_pad("sink") {
            self.closed.watch(&pad);
        }
        let status = self.make_status()?;
        self.pipeline.add_many([&muxer, &sink]).map_err(|e| internal(&e))?;
        muxer.link(&sink).map_err(|e| internal(&e))?;
        let request = |name: &str| {
            let pad = muxer.request_pad_simple(name);
            pad.ok_or_else(|| internal(&"the muxer takes no more streams"))
        };
        let into_video = request(video_pad)?;
        link_through(video, status.as_ref(), &into_video)?;
        // Link only sound that has already arrived: a muxer with a silent sound pad waits for it and outputs nothing.
        let mut into_muxer = None;
        match sound {
            Some(sound) if self.watch.sound_ages().is_some() => {
                let into = request(sound_pad)?;
                sound.link(&into).map_err(|e| internal(&e))?;
                into_muxer = Some(into);
            }
            Some(sound) => {
                self.watch.is_soundless.store(true, Ordering::Relaxed);
                self.add_nothing(sound)?;
            }
            None => {}
        }
        {
            let mut parts = self.parts();
            parts.sound_label = parts.sound_label.filter(|_| into_muxer.is_some());
            parts.sound_pad = into_muxer;
            parts.sink = Some(sink.clone());
            parts.status.clone_from(&status);
        }
        // Before the element below connects to the broker, which accepts only one connection with the same client id.
        self.setup.absence.end();
        for element in [&sink, &muxer] {
            // The element has posted an ERROR message with the cause, and the first failure of an attempt counts.
            let failed = |_| Failure::Internal("an element of the recorder does not start".to_owned());
            element.sync_state_with_parent().map_err(failed)?;
        }
        if let Some(status) = &status
            && status.sync_state_with_parent().is_err()
        {
            self.leave_status(status, video, &into_video)?;
        }
        let parts = &mut *self.parts();
        for branch in [&mut parts.video, &mut parts.sound].into_iter().flatten() {
            branch.open();
        }
        Ok(())
    }

    /// Creates the element that reports to the broker and adds it to the pipeline. Returns `None` if no broker is configured.
    fn make_status(&self) -> Result<Option<gst::Element>, Failure> {
        let status = self.setup.storage.status(&self.setup.camera).map_err(|e| internal(&e))?;
        if let Some(status) = &status {
            self.pipeline.add(status).map_err(|e| internal(&e))?;
        }
        Ok(status)
    }

    /// Removes the element that reports to the broker because it did not start; its own ERROR message gives the cause. The camera
    /// is recorded without it, and the next recording tries again.
    fn leave_status(&self, status: &gst::Element, video: &gst::Pad, into: &gst::Pad) -> Result<(), Failure> {
        self.parts().status = None;
        let _ = status.set_state(gst::State::Null);
        // Removing an element from its bin also unlinks its pads.
        self.pipeline.remove(status).map_err(|e| internal(&e))?;
        link_through(video, None, into)
    }

    /// Whether sound is recorded but has been missing for at least `after` while pictures arrived.
    pub fn has_lost_sound(&self, after: Duration) -> bool {
        self.parts().sound_pad.is_some() && self.watch.silence() >= after
    }

    /// Ends the sound track and continues without sound, because the muxer would wait for it for ever.
    pub fn close_sound(&self) {
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

/// Links two pads, through `element` if there is one.
fn link_through(from: &gst::Pad, element: Option<&gst::Element>, into: &gst::Pad) -> Result<(), Failure> {
    let Some(element) = element else {
        return from.link(into).map(drop).map_err(|e| internal(&e));
    };
    let (Some(front), Some(back)) = (element.static_pad("sink"), element.static_pad("src")) else {
        return Err(internal(&"a pad is missing"));
    };
    from.link(&front).map_err(|e| internal(&e))?;
    back.link(into).map(drop).map_err(|e| internal(&e))
}

/// Answers ALLOCATION queries in front of a queue. A queue handles them in order with its data, so the thread that asks would
/// block for as long as the queue is blocked.
fn answer_allocation(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| match &info.data {
        Some(gst::PadProbeData::Query(query)) if query.type_() == gst::QueryType::Allocation => gst::PadProbeReturn::Handled,
        _ => gst::PadProbeReturn::Ok,
    });
}

/// Handles new caps of the pictures. Another codec or size ends the attempt, because a muxer cannot change them in mid-stream.
/// Another header for the same pictures does not: the parser repeats the parameter sets in the stream.
// Returns `Handled`, not `Drop`: for a dropped event GStreamer 1.22 unrefs what the bindings have already taken.
fn on_caps(
    watch: &Watch,
    event_sender: &EventSender,
    codec: Video,
    caps: &gst::CapsRef,
    keeps_header_apart: bool,
) -> gst::PadProbeReturn {
    let number = |field| {
        let value = caps.structure(0).and_then(|s| s.get::<i32>(field).ok());
        value.and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
    };
    let picture = Picture {
        codec,
        width: number("width"),
        height: number("height"),
    };
    if watch.picture() == Some(picture) && keeps_header_apart {
        return gst::PadProbeReturn::Handled;
    }
    if let Some(before) = watch.on_kind(picture) {
        watch.closed.store(true, Ordering::Relaxed);
        if !watch.has_key() {
            event_sender.send(PipelineEvent::StaleSets);
        }
        let text = format!(
            "the picture changed from {}×{} to {}×{}",
            before.width, before.height, picture.width, picture.height
        );
        event_sender.send(PipelineEvent::Failed(Failure::Changed(text)));
        return gst::PadProbeReturn::Handled;
    }
    gst::PadProbeReturn::Ok
}
