//! A session: the engine and its GStreamer side, from READY→PAUSED to PAUSED→READY.
//!
//! No lock is held while calling the engine or GStreamer, during a wait or during I/O.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::blocks::POOL;
use super::debug::{CAT, LogChunks};
use super::messages::{self, MessagePoster, Post};
use super::reported_once::ReportedOnce;
use super::settings::Settings;
use super::upstream;
use super::validate::{Device, Identity, ValidatedSettings, check_credentials, limits, upload_limits, validate};
use crate::base::boot;
use crate::base::lock::lock;
use crate::base::runtime::runtime;
use crate::element::scope::scope_of;
use crate::element::terminal;
use crate::flow::bucket_endpoint::BucketEndpoint;
use crate::flow::group::Group;
use crate::flow::member::Member;
use crate::ingest::message::{Message, Poster};
use crate::ingest::object::{ObjectBuilder, ObjectSettings};
use crate::ingest::{Config, Engine, Parts};
use crate::upload::chunk::Keep;
use crate::upload::queue::UploadQueue;
use crate::upload::recovery::{self, SessionSpool, SpoolSettings};
use crate::upload::writers::GcsWriters;
use gcstreamer_media::chunk::Chunker;
use gcstreamer_schema::name::Template;

/// One session of the element.
pub(super) struct Session {
    pub engine: Arc<Engine>,
    pub poster: Arc<MessagePoster>,
    /// Property `location`, parsed. A fixed name is one object that is never cut.
    template: Template,
    /// Property `spool-dir`.
    pub spool_dir: Option<String>,
    /// Property `spool-mode`: which chunks are written to the spool, and when.
    pub keep: Keep,
    /// The sink stores a fragment of a splitmuxsink. Running time then starts again with each fragment and is not the pipeline's.
    pub in_splitmuxsink: bool,
    /// The exclusive right to store for `device`; released at EOS, or when the element leaves PAUSED.
    identity: Mutex<Option<Identity>>,
    /// Bucket and device of this sink.
    device: Device,
    /// The next buffer is the first one since PLAYING.
    pub new_playing: AtomicBool,
    /// A muxer of the same pipeline is upstream.
    pub is_muxed: AtomicBool,
    /// Number of key units requested from upstream.
    pub key_requests: AtomicU64,
    /// The stream header from the caps, until the first buffer has arrived.
    pub head: Mutex<Vec<gst::Buffer>>,
    /// `head` is not empty. A flag of its own, so that buffers after the first one need no lock.
    pub has_head: AtomicBool,
    /// The last caps, without their header.
    pub caps: Mutex<Option<gst::Caps>>,
    pub reported: Reported,
}

/// Reports that were made, and reports that are due.
#[derive(Default)]
pub(super) struct Reported {
    /// Reports that are made only once.
    pub reported_once: Arc<ReportedOnce>,
    /// The event `gcssink-health` is due.
    pub health: AtomicBool,
    /// Name of the last stored object.
    pub last_object: Mutex<Option<String>>,
}

/// Forwards the engine's messages to the element's poster.
struct EnginePoster(Arc<MessagePoster>);

impl Poster for EnginePoster {
    fn post(&self, message: Message) {
        self.0.post(Post::Engine(message));
    }

    fn wait_posted(&self, at_most: Duration) {
        self.0.wait_empty(Instant::now() + at_most);
    }
}

impl Session {
    /// Begins a session: checks the settings, opens the spool, starts the tasks. `id` is the session id and the first sequence
    /// number it may use.
    pub(super) fn begin(
        element: &gst::Element,
        settings: &Settings,
        id: (String, u64),
        poster: Arc<MessagePoster>,
        seed: u64,
    ) -> Result<Arc<Self>, gst::ErrorMessage> {
        let validated = validate(settings)?;
        let outlasts = OUTLAST_REFUSALS.load(Ordering::Relaxed) && (settings.spool_dir.is_some() || has_stored(&validated));
        // Unusable credentials are treated as a refusal by the server is.
        let refused = check_credentials(&validated, settings)?;
        if let Some(text) = refused.as_ref().filter(|_| !outlasts) {
            return Err(gst::error_msg!(gst::ResourceError::NotAuthorized, ("{text}")));
        }
        let device = Device::of(&validated, &settings.location);
        let identity = Identity::claim(&device)?;
        let runtime =
            runtime().map_err(|e| gst::error_msg!(gst::ResourceError::Failed, ("the upload threads cannot be started: {e}")))?;
        let builder = builder(&validated, settings, &id.0);
        let spool = settings
            .spool_dir
            .as_ref()
            .map(|dir| open_spool(dir, settings, &builder, outlasts))
            .transpose()?;
        let keep = spool.as_ref().map_or(Keep::Memory, |spool| spool.keep);
        let in_splitmuxsink = upstream::splitmuxsink_of(element).is_some();
        let flow = Arc::new(member(&validated, settings).with_successor(in_splitmuxsink));
        let queue = queue(element, settings, spool.as_ref(), &poster, seed, outlasts);
        let parts = Parts {
            chunker: Chunker::new(limits(settings, &validated.template), None)
                .with_blocks(POOL)
                .with_first_sequence(id.1),
            builder,
            queue,
            flow,
            writers: Arc::new(GcsWriters::new(
                validated.endpoint,
                validated.credentials,
                validated.request_timeout,
            )),
            poster: Arc::new(EnginePoster(Arc::clone(&poster))),
            config: config(settings, &validated.template),
        };
        let session = Arc::new(Self {
            engine: Engine::begin(parts, spool, runtime.handle()),
            poster,
            template: validated.template,
            spool_dir: settings.spool_dir.clone(),
            keep,
            in_splitmuxsink,
            identity: Mutex::new(Some(identity)),
            device,
            new_playing: AtomicBool::new(true),
            is_muxed: AtomicBool::new(false),
            key_requests: AtomicU64::new(0),
            head: Mutex::default(),
            has_head: AtomicBool::new(false),
            caps: Mutex::new(None),
            reported: Reported {
                reported_once: ReportedOnce::of(element),
                ..Reported::default()
            },
        });
        session.engine.set_scope(scope_of(element));
        settings.doubts().into_iter().for_each(|text| session.doubt(text));
        if let Some(text) = refused {
            session.doubt(format!("{text}; recording goes on, and what cannot be uploaded waits"));
        }
        session.start_ticking(element);
        Ok(session)
    }

    fn start_ticking(self: &Arc<Self>, element: &gst::Element) {
        // Weak references: the ticker must not keep a stopped session or element alive.
        let (session, element) = (Arc::downgrade(self), element.downgrade());
        self.engine.every_second(move |engine| {
            let (Some(session), Some(element)) = (session.upgrade(), element.upgrade()) else {
                return false;
            };
            engine.tick(upstream::is_meant_to_play(&element));
            // At most once a second; the arrival of data is reported as well. `|`, not `||`: both sides reset what they return.
            if session.reported.health.swap(false, Ordering::Relaxed) | engine.has_grown() {
                session.poster.post(Post::Health);
            }
            true
        });
    }

    /// Posts a WARNING about a setting that is probably a mistake.
    pub(super) fn doubt(&self, text: String) {
        if self.reported.reported_once.is_new(&text) {
            self.poster.post(Post::Doubt(text));
        }
    }

    /// Ends the stream with an ERROR. Waits up to 1 s until it is posted, so that it reaches the bus before the errors that
    /// upstream elements post when `render` fails.
    pub(super) fn end_with(&self, post: Post) {
        if self.engine.fail() {
            self.poster.post(post);
            self.poster.wait_empty(Instant::now() + Duration::from_secs(1));
        }
    }

    /// Ends the session within the process's shutdown deadline. Returns the next sequence number.
    pub(super) fn end(&self, element: &gst::Element, shutdown_timeout: Duration) -> u64 {
        let ended = self.engine.end(shutdown_timeout);
        // Also to the terminal: after a stop, the application may no longer read the bus.
        let dir = self.spool_dir.as_deref();
        let unfinished = ended
            .unfinished
            .and_then(|it| messages::unfinished(&it, dir, shutdown_timeout));
        let nothing = ended.nothing_of.map(messages::nothing_of);
        for text in unfinished.into_iter().chain(nothing) {
            gst::warning!(CAT, obj = element, "{text}");
            terminal::warn(element, &text);
        }
        // The poster belongs to the element and outlives the session: detach the queue from it.
        self.poster.attach(None);
        ended.next_sequence
    }

    /// Releases the right to store for this device. Call it when no data follows: another sink may then claim the device while
    /// the chunks of this one are still being uploaded.
    pub(super) fn release_identity(&self) {
        drop(lock(&self.identity).take());
    }

    /// Claims the device again when data follows an EOS.
    ///
    /// # Errors
    /// Another sink has claimed it meanwhile.
    pub(super) fn claim_identity(&self) -> Result<(), gst::ErrorMessage> {
        let mut identity = lock(&self.identity);
        if identity.is_none() {
            *identity = Some(Identity::claim(&self.device)?);
        }
        Ok(())
    }

    /// Applies the limits of the flow group that the user has set.
    pub(super) fn set_flow(&self, settings: &Settings) {
        self.engine
            .set_flow(settings.max_bytes_per_second, settings.max_requests_per_second);
    }

    /// Applies changed settings.
    pub(super) fn set_limits(&self, settings: &Settings) {
        self.engine.set_config(config(settings, &self.template));
        if let Some(spool) = &self.engine.spool {
            spool.set_max(settings.max_spool_bytes);
        }
    }
}

fn config(settings: &Settings, template: &Template) -> Config {
    Config {
        limits: limits(settings, template),
        uploads: upload_limits(settings),
        overflow: settings.overflow_policy.into(),
        startup_timeout: settings.startup_timeout.ns(),
        shutdown_timeout: Duration::from_nanos(settings.shutdown_timeout.ns()),
    }
}

fn builder(validated: &ValidatedSettings, settings: &Settings, session: &str) -> ObjectBuilder {
    ObjectBuilder {
        bucket: validated.bucket.clone(),
        device: validated.device.clone(),
        location: validated.location.clone(),
        template: validated.template.clone(),
        endpoint: validated.endpoint.clone(),
        session: session.into(),
        boot_id: boot::boot_id().unwrap_or_default().into(),
        settings: ObjectSettings {
            content_type: settings.content_type.clone(),
            cache_control: settings.cache_control.clone(),
            storage_class: settings.storage_class.clone(),
            kms_key: settings.kms_key.clone(),
            metadata: validated.metadata.clone(),
            start_reason: settings.start_reason.clone(),
            previous_session: settings.previous_session.clone(),
        },
    }
}

/// See [`outlast_refusals`].
static OUTLAST_REFUSALS: AtomicBool = AtomicBool::new(false);

/// Makes refusals at the start of a session a WARNING instead of an ERROR, as they are later in a session. Refusals come from the
/// uploads, the credentials file and the disk of the spool. Applies to all sinks of the process from now on; to a sink without a
/// spool only if a sink of the process has already stored in its bucket. For programs that embed the elements and begin many
/// sessions.
pub fn outlast_refusals() {
    OUTLAST_REFUSALS.store(true, Ordering::Relaxed);
}

/// Creates the upload queue. Its reports go to the poster, the steps of its chunks to the log.
fn queue(
    element: &gst::Element,
    settings: &Settings,
    spool: Option<&SessionSpool>,
    poster: &Arc<MessagePoster>,
    seed: u64,
    outlasts_refusals: bool,
) -> Arc<UploadQueue> {
    let wake = {
        let poster = Arc::clone(poster);
        Box::new(move || poster.wake())
    };
    let queue = UploadQueue::new(upload_limits(settings), seed, wake).with_observer(Arc::new(LogChunks(element.downgrade())));
    let queue = if outlasts_refusals {
        queue.outlasting_refusals()
    } else {
        queue
    };
    let queue = Arc::new(match spool {
        Some(spool) => queue.with_disk(spool.keep == Keep::Overflow),
        None => queue,
    });
    let reports = Arc::clone(&queue);
    poster.attach(Some(Box::new(move || {
        reports.take_report().map(|report| Post::Engine(Message::Report(report)))
    })));
    queue
}

/// Returns whether a sink of the process has stored in this bucket.
fn has_stored(validated: &ValidatedSettings) -> bool {
    BucketEndpoint::of(validated.endpoint.as_str(), &validated.bucket).has_stored()
}

/// Joins the flow group with the limits that the user has set.
fn member(validated: &ValidatedSettings, settings: &Settings) -> Member {
    let endpoint = BucketEndpoint::of(validated.endpoint.as_str(), &validated.bucket);
    let member = Member::new(Group::join(&settings.flow_group), endpoint);
    member
        .group()
        .apply(settings.max_bytes_per_second, settings.max_requests_per_second);
    member
}

/// Opens the spool folder and takes the session's lock in it. With `outlasts`, a disk that refuses is tried again later.
///
/// # Errors
/// Names the folder and the system's error.
fn open_spool(
    dir: &str,
    settings: &Settings,
    builder: &ObjectBuilder,
    outlasts: bool,
) -> Result<SessionSpool, gst::ErrorMessage> {
    let spool = SpoolSettings {
        dir,
        max_bytes: settings.max_spool_bytes,
        keep: settings.spool_mode.into(),
        interval: Duration::from_nanos(settings.spool_sync_interval.ns()),
        outlasts_refusals: outlasts,
    };
    recovery::open(
        spool,
        &builder.device,
        &builder.session,
        builder.endpoint.clone(),
        builder.destination(),
    )
    .map_err(|e| {
        gst::error_msg!(
            gst::ResourceError::Settings,
            ("{e}; spool-dir=\"{dir}\" has to be a folder that this user may write")
        )
    })
}
