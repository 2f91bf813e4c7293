//! The element's GObject side: virtual methods, properties, signals.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;

use super::caps::{self, Verdict};
use super::compose;
use super::debug::CAT;
use super::messages::{MessagePoster, Post};
use super::session::Session;
use super::settings::{Settings, StatusValue, specs};
use super::siblings;
use super::stats;
use super::stream::{self, Preroll};
use super::upstream;
use crate::base::lock::lock;
use crate::base::wall;
use crate::element::properties::refusal;
use crate::element::terminal;
use crate::ingest::End;
use crate::ingest::stream::Ingest;
use crate::upload::health::Status;
use gcstreamer_schema::Container;
use gcstreamer_schema::session::session_id;
use gcstreamer_schema::structures::{clock, command};

/// The element.
#[derive(Default)]
pub struct GcsSink {
    settings: Mutex<Settings>,
    session: Mutex<Option<Arc<Session>>>,
    /// Session id and next sequence number, from NULL to NULL.
    id: Mutex<Option<(String, u64)>>,
    poster: OnceLock<Arc<MessagePoster>>,
    /// The `status` that was notified last.
    notified: Mutex<Option<Status>>,
    /// Property `stats` at the end of the last session.
    last_stats: Mutex<Option<gst::Structure>>,
}

/// Returns a random number: the standard library gives each `RandomState` random keys.
fn chance() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// Delivers one post. Runs in GStreamer's thread pool.
fn publish(element: &gst::Element, post: Post) {
    if let Some(sink) = element.downcast_ref::<super::GcsSink>() {
        let sink = sink.imp();
        compose::publish(element, sink.session().as_deref(), post, &|| sink.notify_status());
    }
}

impl GcsSink {
    fn session(&self) -> Option<Arc<Session>> {
        lock(&self.session).clone()
    }

    fn poster(&self) -> Arc<MessagePoster> {
        Arc::clone(
            self.poster
                .get_or_init(|| MessagePoster::new(self.obj().upcast_ref(), publish, usize::MAX)),
        )
    }

    fn begin_session(&self) -> Result<(), gst::ErrorMessage> {
        let id = lock(&self.id).get_or_insert_with(new_id).clone();
        let settings = lock(&self.settings).clone();
        let session = Session::begin(self.obj().upcast_ref(), &settings, id, self.poster(), chance())?;
        *lock(&self.session) = Some(Arc::clone(&session));
        siblings::add(self.obj().upcast_ref(), &session);
        self.notify_status();
        Ok(())
    }

    fn end_session(&self) {
        let Some(session) = self.session() else { return };
        siblings::remove(self.obj().upcast_ref());
        session.release_identity();
        let timeout = Duration::from_nanos(lock(&self.settings).shutdown_timeout.ns());
        let next = session.end(self.obj().upcast_ref(), timeout);
        // Before the session is removed: `stats` must not show 0 in between.
        *lock(&self.last_stats) = Some(stats::figures(&session));
        // The session id stays the same until NULL: the next session must not use a sequence number, and so a name, again.
        if let Some((_, sequence)) = lock(&self.id).as_mut() {
            *sequence = next;
        }
        *lock(&self.session) = None;
        // Deregister only after the session has ended: until then it shares the shutdown deadline.
        session.engine.leave_deadline();
        self.notify_status();
    }

    /// Takes a buffer; requests a key unit from upstream if one is wanted.
    fn take(
        &self,
        session: &Session,
        buffer: &gst::BufferRef,
        owned: impl Fn() -> Option<gst::Buffer>,
    ) -> Result<(), gst::FlowError> {
        let obj = self.obj();
        let wants_key_unit = stream::take(obj.upcast_ref(), session, buffer, owned)?;
        if wants_key_unit && lock(&self.settings).send_keyframe_requests {
            let count = session.key_requests.fetch_add(1, Ordering::Relaxed);
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            if let Some(pad) = obj.sink_pads().first() {
                upstream::request_key_unit(pad, count);
            }
        }
        Ok(())
    }

    fn drain(&self, session: &Session) -> End {
        // After EOS no data follows before a flush, so another sink may claim the device.
        session.release_identity();
        let timeout = Duration::from_nanos(lock(&self.settings).drain_timeout.ns());
        // splitmuxsink waits for this EOS before it begins the next fragment. Chunks on disk are safe, so the EOS waits for no
        // upload.
        let until_spooled = session.engine.spool.is_some() && session.in_splitmuxsink;
        let obj = self.obj();
        session.engine.drain(&Preroll(obj.upcast_ref()), timeout, until_spooled)
    }

    fn status(&self) -> Status {
        self.session().map_or(Status::Stopped, |s| s.engine.queue.status())
    }

    /// Notifies `status` if it differs from the value notified last. Both the queue and this element report the end of a session.
    fn notify_status(&self) {
        let is_new = {
            let mut notified = lock(&self.notified);
            let now = self.status();
            notified.replace(now).unwrap_or(Status::Stopped) != now
        };
        if is_new {
            self.obj().notify("status");
        }
    }

    /// Returns the property `stats` of the running session; without one, that of the last session.
    fn stats(&self) -> gst::Structure {
        let running = self.session().map(|session| stats::figures(&session));
        let ended = || lock(&self.last_stats).clone();
        running.or_else(ended).unwrap_or_else(stats::none)
    }
}

/// Handles custom events from upstream. Sticky ones are repeated when a pad is linked again.
fn handle(session: &Session, structure: Option<&gst::StructureRef>) {
    let Some(structure) = structure else { return };
    let on = |work: fn(&mut Ingest)| session.engine.with(work);
    match structure.name().as_str() {
        "GstForceKeyUnit" => on(|ingest| ingest.chunker.arm()),
        command::NAME => match structure.get::<&str>(command::COMMAND) {
            Ok(command::SPLIT) => on(|ingest| ingest.chunker.arm()),
            Ok(command::RECORD_STOP) => on(|ingest| ingest.record(false)),
            Ok(command::RECORD_START) => on(|ingest| ingest.record(true)),
            _ => {}
        },
        // In a splitmuxsink, running time starts again with each fragment, so the event's running time does not apply.
        clock::NAME if !session.in_splitmuxsink => {
            if let (Ok(running), Ok(utc)) = (structure.get::<u64>(clock::RUNNING_TIME), structure.get::<u64>(clock::UTC)) {
                session.engine.with(|ingest| ingest.chunker.clock.map(running, utc));
            }
        }
        _ => {}
    }
}

fn new_id() -> (String, u64) {
    (session_id(wall::now(), chance()), 0)
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
                            session.engine.with(|ingest| ingest.chunker.arm());
                        }
                        None
                    })
                    .build(),
            ]
        });
        &SIGNALS
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if let (Some(session), Some(text)) = (self.session(), refusal(pspec)) {
            terminal::warn(&*self.obj(), &text);
            session.poster.post(Post::Doubt(text));
            return;
        }
        if pspec.name() == "uri" {
            let uri = value.get::<Option<String>>().ok().flatten();
            let outcome = uri.map_or(Ok(()), |uri| lock(&self.settings).set_uri(&uri));
            if let Err(e) = outcome {
                terminal::warn(&*self.obj(), &format!("uri is not changed: {e}"));
            }
            return;
        }
        lock(&self.settings).set(pspec.name(), value);
        match (pspec.name(), self.session()) {
            ("max-bytes-per-second" | "max-requests-per-second", Some(session)) => {
                session.set_flow(&lock(&self.settings).clone());
            }
            (name, Some(session)) => {
                let settings = lock(&self.settings).clone();
                settings.doubt(name).into_iter().for_each(|text| session.doubt(text));
                session.set_limits(&settings);
            }
            (_, None) => {}
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "uri" => lock(&self.settings).uri().to_value(),
            "stats" => self.stats().to_value(),
            "status" => StatusValue::from(self.status()).to_value(),
            "session-id" => lock(&self.id).as_ref().map(|(id, _)| id.clone()).to_value(),
            // The value of the group: the last one that a user has set on any of its members applies.
            "max-bytes-per-second" if self.session().is_some() => {
                self.session().map_or(0, |s| s.engine.flow.group().limits().0).to_value()
            }
            "max-requests-per-second" if self.session().is_some() => {
                self.session().map_or(0.0, |s| s.engine.flow.group().limits().1).to_value()
            }
            name => lock(&self.settings)
                .get(name)
                .unwrap_or_else(|| pspec.default_value().clone()),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        self.obj().set_sync(false);
        // Data outside the segment is stored as well.
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
            // ANY, because files, pipes and sockets have no caps: the bytes show the container.
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
            // Not in `start`: the base class calls that at NULL to READY already, and would add a second, empty error to ours.
            (gst::StateChange::ReadyToPaused, None) => {
                if let Err(error) = self.begin_session() {
                    self.post_error_message(error);
                    return Err(gst::StateChangeError);
                }
            }
            // Set at PlayingToPaused as well: when a buffer completes the preroll, the base class may return to PLAYING without
            // calling this method.
            (gst::StateChange::PausedToPlaying | gst::StateChange::PlayingToPaused, Some(session)) => {
                session.new_playing.store(true, Ordering::Relaxed);
                // A stop may have been begun by `others_begin_to_end` and not have happened, because a state change of the
                // pipeline failed.
                if transition == gst::StateChange::PausedToPlaying {
                    session.engine.go_on();
                }
            }
            (gst::StateChange::PausedToReady, Some(session)) => {
                // Before the parent's change of state, which waits for the streaming thread.
                session.engine.stop_waiting();
                siblings::others_begin_to_end(self.obj().upcast_ref());
            }
            _ => {}
        }
        let outcome = self.parent_change_state(transition);
        match transition {
            gst::StateChange::PausedToReady => self.end_session(),
            // No PAUSED→READY follows that would end the session.
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
        match caps::classify(caps) {
            Verdict::Take(hint) => {
                if session.engine.queue.snapshot().stats.bytes_received == 0 {
                    let head = caps::header(caps, hint);
                    session.has_head.store(!head.is_empty(), Ordering::Relaxed);
                    *lock(&session.head) = head;
                }
                // Compared without the header: muxers repeat equal caps, or caps with another header, and neither needs a cut. A
                // change of the header is found in the bytes.
                let caps = caps::without_header(caps);
                let before = lock(&session.caps).replace(caps.clone());
                let is_other = before.is_some_and(|before| before != caps);
                session.engine.with(|ingest| {
                    ingest.chunker.set_hint(hint.filter(|h| *h != Container::Raw));
                    if is_other {
                        ingest.chunker.arm_if_begun();
                    }
                });
                Ok(())
            }
            Verdict::NeedsMuxer(text) => {
                session.end_with(Post::NeedsMuxer(text.clone()));
                Err(gst::loggable_error!(CAT, "{text}"))
            }
        }
    }

    fn event(&self, event: gst::Event) -> bool {
        if let Some(session) = self.session() {
            match event.view() {
                gst::EventView::CustomDownstream(custom) => handle(&session, custom.structure()),
                gst::EventView::CustomDownstreamSticky(custom) => handle(&session, custom.structure()),
                // A segment in bytes may go back: mp4mux does so to rewrite its header.
                gst::EventView::Segment(segment) => {
                    if let Some(segment) = segment.segment().downcast_ref::<gst::format::Bytes>() {
                        let start = segment.start().map_or(0, |bytes| *bytes);
                        session.engine.with(|ingest| ingest.segment_begins(start));
                    }
                }
                gst::EventView::FlushStart(_) => session.engine.set_flushing(true),
                gst::EventView::FlushStop(_) => {
                    session.engine.set_flushing(false);
                    // EOS has released the device, and data follows again.
                    if let Err(error) = session.claim_identity() {
                        session.engine.fail();
                        self.post_error_message(error);
                        return false;
                    }
                }
                // A flush has ended the drain. The event is dropped, because the base class would wait for a preroll that never
                // ends.
                gst::EventView::Eos(_) if self.drain(&session) == End::Flushed => return false,
                _ => {}
            }
        }
        self.parent_event(event)
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        // Muxers ask whether they can go back and rewrite their header. A stored object cannot be rewritten.
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

    // The base class calls this at PLAYING to PAUSED too, not only at a stop. It wakes a blocked `render`, which then waits in
    // `wait_preroll` and continues with the same buffer: an error instead would end the recording at the first pause.
    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(session) = self.session() {
            session.engine.queue.interrupt(true);
        }
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(session) = self.session() {
            // A failed session stays interrupted, so that no `render` blocks in it.
            session.engine.queue.interrupt(session.engine.is_failed());
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
        if self.session().is_some() {
            let text = "the uri can be set in NULL and READY only, and this element is PAUSED or PLAYING; stop it first";
            return Err(glib::Error::new(gst::URIError::BadState, text));
        }
        lock(&self.settings).set_uri(uri)
    }
}
