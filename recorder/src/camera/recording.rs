//! One attempt: a pipeline from the camera to the bucket, built once and never repaired.
//!
//! ```text
//! source ─► depay ─► parse ─► queue ║ ─► iotcorestatus ─► mux ─► gcssink
//!        └► depay ─► parse ─► queue ║ ──────────────────► mux
//! ```
//!
//! Only the left side exists at first; the queues are blocked at ║. When the pictures are known, and sound has come or has been waited
//! for, [`Recording::assemble`] builds the right side: muxers take no stream later. So a camera that sends nothing makes no session of
//! `gcssink` either.
//!
//! Blocks on GStreamer: the runner calls [`Recording::begin`], [`Recording::assemble`] and `end` in threads of their own.

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
use super::watch::{News, Picture, Teller, Watch};
use crate::config::{Audio, Camera, Container, Password, Transport};
use gstgcstreamer::base::lock::lock;

/// Reason of a camera that has closed its connection.
const ENDED: &str = "the camera has ended the stream";
/// What the source has read before a camera closed its connection may wait for its turn: the jitter buffer holds back the first packets,
/// over TCP for half a second.
pub(super) const PADS_WAIT: Duration = Duration::from_millis(750);
/// Outside RTSP another stream may follow one that cannot be recorded.
pub(super) const KINDS_WAIT: Duration = Duration::from_secs(3);

/// What a recording is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The camera.
    pub camera: Camera,
    /// Its password.
    pub password: Option<Password>,
    /// Where to.
    pub storage: Arc<Storage>,
    /// The property `start-reason`.
    pub reason: StartReason,
    /// The property `previous-session`.
    pub previous_session: Option<String>,
    /// The property `max-memory-bytes`.
    pub memory: u64,
    /// What the broker learns of the camera until this recording reports it.
    pub absence: Arc<Absence>,
    /// Whether it is to be stored, or only measured.
    pub is_storing: bool,
    /// The parameter sets of its description are not those of its stream.
    pub distrusts_sets: bool,
}

/// The pipeline of one attempt.
#[derive(Debug)]
pub struct Recording {
    pub(super) setup: Setup,
    pub(super) pipeline: gst::Pipeline,
    pub(super) source: gst::Element,
    pub(super) teller: Teller,
    /// What passes.
    pub watch: Arc<Watch>,
    choice: Arc<Choice>,
    pub(super) parts: Mutex<Parts>,
    /// Connects, perhaps at this moment.
    pub(super) start: Start,
    /// The source has posted an ERROR.
    pub(super) has_failed: AtomicBool,
    /// Its end has begun: what elements say from now on is no news.
    pub(super) ending: Arc<AtomicBool>,
    /// Its chunks are waited for no longer: later ones need the memory.
    pub(super) given_up: AtomicBool,
    /// An EOS has come to its sink, ours or that of a camera that ended the stream: it stores what it has from then on.
    pub(super) closed: Arc<Closed>,
    /// The right side is built, or cannot be.
    pub(super) built: Closed,
}

/// Elements that come one by one.
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
    /// Makes the pipeline and connects to the camera. What happens then is reported.
    ///
    /// # Errors
    /// An element is missing.
    pub fn begin(setup: Setup, teller: Teller) -> Result<Arc<Self>, Failure> {
        let choice = Arc::new(Choice::default());
        let password = setup.password.as_ref().map(Password::clear);
        let watch = Arc::new(Watch::default());
        let source = source::make(&setup.camera, password, &choice, &teller, &watch)?;
        let pipeline = gst::Pipeline::with_name(&format!("camera-{}", teller.attempt));
        pipeline.add(&source).map_err(|e| internal(&e))?;
        let recording = Arc::new(Self {
            setup,
            pipeline,
            source,
            teller,
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
        let weak = Arc::downgrade(&recording);
        recording.source.connect_pad_added(move |_, pad| {
            if let Some(recording) = weak.upgrade() {
                recording.on_pad(pad);
            }
        });
        bus::listen(&recording);
        Ok(recording)
    }

    /// Starts it, unless its end has begun. Blocks on names and sockets.
    pub fn play(&self) {
        let is_over = || self.is_ending();
        self.start.run(is_over, || {
            if self.pipeline.set_state(gst::State::Playing).is_err() && !is_over() {
                // Its ERROR message says more, if there is one: it comes first.
                let text = "the pipeline does not start".to_owned();
                self.teller.tell(News::Failed(Failure::Internal(text)));
            }
        });
    }

    pub(super) fn parts(&self) -> MutexGuard<'_, Parts> {
        lock(&self.parts)
    }

    /// Returns the attempt's number.
    pub fn attempt(&self) -> Attempt {
        self.teller.attempt
    }

    /// Returns the sink, once the pipeline is built.
    pub fn sink(&self) -> Option<gst::Element> {
        self.parts().sink.clone()
    }

    /// Returns the label `audio` of metrics: the codec that is recorded.
    pub fn sound_label(&self) -> Option<&'static str> {
        self.parts().sound_label
    }

    /// Returns the pictures a second that the stream declares.
    pub(super) fn declared_fps(&self) -> Option<f64> {
        let queue = self.parts().video.as_ref()?.bin.by_name("queue")?;
        let caps = queue.static_pad("sink")?.current_caps()?;
        let rate = caps.structure(0)?.get::<gst::Fraction>("framerate").ok()?;
        (rate.numer() > 0 && rate.denom() > 0).then(|| f64::from(rate.numer()) / f64::from(rate.denom()))
    }

    /// Returns the camera's clock less ours, s. Waits for a packet.
    pub(super) fn clock_error(&self) -> Option<f64> {
        let feed = self.parts().video.as_ref().map(|branch| branch.feed.clone())?;
        clock::error(&self.source, &feed)
    }

    /// Whether the right side has been built.
    pub fn is_assembled(&self) -> bool {
        self.parts().assembled
    }

    /// Whether sound is on its way that has not come yet, or is demanded.
    pub fn waits_for_sound(&self) -> bool {
        let is_wanted = self.choice.has_sound() || self.setup.camera.audio == Audio::Require;
        is_wanted && self.watch.sound_ages().is_none()
    }

    /// What is wrong where sound is demanded, was announced and waited for, and has not come.
    pub fn lacks_demanded_sound(&self) -> Option<Failure> {
        let is_lacking = self.setup.camera.audio == Audio::Require && self.watch.sound_ages().is_none();
        is_lacking.then(|| {
            let text = "the camera announces sound and sends none, and audio = \"require\"; switch its microphone on";
            Failure::Unsupported(text.to_owned())
        })
    }

    /// What is wrong where pictures of kinds that cannot be recorded have come alone for so long, outside RTSP.
    pub fn unsupported(&self, time: Duration) -> Option<Failure> {
        self.fault().filter(|_| self.choice.has_others_alone(time))
    }

    /// What is wrong where nothing was found in what came outside RTSP.
    pub(super) fn no_streams(&self) -> Failure {
        self.choice.no_streams()
    }

    /// What is wrong where the camera closed its connection this long ago, and no stream of pictures has come.
    pub(super) fn ended(&self, ago: Duration) -> Option<Failure> {
        (ago >= PADS_WAIT && self.has_no_pictures()).then(|| {
            let unsupported = self.unsupported(Duration::ZERO);
            unsupported.unwrap_or_else(|| Failure::Closed(ENDED.to_owned()))
        })
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// What is wrong with the camera's streams.
    pub fn fault(&self) -> Option<Failure> {
        self.choice.fault(&self.setup.camera)
    }

    /// What was wrong with the camera's answers, where the source does not say so.
    pub(super) fn misled(&self) -> Option<Misled> {
        self.choice.login.misled()
    }

    /// What is noted of the requests to the camera.
    pub(super) fn login(&self) -> &Login {
        &self.choice.login
    }

    /// Whether a message of the source is about a connection that has ended before its first picture. Over UDP the stream may go on without it.
    pub(super) fn lost_before_pictures(&self, message: &gst::MessageRef) -> bool {
        let is_tcp = self.setup.camera.transport == Transport::Tcp;
        let is_source = message
            .src()
            .is_some_and(|src| src == self.source.upcast_ref::<gst::Object>());
        is_tcp && is_source && !self.is_ending() && self.has_no_pictures()
    }

    /// Whether no stream of pictures has come.
    pub(super) fn has_no_pictures(&self) -> bool {
        self.parts().video.is_none()
    }

    /// The camera's streams are known: what is wrong with them.
    pub(super) fn on_opened(&self) {
        self.choice.login.note_open();
        match self.fault() {
            Some(failure) => self.teller.tell(News::Failed(failure)),
            None => self.teller.tell(News::Opened),
        }
        if let Some(why) = self.choice.soundless() {
            self.teller.tell(News::Soundless(why));
        }
    }

    /// A stream of the camera.
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
            // One stream of each kind was chosen: this is the same one, from another source (SSRC).
            ("video", _) if is_rtp => self.replace_feed(pad, true),
            ("audio", _) if is_rtp && self.parts().sound.is_some() => self.replace_feed(pad, false),
            ("audio", _) if self.wants_sound() => {
                let version = structure.get::<i32>("mpegversion").ok();
                self.add_sound(pad, (&encoding, version), is_rtp)
            }
            _ => self.add_nothing(pad),
        };
        if let Err(failure) = added {
            self.teller.tell(News::Failed(failure));
        }
    }

    /// Goes on with what comes from this pad.
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

    /// Adds a branch that ends in a blocked queue. `observe` gets the pad in front of the queue.
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
            timestamps::separate(&back, &self.teller);
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
            // What is not linked would keep the pipeline from its end.
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
            self.teller.tell(News::Opened);
        }
        Ok(())
    }

    /// Goes on without sound, unless it is demanded.
    fn leave_sound(&self, pad: &gst::Pad, why: String) -> Result<(), Failure> {
        if self.setup.camera.audio == Audio::Require {
            return Err(Failure::Unsupported(why));
        }
        self.teller.tell(News::Soundless(why));
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
            // Muxers take no stream later: the runner decides whether to start again.
            Some(outer) if late => self.add_nothing(&outer),
            _ => Ok(()),
        }
    }

    fn watch_sound(&self, front: &gst::Pad) {
        let (watch, teller, form) = (Arc::clone(&self.watch), self.teller.clone(), Form::default());
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        front.add_probe(kinds, move |_, info| {
            match &info.data {
                Some(gst::PadProbeData::Buffer(_)) if watch.closed.load(Ordering::Relaxed) => {
                    return gst::PadProbeReturn::Handled;
                }
                Some(gst::PadProbeData::Buffer(buffer)) if watch.on_sound(buffer.size() as u64) => teller.tell(News::Flows),
                Some(gst::PadProbeData::Event(event)) => {
                    if let gst::EventView::Caps(caps) = event.view()
                        && form.changes(caps.caps())
                        && !watch.is_soundless.load(Ordering::Relaxed)
                    {
                        watch.closed.store(true, Ordering::Relaxed);
                        teller.tell(News::Failed(Failure::Changed("the camera's sound has changed".to_owned())));
                        return gst::PadProbeReturn::Handled;
                    }
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// In front of the parser: it holds back what comes before the first parameter sets, and the camera is not frozen then.
    fn watch_slices(&self, front: &gst::Pad, codec: Video) {
        let watch = Arc::clone(&self.watch);
        let look = move |buffer: &gst::BufferRef| {
            if buffer.map_readable().is_ok_and(|unit| torn::is_part(codec, &unit)) {
                watch.on_slice();
            }
        };
        front.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => look(buffer),
                Some(gst::PadProbeData::BufferList(list)) => list.iter().for_each(&look),
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    fn watch_pictures(&self, front: &gst::Pad, codec: Video) {
        let (watch, teller, ending) = (Arc::clone(&self.watch), self.teller.clone(), Arc::clone(&self.ending));
        let keeps_header_apart = self.setup.camera.container != Container::MpegTs;
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        front.add_probe(kinds, move |_, info| {
            // The muxer takes no more than its end.
            let is_end = matches!(&info.data, Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::Eos);
            if watch.closed.load(Ordering::Relaxed) && !is_end {
                return gst::PadProbeReturn::Handled;
            }
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    let is_key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
                    let time = buffer.pts().map(gst::ClockTime::nseconds);
                    if watch.on_picture(buffer.size() as u64, time, is_key) {
                        teller.tell(News::Flows);
                    }
                }
                Some(gst::PadProbeData::Event(event)) => match event.view() {
                    gst::EventView::Caps(caps) => return on_caps(&watch, &teller, codec, caps.caps(), keeps_header_apart),
                    gst::EventView::Eos(_) if !ending.load(Ordering::Relaxed) => {
                        teller.tell(News::Failed(Failure::Closed(ENDED.to_owned())));
                    }
                    _ => {}
                },
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Builds the right side and lets the data through. Blocks on the disk and on credentials, without a lock.
    pub fn assemble(&self) {
        if let Some((video, sound)) = self.claim() {
            self.build_once(video.as_ref(), sound.as_ref());
        }
    }

    /// Whoever builds the right side gets the pads that it begins at; nobody else does after that.
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
        // A fault of ours is a failure as well: without news of it the camera would seem to send no key frames.
        let built = std::panic::catch_unwind(std::panic::AssertUnwindSafe(build));
        let built = built.unwrap_or_else(|_| Err(internal(&"a fault of the recorder itself, which standard error names")));
        self.built.set();
        if let Err(failure) = built {
            self.teller.tell(News::Failed(failure));
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
        // Sound that has not come by now is not waited for: the muxer would.
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
        self.setup.absence.end();
        for element in [&sink, &muxer] {
            // Its own ERROR message says why.
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

    /// Makes the element that reports to the broker, in the pipeline.
    fn make_status(&self) -> Result<Option<gst::Element>, Failure> {
        let status = self.setup.storage.status(&self.setup.camera).map_err(|e| internal(&e))?;
        if let Some(status) = &status {
            self.pipeline.add(status).map_err(|e| internal(&e))?;
        }
        Ok(status)
    }

    /// Goes on without the element that reports to the broker: it does not start, and its own ERROR message says why. The next recording
    /// tries it again.
    fn leave_status(&self, status: &gst::Element, video: &gst::Pad, into: &gst::Pad) -> Result<(), Failure> {
        self.parts().status = None;
        let _ = status.set_state(gst::State::Null);
        // Its links go with it.
        self.pipeline.remove(status).map_err(|e| internal(&e))?;
        link_through(video, None, into)
    }

    /// Whether sound is recorded that has not come while pictures came for this long.
    pub fn has_lost_sound(&self, after: Duration) -> bool {
        self.parts().sound_pad.is_some() && self.watch.silence() >= after
    }

    /// Goes on without sound: the muxer would wait for it for ever.
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

/// Links two pads, with an element between them if there is one.
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

/// A queue passes these queries on with the data, so that who asks would wait for as long as the queue is blocked.
fn answer_allocation(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| match &info.data {
        Some(gst::PadProbeData::Query(query)) if query.type_() == gst::QueryType::Allocation => gst::PadProbeReturn::Handled,
        _ => gst::PadProbeReturn::Ok,
    });
}

/// `Handled` and not `Drop`: for a dropped event GStreamer 1.22 unrefs what the bindings have taken.
///
/// Other pictures need another muxer; another header for the same pictures does not: the parser repeats it in the stream.
fn on_caps(watch: &Watch, teller: &Teller, codec: Video, caps: &gst::CapsRef, keeps_header_apart: bool) -> gst::PadProbeReturn {
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
            teller.tell(News::StaleSets);
        }
        let text = format!(
            "the picture changed from {}×{} to {}×{}",
            before.width, before.height, picture.width, picture.height
        );
        teller.tell(News::Failed(Failure::Changed(text)));
        return gst::PadProbeReturn::Handled;
    }
    gst::PadProbeReturn::Ok
}
