//! A recording without GStreamer and without a network: the engine that the element is a shell around, on virtual time. What
//! the element does on its streaming thread is done here in a task.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gcstreamer_media::chunk::clock::Stamp;
use gcstreamer_media::chunk::{Chunker, Limits};
use gcstreamer_schema::Container;
use gcstreamer_schema::name::Template;
use gcstreamer_storage::Endpoint;
use gstgcstreamer::base::clock::Clock;
use gstgcstreamer::flow::bucket_endpoint::BucketEndpoint;
use gstgcstreamer::flow::group::Group;
use gstgcstreamer::flow::member::Member;
use gstgcstreamer::ingest::message::{Message, Poster, Refusal, Wait};
use gstgcstreamer::ingest::object::{ObjectBuilder, ObjectSettings};
use gstgcstreamer::ingest::stream::Ingest;
use gstgcstreamer::ingest::{Config, End, Engine, Parts};
use gstgcstreamer::upload::chunk::Keep;
use gstgcstreamer::upload::life::{LifeEvent, Observer, Step};
use gstgcstreamer::upload::queue::{UploadLimits, UploadQueue};
use gstgcstreamer::upload::recovery::{self, SpoolSettings};
use gstgcstreamer::upload::report::Report;
use gstgcstreamer::upload::spool_folder::SpoolFolder;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};

use super::bucket::Bucket;

pub const SESSION: &str = "0a1b2c3d4e";
const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_795_329_912 * SECOND;

/// Where chunks wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolUse {
    Memory,
    Overflow,
    Always,
}

pub const SPOOL_USES: [SpoolUse; 3] = [SpoolUse::Memory, SpoolUse::Overflow, SpoolUse::Always];

/// How it is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub spool_use: SpoolUse,
    pub max_memory: u64,
    pub max_uploads: usize,
    /// Length of a chunk, s.
    pub chunk: u64,
    /// Bytes a second; 0 = no limit.
    pub rate: u64,
    pub seed: u64,
}

/// The wall clock goes with virtual time.
pub const CLOCK: Clock = Clock {
    monotonic: Instant::now,
    wall: || NOW + since_start(),
    boot: || 100 * SECOND + since_start(),
};

fn since_start() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_nanos()).unwrap()
}

/// Keeps what the engine posts, and every step of every chunk.
#[derive(Clone, Default)]
struct Record {
    posted: Arc<Mutex<VecDeque<Message>>>,
    steps: Arc<Mutex<BTreeMap<u64, Vec<Step>>>>,
}

impl Poster for Record {
    fn post(&self, message: Message) {
        self.posted.lock().unwrap().push_back(message);
    }

    fn wait_posted(&self, _at_most: Duration) {}
}

impl Observer for Record {
    fn observe(&self, event: &LifeEvent) {
        assert_eq!(&*event.session, SESSION);
        let mut steps = self.steps.lock().unwrap();
        steps.entry(event.sequence).or_default().push(event.step.clone());
    }
}

/// It is never paused.
struct NeverPaused;

impl Wait for NeverPaused {
    type Flow = ();

    fn wait_preroll(&self) -> Result<(), ()> {
        panic!("nobody has paused it")
    }
}

/// One recording on virtual time.
pub struct Camera {
    pub uploads: Arc<UploadQueue>,
    pub bucket: Bucket,
    pub reports: Vec<Report>,
    /// What was said of the limits.
    pub limits: Vec<Message>,
    /// The most that was on disk.
    pub most_on_disk: u64,
    setup: Setup,
    engine: Arc<Engine>,
    spool: Option<Arc<SpoolFolder>>,
    record: Record,
    began: Instant,
    folder: tempfile::TempDir,
}

impl Camera {
    pub fn new(setup: Setup, bucket: &Bucket, hint: Option<Container>) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let record = Record::default();
        let uploads = UploadLimits {
            max_uploads: setup.max_uploads,
            max_memory: setup.max_memory,
            max_time: setup.chunk * SECOND,
            retry_timeout: None,
        };
        let limits = Limits {
            max_time: setup.chunk * SECOND,
            max_bytes: 0,
            align: false,
            single: false,
            soft: 0,
            hard: 0,
        };
        let builder = builder();
        let spool = (setup.spool_use != SpoolUse::Memory).then(|| {
            let settings = SpoolSettings {
                dir: &folder.path().join("spool").display().to_string(),
                max_bytes: 1 << 30,
                keep: if setup.spool_use == SpoolUse::Always {
                    Keep::Always
                } else {
                    Keep::Overflow
                },
                interval: Duration::from_secs(1),
                outlasts_refusals: false,
            };
            recovery::open(settings, "cam", SESSION, builder.endpoint.clone(), builder.destination()).unwrap()
        });
        let queue = UploadQueue::new(uploads, setup.seed, Box::new(|| {}))
            .with_clock(CLOCK)
            .with_observer(Arc::new(record.clone()));
        let queue = Arc::new(match setup.spool_use {
            SpoolUse::Memory => queue,
            spool_use => queue.with_disk(spool_use == SpoolUse::Overflow),
        });
        let flow = Arc::new(Member::new(
            Group::join(""),
            BucketEndpoint::of(&folder.path().to_string_lossy(), "b"),
        ));
        flow.group().set(Some(setup.rate), Some(0.0));
        let parts = Parts {
            chunker: Chunker::new(limits, hint),
            builder,
            queue: Arc::clone(&queue),
            flow,
            writers: Arc::new(bucket.clone()),
            poster: Arc::new(record.clone()),
            config: Config {
                limits,
                uploads,
                overflow: None,
                startup_timeout: 0,
                shutdown_timeout: Duration::from_secs(5),
            },
        };
        let engine = Engine::begin(parts, spool, &Handle::current());
        // `overflow-policy=auto` of a live pipeline, whose clock starts with it.
        engine.set_live(true);
        engine.with(|ingest| ingest.chunker.clock.playing(false));
        engine.every_second(|engine| {
            engine.tick(true);
            true
        });
        Self {
            uploads: queue,
            bucket: bucket.clone(),
            reports: Vec::new(),
            limits: Vec::new(),
            most_on_disk: 0,
            setup,
            spool: engine.spool.clone(),
            engine,
            record,
            began: Instant::now(),
            folder,
        }
    }

    /// Takes these bytes evenly over `seconds`.
    pub async fn record(&mut self, input: &[u8], seconds: u64) {
        let from = Instant::now();
        // Small against the memory, as buffers are.
        let size = usize::try_from(self.setup.max_memory / 16).unwrap().clamp(1, 16 << 10);
        for (i, piece) in input.chunks(size).enumerate() {
            let share = (i * size) as f64 / input.len() as f64;
            sleep_until(from + Duration::from_secs_f64(share * seconds as f64)).await;
            self.push(piece).await;
        }
    }

    /// Sets the two limits of its flow group, 0 = none.
    pub fn limit(&self, bytes: u64, requests: f64) {
        self.engine.flow.group().set(Some(bytes), Some(requests));
    }

    async fn push(&mut self, piece: &[u8]) {
        self.reserve(piece.len() as u64).await;
        let running = u64::try_from(self.began.elapsed().as_nanos()).unwrap();
        let stamp = Stamp {
            running: i64::try_from(running).ok(),
            clock_running: Some(running),
            wall: (CLOCK.wall)(),
            reference: None,
            held: 0,
        };
        let bytes = Bytes::copy_from_slice(piece);
        let taken = self.engine.push(piece, || Some(bytes), stamp, false, &NeverPaused);
        taken.unwrap();
        // Attempts that are broken off end before anything else happens.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        self.look();
    }

    /// It may wait for the disk, which is real: virtual time stands still as long as a thread is busy.
    async fn reserve(&mut self, bytes: u64) {
        let engine = Arc::clone(&self.engine);
        let reserve = move || -> Result<(), Refusal<()>> { engine.reserve(bytes, &NeverPaused) };
        let reserved = match self.setup.spool_use {
            // Without a disk it never waits.
            SpoolUse::Memory => reserve(),
            _ => spawn_blocking(reserve).await.unwrap(),
        };
        reserved.unwrap();
    }

    /// The memory keeps its bound at every moment; whatever attempts hold is part of it.
    pub fn look(&mut self) {
        let memory = self.uploads.snapshot().memory;
        assert!(memory <= self.setup.max_memory, "{memory} of {}", self.setup.max_memory);
        let held = self.bucket.held();
        assert!(held <= memory, "attempts hold {held} bytes, {memory} are accounted for");
        self.most_on_disk = self.most_on_disk.max(self.spool.as_ref().map_or(0, |s| s.used()));
        for message in self.record.posted.lock().unwrap().drain(..) {
            match message {
                Message::Report(report) => self.reports.push(report),
                Message::Warning { .. } | Message::LimitsChanged { .. } | Message::Started { .. } | Message::Draining(_) => {}
                Message::TooFewBytes { .. } | Message::TooFewRequests { .. } => self.limits.push(message),
                other => panic!("{other:?}, {:?}", self.uploads.snapshot()),
            }
        }
        self.reports.extend(std::iter::from_fn(|| self.uploads.take_report()));
        let on_disk = self.reports.iter().find(|r| matches!(r, Report::Disk { .. }));
        assert!(on_disk.is_none(), "{on_disk:?}");
    }

    /// The stream has ended; waits until everything has found its place, and ends as an element does.
    pub async fn drain(&mut self, at_most: Duration) {
        self.engine.with(Ingest::finish).unwrap();
        let until = Instant::now() + at_most;
        loop {
            self.look();
            let snapshot = self.uploads.snapshot();
            let created = snapshot.stats.uploaded + snapshot.stats.dropped == snapshot.stats.created;
            if created && snapshot.pending.chunks == 0 && self.spool.as_ref().is_none_or(|s| s.used() == 0) {
                assert_eq!(snapshot.memory, 0, "{:?}", self.setup);
                break;
            }
            let used = self.spool.as_ref().map(|s| s.used());
            assert!(
                Instant::now() < until,
                "{:?}: {snapshot:?}, {used:?} in the spool",
                self.setup
            );
            sleep(Duration::from_millis(100)).await;
        }
        let engine = Arc::clone(&self.engine);
        let ended = spawn_blocking(move || {
            assert_eq!(engine.drain(&NeverPaused, at_most, false), End::Passes);
            let ended = engine.end(Duration::from_secs(5));
            engine.leave_deadline();
            ended
        });
        let ended = ended.await.unwrap();
        assert!(ended.unfinished.is_none(), "{ended:?}");
        self.look();
        self.lives_are_whole(ended.next_sequence);
        let left = walk(self.folder.path());
        assert!(left.iter().all(|p| !p.ends_with(".chunk")), "{left:?}");
    }

    /// No chunk was cut for want of room, and each has begun once, was closed once and has ended once.
    fn lives_are_whole(&self, chunks: u64) {
        for object in self.bucket.objects().values() {
            let reason = object.request.metadata.get("gap-reason").map(String::as_str);
            assert_ne!(reason, Some("early-cut"), "{}", object.request.name);
        }
        let steps = self.record.steps.lock().unwrap();
        assert!(steps.keys().copied().eq(0..chunks), "{steps:?}");
        for (sequence, life) in steps.iter() {
            let count = |wanted: fn(&Step) -> bool| life.iter().filter(|s| wanted(s)).count();
            assert_eq!(life.first(), Some(&Step::Cut), "{sequence}: {life:?}");
            assert_eq!(count(|s| matches!(s, Step::Cut)), 1, "{sequence}: {life:?}");
            assert_eq!(count(|s| matches!(s, Step::Closed(_))), 1, "{sequence}: {life:?}");
            assert_eq!(count(|s| matches!(s, Step::Queued)), 1, "{sequence}: {life:?}");
            let ends = count(|s| matches!(s, Step::Stored(_) | Step::Dropped(_)));
            assert_eq!(ends, 1, "{sequence}: {life:?}");
            let attempts = count(|s| matches!(s, Step::Attempt(_)));
            let retries = count(|s| matches!(s, Step::Retry(_)));
            let stored = count(|s| matches!(s, Step::Stored(_)));
            assert!(attempts >= retries + stored, "{sequence}: {life:?}");
        }
    }
}

fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path.display().to_string());
        }
    }
    found
}

fn builder() -> ObjectBuilder {
    let location = "{device}/x_{session}_{seq}.{ext}";
    ObjectBuilder {
        bucket: "b".to_owned(),
        device: "cam".to_owned(),
        location: location.to_owned(),
        template: Template::parse(location).unwrap(),
        endpoint: Endpoint::google(),
        session: SESSION.into(),
        boot_id: "a boot".into(),
        settings: ObjectSettings::default(),
    }
}
