//! The element's GObject side: pads, state changes, properties, signals.

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::clock::Clock;
use super::downstream;
use super::outbox::{MOST, Outbox, Post, say};
use super::plan::plan;
use super::report::{Format, Input, Phase};
use super::session::Session;
use super::settings::{Settings, specs};
use super::tally::{Counters, mono, now};
use crate::deadline::Stop;
use crate::sync::lock;
use crate::upload::runtime::runtime;
use gcstreamer_mqtt::LinkStats;

/// Debug category.
pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "iotcorestatus",
        gst::DebugColorFlags::empty(),
        Some("State of the pipeline over MQTT"),
    )
});

/// At the end, a moment for messages that wait for nothing but the application.
const LAST_POSTS: Duration = Duration::from_millis(100);

/// The element.
pub struct IotCoreStatus {
    sink: gst::Pad,
    src: gst::Pad,
    counters: Arc<Counters>,
    clock: Clock,
    settings: Mutex<Settings>,
    session: Mutex<Option<Arc<Session>>>,
    /// Of the session before, while there is none.
    link_stats: Mutex<LinkStats>,
    outbox: OnceLock<Arc<Outbox>>,
    stop: Mutex<Option<Stop>>,
}

impl IotCoreStatus {
    pub(super) fn src(&self) -> &gst::Pad {
        &self.src
    }

    fn session(&self) -> Option<Arc<Session>> {
        lock(&self.session).clone()
    }

    fn outbox(&self) -> Arc<Outbox> {
        Arc::clone(self.outbox.get_or_init(|| Outbox::new(&*self.obj(), say, MOST)))
    }

    fn tell(&self, inputs: impl IntoIterator<Item = Input>) {
        if let Some(session) = self.session() {
            session.tell(inputs);
        }
    }

    // The streaming thread.

    /// Counts what comes and sends the camera's clock ahead of it.
    fn enter<'a>(&self, buffers: impl Iterator<Item = &'a gst::BufferRef>) {
        let now = mono();
        let (mut frames, mut bytes, mut key_frames) = (0, 0, 0);
        for buffer in buffers {
            frames += 1;
            bytes += buffer.size() as u64;
            if !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT) {
                key_frames += 1;
                if let Some(pts) = buffer.pts() {
                    self.counters.key(pts.nseconds());
                }
            }
            if let Some(event) = self.clock.look(buffer, now) {
                self.src.push_event(event);
            }
        }
        self.counters.enter(now, frames, bytes, key_frames);
    }

    fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.enter(std::iter::once(buffer.as_ref()));
        let flow = self.src.push(buffer);
        self.counters.leave(flow);
        flow
    }

    fn chain_list(&self, list: gst::BufferList) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.enter(list.iter());
        let flow = self.src.push_list(list);
        self.counters.leave(flow);
        flow
    }

    /// Downstream pulls: a source that can be read from anywhere, in front of a demuxer.
    fn range(
        &self,
        offset: u64,
        buffer: Option<&mut gst::BufferRef>,
        size: u32,
    ) -> Result<gst::PadGetRangeSuccess, gst::FlowError> {
        let (bytes, success) = match buffer {
            Some(buffer) => {
                self.pulled(self.sink.pull_range_fill(offset, buffer, size))?;
                (buffer.size(), gst::PadGetRangeSuccess::FilledBuffer)
            }
            None => {
                let buffer = self.pulled(self.sink.pull_range(offset, size))?;
                (buffer.size(), gst::PadGetRangeSuccess::NewBuffer(buffer))
            }
        };
        self.counters.enter(mono(), 1, bytes as u64, 0);
        self.counters.leave(Ok(gst::FlowSuccess::Ok));
        Ok(success)
    }

    /// Where downstream pulls there is no EOS event: the end is what the source answers.
    fn pulled<T>(&self, outcome: Result<T, gst::FlowError>) -> Result<T, gst::FlowError> {
        if matches!(outcome, Err(gst::FlowError::Eos)) {
            // As if downstream had seen it: the next pull that succeeds says that a demuxer has only looked for the end.
            self.counters.leave(Err(gst::FlowError::Eos));
        }
        outcome
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Segment(segment) => self.clock.segment(segment.segment()),
            gst::EventView::FlushStop(_) => {
                self.clock.flush();
                self.tell([Input::Restart]);
            }
            gst::EventView::StreamStart(_) => self.tell([Input::Restart]),
            gst::EventView::Eos(_) => self.tell([Input::Eos]),
            gst::EventView::Gap(_) => self.tell([Input::GapEvent]),
            gst::EventView::Caps(caps) => self.tell([Input::Format(format_of(caps.caps()))]),
            _ => {}
        }
        gst::Pad::event_default(&self.sink, Some(&*self.obj()), event)
    }

    fn src_event(&self, event: gst::Event) -> bool {
        if let gst::EventView::CustomUpstream(custom) = event.view()
            && let Some(structure) = custom.structure().filter(|s| s.name() == "gcssink-health")
            && let Some(session) = self.session()
        {
            session.health(event.seqnum(), structure);
        }
        gst::Pad::event_default(&self.src, Some(&*self.obj()), event)
    }

    // State changes.

    fn begin(&self) -> Result<(), gst::ErrorMessage> {
        let settings = lock(&self.settings).clone();
        let chance = u8::try_from(std::hash::RandomState::new().build_hasher().finish() & 0xff).unwrap_or(0);
        let plan = plan(&settings, now().wall, chance)?;
        let runtime =
            runtime().map_err(|e| gst::error_msg!(gst::ResourceError::Failed, ("the network threads cannot be started: {e}")))?;
        self.clock.reset();
        let session = Session::start(&self.obj(), plan, settings.limits(), &self.counters, &self.outbox(), runtime)?;
        *lock(&self.session) = Some(session);
        Ok(())
    }

    fn end(&self) {
        let Some(session) = self.session() else { return };
        let timeout = Duration::from_nanos(lock(&self.settings).shutdown_timeout);
        let stop = lock(&self.stop).take().unwrap_or_else(Stop::begin);
        session.stop(&stop, timeout);
        let outbox = self.outbox();
        outbox.post(Post::Notify("mqtt-connected"));
        *lock(&self.link_stats) = session.link_stats();
        *lock(&self.session) = None;
        // Messages wait for nothing but the application.
        outbox.wait_empty(stop.quick_moment(timeout, LAST_POSTS));
        // Out of the list of those who stop only now.
        drop(stop);
    }

    /// Leaving PLAYING: for good, or for a pause.
    fn pause(&self) {
        let is_end = downstream::goal_of(self.obj().upcast_ref()) < gst::State::Paused;
        self.tell([if is_end { Input::Stopping } else { Input::Playing(false) }]);
        // What is kept for a moment is told though the end of other elements takes long.
        self.counters.wake.notify_one();
    }

    fn stats(&self) -> gst::Structure {
        let tally = self.counters.tally();
        let session = self.session();
        let (phase, reason, stalls) = session.as_ref().map_or((Phase::Stopped, None, 0), |s| s.phase());
        let link = session.map_or_else(|| *lock(&self.link_stats), |s| s.link_stats());
        gst::Structure::builder("iotcorestatus-stats")
            .field("phase", phase.name())
            .field("reason", reason.unwrap_or_default())
            .field("frames", tally.frames)
            .field("bytes", tally.bytes)
            .field("key-frames", tally.key_frames)
            .field("stalls", stalls)
            .field("mqtt-connects", link.connects)
            .field("mqtt-failures", link.failures)
            .field("mqtt-published", link.published)
            .field("mqtt-dropped", link.dropped)
            .field("mqtt-tokens", link.tokens)
            .build()
    }
}

fn format_of(caps: &gst::CapsRef) -> Format {
    let Some(structure) = caps.structure(0) else {
        return Format::default();
    };
    let pixels = |name: &str| structure.get::<i32>(name).ok().and_then(|n| u64::try_from(n).ok());
    Format {
        media: Some(structure.name().to_string()),
        width: pixels("width"),
        height: pixels("height"),
    }
}

#[glib::object_subclass]
impl ObjectSubclass for IotCoreStatus {
    const NAME: &'static str = "GstIotCoreStatus";
    type Type = super::IotCoreStatus;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let flags = gst::PadFlags::PROXY_CAPS | gst::PadFlags::PROXY_ALLOCATION | gst::PadFlags::PROXY_SCHEDULING;
        let template = |name| {
            class
                .pad_template(name)
                .unwrap_or_else(|| unreachable!("the class has the template {name}"))
        };
        let sink = gst::Pad::builder_from_template(&template("sink"))
            .chain_function(|_, parent, buffer| {
                Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |imp| imp.chain(buffer))
            })
            .chain_list_function(|_, parent, list| {
                Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |imp| imp.chain_list(list))
            })
            .event_function(|_, parent, event| Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_event(event)))
            .flags(flags)
            .build();
        let src = gst::Pad::builder_from_template(&template("src"))
            .event_function(|_, parent, event| Self::catch_panic_pad_function(parent, || false, |imp| imp.src_event(event)))
            .activatemode_function(|_, parent, mode, active| {
                let failed = || Err(gst::loggable_error!(CAT, "panic while activating"));
                Self::catch_panic_pad_function(parent, failed, |imp| match mode {
                    gst::PadMode::Pull => imp
                        .sink
                        .activate_mode(mode, active)
                        .map_err(|_| gst::loggable_error!(CAT, "what is in front cannot be pulled")),
                    _ => Ok(()),
                })
            })
            .getrange_function(|_, parent, offset, buffer, size| {
                Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |imp| imp.range(offset, buffer, size))
            })
            .flags(flags)
            .build();
        Self {
            sink,
            src,
            counters: Arc::default(),
            clock: Clock::default(),
            settings: Mutex::default(),
            session: Mutex::default(),
            link_stats: Mutex::default(),
            outbox: OnceLock::new(),
            stop: Mutex::default(),
        }
    }
}

impl ObjectImpl for IotCoreStatus {
    fn properties() -> &'static [glib::ParamSpec] {
        specs()
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
            vec![
                // The topic behind `commands/` or `P/set/`, and the payload; retained ones are left out.
                glib::subclass::Signal::builder("command")
                    .param_types([String::static_type(), glib::Bytes::static_type()])
                    .build(),
                // The payload.
                glib::subclass::Signal::builder("config")
                    .param_types([glib::Bytes::static_type()])
                    .build(),
            ]
        });
        &SIGNALS
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let limits = {
            let mut settings = lock(&self.settings);
            settings.set(pspec.name(), value);
            settings.limits()
        };
        if let Some(session) = self.session() {
            session.set_limits(limits);
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "state" => self.session().map_or(Phase::Stopped, |s| s.phase().0).state().to_value(),
            "mqtt-connected" => self.session().is_some_and(|s| s.is_connected()).to_value(),
            "stats" => self.stats().to_value(),
            name => lock(&self.settings)
                .get(name)
                .unwrap_or_else(|| pspec.default_value().clone()),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        for pad in [&self.sink, &self.src] {
            if let Err(error) = self.obj().add_pad(pad) {
                gst::error!(CAT, imp = self, "a pad cannot be added: {error}");
            }
        }
    }
}

impl GstObjectImpl for IotCoreStatus {}

impl ElementImpl for IotCoreStatus {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "IoT Core and MQTT status",
                "Generic/Network",
                "Passes everything through and tells an IoT Core bridge or an MQTT broker how the pipeline is",
                "The GCStreamer developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let any = gst::Caps::new_any();
            [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
                .into_iter()
                .filter_map(|(name, direction)| gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &any).ok())
                .collect()
        });
        &TEMPLATES
    }

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused if self.session().is_none() => {
                if let Err(error) = self.begin() {
                    self.post_error_message(error);
                    return Err(gst::StateChangeError);
                }
            }
            gst::StateChange::PausedToPlaying => self.tell([Input::Resumed, Input::Playing(true)]),
            gst::StateChange::PlayingToPaused => self.pause(),
            gst::StateChange::PausedToReady => {
                lock(&self.stop).get_or_insert_with(Stop::begin);
                self.tell([Input::Stopping]);
            }
            _ => {}
        }
        let outcome = self.parent_change_state(transition);
        match transition {
            gst::StateChange::PausedToReady => self.end(),
            gst::StateChange::ReadyToPaused if outcome.is_err() => self.end(),
            _ => {}
        }
        outcome
    }
}
