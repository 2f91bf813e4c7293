//! The element's GObject side: virtual methods, properties, signals.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;

use super::blocks::POOL;
use super::caps::{self, Verdict};
use super::messages::Post;
use super::outbox::Outbox;
use super::plan::{Identity, Plan, limits, plan, upload_limits};
use super::recorder::{ObjectSettings, Recorder};
use super::settings::{OverflowPolicy, Settings, StatusValue, specs};
use super::upstream;
use crate::chunk::Chunker;
use crate::chunk::clock::Stamp;
use crate::chunk::session::session_id;
use crate::chunk::stash::TAKE_OVER;
use crate::container::Container;
use crate::deadline::Stop;
use crate::flow::group::{Group, Member};
use crate::gcs::{ClientPool, GcsWriter};
use crate::upload::driver;
use crate::upload::health::Status;
use crate::upload::runtime::runtime;
use crate::upload::uploads::{Drained, NoRoom, Overflow, Uploads};

/// Debug category.
pub(super) static CAT: LazyLock<gst::DebugCategory> =
    LazyLock::new(|| gst::DebugCategory::new("gcssink", gst::DebugColorFlags::empty(), Some("Cloud Storage chunk sink")));

/// Seconds between the epochs of NTP (1900) and Unix (1970), RFC 5905.
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// How long the streaming thread waits for its last messages to be posted: an application's handler may be slow.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The element.
#[derive(Default)]
pub struct GcsSink {
    settings: Mutex<Settings>,
    session: Mutex<Option<Arc<Session>>>,
    /// Session id and next sequence number, from NULL to NULL.
    id: Mutex<Option<(String, u64)>>,
    outbox: OnceLock<Arc<Outbox>>,
    last_object: Mutex<Option<String>>,
    health_changed: AtomicBool,
}

/// What exists from READY→PAUSED to PAUSED→READY.
struct Session {
    plan: Plan,
    recorder: Mutex<Recorder>,
    uploads: Arc<Uploads>,
    flow: Arc<Member>,
    /// The version of the group's limits that was told last.
    flow_told: AtomicU64,
    outbox: Arc<Outbox>,
    identity: Mutex<Option<Identity>>,
    ticker: Mutex<Option<tokio::task::AbortHandle>>,
    /// The next buffer is the first of a PLAYING.
    new_playing: AtomicBool,
    live: AtomicBool,
    /// Since when it is PLAYING, ns on the uploads' scale plus one; 0 while it is not.
    playing_since: AtomicU64,
    nothing_told: AtomicBool,
    cover_told: AtomicBool,
    flushing: AtomicBool,
    /// An ERROR was posted: nothing more is taken.
    failed: AtomicBool,
    /// The ERROR is about the uploads: waiting for them is of no use.
    refused: AtomicBool,
    key_requests: AtomicU64,
    /// The last caps, without their header.
    caps: Mutex<Option<gst::Caps>>,
    stop: Mutex<Option<Stop>>,
}

impl Session {
    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the stream with an ERROR, which reaches the bus before those of the elements in front.
    fn end_with(&self, post: Post) -> gst::FlowError {
        if !self.failed.swap(true, Ordering::Relaxed) {
            self.outbox.post(post);
            self.outbox.wait_empty(std::time::Instant::now() + LAST_WORD);
        }
        gst::FlowError::Error
    }

    fn is_stopping(&self) -> bool {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn set_flow(&self, bytes: Option<u64>, requests: Option<f64>) {
        self.flow.group().set(bytes, requests);
        self.flow_told.store(self.flow.group().limits().2, Ordering::Relaxed);
    }

    /// Another member of the group may have changed the limits.
    fn look_at_flow(&self) {
        let (bytes, requests, version) = self.flow.group().limits();
        if self.flow_told.swap(version, Ordering::Relaxed) != version {
            self.outbox.post(Post::FlowChanged { bytes, requests });
        }
    }

    fn tick(&self, settings: &Settings, element: &super::GcsSink) {
        let is_playing = upstream::is_meant_to_play(element.upcast_ref());
        if !is_playing {
            self.playing_since.store(0, Ordering::Relaxed);
        } else if self.playing_since.load(Ordering::Relaxed) == 0 {
            self.playing_since.store(self.uploads.now() + 1, Ordering::Relaxed);
        }
        self.look_at_flow();
        let limits = limits(settings, &self.plan.template);
        let has_begun = {
            let mut recorder = self.recorder();
            recorder.close_if_idle(limits.idle());
            recorder.chunker.has_begun()
        };
        let since = self.playing_since.load(Ordering::Relaxed);
        let waited = self.uploads.now().saturating_sub(since.saturating_sub(1));
        let is_late = since > 0 && settings.startup_timeout > 0 && waited >= settings.startup_timeout;
        if is_late && !has_begun && !self.nothing_told.swap(true, Ordering::Relaxed) {
            self.outbox.post(Post::NothingToStore(waited));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wall() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn chance() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

impl GcsSink {
    fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    fn session(&self) -> Option<Arc<Session>> {
        lock(&self.session).clone()
    }

    fn outbox(&self) -> Arc<Outbox> {
        Arc::clone(self.outbox.get_or_init(|| Outbox::new(&self.obj())))
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
        self.session().map_or(0, |s| s.uploads.snapshot().0.bytes_received)
    }

    pub(super) fn status_changed(&self) {
        self.obj().notify("status");
    }

    pub(super) fn health_changed(&self) {
        self.health_changed.store(true, Ordering::Relaxed);
    }

    pub(super) fn uploaded(&self, object: &str) {
        *lock(&self.last_object) = Some(object.to_owned());
        let Some(session) = self.session() else { return };
        if !session.cover_told.swap(true, Ordering::Relaxed) {
            let text = format!("uploads work; {}", self.memory_left());
            session.outbox.post(Post::Info(text));
        }
    }

    /// How long the memory lasts at the rate of this stream.
    pub(super) fn memory_left(&self) -> String {
        let max = self.max_memory();
        let Some(session) = self.session() else { return String::new() };
        let (stats, memory, ..) = session.uploads.snapshot();
        let rate = stats.bytes_received.saturating_mul(1_000_000_000) / session.uploads.now().max(1);
        let left = max.saturating_sub(memory) / rate.max(1);
        format!("max-memory-bytes ({max}) covers about {left} s more of an outage at {rate} bytes/s")
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

    /// The upstream event `gcssink-health`: stats, status, last object.
    pub(super) fn health(&self) -> Option<gst::Structure> {
        let mut structure = self.stats()?;
        structure.set_name("gcssink-health");
        structure.set("status", self.status().name());
        if let Some(object) = lock(&self.last_object).as_deref() {
            structure.set("object", object);
        }
        Some(structure)
    }

    fn status(&self) -> Status {
        self.session().map_or(Status::Stopped, |s| s.uploads.status())
    }

    fn stats(&self) -> Option<gst::Structure> {
        let session = self.session()?;
        let (stats, memory, pending, in_flight, rate) = session.uploads.snapshot();
        Some(
            gst::Structure::builder("gcssink-stats")
                .field("chunks-created", stats.created)
                .field("chunks-uploaded", stats.uploaded)
                .field("chunks-dropped", stats.dropped)
                .field("bytes-received", stats.bytes_received)
                .field("bytes-uploaded", stats.bytes_uploaded)
                .field("bytes-dropped", stats.bytes_dropped)
                .field("bytes-in-memory", memory)
                .field("chunks-pending", pending.chunks)
                .field("oldest-pending-ns", pending.oldest)
                .field("chunks-recovered", 0u64)
                .field("bytes-in-spool", 0u64)
                .field("spool-seconds-left", 0u64)
                .field("throttled-ns", session.flow.throttled())
                .field("retries", stats.retries)
                .field("uploads-in-flight", in_flight)
                .field("upload-rate", rate)
                .build(),
        )
    }

    // The streaming thread.

    fn stamp(&self, buffer: &gst::BufferRef) -> Stamp {
        let obj = self.obj();
        let running = buffer.pts().or(buffer.dts()).and_then(|pts| {
            let segment = obj.segment();
            let running = segment.downcast_ref::<gst::ClockTime>()?.to_running_time_full(pts)?;
            match running.nseconds() {
                gst::Signed::Positive(ns) => i64::try_from(ns).ok(),
                gst::Signed::Negative(ns) => i64::try_from(ns).ok().map(|ns| -ns),
            }
        });
        let reference = buffer.iter_meta::<gst::ReferenceTimestampMeta>().find_map(|meta| {
            let time = meta.timestamp().nseconds();
            match meta.reference().structure(0)?.name().as_str() {
                "timestamp/x-ntp" => time.checked_sub(NTP_TO_UNIX * 1_000_000_000),
                "timestamp/x-unix" => Some(time),
                _ => None,
            }
        });
        Stamp {
            running,
            clock_running: obj.current_running_time().map(gst::ClockTime::nseconds),
            wall: wall(),
            reference,
        }
    }

    fn take(
        &self,
        session: &Session,
        buffer: &gst::BufferRef,
        owned: impl Fn() -> Option<gst::Buffer>,
    ) -> Result<(), gst::FlowError> {
        if session.failed.load(Ordering::Relaxed) {
            return Err(gst::FlowError::Error);
        }
        if session.new_playing.swap(false, Ordering::Relaxed) {
            let live = upstream::is_live(&self.sink_pad());
            session.live.store(live, Ordering::Relaxed);
            session.recorder().chunker.clock.playing(live);
        }
        let stamp = self.stamp(buffer);
        let size = buffer.size();
        self.make_room(session, size as u64)?;
        let map = buffer.map_readable().map_err(|_| {
            session.uploads.release(size as u64);
            gst::element_imp_error!(
                self,
                gst::ResourceError::Read,
                ("a buffer of {size} bytes cannot be mapped for reading")
            );
            gst::FlowError::Error
        })?;
        // A block of memory much larger than what is in it is not worth holding.
        let take_over = || {
            let is_tight = size >= TAKE_OVER && buffer.maxsize() <= size + size / 64;
            let mapped = is_tight.then(&owned).flatten()?.into_mapped_buffer_readable().ok()?;
            Some(Bytes::from_owner(mapped))
        };
        let (outcome, wants_key_unit, too_large) = {
            let mut recorder = session.recorder();
            if buffer.flags().contains(gst::BufferFlags::DISCONT) {
                recorder.chunker.discont();
            }
            let outcome = recorder.push(map.as_slice(), take_over, stamp);
            (outcome, std::mem::take(&mut recorder.wants_key_unit), recorder.too_large)
        };
        if let Err(fault) = outcome {
            return Err(session.end_with(Post::Fault(fault)));
        }
        if let Some(bytes) = too_large {
            return Err(session.end_with(Post::TooLarge(bytes)));
        }
        if wants_key_unit && lock(&self.settings).send_keyframe_requests {
            let count = session.key_requests.fetch_add(1, Ordering::Relaxed);
            upstream::request_key_unit(&self.sink_pad(), u32::try_from(count).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    /// Charges the memory; waits, drops or fails by the policy, and goes on with the same buffer after a pause.
    fn make_room(&self, session: &Session, bytes: u64) -> Result<(), gst::FlowError> {
        loop {
            let overflow = match lock(&self.settings).overflow_policy {
                OverflowPolicy::Auto if session.live.load(Ordering::Relaxed) => Overflow::DropOldest,
                OverflowPolicy::Auto | OverflowPolicy::Block => Overflow::Block,
                OverflowPolicy::DropOldest => Overflow::DropOldest,
                OverflowPolicy::Error => Overflow::Error,
            };
            match session.uploads.charge(bytes, overflow) {
                Ok(()) => return Ok(()),
                Err(NoRoom::Full) => return Err(session.end_with(Post::Full)),
                Err(NoRoom::Refused) => return Err(session.end_with(Post::Refused(session.uploads.last_reason()))),
                Err(NoRoom::Again) => {}
                Err(NoRoom::Nothing) => {
                    session.recorder().make_room();
                    if session.uploads.snapshot().2.chunks == 0 {
                        session.uploads.charge_anyway(bytes);
                        return Ok(());
                    }
                }
                Err(NoRoom::Interrupted) if session.failed.load(Ordering::Relaxed) => return Err(gst::FlowError::Error),
                Err(NoRoom::Interrupted) => {
                    self.obj().wait_preroll()?;
                }
            }
        }
    }

    fn sink_pad(&self) -> gst::Pad {
        self.obj()
            .static_pad("sink")
            .unwrap_or_else(|| unreachable!("GstBaseSink makes its pad"))
    }

    /// Closes the open chunk and waits for everything to be stored, at most `drain-timeout`. `false`: flushing.
    fn drain(&self, session: &Session) -> bool {
        let timeout = Duration::from_nanos(lock(&self.settings).drain_timeout);
        let began = tokio::time::Instant::now();
        let until = began.checked_add(timeout).unwrap_or(began);
        if let Err(fault) = session.recorder().finish() {
            session.failed.store(true, Ordering::Relaxed);
            session.outbox.post(Post::Fault(fault));
        }
        session.uploads.ending(Status::Draining);
        let give_up =
            || session.is_stopping() || session.flushing.load(Ordering::Relaxed) || session.refused.load(Ordering::Relaxed);
        loop {
            match session.uploads.wait_drained(until, true, &give_up) {
                Drained::Yes | Drained::GivenUp => break,
                // The base class holds its preroll lock around us; a pause or a stop needs it.
                Drained::Interrupted if self.obj().wait_preroll().is_ok() => {}
                Drained::Interrupted => return false,
                Drained::TimedOut => {
                    let (_, _, pending, ..) = session.uploads.snapshot();
                    session.uploads.abandon("drain-timeout");
                    let waited = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    session.outbox.post(Post::NotDrained {
                        chunks: pending.chunks,
                        bytes: pending.bytes,
                        waited,
                    });
                    break;
                }
            }
        }
        let nothing = !session.recorder().chunker.has_begun() && !session.failed.load(Ordering::Relaxed);
        if nothing && !session.nothing_told.swap(true, Ordering::Relaxed) {
            let waited = session.uploads.now();
            session.outbox.post(Post::NothingToStore(waited));
        }
        // What is said of the chunks comes before the end of the stream.
        session.outbox.wait_empty(std::time::Instant::now() + LAST_WORD);
        true
    }

    fn begin_session(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings();
        let plan = plan(&settings)?;
        let identity = Identity::claim(&plan, &settings.location)?;
        let runtime =
            runtime().map_err(|e| gst::error_msg!(gst::ResourceError::Failed, ("the upload threads cannot be started: {e}")))?;
        let (session_id, first) = lock(&self.id).get_or_insert_with(new_id).clone();
        let outbox = self.outbox();
        let kick = {
            let outbox = Arc::clone(&outbox);
            Box::new(move || outbox.kick())
        };
        let uploads = Arc::new(Uploads::new(upload_limits(&settings), chance(), kick));
        outbox.attach(Some(Arc::clone(&uploads)));
        let chunker = Chunker::new(limits(&settings, &plan.template), None)
            .with_blocks(POOL)
            .with_first_sequence(first);
        let objects = ObjectSettings {
            content_type: settings.content_type.clone(),
            cache_control: settings.cache_control.clone(),
            storage_class: settings.storage_class.clone(),
            kms_key: settings.kms_key.clone(),
        };
        let recorder = Recorder::new(
            chunker,
            plan.clone(),
            session_id,
            objects,
            Arc::clone(&uploads),
            Arc::clone(&outbox),
        );
        let writer = GcsWriter::new(&ClientPool::global(), plan.endpoint.clone(), plan.credentials.clone())
            .with_request_timeout(plan.request_timeout);
        let flow = Arc::new(Member::new(Group::join(&settings.flow_group)));
        if settings.max_bytes_per_second.is_some() || settings.max_requests_per_second.is_some() {
            flow.group()
                .set(settings.max_bytes_per_second, settings.max_requests_per_second);
        }
        let driver = runtime.spawn(driver::run(Arc::clone(&uploads), Arc::new(writer), Arc::clone(&flow)));
        let watched = Arc::clone(&uploads);
        runtime.spawn(async move {
            if let Err(panic) = driver.await {
                watched.broken(&panic.to_string());
            }
        });
        let session = Arc::new(Session {
            plan,
            recorder: Mutex::new(recorder),
            uploads,
            flow_told: AtomicU64::new(flow.group().limits().2),
            flow,
            outbox,
            identity: Mutex::new(Some(identity)),
            ticker: Mutex::new(None),
            new_playing: AtomicBool::new(true),
            live: AtomicBool::new(false),
            playing_since: AtomicU64::new(0),
            nothing_told: AtomicBool::new(false),
            cover_told: AtomicBool::new(false),
            flushing: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            key_requests: AtomicU64::new(0),
            caps: Mutex::new(None),
            stop: Mutex::new(None),
        });
        *lock(&session.ticker) = Some(
            runtime
                .spawn(tick_every_second(Arc::downgrade(&session), self.obj().downgrade()))
                .abort_handle(),
        );
        *lock(&self.session) = Some(session);
        self.status_changed();
        Ok(())
    }

    fn end_session(&self) {
        let Some(session) = self.session() else { return };
        if let Some(ticker) = lock(&session.ticker).take() {
            ticker.abort();
        }
        let timeout = Duration::from_nanos(lock(&self.settings).shutdown_timeout);
        let until = lock(&session.stop).get_or_insert_with(Stop::begin).until(timeout);
        let next = {
            let mut recorder = session.recorder();
            if let Err(fault) = recorder.finish() {
                session.outbox.post(Post::Fault(fault));
            }
            recorder.chunker.next_sequence()
        };
        if let Some((_, sequence)) = lock(&self.id).as_mut() {
            *sequence = next;
        }
        session.uploads.ending(Status::Draining);
        let refused = || session.refused.load(Ordering::Relaxed);
        if session.uploads.wait_drained(until.into(), false, &refused) != Drained::Yes {
            let lost = session.uploads.abandon("shutdown-timeout");
            gst::warning!(CAT, imp = self, "{lost} chunks were not stored within the shutdown-timeout");
        }
        session.uploads.stop();
        // At least a moment for the last messages, which wait for nothing but the application.
        session
            .outbox
            .wait_empty(until.max(std::time::Instant::now() + Duration::from_millis(100)));
        session.outbox.attach(None);
        *lock(&self.session) = None;
        drop(lock(&session.identity).take());
        *lock(&self.last_object) = None;
        // Out of the list of those who stop only now.
        drop(lock(&session.stop).take());
        self.status_changed();
    }

    fn limits_changed(&self) {
        let Some(session) = self.session() else { return };
        let settings = self.settings();
        session.uploads.set_limits(upload_limits(&settings));
        session
            .recorder()
            .chunker
            .set_limits(limits(&settings, &session.plan.template));
    }
}

fn new_id() -> (String, u64) {
    let chance = u8::try_from(chance() & 0xff).unwrap_or(0);
    (session_id(wall(), chance), 0)
}

/// Looks once a second whether the stream stands still, nothing has come, or upstream should be told.
async fn tick_every_second(session: std::sync::Weak<Session>, element: glib::WeakRef<super::GcsSink>) {
    let mut timer = tokio::time::interval(Duration::from_secs(1));
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        timer.tick().await;
        let (Some(session), Some(element)) = (session.upgrade(), element.upgrade()) else {
            return;
        };
        let imp = element.imp();
        session.tick(&imp.settings(), &element);
        if imp.health_changed.swap(false, Ordering::Relaxed) {
            session.outbox.post(Post::Health);
        }
    }
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
            }
            (gst::StateChange::PausedToReady, Some(session)) => {
                lock(&session.stop).get_or_insert_with(Stop::begin);
                session.uploads.nudge();
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
                gst::EventView::CustomDownstream(custom) => match custom.structure() {
                    Some(s) if s.name() == "GstForceKeyUnit" => session.recorder().chunker.arm(),
                    Some(s) if s.name() == "gcssink-clock" => {
                        if let (Ok(running), Ok(utc)) = (s.get::<u64>("running-time"), s.get::<u64>("utc")) {
                            session.recorder().chunker.clock.map(running, utc);
                        }
                    }
                    _ => {}
                },
                gst::EventView::FlushStart(_) => {
                    session.flushing.store(true, Ordering::Relaxed);
                    session.uploads.nudge();
                }
                gst::EventView::FlushStop(_) => {
                    session.flushing.store(false, Ordering::Relaxed);
                    session.recorder().chunker.flush();
                }
                // Flushing: the event is dropped, the base class would wait for a preroll that never ends.
                gst::EventView::Eos(_) if !self.drain(&session) => return false,
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
