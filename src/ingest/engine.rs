//! One session of the engine, from its first byte to its end.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle};

use super::held::Waits;
use super::message::{Message, Poster, Refusal};
use super::object::ObjectBuilder;
use super::stream::Ingest;
use crate::base::lock::lock;
use crate::element::shutdown::{Scope, Stop};
use crate::flow::group::UserLimit;
use crate::flow::member::Member;
use crate::upload::chunk::Keep;
use crate::upload::driver::{self, Writers};
use crate::upload::queue::{Overflow, UploadLimits, UploadQueue};
use crate::upload::recovery::{self, SessionSpool};
use crate::upload::spool_folder::SpoolFolder;
use gcstreamer_media::chunk::{Chunker, Limits};

/// Maximum time a pipeline thread waits until its last messages are posted: an application's handler may be slow.
pub(super) const LAST_WORD: Duration = Duration::from_secs(1);

/// Settings that may change during the session.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// When to cut.
    pub limits: Limits,
    /// How to upload.
    pub uploads: UploadLimits,
    /// Property `overflow-policy`; `None` = `auto`: drop the oldest if the pipeline is live, otherwise block.
    pub overflow: Option<Overflow>,
    /// Property `startup-timeout`, ns; 0 = never.
    pub startup_timeout: u64,
    /// Property `shutdown-timeout`.
    pub shutdown_timeout: Duration,
}

/// The parts that a session is built from.
pub struct Parts {
    /// Decides where to cut; set to the session's first sequence number.
    pub chunker: Chunker,
    /// Builds the objects.
    pub builder: ObjectBuilder,
    /// The queue of closed chunks; created with a disk if there is a spool.
    pub queue: Arc<UploadQueue>,
    /// The membership in the flow group.
    pub flow: Arc<Member>,
    /// The writers, by destination.
    pub writers: Arc<dyn Writers>,
    /// Receives the messages.
    pub poster: Arc<dyn Poster>,
    /// The initial settings.
    pub config: Config,
}

/// One session.
pub struct Engine {
    /// The upload queue.
    pub queue: Arc<UploadQueue>,
    /// The membership in the flow group.
    pub flow: Arc<Member>,
    /// The folder on disk, if any.
    pub spool: Option<Arc<SpoolFolder>>,
    pub(super) poster: Arc<dyn Poster>,
    pub(super) ingest: Mutex<Ingest>,
    config: Mutex<Config>,
    runtime: Handle,
    pub(super) tasks: Mutex<Tasks>,
    pub(super) failure: Failure,
    pub(super) playing: Playing,
    pub(super) reported: Reported,
    pub(super) held: Waits,
    pub(super) stopping: Stopping,
    /// Key units received: `stats` reads them without waiting for the streaming thread.
    pub(super) key_units: AtomicU64,
    /// Bytes of the next buffer that [`Engine::reserve`] has not charged.
    pub(super) uncharged: AtomicUsize,
    /// Length of the header that the next chunk would get, in bytes.
    pub(super) head_len: AtomicUsize,
}

/// The tasks beside the streaming thread.
#[derive(Default)]
pub(super) struct Tasks {
    /// The driver and the spool writer.
    pub(super) jobs: Vec<JoinHandle<()>>,
    pub(super) ticker: Option<AbortHandle>,
}

/// Whether an ERROR has ended the recording, and which kind.
#[derive(Debug, Default)]
pub(super) struct Failure(AtomicU8);

impl Failure {
    const FAILED: u8 = 1;
    const REFUSED: u8 = 2;

    /// Stops accepting data. Returns whether this is the first call.
    pub(super) fn fail(&self) -> bool {
        // The greater value stays: a failure does not replace a refusal.
        self.0.fetch_max(Self::FAILED, Ordering::Relaxed) == 0
    }

    /// As [`Failure::fail`], for an ERROR about the uploads: waiting for them is pointless.
    fn refuse(&self) {
        self.0.fetch_max(Self::REFUSED, Ordering::Relaxed);
    }

    pub(super) fn is_failed(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= Self::FAILED
    }

    pub(super) fn is_refused(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= Self::REFUSED
    }
}

/// State of the pipeline in front.
#[derive(Debug, Default)]
pub(super) struct Playing {
    pub(super) is_live: AtomicBool,
    /// Since when it is PLAYING, ns on the queue's scale plus one; 0 if it is not.
    pub(super) since: AtomicU64,
}

/// What has been reported, or read, so far.
#[derive(Debug, Default)]
pub(super) struct Reported {
    pub(super) nothing_to_store: AtomicBool,
    /// Bytes received at the last call of [`Engine::has_grown`].
    pub(super) received: AtomicU64,
    /// Last seen version of the flow group's limits.
    pub(super) flow_version: AtomicU64,
}

/// Why waits must end.
#[derive(Debug, Default)]
pub(super) struct Stopping {
    pub(super) is_flushing: AtomicBool,
    /// Set when the element leaves PAUSED: its share of the shutdown deadline.
    pub(super) deadline: Mutex<Option<Stop>>,
    /// The elements that share the deadline.
    scope: Mutex<Scope>,
}

impl Stopping {
    /// Starts the stop of the element.
    pub(super) fn begin(&self) -> Stop {
        Stop::begin(*lock(&self.scope))
    }
}

impl Engine {
    /// Begins a session and starts its tasks in `runtime`.
    pub fn begin(parts: Parts, spool: Option<SessionSpool>, runtime: &Handle) -> Arc<Self> {
        let keep = spool.as_ref().map_or(Keep::Memory, |s| s.keep);
        let queue = parts.queue;
        let ingest = Ingest::new(
            parts.chunker,
            parts.builder,
            keep,
            Arc::clone(&queue),
            Arc::clone(&parts.poster),
        );
        let engine = Arc::new(Self {
            held: Waits::default(),
            reported: Reported {
                // Limits that were set before this session are no change.
                flow_version: AtomicU64::new(parts.flow.group().limits().2),
                ..Reported::default()
            },
            queue,
            flow: parts.flow,
            spool: spool.as_ref().map(|s| Arc::clone(&s.folder)),
            poster: parts.poster,
            ingest: Mutex::new(ingest),
            config: Mutex::new(parts.config),
            runtime: runtime.clone(),
            tasks: Mutex::default(),
            failure: Failure::default(),
            playing: Playing::default(),
            stopping: Stopping::default(),
            key_units: AtomicU64::new(0),
            uncharged: AtomicUsize::new(0),
            head_len: AtomicUsize::new(0),
        });
        // The ingest side begins without limits: this passes them on.
        engine.set_config(parts.config);
        engine.start(parts.writers, spool);
        engine
    }

    fn start(self: &Arc<Self>, writers: Arc<dyn Writers>, spool: Option<SessionSpool>) {
        let driver = driver::run(Arc::clone(&self.queue), writers, Arc::clone(&self.flow));
        let mut jobs = vec![self.watched(driver)];
        if let Some(spool) = spool {
            // Weak: the task must not keep the engine of an ended session alive.
            let engine = Arc::downgrade(self);
            let ahead = Box::new(move || {
                if let Some(engine) = engine.upgrade() {
                    engine.with(Ingest::write_ahead);
                }
            });
            jobs.push(self.watched(recovery::run(Arc::clone(&self.queue), spool, ahead)));
        }
        lock(&self.tasks).jobs = jobs;
    }

    /// Spawns a task whose panic is reported to the user.
    fn watched(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let task = self.runtime.spawn(task);
        let queue = Arc::clone(&self.queue);
        self.runtime.spawn(async move {
            if let Err(panic) = task.await {
                queue.broken(&panic.to_string());
            }
        })
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Returns the current settings.
    pub fn config(&self) -> Config {
        *lock(&self.config)
    }

    /// Applies changed settings.
    pub fn set_config(&self, config: Config) {
        *lock(&self.config) = config;
        // After the settings are stored: a thread that waits for room wakes now and reads them again.
        self.queue.set_limits(config.uploads);
        self.with(|ingest| ingest.set_limits(config.limits, config.uploads.max_memory));
    }

    /// Sets limits of the flow group for all members.
    pub fn set_flow(&self, bytes: Option<UserLimit<u64>>, requests: Option<UserLimit<f64>>) {
        let group = self.flow.group();
        group.apply(bytes, requests);
        // This sink's own change must not be reported to it as that of another sink.
        self.reported.flow_version.store(group.limits().2, Ordering::Relaxed);
    }

    /// Runs `work` on the streaming side under its lock, then publishes changes of chunks without the lock.
    pub fn with<T>(&self, work: impl FnOnce(&mut Ingest) -> T) -> T {
        self.on(lock(&self.ingest), work)
    }

    pub(super) fn on<T>(&self, mut ingest: MutexGuard<'_, Ingest>, work: impl FnOnce(&mut Ingest) -> T) -> T {
        let outcome = work(&mut ingest);
        let has_news = ingest.take_unpublished();
        drop(ingest);
        if has_news {
            self.queue.publish();
        }
        outcome
    }

    /// Returns the number of key units received.
    pub fn key_units(&self) -> u64 {
        self.key_units.load(Ordering::Relaxed)
    }

    /// Sets whether the pipeline is live, which decides for `overflow-policy=auto`.
    pub fn set_live(&self, is_live: bool) {
        self.playing.is_live.store(is_live, Ordering::Relaxed);
    }

    /// Returns whether an ERROR has ended the recording.
    pub fn is_failed(&self) -> bool {
        self.failure.is_failed()
    }

    /// Ends the recording because of an ERROR that the caller posts. Returns whether this is the first one.
    pub fn fail(&self) -> bool {
        self.failure.fail()
    }

    /// Posts an ERROR and ends the stream. The ERROR reaches the bus before those of the elements in front.
    pub(super) fn end_with<F>(&self, message: Message) -> Refusal<F> {
        if self.failure.fail() {
            self.poster.post(message);
            self.poster.wait_posted(LAST_WORD);
        }
        Refusal::Failed
    }

    /// Ends the recording because uploads are refused and nothing was ever stored: no more data is accepted, and nothing is
    /// waited for.
    pub fn refuse(&self) {
        self.failure.refuse();
        self.queue.interrupt(true);
        self.queue.notify();
    }

    /// Sets the elements that share the shutdown deadline; by default those of the process.
    pub fn set_scope(&self, scope: Scope) {
        *lock(&self.stopping.scope) = scope;
    }

    /// Begins or ends a flush.
    pub fn set_flushing(&self, is_flushing: bool) {
        self.stopping.is_flushing.store(is_flushing, Ordering::Relaxed);
        if is_flushing {
            self.queue.notify();
        } else {
            self.with(|ingest| ingest.chunker.flush());
        }
    }
}
