//! The element's GObject side: virtual methods, properties, signals.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;

use super::caps::{self, Verdict};
use super::ending::End;
use super::messages::{self, Outbox, Post};
use super::session::Session;
use super::settings::{Settings, StatusValue, specs};
use super::stats;
use super::together;
use crate::sync::lock;
use crate::wall;
use gcstreamer_schema::Container;
use gcstreamer_schema::session::session_id;

/// Debug category.
pub(super) static CAT: LazyLock<gst::DebugCategory> =
    LazyLock::new(|| gst::DebugCategory::new("gcssink", gst::DebugColorFlags::empty(), Some("Cloud Storage chunk sink")));

/// The element.
#[derive(Default)]
pub struct GcsSink {
    pub(super) settings: Mutex<Settings>,
    session: Mutex<Option<Arc<Session>>>,
    /// Session id and next sequence number, from NULL to NULL.
    id: Mutex<Option<(String, u64)>>,
    outbox: OnceLock<Arc<Outbox>>,
    pub(super) last_object: Mutex<Option<String>>,
    /// The figures at the end of the last session.
    pub(super) last_stats: Mutex<Option<gst::Structure>>,
    health_changed: AtomicBool,
}

fn chance() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

impl GcsSink {
    pub(super) fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    pub(super) fn session(&self) -> Option<Arc<Session>> {
        lock(&self.session).clone()
    }

    fn outbox(&self) -> Arc<Outbox> {
        Arc::clone(
            self.outbox
                .get_or_init(|| Outbox::new(&*self.obj(), messages::post, usize::MAX)),
        )
    }

    // What the messages ask.

    pub(super) fn session_id(&self) -> Option<String> {
        lock(&self.id).as_ref().map(|(id, _)| id.clone())
    }

    pub(super) fn max_size_time(&self) -> u64 {
        lock(&self.settings).max_size_time
    }

    pub(super) fn max_memory(&self) -> u64 {
        lock(&self.settings).max_memory_bytes
    }

    pub(super) fn bytes_received(&self) -> u64 {
        self.session().map_or(0, |s| s.uploads.snapshot().stats.bytes_received)
    }

    pub(super) fn spool_dir(&self) -> Option<String> {
        lock(&self.settings).spool_dir.clone()
    }

    pub(super) fn status_changed(&self) {
        self.obj().notify("status");
    }

    pub(super) fn health_changed(&self) {
        self.health_changed.store(true, Ordering::Relaxed);
    }

    /// Whether this sink is the one of its flow group that tells of an outage.
    pub(super) fn begins_outage(&self) -> bool {
        self.session().is_none_or(|s| s.flow.begins_outage())
    }

    /// Whether this sink is the one of its flow group that tells the end of an outage.
    pub(super) fn ends_outage(&self) -> bool {
        self.session().is_none_or(|s| s.flow.ends_outage())
    }

    /// How long an outage was, in ns, that another sink left behind and that this one's success has ended.
    pub(super) fn ends_left_outage(&self) -> Option<u64> {
        self.session()?.flow.ends_left_outage()
    }

    pub(super) fn take_health_changed(&self) -> bool {
        self.health_changed.swap(false, Ordering::Relaxed)
    }

    pub(super) fn uploaded(&self, object: &str) {
        *lock(&self.last_object) = Some(object.to_owned());
        let Some(session) = self.session() else { return };
        if !session.cover_told.swap(true, Ordering::Relaxed) {
            let text = format!("uploads work; {}", self.memory_left());
            session.outbox.post(Post::Info(text));
        }
    }

    /// Uploads are refused and nothing has ever worked: no more is taken, and nothing is waited for.
    pub(super) fn refused(&self) {
        if let Some(session) = self.session() {
            session.failed.store(true, Ordering::Relaxed);
            session.refused.store(true, Ordering::Relaxed);
            session.uploads.interrupt(true);
            session.uploads.nudge();
        }
    }

    pub(super) fn sink_pad(&self) -> gst::Pad {
        self.obj()
            .static_pad("sink")
            .unwrap_or_else(|| unreachable!("GstBaseSink makes its pad"))
    }

    fn begin_session(&self) -> Result<(), gst::ErrorMessage> {
        let id = lock(&self.id).get_or_insert_with(new_id).clone();
        let session = Session::begin(&self.obj(), &self.settings(), id, self.outbox(), chance())?;
        *lock(&self.session) = Some(session);
        together::add(&self.obj());
        self.status_changed();
        Ok(())
    }

    fn end_session(&self) {
        let Some(session) = self.session() else { return };
        together::remove(&self.obj());
        let timeout = Duration::from_nanos(lock(&self.settings).shutdown_timeout);
        let next = session.end(timeout);
        *lock(&self.last_stats) = Some(stats::figures(&session));
        if let Some((_, sequence)) = lock(&self.id).as_mut() {
            *sequence = next;
        }
        *lock(&self.session) = None;
        *lock(&self.last_object) = None;
        // Out of the list of those who stop only now.
        drop(lock(&session.stop).take());
        self.status_changed();
    }

    fn limits_changed(&self) {
        if let Some(session) = self.session() {
            session.set_limits(&self.settings());
        }
    }
}

/// What is said to the sink by custom events from upstream. Sticky ones come again to a pad that is linked anew.
fn hear(session: &Session, structure: Option<&gst::StructureRef>) {
    let Some(structure) = structure else { return };
    match structure.name().as_str() {
        "GstForceKeyUnit" => session.recorder().chunker.arm(),
        "gcssink-command" => match structure.get::<&str>("command") {
            Ok("split") => session.recorder().chunker.arm(),
            Ok("record-stop") => session.recorder().record(false),
            Ok("record-start") => session.recorder().record(true),
            _ => {}
        },
        // Of another running time than that of a fragment.
        "gcssink-clock" if !session.in_splitmuxsink => {
            if let (Ok(running), Ok(utc)) = (structure.get::<u64>("running-time"), structure.get::<u64>("utc")) {
                session.recorder().chunker.clock.map(running, utc);
            }
        }
        _ => {}
    }
}

fn new_id() -> (String, u64) {
    let chance = u8::try_from(chance() & 0xff).unwrap_or(0);
    (session_id(wall::now(), chance), 0)
}

#[glib::object_subclass]
impl ObjectSubclass for GcsSink {
    const NAME: &'static str = "GstGcsSink";
    type Type = super::GcsSink;
    type ParentType = gst_base::BaseSink;
    type Interfaces = (gst::URIHandler,);
}

impl ObjectImpl for GcsSink {
    fn properties() -> &'static [glib::ParamSpec] {
        specs()
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
            vec![
                glib::subclass::Signal::builder("split-now")
                    .action()
                    .class_handler(|args| {
                        if let Some(sink) = args.first().and_then(|a| a.get::<super::GcsSink>().ok())
                            && let Some(session) = sink.imp().session()
                        {
                            session.recorder().chunker.arm();
                        }
                        None
                    })
                    .build(),
            ]
        });
        &SIGNALS
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if pspec.name() == "uri" {
            if let Ok(Some(uri)) = value.get::<Option<String>>()
                && let Err(e) = lock(&self.settings).set_uri(&uri)
            {
                gst::error!(CAT, imp = self, "uri: {e}");
            }
            return;
        }
        lock(&self.settings).set(pspec.name(), value);
        match (pspec.name(), self.session()) {
            ("max-bytes-per-second", Some(session)) => session.set_flow(value.get().ok(), None),
            ("max-requests-per-second", Some(session)) => session.set_flow(None, value.get().ok()),
            _ => self.limits_changed(),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "uri" => lock(&self.settings).uri().to_value(),
            "stats" => self.stats().to_value(),
            "status" => StatusValue::from(self.status()).to_value(),
            "session-id" => self.session_id().to_value(),
            // What counts is what the last member of the group was told.
            "max-bytes-per-second" if self.session().is_some() => {
                self.session().map_or(0, |s| s.flow.group().limits().0).to_value()
            }
            "max-requests-per-second" if self.session().is_some() => {
                self.session().map_or(0.0, |s| s.flow.group().limits().1).to_value()
            }
            name => lock(&self.settings)
                .get(name)
                .unwrap_or_else(|| pspec.default_value().clone()),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        self.obj().set_sync(false);
        // Nothing is lost because a segment says it need not be shown.
        self.obj().set_drop_out_of_segment(false);
    }
}

impl GstObjectImpl for GcsSink {}

impl ElementImpl for GcsSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Cloud Storage chunk sink",
                "Sink/Network",
                "Stores a muxed stream in Google Cloud Storage as objects that each play alone",
                "The GCStreamer developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = gst::Caps::new_any();
            gst::PadTemplate::new("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &caps)
                .into_iter()
                .collect()
        });
        &TEMPLATES
    }

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        let session = self.session();
        match (transition, &session) {
            (gst::StateChange::NullToReady, _) => {
                *lock(&self.id) = Some(new_id());
                self.obj().notify("session-id");
            }
            // Not in `start`: the base class would add a second, empty error to ours.
            (gst::StateChange::ReadyToPaused, None) => {
                if let Err(error) = self.begin_session() {
                    self.post_error_message(error);
                    return Err(gst::StateChangeError);
                }
            }
            // The base class may reach PLAYING again without asking us, with the buffer that ends the preroll.
            (gst::StateChange::PausedToPlaying | gst::StateChange::PlayingToPaused, Some(session)) => {
                session.new_playing.store(true, Ordering::Relaxed);
                if transition == gst::StateChange::PausedToPlaying {
                    session.go_on();
                }
            }
            (gst::StateChange::PausedToReady, Some(session)) => {
                session.stop_waiting();
                together::others_begin_to_end(&self.obj());
            }
            _ => {}
        }
        let outcome = self.parent_change_state(transition);
        match transition {
            gst::StateChange::PausedToReady => self.end_session(),
            gst::StateChange::ReadyToPaused if outcome.is_err() => self.end_session(),
            gst::StateChange::ReadyToNull => *lock(&self.id) = None,
            _ => {}
        }
        outcome
    }
}

impl BaseSinkImpl for GcsSink {
    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let session = self.session().ok_or(gst::FlowError::Flushing)?;
        self.take(&session, buffer, || Some(buffer.clone()))?;
        Ok(gst::FlowSuccess::Ok)
    }

    fn render_list(&self, list: &gst::BufferList) -> Result<gst::FlowSuccess, gst::FlowError> {
        let session = self.session().ok_or(gst::FlowError::Flushing)?;
        for (i, buffer) in list.iter().enumerate() {
            self.take(&session, buffer, || list.get_owned(i))?;
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let Some(session) = self.session() else { return Ok(()) };
        match caps::judge(caps) {
            Verdict::Take(hint) => {
                let mut recorder = session.recorder();
                recorder.chunker.set_hint(hint.filter(|h| *h != Container::Raw));
                // Muxers send equal caps again and again, or with another header, which the bytes tell better.
                let mut known = lock(&session.caps);
                let caps = caps::without_header(caps);
                if known.as_ref().is_some_and(|k| *k != caps) {
                    recorder.chunker.arm_if_begun();
                }
                *known = Some(caps);
                Ok(())
            }
            Verdict::NeedsMuxer(text) => {
                let _ = session.end_with(Post::NeedsMuxer(text.clone()));
                Err(gst::loggable_error!(CAT, "{text}"))
            }
        }
    }

    fn event(&self, event: gst::Event) -> bool {
        if let Some(session) = self.session() {
            match event.view() {
                gst::EventView::CustomDownstream(custom) => hear(&session, custom.structure()),
                gst::EventView::CustomDownstreamSticky(custom) => hear(&session, custom.structure()),
                gst::EventView::Segment(segment) => {
                    if let Some(segment) = segment.segment().downcast_ref::<gst::format::Bytes>() {
                        let start = segment.start().map_or(0, |bytes| *bytes);
                        session.recorder().segment_begins(start);
                    }
                }
                gst::EventView::FlushStart(_) => {
                    session.flushing.store(true, Ordering::Relaxed);
                    session.uploads.nudge();
                }
                gst::EventView::FlushStop(_) => {
                    session.flushing.store(false, Ordering::Relaxed);
                    session.recorder().chunker.flush();
                }
                // Flushing: the event is dropped, the base class would wait for a preroll that never ends.
                gst::EventView::Eos(_) if self.drain(&session) == End::Flushed => return false,
                _ => {}
            }
        }
        self.parent_event(event)
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Seeking(seeking) = query.view_mut() {
            let format = seeking.format();
            seeking.set(
                false,
                gst::GenericFormattedValue::none_for_format(format),
                gst::GenericFormattedValue::none_for_format(format),
            );
            return true;
        }
        BaseSinkImplExt::parent_query(self, query)
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(session) = self.session() {
            session.uploads.interrupt(true);
        }
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(session) = self.session() {
            session.uploads.interrupt(session.failed.load(Ordering::Relaxed));
        }
        Ok(())
    }
}

impl URIHandlerImpl for GcsSink {
    const URI_TYPE: gst::URIType = gst::URIType::Sink;

    fn protocols() -> &'static [&'static str] {
        &["gs"]
    }

    fn uri(&self) -> Option<String> {
        lock(&self.settings).uri()
    }

    fn set_uri(&self, uri: &str) -> Result<(), glib::Error> {
        lock(&self.settings).set_uri(uri)
    }
}
