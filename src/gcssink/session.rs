//! What exists from READY→PAUSED to PAUSED→READY: recorder, uploads, spool, and the tasks that belong to them.
//!
//! Locks: `recorder` is never taken while another of these is held, and never held across a wait, I/O or a call into
//! GStreamer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::blocks::POOL;
use super::disk::{self, SpoolPlan};
use super::messages::{Outbox, Post};
use super::object::{Maker, ObjectSettings};
use super::plan::{Identity, Plan, limits, plan, upload_limits};
use super::recorder::{Keep, Recorder};
use super::settings::Settings;
use super::upstream;
use super::writers::GcsWriters;
use crate::deadline::Stop;
use crate::flow::group::{Group, Member};
use crate::flow::site::Site;
use crate::spool::{Spool, boot};
use crate::sync::lock;
use crate::upload::driver;
use crate::upload::runtime::runtime;
use crate::upload::uploads::Uploads;
use gcstreamer_media::chunk::Chunker;

/// How long the streaming thread waits for its last messages to be posted: an application's handler may be slow.
pub(super) const LAST_WORD: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Session {
    pub plan: Plan,
    recorder: Mutex<Recorder>,
    pub uploads: Arc<Uploads>,
    pub flow: Arc<Member>,
    /// The version of the group's limits that was told last.
    flow_told: AtomicU64,
    pub outbox: Arc<Outbox>,
    pub spool: Option<Arc<Spool>>,
    pub(super) identity: Mutex<Option<Identity>>,
    pub(super) tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    pub(super) ticker: Mutex<Option<tokio::task::AbortHandle>>,
    /// The next buffer is the first of a PLAYING.
    pub new_playing: AtomicBool,
    pub live: AtomicBool,
    /// It stores a fragment of a splitmuxsink: the running time here is not the pipeline's, it begins anew with each fragment.
    pub in_splitmuxsink: bool,
    /// Since when it is PLAYING, ns on the uploads' scale plus one; 0 while it is not.
    playing_since: AtomicU64,
    pub(super) nothing_told: AtomicBool,
    /// Bytes received as upstream was told last.
    received_told: AtomicU64,
    pub cover_told: AtomicBool,
    pub flushing: AtomicBool,
    /// An ERROR was posted: nothing more is taken.
    pub failed: AtomicBool,
    /// The ERROR is about the uploads: waiting for them is of no use.
    pub refused: AtomicBool,
    pub key_requests: AtomicU64,
    /// Key units that have come.
    pub key_units: AtomicU64,
    /// The last caps, without their header.
    pub caps: Mutex<Option<gst::Caps>>,
    pub stop: Mutex<Option<Stop>>,
}

impl Session {
    /// Begins a session: settings checked, disk opened, tasks started. `id` is the session's name and the first sequence
    /// number it may use.
    pub(super) fn begin(
        element: &super::GcsSink,
        settings: &Settings,
        id: (String, u64),
        outbox: Arc<Outbox>,
        seed: u64,
    ) -> Result<Arc<Self>, gst::ErrorMessage> {
        let plan = plan(settings)?;
        let identity = Identity::claim(&plan, &settings.location)?;
        let runtime =
            runtime().map_err(|e| gst::error_msg!(gst::ResourceError::Failed, ("the upload threads cannot be started: {e}")))?;
        let maker = Maker {
            plan: plan.clone(),
            session: id.0.as_str().into(),
            boot_id: boot::boot_id().unwrap_or_default().into(),
            settings: ObjectSettings::from(settings),
        };
        let spool = settings
            .spool_dir
            .as_ref()
            .map(|dir| disk::open(dir, settings, &maker))
            .transpose()?;
        let kick = {
            let outbox = Arc::clone(&outbox);
            Box::new(move || outbox.kick())
        };
        let uploads = Uploads::new(upload_limits(settings), seed, kick);
        let uploads = Arc::new(match &spool {
            Some(spool) => uploads.with_disk(spool.keep == Keep::Overflow),
            None => uploads,
        });
        let reports = Arc::clone(&uploads);
        outbox.attach(Some(Box::new(move || reports.take_report().map(Post::Report))));
        let chunker = Chunker::new(limits(settings, &plan.template), None)
            .with_blocks(POOL)
            .with_first_sequence(id.1);
        let keep = spool.as_ref().map_or(Keep::Memory, |s| s.keep);
        let recorder = Recorder::new(chunker, maker, keep, Arc::clone(&uploads), Arc::clone(&outbox));
        let in_splitmuxsink = upstream::is_in_splitmuxsink(element.upcast_ref());
        let site = Site::of(plan.endpoint.as_str(), &plan.bucket);
        let flow = Arc::new(Member::new(Group::join(&settings.flow_group), site).with_successor(in_splitmuxsink));
        if settings.max_bytes_per_second.is_some() || settings.max_requests_per_second.is_some() {
            flow.group()
                .set(settings.max_bytes_per_second, settings.max_requests_per_second);
        }
        let session = Arc::new(Self {
            plan,
            recorder: Mutex::new(recorder),
            uploads,
            flow_told: AtomicU64::new(flow.group().limits().2),
            flow,
            outbox,
            spool: spool.as_ref().map(|s| Arc::clone(&s.spool)),
            identity: Mutex::new(Some(identity)),
            tasks: Mutex::default(),
            ticker: Mutex::default(),
            new_playing: AtomicBool::new(true),
            live: AtomicBool::new(false),
            in_splitmuxsink,
            playing_since: AtomicU64::new(0),
            nothing_told: AtomicBool::new(false),
            received_told: AtomicU64::new(0),
            cover_told: AtomicBool::new(false),
            flushing: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            key_requests: AtomicU64::new(0),
            key_units: AtomicU64::new(0),
            caps: Mutex::new(None),
            stop: Mutex::new(None),
        });
        session.start_tasks(runtime, element, spool);
        Ok(session)
    }

    fn start_tasks(self: &Arc<Self>, runtime: &tokio::runtime::Runtime, element: &super::GcsSink, spool: Option<SpoolPlan>) {
        let writers = Arc::new(GcsWriters::new(&self.plan));
        let driver = driver::run(Arc::clone(&self.uploads), writers, Arc::clone(&self.flow));
        let mut tasks = vec![self.watched(runtime, driver)];
        if let Some(spool) = spool {
            let session = Arc::downgrade(self);
            let ahead = Box::new(move || {
                if let Some(session) = session.upgrade() {
                    session.recorder().write_ahead();
                }
            });
            tasks.push(self.watched(runtime, disk::run(Arc::clone(&self.uploads), spool, ahead)));
        }
        *lock(&self.tasks) = tasks;
        let ticker = tick_every_second(Arc::downgrade(self), element.downgrade());
        *lock(&self.ticker) = Some(runtime.spawn(ticker).abort_handle());
    }

    /// A task whose defects the user hears of.
    fn watched(
        &self,
        runtime: &tokio::runtime::Runtime,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let task = runtime.spawn(task);
        let uploads = Arc::clone(&self.uploads);
        runtime.spawn(async move {
            if let Err(panic) = task.await {
                uploads.broken(&panic.to_string());
            }
        })
    }

    pub(super) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        lock(&self.recorder)
    }

    /// Ends the stream with an ERROR, which reaches the bus before those of the elements in front.
    pub(super) fn end_with(&self, post: Post) -> gst::FlowError {
        if !self.failed.swap(true, Ordering::Relaxed) {
            self.outbox.post(post);
            self.outbox.wait_empty(std::time::Instant::now() + LAST_WORD);
        }
        gst::FlowError::Error
    }

    pub(super) fn is_stopping(&self) -> bool {
        lock(&self.stop).is_some()
    }

    pub(super) fn set_flow(&self, bytes: Option<u64>, requests: Option<f64>) {
        self.flow.group().set(bytes, requests);
        self.flow_told.store(self.flow.group().limits().2, Ordering::Relaxed);
    }

    /// Another member of the group may have changed the limits.
    fn look_at_flow(&self) {
        let (bytes, requests, version) = self.flow.group().limits();
        if self.flow_told.swap(version, Ordering::Relaxed) != version {
            let is_news = self.flow.group().tell(version);
            self.outbox.post(Post::FlowChanged {
                bytes,
                requests,
                is_news,
            });
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
            recorder.chunker.has_begun() || recorder.chunker.is_stopped()
        };
        let since = self.playing_since.load(Ordering::Relaxed);
        let waited = self.uploads.now().saturating_sub(since.saturating_sub(1));
        let is_late = since > 0 && settings.startup_timeout > 0 && waited >= settings.startup_timeout;
        if is_late && !has_begun && !self.nothing_told.swap(true, Ordering::Relaxed) {
            self.outbox.post(Post::NothingToStore(waited));
        }
    }

    /// Whether bytes have come since this was asked last.
    fn has_grown(&self) -> bool {
        let received = self.uploads.snapshot().stats.bytes_received;
        self.received_told.swap(received, Ordering::Relaxed) != received
    }

    /// Other limits from now on.
    pub(super) fn set_limits(&self, settings: &Settings) {
        self.uploads.set_limits(upload_limits(settings));
        self.recorder().chunker.set_limits(limits(settings, &self.plan.template));
        if let Some(spool) = &self.spool {
            spool.set_max(settings.max_spool_bytes);
        }
    }
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
        // At most once a second; that bytes have come is news too.
        if imp.take_health_changed() | session.has_grown() {
            session.outbox.post(Post::Health);
        }
    }
}
