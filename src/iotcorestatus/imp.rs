//! The element's GObject side: pads, state changes, properties, signals.

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::camera_clock::CameraClock;
use super::counters::{Counters, mono, now};
use super::debug::CAT;
use super::downstream;
use super::messages::{self, MAX_POSTS, MessagePoster, Post};
use super::report::{Event, Format, Phase};
use super::session::Session;
use super::settings::{Settings, specs};
use super::validated::{discovery_of, validate};
use crate::base::lock::lock;
use crate::base::runtime::runtime;
use crate::element::properties::refusal;
use crate::element::scope::scope_of;
use crate::element::shutdown::Stop;
use crate::element::terminal;
use gcstreamer_mqtt::LinkStats;
use gcstreamer_schema::structures::{health, iotcorestatus_stats as names};

/// Maximum time for the last posts at the end; they wait only for the application.
const LAST_POSTS: Duration = Duration::from_millis(100);

/// The element.
pub struct IotCoreStatus {
    sink: gst::Pad,
    src: gst::Pad,
    counters: Arc<Counters>,
    clock: CameraClock,
    settings: Mutex<Settings>,
    session: Mutex<Option<Arc<Session>>>,
    /// Counters of the last session, for `stats` while no session runs.
    link_stats: Mutex<LinkStats>,
    poster: OnceLock<Arc<MessagePoster>>,
    /// The `mqtt-connected` that was notified last.
    notified: Mutex<bool>,
    stop: Mutex<Option<Stop>>,
}

/// Delivers one post. Runs in GStreamer's thread pool.
fn deliver(element: &gst::Element, post: Post) {
    if let Some(status) = element.downcast_ref::<super::IotCoreStatus>() {
        messages::deliver(element, post, || status.imp().notify_connected());
    }
}

impl IotCoreStatus {
    fn session(&self) -> Option<Arc<Session>> {
        lock(&self.session).clone()
    }

    fn poster(&self) -> Arc<MessagePoster> {
        let make = || MessagePoster::new(self.obj().upcast_ref::<gst::Element>(), deliver, MAX_POSTS);
        Arc::clone(self.poster.get_or_init(make))
    }

    fn handle(&self, events: impl IntoIterator<Item = Event>) {
        if let Some(session) = self.session() {
            session.handle(events);
        }
    }

    // Streaming thread.

    /// Counts buffers and pushes the camera's clock before them.
    fn enter<'a>(&self, buffers: impl Iterator<Item = &'a gst::BufferRef>) {
        let now = mono();
        let (mut frames, mut bytes, mut key_frames) = (0, 0, 0);
        for buffer in buffers {
            frames += 1;
            bytes += buffer.size() as u64;
            if !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT) {
                key_frames += 1;
                if let Some(pts) = buffer.pts() {
                    self.counters.key_frame(pts.nseconds(), now);
                }
            }
            if let Some(event) = self.clock.event_before(buffer, now) {
                self.src.push_event(event);
            }
        }
        self.counters.enter(now, frames, bytes, key_frames);
    }

    fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.enter(std::iter::once(buffer.as_ref()));
        let flow = self.src.push(buffer);
        self.counters.leave(mono(), flow);
        flow
    }

    fn chain_list(&self, list: gst::BufferList) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.enter(list.iter());
        let flow = self.src.push_list(list);
        self.counters.leave(mono(), flow);
        flow
    }

    /// Serves pull mode: a demuxer downstream reads from a seekable source.
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
        let now = mono();
        self.counters.enter(now, 1, bytes as u64, 0);
        self.counters.leave(now, Ok(gst::FlowSuccess::Ok));
        Ok(success)
    }

    /// Records the end of the stream in pull mode: there is no EOS event, only the flow return of the source.
    fn pulled<T>(&self, outcome: Result<T, gst::FlowError>) -> Result<T, gst::FlowError> {
        if matches!(outcome, Err(gst::FlowError::Eos)) {
            // Treated as if downstream had returned it. A later pull that succeeds clears it: the demuxer only read the end of
            // the file.
            self.counters.leave(mono(), Err(gst::FlowError::Eos));
        }
        outcome
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Segment(segment) => self.clock.segment(segment.segment()),
            gst::EventView::FlushStop(_) => {
                self.clock.flush();
                self.handle([Event::Restart]);
            }
            gst::EventView::StreamStart(_) => self.handle([Event::Restart]),
            gst::EventView::Eos(_) => self.handle([Event::Eos]),
            gst::EventView::Gap(_) => self.handle([Event::GapEvent]),
            gst::EventView::Caps(caps) => self.handle([Event::Format(format_of(caps.caps()))]),
            _ => {}
        }
        gst::Pad::event_default(&self.sink, Some(&*self.obj()), event)
    }

    fn src_event(&self, event: gst::Event) -> bool {
        if let gst::EventView::CustomUpstream(custom) = event.view()
            && let Some(structure) = custom.structure().filter(|s| s.name() == health::NAME)
            && let Some(session) = self.session()
        {
            session.on_health(event.seqnum(), structure);
        }
        gst::Pad::event_default(&self.src, Some(&*self.obj()), event)
    }

    // State changes.

    fn begin(&self) -> Result<(), gst::ErrorMessage> {
        let settings = lock(&self.settings).clone();
        let seed = std::hash::RandomState::new().build_hasher().finish();
        let validated = validate(&settings, now().wall, seed)?;
        let runtime =
            runtime().map_err(|e| gst::error_msg!(gst::ResourceError::Failed, ("the network threads cannot be started: {e}")))?;
        self.clock.reset();
        let session = Session::start(
            self.obj().upcast_ref(),
            &self.src,
            validated,
            settings.limits(),
            &self.counters,
            &self.poster(),
            runtime,
        )?;
        *lock(&self.session) = Some(session);
        Ok(())
    }

    /// Starts the shutdown deadline when the element leaves PAUSED: that of the process, or of its pipeline.
    fn begin_stop(&self) -> Stop {
        Stop::begin(scope_of(self.obj().upcast_ref()))
    }

    fn end(&self) {
        let Some(session) = self.session() else { return };
        let timeout = Duration::from_nanos(lock(&self.settings).shutdown_timeout.ns());
        let stop = lock(&self.stop).take().unwrap_or_else(|| self.begin_stop());
        session.stop(&stop, timeout);
        let poster = self.poster();
        poster.post(Post::Connected);
        // Before the session is dropped: `stats` must not show 0 in between.
        *lock(&self.link_stats) = session.link_stats();
        *lock(&self.session) = None;
        poster.wait_empty(stop.quick_moment(timeout, LAST_POSTS));
        // Deregister only after the session has ended: until then it shares the shutdown deadline.
        drop(stop);
    }

    /// Leaves PLAYING, to stop or to pause.
    fn pause(&self) {
        let element = self.obj();
        let element = element.upcast_ref();
        let is_stopping = downstream::is_stopping(element);
        if let Some(session) = self.session() {
            session.set_held(downstream::target_state(element) == gst::State::Playing);
        }
        self.handle([if is_stopping { Event::Stopping } else { Event::Playing(false) }]);
        // Publishes a delayed status even if other elements take long to stop.
        self.counters.wake.notify_one();
    }

    fn is_connected(&self) -> bool {
        self.session().is_some_and(|s| s.is_connected())
    }

    /// Notifies `mqtt-connected` if it differs from the value notified last: at the end of a session both the link and the
    /// element post [`Post::Connected`].
    fn notify_connected(&self) {
        let is_new = {
            let mut notified = lock(&self.notified);
            let now = self.is_connected();
            std::mem::replace(&mut *notified, now) != now
        };
        if is_new {
            self.obj().notify("mqtt-connected");
        }
    }

    fn stats(&self) -> gst::Structure {
        let counts = self.counters.snapshot();
        let session = self.session();
        let (phase, reason, stalls) = session.as_ref().map_or((Phase::Stopped, None, 0), |s| s.phase());
        let link = session.map_or_else(|| *lock(&self.link_stats), |s| s.link_stats());
        gst::Structure::builder(names::NAME)
            .field(names::PHASE, phase.name())
            .field(names::REASON, reason.unwrap_or_default())
            .field(names::FRAMES, counts.frames)
            .field(names::BYTES, counts.bytes)
            .field(names::KEY_FRAMES, counts.key_frames)
            .field(names::STALLS, stalls)
            .field(names::MQTT_CONNECTS, link.connects)
            .field(names::MQTT_FAILURES, link.failures)
            .field(names::MQTT_PUBLISHED, link.published)
            .field(names::MQTT_DROPPED, link.dropped)
            .field(names::MQTT_TOKENS, link.tokens)
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
                // Pull mode is activated from downstream: pass it on to the sink pad, and so to the source.
                Self::catch_panic_pad_function(parent, failed, |imp| match mode {
                    gst::PadMode::Pull => imp
                        .sink
                        .activate_mode(mode, active)
                        .map_err(|_| gst::loggable_error!(CAT, "upstream does not support pull mode")),
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
            clock: CameraClock::default(),
            settings: Mutex::default(),
            session: Mutex::default(),
            link_stats: Mutex::default(),
            poster: OnceLock::new(),
            notified: Mutex::default(),
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
                // The topic below `commands/` or `P/set/`, and the payload; not emitted for retained messages.
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
        if self.session().is_some()
            && let Some(text) = refusal(pspec)
        {
            terminal::warn(&*self.obj(), &text);
            self.poster().post(Post::Warning(text));
            return;
        }
        let session = self.session();
        let (limits, doubt, discovery) = {
            let mut settings = lock(&self.settings);
            settings.set(pspec.name(), value);
            let discovery = session.as_ref().and_then(|s| discovery_of(&settings, s.identity()));
            (settings.limits(), settings.doubt(pspec.name()), discovery)
        };
        if let Some(session) = session {
            // `expire_after` in the discovery message depends on `state-interval`.
            if let Some((_, payload)) = discovery {
                session.set_discovery(payload);
            }
            doubt.into_iter().for_each(|text| self.poster().post(Post::Warning(text)));
            session.set_limits(limits);
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "state" => self.session().map_or(Phase::Stopped, |s| s.phase().0).state().to_value(),
            "mqtt-connected" => self.is_connected().to_value(),
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
                "Passes everything through and reports the pipeline's state to an IoT Core bridge or an MQTT broker",
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
            gst::StateChange::PausedToPlaying => {
                if let Some(session) = self.session() {
                    session.set_held(false);
                }
                self.handle([Event::Resumed, Event::Playing(true)]);
            }
            gst::StateChange::PlayingToPaused => self.pause(),
            gst::StateChange::PausedToReady => {
                lock(&self.stop).get_or_insert_with(|| self.begin_stop());
                self.handle([Event::Stopping]);
            }
            _ => {}
        }
        let outcome = self.parent_change_state(transition);
        match transition {
            gst::StateChange::PausedToReady => self.end(),
            // No PAUSED→READY follows that would end the session.
            gst::StateChange::ReadyToPaused if outcome.is_err() => self.end(),
            _ => {}
        }
        outcome
    }
}
