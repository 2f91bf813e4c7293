//! A recording without GStreamer and without a network: chunker, uploads, driver and spooler on virtual time. What the element
//! does on its streaming thread is done here in a task.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gcstreamer_media::chunk::assembler::{Assembler, Assembly, Piece};
use gcstreamer_media::chunk::clock::Stamp;
use gcstreamer_media::chunk::{ChunkInfo, Chunker, Event, Limits};
use gcstreamer_schema::Container;
use gcstreamer_storage::{Body, ObjectRequest};
use gstgcstreamer::flow::group::{Group, Member};
use gstgcstreamer::flow::site::Site;
use gstgcstreamer::spool::disk::StdDisk;
use gstgcstreamer::spool::{Entry, Spool};
use gstgcstreamer::upload::attempt::Naming;
use gstgcstreamer::upload::chunk::{Chunk, Held, Place, Summary};
use gstgcstreamer::upload::desk::Desk;
use gstgcstreamer::upload::driver;
use gstgcstreamer::upload::kept::Times;
use gstgcstreamer::upload::report::Report;
use gstgcstreamer::upload::spooler::{self, Closing, Op};
use gstgcstreamer::upload::uploads::{NoRoom, Overflow, UploadLimits, Uploads};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};

use super::bucket::Bucket;

pub const SESSION: &str = "0a1b2c3d4e";
const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_795_329_912 * SECOND;

/// Where chunks wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Memory,
    Overflow,
    Always,
}

pub const WAYS: [Way; 3] = [Way::Memory, Way::Overflow, Way::Always];

/// How it is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub way: Way,
    pub max_memory: u64,
    pub max_uploads: usize,
    /// Length of a chunk, s.
    pub chunk: u64,
    /// Bytes a second; 0 = no limit.
    pub rate: u64,
    pub seed: u64,
}

/// See the module.
pub struct Camera {
    pub uploads: Arc<Uploads>,
    pub bucket: Bucket,
    pub spool: Option<Arc<Spool>>,
    pub reports: Vec<Report>,
    /// The most that was on disk.
    pub most_on_disk: u64,
    setup: Setup,
    chunker: Chunker,
    assembler: Assembler,
    on_disk: BTreeSet<u64>,
    pieces: Vec<Piece>,
    began: Instant,
    tasks: Vec<JoinHandle<()>>,
    folder: tempfile::TempDir,
}

impl Camera {
    pub fn new(setup: Setup, bucket: &Bucket, hint: Option<Container>) -> Self {
        let limits = UploadLimits {
            max_uploads: setup.max_uploads,
            max_memory: setup.max_memory,
            max_time: setup.chunk * SECOND,
            retry_timeout: None,
        };
        let uploads = Uploads::new(limits, setup.seed, Box::new(|| {}));
        let uploads = Arc::new(match setup.way {
            Way::Memory => uploads,
            way => uploads.with_disk(way == Way::Overflow),
        });
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let flow = Arc::new(Member::new(Group::join(""), Site::of(&folder.path().to_string_lossy(), "b")));
        flow.group().set(Some(setup.rate), Some(0.0));
        let mut tasks = vec![tokio::spawn(driver::run(
            Arc::clone(&uploads),
            Arc::new(bucket.clone()),
            flow,
        ))];
        let mut spool = None;
        if setup.way != Way::Memory {
            let opened = Spool::open(Arc::new(StdDisk), &folder.path().join("spool"), 1 << 30).unwrap();
            let session = opened.session("cam", SESSION).unwrap();
            let desk = Desk::new(session, Arc::new(Times::new(&uploads)));
            let ahead = Box::new(|| {});
            tasks.push(tokio::spawn(spooler::run(
                Arc::clone(&uploads),
                desk,
                Duration::from_secs(1),
                ahead,
            )));
            uploads.adopt(Vec::new(), true);
            spool = Some(opened);
        }
        let limits = Limits {
            max_time: setup.chunk * SECOND,
            max_bytes: 0,
            align: false,
            single: false,
            soft: 0,
            hard: 0,
        };
        let mut chunker = Chunker::new(limits, hint);
        chunker.clock.playing(false);
        Self {
            uploads,
            bucket: bucket.clone(),
            spool,
            reports: Vec::new(),
            most_on_disk: 0,
            setup,
            chunker,
            assembler: Assembler::default(),
            on_disk: BTreeSet::new(),
            pieces: Vec::new(),
            began: Instant::now(),
            tasks,
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

    async fn push(&mut self, piece: &[u8]) {
        self.make_room(piece.len() as u64).await;
        let running = u64::try_from(self.began.elapsed().as_nanos()).unwrap();
        let stamp = Stamp {
            running: i64::try_from(running).ok(),
            clock_running: Some(running),
            wall: NOW + running,
            reference: None,
        };
        let mut events = Vec::new();
        let bytes = Bytes::copy_from_slice(piece);
        self.chunker.push(piece, || Some(bytes), stamp, &mut events).unwrap();
        self.work_off(events);
        // Attempts that are broken off end before anything else happens.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        self.look();
    }

    /// What `render` does. It may wait for the disk, which is real: virtual time stands still as long as a thread is busy.
    async fn make_room(&mut self, bytes: u64) {
        loop {
            let uploads = Arc::clone(&self.uploads);
            let charge = move || uploads.charge(bytes, Overflow::DropOldest);
            let charged = match self.setup.way {
                // Without a disk it never waits.
                Way::Memory => charge(),
                _ => spawn_blocking(charge).await.unwrap(),
            };
            match charged {
                Ok(true) => return self.move_open(),
                Ok(false) => return,
                Err(NoRoom::MoveOpen) => self.move_open(),
                Err(e) => panic!("{e:?}: begun {}, {:?}", self.chunker.has_begun(), self.uploads.snapshot()),
            }
        }
    }

    /// The memory keeps its bound at every moment; whatever attempts hold is part of it.
    pub fn look(&mut self) {
        let memory = self.uploads.snapshot().memory;
        assert!(memory <= self.setup.max_memory, "{memory} of {}", self.setup.max_memory);
        let held = self.bucket.held();
        assert!(held <= memory, "attempts hold {held} bytes, {memory} are accounted for");
        self.most_on_disk = self.most_on_disk.max(self.spool.as_ref().map_or(0, |s| s.used()));
        while let Some(report) = self.uploads.take_report() {
            assert!(!matches!(report, Report::Disk { .. }), "{report:?}");
            self.reports.push(report);
        }
    }

    fn move_open(&mut self) {
        let Some((sequence, ..)) = self.chunker.not_handed_over() else {
            return;
        };
        if self.on_disk.insert(sequence) {
            let info = self.chunker.info_of(sequence).unwrap();
            self.uploads.open_on_disk(true);
            let mut ops = vec![self.begin(&info)];
            let mut pieces = std::mem::take(&mut self.pieces);
            self.assembler.move_out(sequence, &mut pieces);
            self.data(sequence, pieces, &mut ops);
            self.uploads.spool(ops);
        }
    }

    fn begin(&self, info: &ChunkInfo) -> Op {
        let request = request(info);
        Op::Begin {
            sequence: info.sequence,
            entry: Box::new(entry(info, &request)),
        }
    }

    fn data(&self, sequence: u64, pieces: Vec<Piece>, ops: &mut Vec<Op>) {
        let init = self.assembler.get(sequence).unwrap().init;
        ops.extend(pieces.into_iter().map(|(at, bytes)| Op::Data {
            sequence,
            at,
            charged: if at < init { 0 } else { bytes.len() as u64 },
            bytes,
        }));
    }

    fn work_off(&mut self, events: Vec<Event>) {
        for event in events {
            let mut pieces = Vec::new();
            match event {
                Event::Begin { sequence, at, init } => {
                    self.uploads.created();
                    let always = self.setup.way == Way::Always;
                    let begun = Assembly {
                        elsewhere: always,
                        input_offset: at,
                        ..Assembly::default()
                    };
                    self.assembler.begin(sequence, init, begun, &mut pieces);
                    self.uploads.open_on_disk(false);
                    let mut ops = Vec::new();
                    if always {
                        self.on_disk.insert(sequence);
                        let entry = Box::new(Entry {
                            session: SESSION.to_owned(),
                            sequence,
                            device: "cam".to_owned(),
                            bucket: "b".to_owned(),
                            name: format!("cam/x_{SESSION}_{sequence:06}"),
                            ..Entry::default()
                        });
                        ops.push(Op::Begin { sequence, entry });
                    }
                    self.data(sequence, pieces, &mut ops);
                    self.uploads.spool(ops);
                }
                Event::Data { sequence, bytes } => {
                    let mut ops = Vec::new();
                    self.assembler.data(sequence, bytes, &mut pieces);
                    self.data(sequence, pieces, &mut ops);
                    self.uploads.spool(ops);
                }
                Event::End(info) => self.end(&info),
                Event::Discard(bytes) => self.uploads.release(bytes),
                Event::Gap { .. } | Event::TooLarge(_) => panic!("{event:?}"),
                Event::Warn(_) | Event::WantKeyUnit => {}
            }
        }
    }

    fn end(&mut self, info: &ChunkInfo) {
        let gathered = self.assembler.end(info.sequence).unwrap();
        let mut request = request(info);
        (request.size, request.crc32c) = (gathered.size, gathered.crc32c);
        let (entry, naming) = (Box::new(entry(info, &request)), naming(info.sequence));
        let summary = Summary {
            session: SESSION.into(),
            sequence: info.sequence,
            start: info.start,
            duration: info.duration,
            running: info.running,
            size: gathered.size,
        };
        let closed_at = self.uploads.now();
        if self.on_disk.remove(&info.sequence) {
            return self.uploads.spool([Op::End(Box::new(Closing {
                entry,
                request,
                naming,
                summary,
                closed_at,
            }))]);
        }
        let charged = gathered.payload();
        request.body = Body::from_pieces(gathered.pieces);
        self.uploads.queue(Chunk {
            summary,
            place: Place::Memory(Arc::new(Held {
                request,
                naming,
                charged,
                entry: (self.setup.way != Way::Memory).then_some(entry),
                part: None,
            })),
            recovered: false,
            site: None,
            renamed: None,
            closed_at,
        });
    }

    /// The stream has ended; waits until everything has found its place.
    pub async fn drain(&mut self, at_most: Duration) {
        let mut events = Vec::new();
        self.chunker.finish(&mut events).unwrap();
        self.work_off(events);
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
        self.uploads.stop();
        for task in self.tasks.drain(..) {
            task.await.unwrap();
        }
        self.look();
        self.uploads.forget();
        let left = walk(self.folder.path());
        assert!(left.iter().all(|p| !p.ends_with(".chunk")), "{left:?}");
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

fn request(info: &ChunkInfo) -> ObjectRequest {
    ObjectRequest {
        bucket: "b".to_owned(),
        name: format!("cam/x_{SESSION}_{:06}.{}", info.sequence, info.container.extension()),
        content_type: info.container.content_type(info.audio_only).to_owned(),
        cache_control: None,
        storage_class: None,
        kms_key: None,
        metadata: info.metadata("cam", SESSION, &Default::default()),
        custom_time: None,
        crc32c: 0,
        size: 0,
        body: Body::from_pieces([]),
    }
}

fn naming(sequence: u64) -> Naming {
    Naming {
        session: SESSION.to_owned(),
        sequence,
        own: true,
        rebuilt: false,
    }
}

fn entry(info: &ChunkInfo, request: &ObjectRequest) -> Entry {
    Entry {
        session: SESSION.to_owned(),
        sequence: info.sequence,
        device: "cam".to_owned(),
        bucket: request.bucket.clone(),
        name: request.name.clone(),
        own_name: true,
        content_type: Some(request.content_type.clone()),
        metadata: request.metadata.clone(),
        container: info.container.name().to_owned(),
        init_bytes: info.init_bytes,
        start: info.start,
        duration: info.duration,
        running: info.running,
        clock: "system".to_owned(),
        ..Entry::default()
    }
}
